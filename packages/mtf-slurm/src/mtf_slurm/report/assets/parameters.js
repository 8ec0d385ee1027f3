// Which parameters matter: parallel coordinates of all runs, and one plot a parameter.
const DOTS = 600;
const BINS = 10;
const AXES = 12;
const FEW = 6;
const TICKS = ".5~g"; // Plotly's own hold markup, as in 10<sup>-5</sup>, which its parallel coordinates show as it is

const varied = parameters.filter((key) => new Set(runs.parameters[key].map(exact)).size > 1);

function isNumeric(key, list) {
  return list.every((run) => typeof runs.parameters[key][run] === "number");
}
// Whether numbers are better seen on a logarithmic axis: positive, over decades, and most of them small.
function isWide(values) {
  const sorted = [...values].sort((one, other) => one - other);
  const [low, high] = [sorted[0], sorted[sorted.length - 1]];
  return low > 0 && high / low > 50 && median(sorted) / high < 0.2;
}
const median = (sorted) => (sorted.length % 2 ? sorted[(sorted.length - 1) / 2] : (sorted[sorted.length / 2 - 1] + sorted[sorted.length / 2]) / 2);

// Groups of runs that have a parameter alike: equal words, or a tenth of the numbers each.
function groups(key, list) {
  const value = (run) => runs.parameters[key][run];
  if (!isNumeric(key, list) || new Set(list.map(value)).size <= BINS) {
    const found = new Map();
    for (const run of list) {
      const word = exact(value(run));
      if (!found.has(word)) found.set(word, []);
      found.get(word).push(run);
    }
    return [...found.values()];
  }
  const sorted = [...list].sort((one, other) => value(one) - value(other));
  const size = sorted.length / BINS;
  return Array.from({ length: BINS }, (_, bin) => sorted.slice(Math.round(bin * size), Math.round((bin + 1) * size))).filter((group) => group.length);
}
// The share of the variance of ranks that lies between the groups, corrected for their number: a run that diverged counts
// no more than the last one (Source: Kelley, 1935: epsilon squared; Kruskal and Wallis, 1952: of ranks).
function explained(found, list) {
  const place = new Map([...list].sort((one, other) => measured(one) - measured(other)).map((run, at) => [run, at]));
  const mean = (list.length - 1) / 2;
  const whole = list.reduce((sum, run) => sum + (place.get(run) - mean) ** 2, 0);
  const inside = found.reduce((sum, group) => {
    const own = group.reduce((part, run) => part + place.get(run), 0) / group.length;
    return sum + group.reduce((part, run) => part + (place.get(run) - own) ** 2, 0);
  }, 0);
  if (whole === 0 || list.length <= found.length) return null;
  return Math.max(0, 1 - (inside / (list.length - found.length)) / (whole / (list.length - 1)));
}

// Plotly writes the ticks of these axes as they are, and reads markup in their titles.
function axis(key, list) {
  const values = list.map((run) => runs.parameters[key][run]);
  const title = plain(label.get(key));
  if (!isNumeric(key, list)) {
    const distinct = new Map(values.map((value) => [text(value), value])); // those without one lie lowest
    const words = [...distinct].sort(([, one], [, other]) => compare(one, other)).map(([word]) => word);
    const places = new Map(words.map((word, place) => [word, place]));
    const shown = words.length <= 24 ? { tickvals: words.map((_, place) => place), ticktext: words.map((word) => cut(word, 18)) } : {};
    return { label: title, values: values.map((value) => places.get(text(value))), ...shown };
  }
  const distinct = [...new Set(values)];
  if (!isWide(values)) return { label: title, values, tickformat: TICKS, ...(distinct.length <= FEW ? { tickvals: distinct, ticktext: distinct.map(shortNumber) } : {}) };
  const powers = values.map((value) => Math.log10(value));
  const low = powers.reduce((least, value) => Math.min(least, value), Infinity);
  const high = powers.reduce((most, value) => Math.max(most, value), -Infinity);
  const ticks = Array.from({ length: 5 }, (_, place) => low + ((high - low) * place) / 4);
  return { label: title, values: powers, tickvals: ticks, ticktext: ticks.map((tick) => shortNumber(Number((10 ** tick).toPrecision(2)))) };
}

