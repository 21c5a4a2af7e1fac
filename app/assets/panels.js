// What the panels do without asking the server: switches, pressed tokens, settings.

(() => {
  // Clicks are kept until they are read: of two quick changes of a store, one may never be seen.
  const switched = [];

  const toggled = (off, name) =>
    off.includes(name) ? off.filter((other) => other !== name) : [...off, name];

  const known = (stored, id, otherwise) =>
    stored?.[id.instrument]?.[id.setting] ?? otherwise[id.instrument][id.setting];

  const changed = (fields, defaults) => {
    const found = {};
    for (const { id, value } of fields)
      if (value !== defaults[id.instrument][id.setting])
        (found[id.instrument] ??= {})[id.setting] = value;
    return found;
  };

  const clientside = (window.dash_clientside = window.dash_clientside || {});
  clientside.workbench = Object.assign(clientside.workbench || {}, {
    // The tab in front draws; the others are not asked.
    front(tab, run, selection, theme, off, view, tabs) {
      const { no_update } = dash_clientside;
      const share = run && selection ? { run, selection, theme, off, view } : no_update;
      return tabs.map((id) => (id.tab === tab ? share : no_update));
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
      return [fields.map(({ id }) => known(stored, id, defaults)), dash_clientside.no_update];
    },

    // The row of tokens scrolls by itself; the page stays where it is.
    reveal(_, selection) {
      if (!selection) return;
      requestAnimationFrame(() =>
        requestAnimationFrame(() => {
          const row = document.getElementById("layers-tokens");
          const token = row.querySelector(`[data-position="${selection.position}"]`);
          if (!token) return;
          const [outer, inner] = [row.getBoundingClientRect(), token.getBoundingClientRect()];
          if (inner.top < outer.top || inner.bottom > outer.bottom)
            row.scrollTop += inner.top - outer.top - row.clientHeight / 2;
        }),
      );
    },

    press(selection, buttons) {
      if (!selection || !buttons) return dash_clientside.no_update;
      let changed = false;
      const next = buttons.map((button) => {
        const pressed = String(Number(button.props["data-position"]) === selection.position);
        if (button.props["aria-pressed"] === pressed) return button;
        changed = true;
        return { ...button, props: { ...button.props, "aria-pressed": pressed } };
      });
      return changed ? next : dash_clientside.no_update;
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
