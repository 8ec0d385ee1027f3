// What the reader has chosen, and the runs that follow from it, in order. Everything drawn listens here.
const chosen = {
  metric: report.metric,
  goal: report.goal,
  filter: "",
  hidden: new Set(),
  sort: { key: "rank", descending: false },
  selected: new Set(),
};
let shownRuns = everyRun;
let rankOf = new Array(total).fill(null);
let misread = "";
const listeners = [];
const whenChanged = (listener) => listeners.push(listener);

const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const measured = (run, metric = chosen.metric) => number((runs.metrics[metric] || [])[run]);

function valueOf(key, run) {
  if (key === "rank") return rankOf[run];
  if (key === "state") return stateOf(run);
  if (key === "grid") return report.grids[runs.grid[run]];
  if (key === "reason") return report.reasons[run] || "";
  if (key.startsWith("metric:")) return (runs.metrics[key.slice(7)] || [])[run];
  if (key.startsWith("parameter:")) return runs.parameters[key.slice(10)][run];
  return runs[key][run];
}

function rank() {
  const sign = chosen.goal === "min" ? 1 : -1;
  const ranked = everyRun.filter((run) => measured(run) !== null);
  ranked.sort((one, other) => sign * (measured(one) - measured(other)) || one - other);
  rankOf = new Array(total).fill(null);
  ranked.forEach((run, place) => { rankOf[run] = place + 1; });
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return text(one).localeCompare(text(other), "en", { numeric: true });
}
function ordered(list) {
  const { key, descending } = chosen.sort;
  const sign = descending ? -1 : 1;
  const keyed = list.map((run) => [valueOf(key, run), run]);
  const missing = (value) => value === null || value === undefined || value === "" || value === "NaN";
  keyed.sort(([one, first], [other, second]) => {
    if (missing(one) || missing(other)) return missing(one) - missing(other) || first - second;
    return sign * compare(one, other) || first - second;
  });
  return keyed.map(([, run]) => run);
}

// `learning_rate<0.01 state=failed word`: conditions on columns, and words that a run has anywhere.
const CONDITION = /^([^\s<>=!~]+)(<=|>=|!=|=|<|>|~)(.*)$/;
function columnNamed(name) {
  const wanted = name.toLowerCase();
  const known = [
    ...["name", "state", "grid", "reason", "epoch", "step", "attempts", "job", "rank", "best"].map((key) => [key, key]),
    ...metrics.map((key) => [key, `metric:${key}`]),
    ...parameters.map((key) => [key, `parameter:${key}`]),
    ...parameters.map((key) => [key.slice(key.lastIndexOf(".") + 1), `parameter:${key}`]),
  ];
  const found = known.find(([word]) => word.toLowerCase() === wanted);
  return found ? found[1] : null;
}
function condition(word) {
  const parts = CONDITION.exec(word);
  if (!parts) return null;
  const [, name, sign, wanted] = parts;
  const key = columnNamed(name);
  if (key === null) {
    misread = `There is no column “${name}”.`;
    return () => true;
  }
  const bound = Number(wanted);
  const word_ = wanted.toLowerCase();
  if (sign === "~") return (run) => text(valueOf(key, run)).toLowerCase().includes(word_);
  const equal = (value) => (wanted !== "" && typeof value === "number" ? value === bound : text(value).toLowerCase() === word_);
  if (sign === "=") return (run) => equal(valueOf(key, run));
  if (sign === "!=") return (run) => !equal(valueOf(key, run));
  if (wanted === "" || Number.isNaN(bound)) {
    misread = `“${word}” compares with no number.`;
    return () => true;
  }
  const holds = { "<": (a) => a < bound, ">": (a) => a > bound, "<=": (a) => a <= bound, ">=": (a) => a >= bound }[sign];
  return (run) => { const value = number(valueOf(key, run)); return value !== null && holds(value); };
}
const haystacks = new Array(total);
function haystack(run) {
  if (haystacks[run] === undefined) {
    const values = parameters.map((key) => `${key}=${text(runs.parameters[key][run])}`);
    haystacks[run] = [runs.name[run], stateOf(run), report.reasons[run] || "", runs.job[run] || "", ...values].join("\n").toLowerCase();
  }
  return haystacks[run];
}

function update({ ranking = false } = {}) {
  if (ranking) rank();
  misread = "";
  const tests = chosen.filter.trim().split(/\s+/).filter(Boolean).map((word) => {
    const lower = word.toLowerCase();
    return condition(word) || ((run) => haystack(run).includes(lower));
  });
  const kept = everyRun.filter((run) => !chosen.hidden.has(runs.state[run]) && tests.every((test) => test(run)));
  shownRuns = ordered(kept);
  listeners.forEach((listener) => listener());
}

// The best of what is shown, by the metric, whatever the table is sorted by.
function bestShown(count) {
  const ranked = shownRuns.filter((run) => rankOf[run] !== null);
  ranked.sort((one, other) => rankOf[one] - rankOf[other]);
  return ranked.slice(0, count);
}
