const config = JSON.parse(document.getElementById("plot-config").textContent);
for (const place of document.querySelectorAll("[data-figure]")) {
  const source = document.getElementById(place.dataset.figure);
  const { data, layout } = JSON.parse(source.textContent);
  Plotly.newPlot(place, data, { ...layout, autosize: true }, config);
}
