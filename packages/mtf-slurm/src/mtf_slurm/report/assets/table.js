// The leaderboard: only the rows in view are in the document, so that ten thousand scroll like ten.
const ROW = 32;
const MARGIN = 12;
const NAME = 32;
const board = find("table");
const boardHead = board.querySelector("thead");
const boardBody = board.querySelector("tbody");
let active = 0;

function columns() {
  const several = report.grids.length > 1;
  const isValidated = (metric) => metric.startsWith("val_");
  const others = metrics.filter((metric) => metric !== chosen.metric).sort((one, other) => isValidated(other) - isValidated(one));
  const list = [
    { key: "rank", title: "#", number: true },
    { key: "name", title: "Run", kind: "name" },
    { key: "state", title: "State" },
    ...(metrics.length ? [{ key: `metric:${chosen.metric}`, title: chosen.metric, number: true, kind: "key" }] : []),
    ...parameters.map((key) => ({ key: `parameter:${key}`, title: label.get(key), hint: key, number: runs.parameters[key].some((value) => typeof value === "number") })),
    ...others.map((metric) => ({ key: `metric:${metric}`, title: metric, number: true })),
    { key: "epoch", title: "Epoch", number: true },
    { key: "step", title: "Step", number: true },
    { key: "attempts", title: "Attempts", number: true },
    ...(several ? [{ key: "grid", title: "Grid" }] : []),
    ...(runs.job.some(Boolean) ? [{ key: "job", title: "Job" }] : []),
    ...(Object.keys(report.reasons).length ? [{ key: "reason", title: "Reason" }] : []),
  ];
  return list;
}
let shownColumns = [];

function drawHead() {
  shownColumns = columns();
  const cells = shownColumns.map((column) => {
    const isSorted = chosen.sort.key === column.key;
    const sort = isSorted ? (chosen.sort.descending ? "descending" : "ascending") : "none";
    const button = element("button", { type: "button", title: column.hint || null, onclick: () => sortBy(column.key) }, column.title);
    return element("th", { scope: "col", "aria-sort": sort, class: `${column.number ? "number " : ""}${column.kind || ""}`, "data-key": column.key }, button);
  });
  const all = element("th", { scope: "col", "aria-label": "Selected" });
  boardHead.replaceChildren(element("tr", {}, all, ...cells));
}

function sortBy(key) {
  const again = chosen.sort.key === key;
  chosen.sort = { key, descending: again ? !chosen.sort.descending : false };
  board.scrollTop = 0;
  active = 0;
  update();
  const head = [...boardHead.querySelectorAll("th")].find((cell) => cell.dataset.key === key);
  if (head) head.querySelector("button").focus();
}

function drawRow(place) {
  const run = shownRuns[place];
  const box = element("input", {
    type: "checkbox", tabindex: "-1", "aria-label": `Select ${runs.name[run]}`,
    onclick: (event) => { event.stopPropagation(); select(run, box.checked); },
  });
  box.checked = chosen.selected.has(run);
  const cells = shownColumns.map((column) => {
    const value = valueOf(column.key, run);
    const shown = column.key === "name" ? nameOf(run, NAME) : column.key.startsWith("metric:") ? metricText(column.key.slice(7), value) : text(value);
    if (column.key === "state") return element("td", {}, element("span", { class: `state ${kindOf(value)}` }, shown));
    return element("td", { class: `${column.number ? "number " : ""}${column.kind || ""}`, title: shown.length > 28 || shown !== exact(value) ? exact(value) : null }, shown);
  });
  return element("tr", {
    "aria-rowindex": place + 2, "data-run": run, class: place === active ? "active" : "",
    onclick: () => { active = place; drawRows(); openRun(run); },
  }, element("td", { onclick: (event) => event.stopPropagation() }, box), ...cells);
}