function drawParallel() {
  const list = shownRuns.filter((run) => measured(run) !== null);
  const isDrawn = canDrawFast && list.length > 1 && varied.length > 0;
  const known = `${list.length || "none"} of the shown runs ${list.length === 1 ? "has" : "have"} a number for ${chosen.metric}`;
  find("parameters-note").textContent = !metrics.length ? "no run has recorded a metric" : isDrawn ? `${known}; drag along an axis to keep a part of it` : known;
  if (!isDrawn) {
    show("parallel-plot", [], {});
    if (!canDrawFast) find("parallel-plot").replaceChildren("This browser has no WebGL, which parallel coordinates need.");
    return;
  }
  const values = list.map((run) => measured(run));
  const sorted = [...values].sort((one, other) => one - other);
  const [low, high] = [sorted[Math.floor(sorted.length * 0.02)], sorted[Math.ceil(sorted.length * 0.98) - 1]]; // a diverged run takes no colours from the rest
  show("parallel-plot", [{
    type: "parcoords", labelfont: { size: 13, color: colour("ink") }, tickfont: { size: 11, color: colour("muted") }, rangefont: { size: 10, color: "rgba(0,0,0,0)" },
    line: { color: values, colorscale: scale(), reversescale: chosen.goal === "max", cmin: low, cmax: high > low ? high : low + 1, showscale: true, colorbar: { thickness: 10, outlinewidth: 0, tickfont: { size: 11 } } },
    unselected: { line: { color: colour("line"), opacity: 0.25 } },
    dimensions: [...varied.slice(0, AXES).map((key) => axis(key, list)), { label: plain(chosen.metric), values, tickformat: TICKS }],
  }], { margin: { l: 70, r: 40, t: 60, b: 30 }, paper_bgcolor: colour("surface") });
}

function drawEffect(place, key, list, found) {
  const every = Math.max(1, Math.ceil(list.length / DOTS));
  const dots = list.filter((_, at) => at % every === 0);
  const numeric = isNumeric(key, list);
  const at = (run) => (numeric ? runs.parameters[key][run] : plain(cut(text(runs.parameters[key][run]), 18)));
  const centres = found.map((group) => {
    const own = group.map((run) => measured(run)).sort((one, other) => one - other);
    return [numeric ? median(group.map((run) => runs.parameters[key][run]).sort((one, other) => one - other)) : at(group[0]), median(own)];
  });
  if (numeric) centres.sort(([one], [other]) => one - other);
  const values = list.map((run) => measured(run)).sort((one, other) => one - other);
  const outer = [values[0], values[Math.ceil(values.length * 0.98) - 1]];
  show(place, [
    { type: "scatter", mode: "markers", x: dots.map(at), y: dots.map((run) => measured(run)), hoverinfo: "text",
      text: dots.map((run) => `<b>${plain(runs.name[run])}</b><br>${plain(label.get(key))} ${plain(text(runs.parameters[key][run]))}<br>${plain(chosen.metric)} ${shortNumber(measured(run))}`),
      marker: { size: dots.length > 100 ? 4 : 7, color: COLOURS[0], opacity: dots.length > 100 ? 0.4 : 0.75 } },
    { type: "scatter", mode: "lines+markers", x: centres.map(([x]) => x), y: centres.map(([, y]) => y), hoverinfo: "text", text: centres.map(([, y]) => `median ${shortNumber(y)}`),
      line: { color: COLOURS[1], width: 2.5 }, marker: { size: 6, color: COLOURS[1] } },
  ], {
    margin: { l: 48, r: 14, t: 10, b: 34 },
    xaxis: { type: numeric ? (isWide(list.map((run) => runs.parameters[key][run])) ? "log" : "linear") : "category" },
    yaxis: { range: outer[1] > outer[0] ? [outer[0] - 0.06 * (outer[1] - outer[0]), outer[1] + 0.06 * (outer[1] - outer[0])] : undefined },
  }, { displayModeBar: false });
}

function drawEffects() {
  const list = shownRuns.filter((run) => measured(run) !== null);
  const measuredEffects = list.length < 2 ? [] : varied.map((key) => {
    const found = groups(key, list.filter((run) => runs.parameters[key][run] !== null));
    return { key, found, share: explained(found, found.flat()) };
  }).filter(({ found }) => found.length > 1);
  measuredEffects.sort((one, other) => (other.share ?? -1) - (one.share ?? -1));
  find("effects").querySelectorAll(".small").forEach((old) => Plotly.purge(old));
  fill("effects", ...measuredEffects.map(({ key, share }) => element("figure", {},
    element("figcaption", { title: key }, label.get(key), element("span", {}, share === null ? "too few runs to tell" : `explains ${Math.round(100 * share)} %`)),
    element("div", { class: "small" }))));
  measuredEffects.forEach(({ key, found }, place) => drawEffect(find("effects").children[place].lastChild, key, found.flat(), found));
  if (!measuredEffects.length) fill("effects", element("p", { class: "hint" }, "No parameter varies among these runs, or none has a number for the metric."));
}

function prepareParameters() {
  drawsIn("parallel-plot", drawParallel);
  drawsIn("effects", drawEffects);
}
