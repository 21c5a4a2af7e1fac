// What the panels do without asking the server: switches, pressed tokens, settings.

(() => {
  // Clicks are kept until they are read: of two quick changes of a store, one may never be seen.
  const switched = [];

  const toggled = (off, name) =>
    off.includes(name) ? off.filter((other) => other !== name) : [...off, name];

  const known = (stored, id, otherwise) =>
    stored?.[id.instrument]?.[id.setting] ?? otherwise[id.instrument][id.setting];

  // Only what differs is written: Dash asks for each written field what hangs on all of them.
  const renewed = (stored, { id, value }, defaults) => {
    const now = known(stored, id, defaults);
    return now === value ? dash_clientside.no_update : now;
  };

  const changed = (fields, defaults) => {
    const found = {};
    for (const { id, value } of fields)
      if (value !== defaults[id.instrument][id.setting])
        (found[id.instrument] ??= {})[id.setting] = value;
    return found;
  };

  const AFTER = 20; // milliseconds

  // What the Layers figure was last drawn for, but for the layer; and the layer that is selected.
  let place = null;
  let selected = null;

  const figure = () => document.querySelector("#layers-figure .js-plotly-plot");

  // A figure that was asked for before the last move arrives with the frame where it was then.
  const frame = () => {
    const plot = figure();
    const [row] = plot?.layout?.shapes ?? [];
    if (!row || row.y0 === selected - 0.5) return;
    Plotly.relayout(plot, { "shapes[0].y0": selected - 0.5, "shapes[0].y1": selected + 0.5 });
  };

  const frameMoves = ({ selection: { layer, prompt, position, site }, ...share }) => {
    const before = place;
    place = JSON.stringify([prompt, position, site, share]);
    selected = layer;
    const plot = figure();
    if (place !== before || share.view === "table" || !plot?.layout?.shapes?.length) return false;
    setTimeout(frame, AFTER); // what the server is asked goes first
    return true;
  };

  // The prompt's tokens, as their buttons say them.
  let written = null;

  const button = ([position, text]) => {
    const token = document.createElement("button");
    token.className = "token";
    token.dataset.position = position;
    token.title = `position ${position}`;
    token.textContent = text;
    return token;
  };

  // The row scrolls by itself; the page stays where it is.
  const into = (row, token) => {
    if (!token) return;
    const [outer, inner] = [row.getBoundingClientRect(), token.getBoundingClientRect()];
    if (inner.top < outer.top || inner.bottom > outer.bottom)
      row.scrollTop += inner.top - outer.top - row.clientHeight / 2;
  };

  const clientside = (window.dash_clientside = window.dash_clientside || {});
  clientside.workbench = Object.assign(clientside.workbench || {}, {
    // The tab in front draws; the others are not asked. Nor is the Layers tab where its frame can
    // move to another layer by itself.
    front(tab, run, selection, theme, off, view, tabs) {
      const { no_update } = dash_clientside;
      if (!run || !selection) return tabs.map(() => no_update);
      const share = { run, selection, theme, off, view };
      const drawn = tab === "layers" && frameMoves(share);
      return tabs.map((id) => (id.tab === tab && !drawn ? share : no_update));
    },

    switchPanels(_, off) {
      return switched.splice(0).reduce(toggled, off ?? []);
    },

    ask(clicks, id) {
      return clicks ? { instrument: id.instrument, click: clicks } : dash_clientside.no_update;
    },

    // Whichever changed tells the other: the fields of all forms, or what is stored of them.
    settings(values, stored, defaults) {
      const { triggered, inputs_list: [fields] } = dash_clientside.callback_context;
      const told = triggered.some(({ prop_id }) => prop_id === "settings.data");
      if (!told) return [values, changed(fields, defaults)];
      return [fields.map((field) => renewed(stored, field, defaults)), dash_clientside.no_update];
    },

    // The frame follows a figure that is drawn anew.
    reveal() {
      const plot = figure();
      if (!plot?.on || plot.dataset.framed) return;
      plot.dataset.framed = "true";
      plot.on("plotly_afterplot", frame);
    },

    tokens(texts, selection) {
      if (!texts || !selection) return;
      const row = document.getElementById("layers-tokens");
      if (texts !== written) row.replaceChildren(...texts.map(button));
      written = texts;
      for (const token of row.children)
        token.setAttribute("aria-pressed", String(Number(token.dataset.position) === selection.position));
      requestAnimationFrame(() => into(row, row.querySelector("[aria-pressed=true]")));
    },
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-switch], [data-tab]");
    if (!button) return;
    if (button.dataset.tab) dash_clientside.set_props("tab", { value: button.dataset.tab });
    if (!button.dataset.switch) return;
    switched.push(button.dataset.switch);
    dash_clientside.set_props("layers-switched", { data: event.timeStamp });
  });
})();
