// When attempts were at work and how they ended, and how many were at work at a time.
const OUTCOME_COLOURS = { finished: "good", failed: "bad", preempted: "warn", "wants-requeue": "warn", "do-not-requeue": "bad", running: "work", "no receipt": "idle" };
const LIVE = new Set(["running"]);
const PLACES = 400;
const NAMED = 40;

function endOf([, , start, end, outcome]) {
  if (end !== null) return Math.max(end, start + 1);
  return LIVE.has(report.outcomes[outcome]) ? Math.max(report.made_s, start + 1) : start + 1;
}

function atWork(spans) {
  const changes = spans.flatMap((span) => [[span[2], 1], [endOf(span), -1]]).sort(([one, up], [other, down]) => one - other || up - down);
  const times = [];
  const counts = [];
  let count = 0;
  for (const [time, change] of changes) {
    count += change;
    if (times.length && times[times.length - 1] === time) counts[counts.length - 1] = count;
    else { times.push(time); counts.push(count); }
  }
  const every = Math.max(1, Math.ceil(times.length / PLACES));
  const kept = times.map((_, place) => place).filter((place) => place % every === 0 || place === times.length - 1);
  return { x: kept.map((place) => times[place] * 1000), y: kept.map((place) => counts[place]) };
}

function drawTimeline() {
  const isShown = new Set(shownRuns);
  const spans = report.spans.filter(([run]) => isShown.has(run));
  const first = new Map();
  spans.forEach(([run, , start]) => first.set(run, Math.min(start, first.get(run) ?? Infinity)));
  const begun = shownRuns.filter((run) => first.has(run));
  if (find("timeline-order").value === "start") begun.sort((one, other) => first.get(one) - first.get(other) || one - other);
  const rows = begun.slice(0, Number(find("timeline-count").value));
  const rowOf = new Map(rows.map((run, place) => [run, place]));
  const wanted = spans.filter(([run]) => rowOf.has(run));
  const fast = canDrawFast && wanted.length > 1500;
  const width = Math.max(1.2, Math.min(9, 380 / Math.max(1, rows.length)));
  const traces = report.outcomes.map((outcome, number) => {
    const own = wanted.filter((span) => span[4] === number);
    const shade = colour(OUTCOME_COLOURS[outcome] || "idle");
    const words = ([run, attempt, start, end, , host]) => `<b>${plain(runs.name[run])}</b><br>attempt ${attempt}, ${plain(outcome)}<br>${moment(start)} UTC${end === null ? "" : `, ${duration(end - start)}`}<br>${plain(report.hosts[host])}`;
    const ends = outcome === "preempted" || outcome === "wants-requeue" ? { symbol: "line-ns-open", size: Math.max(6, width + 5) } : { symbol: "circle", size: outcome === "no receipt" ? 5 : 1 };
    return {
      type: fast ? "scattergl" : "scatter", mode: "lines+markers", name: plain(outcome), hoverinfo: "text", connectgaps: false,
      x: own.flatMap((span) => [span[2] * 1000, (span[2] + endOf(span)) * 500, endOf(span) * 1000, null]),
      y: own.flatMap((span) => [rowOf.get(span[0]), rowOf.get(span[0]), rowOf.get(span[0]), null]),
      text: own.flatMap((span) => { const said = words(span); return [said, said, said, ""]; }),
      line: { color: shade, width }, marker: { color: shade, symbol: own.flatMap(() => ["circle", "circle", ends.symbol, "circle"]), size: own.flatMap(() => [1, 1, ends.size, 1]), opacity: own.flatMap(() => [0, 0, 1, 0]) },
      opacity: 0.85,
      yaxis: "y",
    };
  }).filter((trace) => trace.x.length);
  const preempted = spans.filter((span) => OUTCOME_COLOURS[report.outcomes[span[4]]] === "warn").length;
  const worked = spans.reduce((sum, span) => sum + (span[3] === null && !LIVE.has(report.outcomes[span[4]]) ? 0 : endOf(span) - span[2]), 0);
  find("timeline-note").textContent = `${counted(spans.length, "attempt")}, ${preempted} preempted, ${duration(worked)} of work${rows.length < begun.length ? `; ${rows.length} of ${begun.length} runs drawn` : ""}`;
  if (traces.length) {
    const load = atWork(spans);
    traces.push({ type: "scatter", mode: "lines", fill: "tozeroy", line: { shape: "hv", width: 1, color: colour("accent") }, fillcolor: colour("accent-soft"), ...load, yaxis: "y2", name: "at work", showlegend: false, hoverinfo: "text", text: load.y.map((count) => `${count} at work`) });
  }
  const named = rows.length <= NAMED;
  find("timeline-plot").style.height = named ? `max(min(60vh, 520px), ${rows.length * 18 + 210}px)` : "";
  show("timeline-plot", traces, {
    showlegend: true, legend: { orientation: "h", y: 1.12 }, margin: { l: 60, r: 24, t: 46, b: 44 },
    xaxis: { type: "date", title: { text: "UTC" }, anchor: "y" },
    yaxis: { domain: [0, 0.76], autorange: "reversed", showgrid: false, zeroline: false, showticklabels: named, title: { text: named ? "" : "Runs" },
      ...(named ? { tickvals: rows.map((_, place) => place), ticktext: rows.map((run) => plain(nameOf(run, 26))) } : {}) },
    yaxis2: { domain: [0.82, 1], rangemode: "tozero", gridcolor: colour("line"), title: { text: "at work" }, nticks: 4, automargin: true },
  });
}

function prepareTimeline() {
  ["timeline-count", "timeline-order"].forEach((id) => find(id).addEventListener("input", () => redraw("timeline-plot")));
  drawsIn("timeline-plot", drawTimeline);
}
