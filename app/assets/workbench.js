// What the shell does without asking the server: progress, address, theme, fields, menus.

(() => {
  const going = (job) => Boolean(job) && ["queued", "running"].includes(job.state);
  const quoted = (text) => `“${text.length > 60 ? text.slice(0, 59) + "…" : text}”`;
  const left = (seconds) =>
    seconds < 90 ? `${Math.ceil(seconds)} s left` : `${Math.round(seconds / 60)} min left`;

  const spoken = ({ state, phase }) => {
    if (state === "queued") return "Waiting for the worker";
    return phase ? phase[0].toUpperCase() + phase.slice(1) : "Starting";
  };

  const said = (job) => {
    const unit = job.asked.model ? "tokens" : "steps";
    const tokens = job.total ? `${job.done} of ${job.total} ${unit}` : "";
    const rest = job.seconds_left === null ? "" : left(job.seconds_left);
    return [spoken(job), tokens, rest].filter(Boolean).join(", ");
  };

  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const sorted = (settings) =>
    Object.entries(settings || {})
      .filter(([, own]) => Object.keys(own).length)
      .map(([name, own]) => [name, Object.entries(own).sort()])
      .sort();

  const clientside = (window.dash_clientside = window.dash_clientside || {});
  clientside.workbench = Object.assign(clientside.workbench || {}, {
    progress(job) {
      if (!going(job)) return [true, 0, "", ""];
      const share = job.total ? (100 * job.done) / job.total : 0;
      return [false, share, said(job), spoken(job)];
    },

    // What waits for the page's job, but for what joins what is shown.
    waiting(job) {
      const nothing = "Nothing measured yet. Type a prompt above and press Run.";
      if (!going(job)) return [false, "", nothing];
      const empty = `${said(job)}. It goes on if this page is closed: see Jobs.`;
      return [true, job.adds ? "" : "busy", empty];
    },

    // The address of a set's results is that of their job; who came by it wants to see them at once.
    jobAddress(shown) {
      if (!shown) return;
      const address = `?job=${shown.job}`;
      if (window.location.search === address)
        setTimeout(() => document.getElementById("set-head").scrollIntoView({ block: "center" }), 300);
      window.history.replaceState(null, "", address);
    },

    // The address of a simulation is its settings, whatever its job was called.
    simulationAddress(shown) {
      if (shown) window.history.replaceState(null, "", `?${shown.link}`);
    },

    clock: (job, asking) => asking || !going(job),

    stage: (run) => [!run, Boolean(run)],

    stale(run, model, prompt, target, foil, settings, aim) {
      if (!run) return ["", true];
      const shown = run.asked;
      const fields = [model, prompt || "", target || "", foil || ""];
      const measured = [shown.model, shown.text, shown.target, shown.foil];
      if (!same(fields, measured))
        return [`Shown: ${shown.model}, ${quoted(shown.text)}. Press Run to measure what stands above.`, false];
      const chosen = aim && aim.text === shown.text && !shown.prompts && "causal_trace" in run.results;
      if (chosen && !same([aim.subject, aim.corrupted], [shown.subject, shown.corrupted]))
        return ["Shown with another subject or corrupted text than those chosen now: run again to measure with these.", false];
      const mine = sorted(settings).filter(([name]) => name in run.results);
      const used = sorted(run.settings).filter(([name]) => name in run.results);
      return ["Shown with other settings than those chosen now: run again to measure with these.", same(mine, used)];
    },

    address(run, selection, tab, off, ...rest) {
      if (!run || !selection) return;
      const { prompt, layer, position, site } = selection;
      const query = new URLSearchParams(run.link);
      Object.entries({ layer, position, site, tab }).forEach(([k, v]) => query.set(k, v));
      if (run.asked.prompts) query.set("at", prompt);
      if (off && off.length) query.set("off", off.join(","));
      const names = rest.pop();
      names.forEach((name, i) => rest[i] && query.set(name, rest[i]));
      window.history.replaceState(null, "", `?${query}`);
    },

    // Of a prompt set, the chooser and the fields say which prompt is shown.
    choose(run, selection, chosen) {
      const { no_update } = dash_clientside;
      const asked = run?.asked;
      if (!asked?.prompts || !selection) return [no_update, no_update, no_update, no_update];
      const name = String(selection.prompt);
      const shown = name === chosen ? no_update : name;
      const anew = dash_clientside.callback_context.triggered.some(({ prop_id }) => prop_id === "run.data");
      return anew ? [shown, asked.text, asked.target, asked.foil] : [shown, no_update, no_update, no_update];
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

    // What draws in the theme's colours is not told of one that it has already.
    theme(dark, present) {
      const theme = dark ? "dark" : "light";
      return theme === present ? dash_clientside.no_update : theme;
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

  // The field for files drops one that is too large without a word: the server is told of it.
  const tooLarge = (event) => {
    const limit = event.target.closest?.("[data-largest]")?.dataset.largest;
    const file = (event.target.files ?? event.dataTransfer?.files)?.[0];
    if (limit && file && file.size > Number(limit))
      dash_clientside.set_props("too-large", { data: { name: file.name, size: file.size, at: Date.now() } });
  };
  ["change", "drop"].forEach((kind) => document.addEventListener(kind, tooLarge, { capture: true }));

  // Jobs that are drawn anew keep the keyboard's place among them.
  let held = null;
  document.addEventListener("focusin", ({ target }) => {
    held = target.closest("#jobs") && target.id;
  });
  document.addEventListener("pointerdown", () => (held = null));
  new MutationObserver(() => {
    if (held && document.activeElement === document.body) document.getElementById(held)?.focus();
  }).observe(document.body, { childList: true, subtree: true });

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
})();
