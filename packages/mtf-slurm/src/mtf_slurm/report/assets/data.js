// The report's data as columns, and text made of its values. Values become text nodes, never markup.
const report = JSON.parse(document.getElementById("data").textContent);
const runs = report.runs;
const total = runs.name.length;
const everyRun = Array.from({ length: total }, (_, run) => run);
const parameters = Object.keys(runs.parameters);
const metrics = Object.keys(runs.metrics);

const STATE_KINDS = {
  COMPLETED: "good", FAILED: "bad", LOST: "bad", TIMEOUT: "bad", OUT_OF_MEMORY: "bad", NODE_FAIL: "bad", DEADLINE: "bad",
  BOOT_FAIL: "bad", PREEMPTED: "warn", CANCELLED: "warn", UNKNOWN: "warn", RUNNING: "work", COMPLETING: "work",
};
const stateOf = (run) => report.states[runs.state[run]];
const kindOf = (state) => STATE_KINDS[state] || "idle";

// Steps and epochs come as differences.
function summed(differences) {
  let sum = 0;
  return differences.map((difference) => (sum += difference));
}
const decodedCurves = new Map();
function curve(run, metric) {
  const packed = (report.curves[run] || {})[metric];
  if (!packed) return null;
  const key = `${run} ${metric}`;
  if (!decodedCurves.has(key)) decodedCurves.set(key, { step: summed(packed[0]), epoch: summed(packed[1]), value: packed[2] });
  return decodedCurves.get(key);
}
const curveMetrics = [...new Set(Object.values(report.curves).flatMap((one) => Object.keys(one)))];

// Whole numbers are shown whole: two seeds differ in their last digits.
function shortNumber(value) {
  if (!Number.isFinite(value)) return "";
  if (Number.isSafeInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(4)));
}
// What was measured keeps its zeros, so that a column lines up; but a metric that only counts has whole numbers.
const counts = new Set(metrics.filter((key) => runs.metrics[key].every((value) => typeof value !== "number" || Number.isSafeInteger(value))));
function metricText(key, value) {
  const size = Math.abs(value);
  if (typeof value !== "number" || counts.has(key) || size < 1e-4 || size >= 1e7) return text(value);
  return size < 1000 ? value.toPrecision(4) : value.toFixed(1);
}
function text(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return shortNumber(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
// The whole of a value, to tell it from others.
const exact = (value) => (typeof value === "number" ? String(value) : text(value));
// The last part of a dotted key says enough, unless two keys share it.
const lastParts = parameters.map((key) => key.slice(key.lastIndexOf(".") + 1));
const taken = new Set(["name", "state", "reason", "epoch", "step", "attempts", "job", "grid", "best", ...metrics]);
const label = new Map(parameters.map((key, place) => {
  const last = lastParts[place];
  return [key, taken.has(last) || lastParts.indexOf(last) !== lastParts.lastIndexOf(last) ? key : last];
}));
function cut(value, most) {
  const letters = Array.from(String(value));
  return letters.length <= most ? String(value) : `${letters.slice(0, most - 1).join("")}…`;
}
// What all names begin with, up to a whole word: it tells none from the others.
const alike = (() => {
  const [first = "", ...others] = runs.name;
  let length = others.length ? first.length : 0;
  for (const name of others) while (!name.startsWith(first.slice(0, length))) length -= 1;
  return length ? first.lastIndexOf("-", length - 1) + 1 : 0;
})();
function nameOf(run, most) {
  const name = runs.name[run];
  if (Array.from(name).length <= most) return name;
  const rest = Array.from(name.slice(alike));
  const mark = alike ? "…" : "";
  if (rest.length <= most - mark.length) return mark + rest.join("");
  const tail = Math.floor((most - 2) * 0.4);
  return `${mark}${rest.slice(0, most - 2 - tail).join("")}…${rest.slice(-tail).join("")}`;
}
// Plotly reads some markup in its texts: this leaves it none.
const plain = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

const find = (id) => document.getElementById(id);
function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
function fill(id, ...children) {
  find(id).replaceChildren(...children);
}