function drawRows() {
  const first = Math.max(0, Math.floor(board.scrollTop / ROW) - MARGIN);
  const last = Math.min(shownRuns.length, Math.ceil((board.scrollTop + (board.clientHeight || 640)) / ROW) + MARGIN);
  const rows = [];
  const space = (height) => {
    const cell = element("td", { colspan: shownColumns.length + 1 });
    cell.style.height = `${height}px`;
    return element("tr", { class: "space", "aria-hidden": "true" }, cell);
  };
  if (first > 0) rows.push(space(first * ROW));
  for (let place = first; place < last; place += 1) rows.push(drawRow(place));
  if (last < shownRuns.length) rows.push(space((shownRuns.length - last) * ROW));
  boardBody.replaceChildren(...rows);
}

function select(run, isSelected) {
  if (isSelected) chosen.selected.add(run);
  else chosen.selected.delete(run);
  update();
}

board.addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
board.addEventListener("keydown", (event) => {
  if (event.target.closest("thead") || !shownRuns.length) return;
  const page = Math.max(1, Math.floor(board.clientHeight / ROW) - 2);
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -total, End: total };
  if (event.key in moves) {
    active = Math.min(shownRuns.length - 1, Math.max(0, active + moves[event.key]));
    const top = active * ROW;
    if (top < board.scrollTop) board.scrollTop = top;
    if (top + 2 * ROW > board.scrollTop + board.clientHeight) board.scrollTop = top + 2 * ROW - board.clientHeight;
    drawRows();
  } else if (event.key === "Enter") openRun(shownRuns[active]);
  else if (event.key === " ") select(shownRuns[active], !chosen.selected.has(shownRuns[active]));
  else return;
  event.preventDefault();
});

function drawStates() {
  const counts = new Map();
  runs.state.forEach((state) => counts.set(state, (counts.get(state) || 0) + 1));
  fill("states", ...[...counts].map(([state, count]) => {
    const name = report.states[state];
    return element("button", {
      type: "button", class: kindOf(name), "aria-pressed": String(!chosen.hidden.has(state)), "data-state": name,
      onclick: () => {
        if (chosen.hidden.has(state)) chosen.hidden.delete(state);
        else chosen.hidden.add(state);
        update();
        [...find("states").children].find((button) => button.dataset.state === name).focus();
      },
    }, `${name} ${count}`);
  }));
}

function drawCards() {
  const [best] = bestShown(1);
  const known = shownRuns.map((run) => measured(run)).filter((value) => value !== null).sort((one, other) => one - other);
  const diverged = shownRuns.filter((run) => valueOf(`metric:${chosen.metric}`, run) === "NaN").length;
  const preemptions = report.spans.filter(([, , , , outcome]) => ["preempted", "wants-requeue"].includes(report.outcomes[outcome])).length;
  const card = (title, value, note) => element("div", { class: "card" }, element("span", {}, title), element("strong", {}, value), element("small", {}, note));
  const completed = shownRuns.filter((run) => stateOf(run) === "COMPLETED").length;
  fill("cards",
    card("Completed", `${completed} of ${shownRuns.length}`, shownRuns.length < total ? `${total} in the sweep` : total === 1 ? "run" : "runs"),
    card(`Best ${chosen.metric}`, best === undefined ? "–" : metricText(chosen.metric, measured(best)), best === undefined ? "no run has a number" : nameOf(best, NAME)),
    card(`Median ${chosen.metric}`, known.length ? metricText(chosen.metric, known[Math.floor(known.length / 2)]) : "–", `of ${counted(known.length, "run")}${diverged ? `, ${diverged} ${diverged === 1 ? "is" : "are"} NaN` : ""}`),
    card("Attempts", String(runs.attempts.reduce((sum, count) => sum + count, 0)), `${preemptions} preempted`));
}

whenChanged(() => {
  active = Math.min(active, Math.max(0, shownRuns.length - 1));
  drawHead();
  board.classList.toggle("short", shownRuns.length <= 16);
  board.querySelector("table").setAttribute("aria-rowcount", shownRuns.length + 1);
  drawRows();
  drawStates();
  drawCards();
  find("shown").textContent = `${shownRuns.length} of ${total} shown${chosen.selected.size ? `, ${chosen.selected.size} selected` : ""}`;
  find("misread").textContent = misread;
  find("misread").hidden = !misread;
});
