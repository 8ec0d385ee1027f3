// Ties the controls to what they choose, and begins.
const remembered = {
  get: () => { try { return localStorage.getItem("mtf-report-theme"); } catch { return null; } },
  set: (theme) => { try { localStorage.setItem("mtf-report-theme", theme); } catch { /* nothing is kept in a private window */ } },
};
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
function showTheme() {
  find("theme").textContent = isDark() ? "Light" : "Dark";
  find("theme").setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
  redraw();
}
find("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  remembered.set(document.documentElement.dataset.theme);
  showTheme();
});
prefersDark.addEventListener("change", showTheme);

fill("metric", ...(metrics.length ? metrics : ["–"]).map((metric) => element("option", { value: metric }, metric)));
find("metric").value = chosen.metric || "–";
find("metric").disabled = find("goal").disabled = !metrics.length;
find("goal").value = chosen.goal;
find("metric").addEventListener("change", () => {
  chosen.metric = find("metric").value;
  if (curveMetrics.includes(chosen.metric)) find("curve-metric").value = chosen.metric;
  update({ ranking: true });
});
find("goal").addEventListener("change", () => { chosen.goal = find("goal").value; update({ ranking: true }); });

let typing = null;
find("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { chosen.filter = find("filter").value; board.scrollTop = 0; update(); }, 80);
});
find("clear").addEventListener("click", () => {
  find("filter").value = "";
  Object.assign(chosen, { filter: "", hidden: new Set(), selected: new Set(), sort: { key: "rank", descending: false } });
  update();
});

const theme = remembered.get();
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
drawOnce();
prepareCurves();
prepareParameters();
prepareTimeline();
update({ ranking: true });
showTheme();
