// Draws a page's figures when they come into view, again when the page turns dark or light, and zooms them.
const specs = JSON.parse(document.getElementById("specs").textContent);
const themes = JSON.parse(document.getElementById("themes").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const views = new Map(); // element -> Vega view
const MANY_MARKS = 2000; // of more, a canvas

async function draw(element) {
  const spec = specs[element.dataset.figure];
  if (element.closest(".square")) spec.height = Math.min(520, Math.round(element.clientWidth * 0.9));
  const theme = dark.matches ? "dark" : "light";
  const many = JSON.stringify(spec).length > 100 * MANY_MARKS;
  const result = await window.vegaEmbed(element, spec, {
    actions: false, config: fitted(themes[theme], element.clientWidth), renderer: many ? "canvas" : "svg", tooltip: { theme },
  });
  views.set(element, result);
  element.dataset.drawn = theme;
}

// Legends in fewer columns and shorter labels where there is little room.
function fitted(config, width) {
  const [columns, labelLimit] = width < 420 ? [2, 130] : width < 700 ? [3, 190] : [5, 190];
  return { ...config, axis: { ...config.axis, labelLimit }, legend: { ...config.legend, columns, labelLimit: 150 } };
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "600px" });
document.querySelectorAll(".chart").forEach((element) => seen.observe(element));
window.addEventListener("beforeprint", () => document.querySelectorAll(".chart:not([data-drawn])").forEach(draw));

dark.addEventListener("change", () => {
  for (const [element, result] of views) {
    result.finalize();
    draw(element);
  }
});

// A zoomed scale's domain is the signal "zoom_FIELD"; null is the whole.
const AXES = { x: ["zoom_left", "zoom_s"], y: ["zoom_top"] };
document.querySelectorAll(".zoom").forEach((bar) => bar.addEventListener("click", (event) => {
  const by = event.target.dataset.by;
  const result = views.get(document.getElementById(bar.dataset.for));
  if (by === undefined || !result) return;
  const names = Object.keys(result.view.getState().signals);
  for (const [scale, signals] of Object.entries(AXES)) {
    const name = signals.find((signal) => names.includes(signal));
    if (!name) continue;
    const [from, to] = result.view.scale(scale).domain();
    const middle = (from + to) / 2, half = ((to - from) / 2) * Number(by);
    result.view.signal(name, half === 0 ? null : [middle - half, middle + half]);
  }
  result.view.runAsync();
}));
