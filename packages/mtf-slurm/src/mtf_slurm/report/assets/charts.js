// What all plots share: colours of the theme, drawing only what is in view, and WebGL where there is any.
const COLOURS = ["#3b78b8", "#c8642b", "#4d9161", "#8d63a8", "#b8902f", "#3f9ea3", "#b35573", "#7d8794", "#7f9f3b", "#6468c0"];
// From good to bad; lighter where the ground is dark.
const SCALES = {
  light: [[0, "#3b4cc0"], [0.25, "#4f9ac8"], [0.5, "#79b58b"], [0.75, "#d2a94e"], [1, "#c2482f"]],
  dark: [[0, "#93a4ff"], [0.25, "#74bdea"], [0.5, "#93d3a6"], [0.75, "#ecc670"], [1, "#f58168"]],
};
const scale = () => SCALES[isDark() ? "dark" : "light"];
const MANY_POINTS = 20000;
const canDrawFast = (() => {
  try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
})();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
function layout(changes) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true, title: { standoff: 10 } };
  const { xaxis = {}, yaxis = {}, ...rest } = changes;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: COLOURS,
    font: { family: "system-ui, sans-serif", size: 12.5, color: colour("muted") },
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("ink"), family: "system-ui, sans-serif" }, align: "left" },
    margin: { l: 56, r: 24, t: 20, b: 44 }, hovermode: "closest", showlegend: false,
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

function show(id, traces, options, config = {}) {
  const place = typeof id === "string" ? find(id) : id;
  if (!traces.length) {
    Plotly.purge(place);
    place.classList.add("empty");
    place.replaceChildren("Nothing to draw for these runs.");
    return;
  }
  if (place.classList.contains("empty")) {
    place.classList.remove("empty");
    place.replaceChildren();
  }
  Plotly.react(place, traces, layout(options), { ...CONFIG, ...config });
}

// A plot that is out of view is drawn when it comes into view: a filter waits for none of them.
const drawings = new Map();
const stale = new Set();
const inView = new Set();
const observer = new IntersectionObserver((entries) => entries.forEach((entry) => {
  const { id } = entry.target;
  if (entry.isIntersecting) inView.add(id);
  else inView.delete(id);
  drawSoon();
}), { rootMargin: "200px" });
let waiting = false;
// One plot at a time, so that there are frames, and answers to keys, between them.
function drawSoon() {
  if (waiting) return;
  waiting = true;
  setTimeout(() => {
    waiting = false;
    const next = [...stale].find((id) => inView.has(id));
    if (next === undefined) return;
    stale.delete(next);
    drawings.get(next)();
    drawSoon();
  }, 60);
}
function drawsIn(id, draw) {
  drawings.set(id, draw);
  stale.add(id);
  observer.observe(find(id));
}
function redraw(...ids) {
  (ids.length ? ids : [...drawings.keys()]).forEach((id) => stale.add(id));
  drawSoon();
}
whenChanged(() => redraw());
