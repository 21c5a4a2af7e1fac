// What the page does without asking the server: the one selection, the address, the theme.

(() => {
  const places = {
    "lens-grid.clickData": ({ points: [cell] }) => pair(...cell.customdata.split(" ").map(Number)),
    "lens-strip.clickData": ({ points: [cell] }) => pair(cell.y, cell.x),
    "detail-curves.clickData": ({ points: [point] }) => ({ layer: point.x }),
    "lens-table.cellClicked": ({ colId, rowId }) =>
      colId === "layer" ? { layer: row(rowId) } : pair(row(rowId), Number(colId.slice(1))),
    "keys.data": (_, selection, run) =>
      pressed.splice(0).reduce((at, key) => inside({ ...at, ...keys[key](at, run) }, run), selection),
    "site.value": (site) => ({ site }),
  };

  const keys = {
    ArrowUp: ({ layer }) => ({ layer: layer + 1 }),
    ArrowDown: ({ layer }) => ({ layer: layer - 1 }),
    ArrowLeft: ({ position }) => ({ position: position - 1 }),
    ArrowRight: ({ position }) => ({ position: position + 1 }),
    Home: () => ({ position: 0 }),
    End: (_, run) => ({ position: run.positions - 1 }),
  };

  // Keys are kept until they are read: of two quick changes of a store, one may never be seen.
  const pressed = [];

  const pair = (layer, position) => ({ layer, position });
  const row = (name) => (name === "emb" ? 0 : Number(name));
  const between = (low, value, high) => Math.min(Math.max(value, low), high);

  // Only states have a layer 0: nothing is added to the stream before the first block.
  const inside = ({ layer, position, ...rest }, run) => ({
    ...rest,
    layer: between(rest.site === "resid_post" ? 0 : 1, layer, run.layers),
    position: between(0, position, run.positions - 1),
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    workbench: {
      select(...values) {
        const [selection, run] = values.slice(-2);
        const [cause] = dash_clientside.callback_context.triggered;
        if (!selection || !run || !cause || !cause.value) return dash_clientside.no_update;
        const move = places[cause.prop_id](cause.value, selection, run);
        const next = inside({ ...selection, ...move }, run);
        const same = Object.keys(next).every((name) => next[name] === selection[name]);
        return same ? dash_clientside.no_update : next;
      },

      address(run, selection, colour, view) {
        if (!run || !selection) return;
        const { layer, position, site } = selection;
        const query = new URLSearchParams(run.link);
        Object.entries({ layer, position, site, colour, view }).forEach(([k, v]) => query.set(k, v));
        window.history.replaceState(null, "", `?${query}`);
      },

      async copyLink(_, run) {
        if (!run) return "Nothing to link to yet";
        try {
          await navigator.clipboard.writeText(window.location.href);
          return "Link copied";
        } catch {
          return "The browser refused: copy the address bar";
        }
      },

      theme(dark) {
        document.documentElement.dataset.agThemeMode = dark ? "dark" : "light";
        return dark ? "dark" : "light";
      },
    },
  });

  // An open menu closes on a choice, on a click elsewhere and on Escape.
  const close = (event) =>
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      const inside = menu.contains(event.target);
      if (event.key === "Escape" || (event.type === "click" && (!inside || event.target.closest("button"))))
        menu.open = false;
    });
  document.addEventListener("click", close);
  document.addEventListener("keydown", close);

  // A field tells Dash its value a moment after it is typed; a run must not measure the old one.
  const fields = ["prompt", "target", "foil"];
  const tell = () =>
    fields.forEach((id) => dash_clientside.set_props(id, { value: document.getElementById(id).value }));
  const runs = (event) =>
    event.type === "click"
      ? event.target.closest("#run-button")
      : event.key === "Enter" && fields.includes(event.target.id);
  ["click", "keydown"].forEach((kind) =>
    document.addEventListener(kind, (event) => runs(event) && tell(), { capture: true }),
  );

  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "prompt" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    document.getElementById("run-button").click();
  });

  document.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.target.id !== "lens-focus") return;
    event.preventDefault();
    pressed.push(event.key);
    dash_clientside.set_props("keys", { data: event.timeStamp });
  });
})();
