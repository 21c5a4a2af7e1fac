// The row of tokens in which a subject is chosen: a drag over them, or the first and then the last.

(() => {
  let row = null; // what the server says of the prompt
  let ends = null; // [first, last] places in the row that are chosen, or null
  let from = null; // where a drag began
  let open = false; // whether one token is chosen, and the next choice is the other end
  let written = null;

  const places = () => (row?.tokens ?? []).map(([, , start, end]) => [start, end]);

  // The places in the row that hold characters of "start:end".
  const endsOf = (subject) => {
    if (!subject) return null;
    const [low, high] = subject.split(":").map(Number);
    const inside = places().flatMap(([start, end], i) => (end >= 0 && start < high && end > low ? [i] : []));
    return inside.length ? [inside[0], inside[inside.length - 1]] : null;
  };

  const subjectOf = (pair) => (pair ? `${places()[pair[0]][0]}:${places()[pair[1]][1]}` : "");

  const button = ([position, text, start], i) => {
    const token = document.createElement("button");
    token.className = "token";
    token.dataset.place = i;
    token.title = `position ${position}`;
    token.textContent = text;
    token.disabled = row.fixed || start < 0;
    return token;
  };

  const press = () => {
    const parts = document.getElementById("subject-tokens")?.children ?? [];
    for (const [i, token] of [...parts].entries())
      token.setAttribute("aria-pressed", String(Boolean(ends) && i >= ends[0] && i <= ends[1]));
  };

  const said = () => {
    if (!row) return "";
    const whose = row.fixed ? " (of the prompt set)" : "";
    if (!ends) return row.fixed ? `No subject${whose}` : "No subject: drag over its tokens, or choose the first and then the last";
    const words = row.tokens.slice(ends[0], ends[1] + 1).map(([, text]) => text);
    const [first, last] = ends.map((i) => row.tokens[i][0]);
    const where = first === last ? `token ${first}` : `tokens ${first} to ${last}`;
    return `Subject${whose}: ${words.join("")}, ${where}`;
  };

  const choose = (one, other, more) => {
    ends = [Math.min(one, other), Math.max(one, other)];
    open = more;
    press();
  };

  const tell = () => dash_clientside.set_props("subject-chosen", { data: Date.now() });

  const placeOf = (target) => {
    const token = target.closest?.("#subject-tokens .token");
    return !token || token.disabled ? null : Number(token.dataset.place);
  };

  document.addEventListener("pointerdown", ({ target }) => (from = placeOf(target)));
  document.addEventListener("pointerover", ({ target, buttons }) => {
    const place = placeOf(target);
    if (from === null || place === null || !(buttons & 1) || place === from) return;
    choose(from, place, false);
  });
  document.addEventListener("pointerup", ({ target }) => {
    const place = placeOf(target);
    if (from !== null && place !== null && place !== from) {
      choose(from, place, false);
      tell();
    }
    from = null;
  });
  // A click, by mouse or key, on one token: the first end, or the other one.
  document.addEventListener("click", ({ target }) => {
    const place = placeOf(target);
    if (place === null) return;
    choose(open && ends ? ends[0] : place, place, !open);
    tell();
  });

  const clientside = (window.dash_clientside = window.dash_clientside || {});
  clientside.workbench = Object.assign(clientside.workbench || {}, {
    // Draws the row, with what was chosen for this text, or with what it was measured with.
    subject(texts, aim) {
      const { no_update } = dash_clientside;
      if (!texts) return [no_update, no_update, no_update, no_update];
      const parts = document.getElementById("subject-tokens");
      row = texts;
      if (written !== texts || !parts.childElementCount) parts.replaceChildren(...texts.tokens.map(button));
      written = texts;
      const mine = !texts.fixed && aim && aim.text === texts.text ? aim : texts;
      if (subjectOf(ends) !== mine.subject || !ends) {
        ends = endsOf(mine.subject);
        open = false;
      }
      press();
      return [said(), mine.corrupted, texts.fixed, texts.fixed || !ends];
    },

    chooseSubject(_, cleared, corrupted, texts, aim) {
      const { no_update, callback_context } = dash_clientside;
      const causes = callback_context.triggered.map(({ prop_id }) => prop_id.split(".")[0]);
      if (!texts || texts.fixed || !causes.length) return no_update;
      const before = aim && aim.text === texts.text ? aim : texts;
      const next = { text: texts.text, subject: before.subject, corrupted: before.corrupted };
      if (causes.includes("subject-chosen")) next.subject = subjectOf(ends);
      if (causes.includes("subject-none")) next.subject = "";
      if (causes.includes("subject-corrupted")) next.corrupted = corrupted ?? "";
      const same = next.subject === before.subject && next.corrupted === before.corrupted;
      return same ? no_update : next;
    },
  });
})();
