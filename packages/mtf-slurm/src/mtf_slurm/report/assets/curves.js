// Learning curves of the best runs that are shown, and of those that are selected.
function smoothed(values, share) {
  if (!share) return values;
  let mean = null;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = (mean === null ? 0 : mean) * share + value * (1 - share);
    weight = weight * share + (1 - share);
    return mean / weight;
  });
}

// Over epochs a curve has one value an epoch, however often it was logged.
function lastOfEachEpoch({ step, epoch, value }) {
  const last = epoch.map((_, at) => at).filter((at) => at === epoch.length - 1 || epoch[at + 1] !== epoch[at]);
  return { step: last.map((at) => step[at]), epoch: last.map((at) => epoch[at]), value: last.map((at) => value[at]) };
}

function drawCurves() {
  const metric = find("curve-metric").value;
  const count = Math.max(1, Math.min(total, Number(find("curve-count").value) || 10));
  const over = find("curve-x").value;
  const share = Number(find("curve-smooth").value);
  const isShown = new Set(shownRuns);
  const picked = [...chosen.selected].filter((run) => isShown.has(run));
  const wanted = [...new Set([...picked, ...bestShown(count)])].filter((run) => curve(run, metric));
  const points = wanted.reduce((sum, run) => sum + curve(run, metric).value.length, 0);
  const fast = canDrawFast && points > MANY_POINTS;
  const few = wanted.length <= COLOURS.length;
  const traces = wanted.map((run, place) => {
    const data = over === "epoch" ? lastOfEachEpoch(curve(run, metric)) : curve(run, metric);
    const name = plain(runs.name[run]);
    const values = smoothed(data.value, share);
    const isPicked = chosen.selected.has(run);
    const fade = few ? COLOURS[place] : colourAt(place / Math.max(1, wanted.length - 1));
    return {
      type: fast ? "scattergl" : "scatter", mode: data.value.length > 1 ? "lines" : "markers", name: plain(nameOf(run, 40)),
      x: data[over], y: values, hoverinfo: "text", connectgaps: false,
      text: values.map((value, at) => `<b>${name}</b><br>${plain(metric)} ${shortNumber(value)}<br>${over} ${data[over][at]}`),
      line: { width: isPicked ? 3.5 : few ? 2 : 1.2, color: fade }, opacity: isPicked || few ? 1 : 0.55,
    };
  });
  const withCurves = Object.keys(report.curves).length;
  find("curves-note").textContent = `${counted(wanted.length, "run")}${picked.length ? `, ${picked.length} of them selected` : ""}${withCurves < total ? `; ${withCurves} of ${total} have curves here` : ""}`;
  show("curves-plot", traces, {
    showlegend: few, legend: { orientation: "h", y: -0.2, font: { size: 11.5 } },
    xaxis: { title: { text: over === "step" ? "Optimizer steps" : "Epoch" } },
    yaxis: { title: { text: plain(metric) }, type: find("curve-log").checked ? "log" : "linear" },
  });
}

// Between the colours of the scale.
function colourAt(share) {
  const colours = scale();
  const next = colours.findIndex(([place]) => place >= share);
  if (next <= 0) return colours[0][1];
  const [[low, from], [high, to]] = [colours[next - 1], colours[next]];
  const part = (share - low) / (high - low);
  const mix = [1, 3, 5].map((at) => Math.round(parseInt(from.slice(at, at + 2), 16) * (1 - part) + parseInt(to.slice(at, at + 2), 16) * part));
  return `rgb(${mix.join(",")})`;
}

function prepareCurves() {
  fill("curve-metric", ...(curveMetrics.length ? curveMetrics : ["–"]).map((metric) => element("option", { value: metric }, metric)));
  if (curveMetrics.includes(chosen.metric)) find("curve-metric").value = chosen.metric;
  find("curve-count").max = String(Math.max(1, Object.keys(report.curves).length));
  ["curve-metric", "curve-count", "curve-x", "curve-smooth", "curve-log"].forEach((id) => find(id).addEventListener("input", () => redraw("curves-plot")));
  drawsIn("curves-plot", drawCurves);
}
