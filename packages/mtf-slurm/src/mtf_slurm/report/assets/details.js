// One run in a dialog; differences between runs; code and environment.
const ATTEMPTS_SHOWN = 50;
const COMPARED = 6;

function factList(pairs) {
  return element("dl", { class: "facts" }, ...pairs.filter(([, value]) => text(value) !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, exact(value))]));
}
function grid(titles, rows) {
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, element("button", { type: "button", disabled: true }, title))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => (cell instanceof Node ? cell : element("td", {}, text(cell))))))));
}
const moment = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19);

function openRun(run) {
  find("run-name").textContent = runs.name[run];
  const spans = report.spans.filter(([owner]) => owner === run);
  const attempts = spans.slice(-ATTEMPTS_SHOWN).map(([, attempt, start, end, outcome, host]) => [
    String(attempt), moment(start), end === null ? "" : duration(end - start), report.outcomes[outcome], report.hosts[host],
  ]);
  const isSelected = chosen.selected.has(run);
  const toggle = element("button", { type: "button", onclick: () => { select(run, !isSelected); openRun(run); } }, isSelected ? "Take out of curves and differences" : "Add to curves and differences");
  const state = stateOf(run);
  fill("run-body",
    element("p", {}, element("span", { class: `state ${kindOf(state)}` }, state), report.reasons[run] ? ` ${report.reasons[run]}` : ""),
    factList([["Rank", rankOf[run]], ["Epoch", runs.epoch[run]], ["Step", runs.step[run]], ["Job", runs.job[run]], ["Grid", report.grids[runs.grid[run]]],
      ["Code", runs.code[run] === null ? "" : `no. ${runs.code[run] + 1}`], ["Folder", `${report.output_dir}/runs/${runs.name[run]}`]]),
    toggle,
    element("h3", {}, "Parameters"), factList(parameters.map((key) => [key, runs.parameters[key][run]])),
    element("h3", {}, "Metrics"), factList(metrics.map((key) => [key, runs.metrics[key][run]])),
    ...(attempts.length ? [element("h3", {}, "Attempts"), element("div", { class: "wide" }, grid(["No.", "Began (UTC)", "Took", "Outcome", "Host"], attempts))] : []));
  if (!find("run").open) find("run").showModal();
}

function drawDifferences() {
  const picked = [...chosen.selected].slice(0, COMPARED);
  const compared = picked.length > 1 ? picked : bestShown(3);
  find("differences-note").textContent = picked.length > 1
    ? `Between the ${compared.length} selected runs${chosen.selected.size > COMPARED ? ` (the first of ${chosen.selected.size})` : ""}.`
    : "Between the best three runs; select two to six in the table to compare those.";
  const rows = [
    ...parameters.map((key) => [key, compared.map((run) => exact(runs.parameters[key][run]))]),
    ["code", compared.map((run) => (runs.code[run] === null ? "" : `no. ${runs.code[run] + 1}`))],
  ].filter(([, values]) => new Set(values).size > 1);
  const metricRow = [chosen.metric, compared.map((run) => metricText(chosen.metric, valueOf(`metric:${chosen.metric}`, run)))];
  const cells = [...rows, metricRow].map(([key, values]) => [element("td", { class: "name" }, key), ...values.map((value) => element("td", {}, value))]);
  fill("differences", compared.length > 1 ? grid(["", ...compared.map((run) => nameOf(run, 32))], cells) : element("p", { class: "hint" }, "There are no two runs to compare."));
}

function diffLines(diff) {
  return diff.split("\n").map((line) => {
    const kind = line.startsWith("@@") || line.startsWith("diff ") ? "place" : line.startsWith("+") ? "plus" : line.startsWith("-") ? "minus" : "";
    return element("span", kind ? { class: kind } : {}, `${line}\n`);
  });
}

function drawOnce() {
  find("name").textContent = report.name;
  const how = { slurm: "on Slurm", local: "on one machine", dry_run: "planned only" }[report.mode] || "";
  find("about").textContent = [counted(total, "run"), how, `as of ${report.made_at.slice(0, 16).replace("T", " ")} UTC`].filter(Boolean).join(" · ");
  fill("remarks", ...report.remarks.map((remark) => element("p", { class: "remark" }, remark)));
  const planned = ["Planned", report.created_at.replace("T", " ").replace("Z", " UTC")];
  fill("environment", ...[planned, ...Object.entries(report.environment)].flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  find("config-of").textContent = report.config_of;
  find("config").textContent = report.config || "(it cannot be read)";
  fill("codes", ...report.codes.map((code, place) => element("div", {},
    element("p", {}, element("strong", {}, `No. ${place + 1}`), `, of ${code.runs === total ? (total === 1 ? "the run" : `all ${total} runs`) : `${code.runs} of ${total} runs`}`),
    factList(Object.entries(code.facts)),
    code.diff ? element("details", {}, element("summary", {}, "What is not committed"), element("pre", {}, ...diffLines(code.diff))) : null)),
    ...(report.codes.length ? [] : [element("p", { class: "hint" }, "Nothing is recorded.")]));
}
whenChanged(drawDifferences);
