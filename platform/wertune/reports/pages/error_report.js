(() => {
  const STEP = 200, SHOWN = 12;
  const sets = JSON.parse(document.getElementById("data").textContent);
  const by = id => document.getElementById(id);
  const fields = ["search", "set", "system", "kind", "speaker", "term", "order"];
  let found = [], shown = 0, pair = null, playing = null;

  // Texts of people and models only ever become text nodes.
  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  const natural = new Intl.Collator("en", { numeric: true }).compare;  // voice 2 before voice 10
  const table = () => sets[Number(by("set").value)];
  const system = () => Number(by("system").value);

  function kindOf(said, written) {
    if (said === written) return "";
    return !said ? "insertion" : !written ? "deletion" : "substitution";
  }

  function has(row, kind, which) {
    const { errors, missed, false: made } = row.systems[which];
    if (kind === "any") return errors > 0 || missed.length > 0 || made.length > 0;
    if (kind === "missed") return missed.length > 0;
    if (kind === "false") return made.length > 0;
    return row.columns.some(column => kindOf(column[0], column[1 + which]) === kind);
  }

  const texts = row => [row.reference, row.id, row.systems[0].text, row.systems[1].text,
    ...[0, 1, 2].map(line => row.columns.map(column => column[line]).filter(Boolean).join(" "))];

  const ORDERS = {
    errors: (row, which) => row.systems[which].errors,
    worse: (row, which) => row.systems[which].errors - row.systems[1 - which].errors,
    rate: (row, which) => row.systems[which].errors / Math.max(1, row.columns.filter(column => column[0]).length),
    seconds: row => row.seconds,
    given: () => 0,
  };

  function filtered() {
    const which = system(), words = by("search").value.trim().toLowerCase();
    const kind = by("kind").value, speaker = by("speaker").value, term = by("term").value;
    const key = ORDERS[by("order").value];
    return table().rows.filter(row =>
      (!kind || has(row, kind, which))
      && (!speaker || row.speaker === speaker)
      && (!term || row.terms.includes(term))
      && (!pair || row.columns.some(column => column[0] === pair[0] && column[1 + which] === pair[1]))
      && (!words || texts(row).some(text => text.toLowerCase().includes(words)))
    ).sort((left, right) => key(right, which) - key(left, which));
  }

  function update() {
    found = filtered();
    shown = 0;
    stop();
    by("rows").replaceChildren();
    const errors = found.reduce((sum, row) => sum + row.systems[system()].errors, 0);
    const silent = found.filter(row => row.clip === null).length;
    by("status").textContent = `${found.length} of ${table().rows.length} utterances, ${errors} word errors`
      + (silent ? `; the sound of ${silent} was left out to keep this page small` : "");
    by("chosen").replaceChildren(...(pair ? [pairButton()] : []));
    showMore();
  }

  function pairButton() {
    const button = make("button", "", "only ", ...pairParts(pair), "  ✕");
    button.type = "button";
    button.setAttribute("aria-label", "No longer only this error");
    button.addEventListener("click", () => { pair = null; update(); by("search").focus(); });
    return button;
  }

  function showMore() {
    const next = found.slice(shown, shown + STEP).map(rowElement);
    by("rows").append(...next);
    shown += next.length;
    by("more").hidden = shown >= found.length;
    by("more").textContent = `Show ${Math.min(STEP, found.length - shown)} more of ${found.length - shown}`;
    if (next.length && shown === next.length) makeCurrent(next[0]);
  }

  function rowElement(row) {
    const element = make("div", "row", errorsCell(row), transcriptCell(row), clipCell(row));
    element.setAttribute("role", "row");
    element.setAttribute("aria-expanded", "false");
    element.tabIndex = -1;
    element.row = row;
    return element;
  }

  function cell(className, ...children) {
    const element = make("div", className, ...children);
    element.setAttribute("role", "gridcell");
    return element;
  }

  function errorsCell(row) {
    const which = system(), here = row.systems[which].errors, there = row.systems[1 - which].errors;
    const words = make("span", "hidden unit", here === 1 ? " error, " : " errors, ");
    return cell("errors", make("b", here ? "" : "none", String(here)), words,
      make("span", "", `${which ? "base" : "adapter"} ${there}`));
  }

  function transcriptCell(row) {
    const heard = row.systems.map(s => s.text || "nothing");
    const spoken = make("span", "hidden", `Reference: ${row.reference}. Base: ${heard[0]}. Adapter: ${heard[1]}.`);
    const names = make("div", "column names", make("span", "", "said"), make("span", "", "base"), make("span", "", "adapter"));
    const columns = make("div", "columns", names, ...row.columns.map(columnElement));
    columns.setAttribute("aria-hidden", "true");
    const tags = row.systems.flatMap((s, which) => [
      ...s.missed.map(term => tag(`misses ${term}`, which)), ...s.false.map(term => tag(`makes up ${term}`, which))]);
    return cell("transcript", spoken, columns, ...(tags.length ? [make("div", "tags", ...tags)] : []));
  }

  const tag = (text, which) => make("span", which ? "now" : "", `${which ? "adapter" : "base"} ${text}`);

  function columnElement([said, ...written]) {
    return make("div", "column", said ? make("span", "", said) : make("span", "gap", "‸"),
      ...written.map(word => wordElement(said, word)));
  }

  function wordElement(said, word) {
    const kind = kindOf(said, word);
    if (kind === "deletion") return make("del", "left-out", said);
    if (kind === "insertion") return make("ins", "added", word);
    if (kind === "substitution") return make("span", "swapped", word);
    return make("span", "right", word);
  }

  function clipCell(row) {
    const facts = [row.speaker, row.channel, row.clip === null ? "sound left out" : ""].filter(Boolean).join(", ");
    const where = make("span", "", `${row.seconds.toFixed(1)} s, ${row.id}`);
    return cell("clip", ...(row.clip === null ? [] : [player(row)]), make("span", "", facts), where);
  }

  function player(row) {
    const button = make("button", "", "▶"), position = make("input");
    button.type = "button";
    button.tabIndex = -1;
    button.setAttribute("aria-label", `Play ${row.id}`);
    Object.assign(position, { type: "range", min: 0, max: row.seconds, step: 0.01, value: 0, tabIndex: -1 });
    position.setAttribute("aria-label", `Position in ${row.id}, seconds`);
    const element = make("div", "player", button, position);
    button.addEventListener("click", () => toggle(element, row));
    position.addEventListener("input", () => { soundOf(element, row).currentTime = Number(position.value); });
    return element;
  }

  // A clip is decoded when it is first asked for, not before.
  function soundOf(element, row) {
    if (element.sound) return element.sound;
    const [button, position] = element.children;
    const sound = element.sound = make("audio");
    sound.src = "data:audio/ogg;base64," + by(`clip-${row.clip}`).textContent;
    const state = (sign, verb) => () => { button.textContent = sign; button.setAttribute("aria-label", `${verb} ${row.id}`); };
    sound.addEventListener("play", state("❚❚", "Pause"));
    sound.addEventListener("pause", state("▶", "Play"));
    sound.addEventListener("timeupdate", () => { position.value = sound.currentTime; });
    sound.addEventListener("error", () => { button.disabled = true; button.title = "this browser cannot play Ogg Opus"; });
    element.append(sound);
    return sound;
  }

  function stop() {
    if (playing) playing.pause();
    playing = null;
  }

  function toggle(element, row) {
    const sound = soundOf(element, row);
    if (!sound.paused) return stop();
    stop();
    playing = sound;
    sound.play().catch(() => {});  // a pause before it began, or the error that the button shows
  }

  function makeCurrent(element) {
    for (const old of document.querySelectorAll("#rows .row[tabindex='0']")) reach(old, -1);
    reach(element, 0);
  }

  function reach(element, tabIndex) {
    element.tabIndex = tabIndex;
    for (const control of element.querySelectorAll("button, input")) control.tabIndex = tabIndex;
  }

  function move(element, steps) {
    const rows = by("rows").children, at = Array.prototype.indexOf.call(rows, element);
    if (steps === 1 && at + 1 === rows.length) showMore();
    const next = rows[Math.max(0, Math.min(rows.length - 1, at + steps))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  function toggleTexts(element) {
    const old = element.querySelector(".texts"), { row } = element;
    element.setAttribute("aria-expanded", String(!old));
    if (old) return old.remove();
    const lines = [["said", row.reference], ["base", row.systems[0].text], ["adapter", row.systems[1].text]];
    element.append(make("dl", "texts", ...lines.flatMap(([name, text]) => [make("dt", "", name), make("dd", "", text || "(nothing)")])));
  }

  const ROW_KEYS = {
    ArrowDown: row => move(row, 1),
    ArrowUp: row => move(row, -1),
    Home: row => move(row, -Infinity),
    End: row => move(row, Infinity),
    Enter: toggleTexts,
    ArrowRight: row => { if (row.getAttribute("aria-expanded") === "false") toggleTexts(row); },
    ArrowLeft: row => { if (row.getAttribute("aria-expanded") === "true") toggleTexts(row); },
    " ": row => { const control = row.querySelector(".player"); if (control) toggle(control, row.row); },
  };

  by("rows").addEventListener("keydown", event => {
    if (!event.target.matches(".row") || event.ctrlKey || event.altKey || event.metaKey) return;
    const act = ROW_KEYS[event.key];
    if (act) { event.preventDefault(); act(event.target); }
  });
  by("rows").addEventListener("focusin", event => makeCurrent(event.target.closest(".row")));
  by("rows").addEventListener("click", event => {
    const row = event.target.closest(".row");
    if (row && !event.target.closest(".player, .texts") && !String(getSelection())) toggleTexts(row);
  });
  document.addEventListener("keydown", event => {
    const typing = event.target.matches("input[type=search], select, textarea");
    if (event.key === "/" && !typing) { event.preventDefault(); by("search").focus(); by("search").select(); }
    if (event.key === "Escape" && event.target === by("search")) { by("search").value = ""; update(); }
    if (event.key === "ArrowDown" && event.target === by("search")) {
      const row = document.querySelector(".row[tabindex='0']");
      if (row) { event.preventDefault(); row.focus(); }
    }
  });

  function pairParts([said, written]) {
    if (!written) return [make("span", "left-out", said)];
    if (!said) return [make("span", "added", written)];
    return [said, make("span", "arrow", "→"), make("span", "swapped", written)];
  }

  // Counts of the chosen system first; the other's follow, faint.
  function fillCounts(panel, items) {
    const [list, more] = by(panel).querySelectorAll(".counts, .more");
    const elements = items.map(({ parts, numbers, choose }) => {
      const button = make("button", "", make("span", "", ...parts), make("span", "numbers", ...numbers));
      button.type = "button";
      button.addEventListener("click", choose);
      return make("li", "", button);
    });
    list.replaceChildren(...elements.slice(0, SHOWN));
    if (!items.length) list.append(make("li", "faint", "none"));
    more.hidden = elements.length <= SHOWN;
    more.textContent = `Show all ${elements.length}`;
    more.onclick = () => { list.append(...elements.slice(SHOWN)); more.hidden = true; };
  }

  function fillPanels() {
    const which = system(), other = which ? "base" : "adapter";
    for (const each of document.querySelectorAll(".whose")) each.textContent = `of the ${which ? "adapter" : "base"}, times`;
    const times = counts => [make("b", "", String(counts[which])), make("span", "other", ` ${other} ${counts[1 - which]}`)];
    fillCounts("confusions", table().confusions.filter(row => row[2 + which]).sort((a, b) => b[2 + which] - a[2 + which])
      .map(([said, written, ...counts]) => ({
        parts: pairParts([said, written]), numbers: times(counts), choose: () => choose(() => { pair = [said, written]; }),
      })));
    const wrong = (row, of = which) => row.missed[of] + row.false[of];
    fillCounts("terms", table().terms.filter(row => wrong(row)).sort((a, b) => wrong(b) - wrong(a)).map(row => ({
      parts: [row.term],
      numbers: [...(row.missed[which] ? ["missed ", make("b", "", String(row.missed[which])), ` of ${row.said}`] : []),
        row.missed[which] && row.false[which] ? ", " : "",
        ...(row.false[which] ? ["made up ", make("b", "", String(row.false[which]))] : []), make("span", "other", ` ${other} ${wrong(row, 1 - which)}`)],
      choose: () => choose(() => { by("term").value = row.term; }),
    })));
  }

  function choose(change) {
    change();
    update();
    by("utterances").scrollIntoView();
    by("utterances").focus({ preventScroll: true });
  }

  function fillSelect(id, first, values) {
    by(id).replaceChildren(new Option(first, ""), ...values.map(value => new Option(value, value)));
  }

  function useSet() {
    pair = null;
    fillSelect("speaker", "all", [...new Set(table().rows.map(row => row.speaker))].filter(Boolean).sort(natural));
    fillSelect("term", "all", table().terms.map(row => row.term).sort(natural));
    fillPanels();
    update();
  }

  by("set").append(...sets.map((each, index) => new Option(each.label, index)));
  for (const id of fields) by(id).addEventListener(id === "search" ? "input" : "change", () => {
    if (id === "set") return useSet();
    if (id === "system") { pair = null; fillPanels(); }
    update();
  });
  by("filters").addEventListener("submit", event => event.preventDefault());
  by("filters").addEventListener("reset", () => setTimeout(useSet));
  by("more").addEventListener("click", () => { const at = shown; showMore(); by("rows").children[at].focus(); });
  if (matchMedia("(max-width: 34rem)").matches) for (const panel of document.querySelectorAll(".panels details")) panel.open = false;
  useSet();
})();
