// The one selection: what clicks and keys make of it, without asking the server.

(() => {
  const places = {
    "lens-strip.clickData": ({ points: [cell] }) => pair(cell.y, cell.x),
    "detail-curves.clickData": ({ points: [point] }) => ({ layer: point.x }),
    "keys.data": (_, selection, run) =>
      moves.splice(0).reduce((at, move) => inside({ ...at, ...move(at, run) }, run), selection),
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

  // Any other figure says in a point's customdata where it is: "layer", or "layer position".
  const written = ({ points: [point] }) => {
    const said = /^(\d+)(?: (\d+))?$/.exec(point.customdata);
    if (!said) return {};
    return said[2] === undefined ? { layer: Number(said[1]) } : pair(Number(said[1]), Number(said[2]));
  };

  // Moves are kept until they are read: of two quick changes of a store, one may never be seen.
  const moves = [];
  const move = (made, event) => {
    moves.push(made);
    dash_clientside.set_props("keys", { data: event.timeStamp });
  };

  const pair = (layer, position) => ({ layer, position });
  const between = (low, value, high) => Math.min(Math.max(value, low), high);

  // Only states have a layer 0: nothing is added to the stream before the first block.
  const inside = ({ layer, position, ...rest }, run) => ({
    ...rest,
    layer: between(rest.site === "resid_post" ? 0 : 1, layer, run.layers),
    position: between(0, position, run.positions - 1),
  });

  const clientside = (window.dash_clientside = window.dash_clientside || {});
  clientside.workbench = Object.assign(clientside.workbench || {}, {
    select(...values) {
      const [selection, run] = values.slice(-2);
      const [cause] = dash_clientside.callback_context.triggered;
      if (!selection || !run || !cause || !cause.value) return dash_clientside.no_update;
      const place = places[cause.prop_id] ?? written;
      const next = inside({ ...selection, ...place(cause.value, selection, run) }, run);
      const same = Object.keys(next).every((name) => next[name] === selection[name]);
      return same ? dash_clientside.no_update : next;
    },
  });

  document.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || !event.target.matches(".focus")) return;
    event.preventDefault();
    move(keys[event.key], event);
  });

  // Buttons, table rows and cells that stand for a layer or a position; Mantine's menus have a data-position too.
  document.addEventListener("click", (event) => {
    const { layer, position } = event.target.closest("[data-layer], button[data-position]")?.dataset ?? {};
    if (layer !== undefined) move(() => ({ layer: Number(layer) }), event);
    if (position !== undefined) move(() => ({ position: Number(position) }), event);
  });
})();
