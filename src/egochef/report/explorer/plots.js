// Figures of the rows that pass the filters, drawn by Vega when they are first wanted, light or dark as the page is.
import { el, getJson, whole } from "./dom.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const WORDS = { right: "right", wrong: "wrong", unknown: "no label" };
const ORDER = Object.keys(WORDS); // of stacked bars
const NO_PREDICTION = "not predicted";

export function makePlots(root, about, { filters, onClass }) {
  const task = el("select", { "aria-label": "Classes" }, el("option", { value: "verb" }, "verbs"), el("option", { value: "noun" }, "nouns"));
  const order = el("select", { "aria-label": "Order of the classes" },
    el("option", { value: "most" }, "most segments"), el("option", { value: "worst" }, "lowest accuracy"), el("option", { value: "best" }, "highest accuracy"));
  const judged = about.runs.length > 0;
  const left = figure("Classes", judged ? [task, order] : [task]);
  const right = figure(judged ? "Confidence" : "Length", []);
  root.append(left.root, right.root);
  let waiting = null, drawn = [];

  async function refresh() {
    if (root.hidden) return;
    waiting?.abort();
    waiting = new AbortController();
    const { signal } = waiting;
    root.dataset.state = "loading";
    try {
      const parameters = { ...Object.fromEntries(filters()), classes: task.value, class_order: order.value };
      const [numbers] = await Promise.all([getJson("/api/plots", parameters, signal), window.vegaEmbed ?? import("/static/vega.js")]);
      if (signal.aborted) return;
      drawn.forEach((result) => result?.finalize());
      drawn = [await drawClasses(numbers.classes), await (judged ? drawConfidence(numbers.confidence) : drawLengths(numbers.lengths))];
      drawn[0]?.view.addEventListener("click", (_, item) => item?.datum?.id !== undefined && onClass(task.value, item.datum.id));
      root.dataset.state = "ready";
    } catch (error) {
      if (signal.aborted) return;
      left.words.textContent = error.message;
      root.dataset.state = "fault";
    }
  }

  function drawClasses(classes) {
    const outcomeName = (outcome) => (!judged ? "segments" : outcome === "unknown" ? NO_PREDICTION : WORDS[outcome]);
    const outcomes = judged ? ["right", "wrong", "unknown"] : ["unknown"];
    const bars = classes.flatMap((each) => outcomes.map((outcome) => ({
      ...each, outcome: outcomeName(outcome), order: ORDER.indexOf(outcome),
      count: outcome === "unknown" ? each.num - each.right - each.wrong : each[outcome],
      accuracy: each.accuracy === null ? "–" : `${each.accuracy} %`,
    }))).filter((bar) => bar.count > 0);
    const some = classes[0];
    left.words.textContent = some ? `Segments of ${classes.length === 1 ? "one class" : `${classes.length} classes`}. Choose a bar to filter by it.` : "No segment with a label passes the filters.";
    left.named.setAttribute("aria-label", classes.map((each) => `${each.name} ${whole(each.num)}${each.accuracy === null ? "" : `, ${each.accuracy} % right`}`).join("; ") || "nothing to show");
    return draw(left.chart, {
      data: { values: bars },
      mark: { type: "bar", cursor: "pointer" },
      width: "container", height: 17 * Math.max(1, classes.length),
      encoding: {
        y: { field: "name", type: "nominal", sort: classes.map((each) => each.name), title: null },
        x: { field: "count", type: "quantitative", title: "segments", axis: wholes(Math.max(1, ...classes.map((each) => each.num))) },
        color: colour(outcomes.map(outcomeName).filter((name) => name !== NO_PREDICTION || bars.some((bar) => bar.outcome === name))),
        order: { field: "order" },
        tooltip: [{ field: "name", title: task.value }, { field: "outcome" }, { field: "count", title: "segments" }, { field: "num", title: "of" },
          ...(judged ? [{ field: "accuracy" }] : [])],
      },
    });
  }

  function drawConfidence(bins) {
    const count = (outcome) => bins.filter((bin) => bin.outcome === outcome).reduce((sum, bin) => sum + bin.num, 0);
    right.words.textContent = bins.length ? `Probability of the best: ${whole(count("right"))} right, ${whole(count("wrong"))} wrong.` : "No segment with a prediction passes the filters.";
    right.named.setAttribute("aria-label", bins.map((bin) => `${bin.from} to ${bin.to} %: ${bin.num} ${WORDS[bin.outcome]}`).join("; ") || "nothing to show");
    return draw(right.chart, {
      data: { values: bins.map((bin) => ({ ...bin, order: ORDER.indexOf(bin.outcome), outcome: WORDS[bin.outcome], range: `${bin.from} to ${bin.to} %` })) },
      mark: { type: "bar", binSpacing: 1 },
      width: "container", height: 240,
      encoding: {
        x: { field: "from", type: "quantitative", bin: { binned: true, step: 5 }, title: "confidence, %", scale: { domain: [0, 100] } },
        x2: { field: "to" },
        y: { field: "num", type: "quantitative", title: "segments", axis: wholes(highest(bins, "from")) },
        color: colour(["right", "wrong", ...(count("unknown") ? ["no label"] : [])]),
        order: { field: "order" },
        tooltip: [{ field: "range", title: "confidence" }, { field: "outcome" }, { field: "num", title: "segments" }],
      },
    });
  }

  function drawLengths(bins) {
    right.words.textContent = "Seconds from a segment's start to its end.";
    right.named.setAttribute("aria-label", bins.map((bin) => `${bin.name} s: ${whole(bin.num)}`).join("; "));
    return draw(right.chart, {
      data: { values: bins },
      mark: { type: "bar", color: about.colours.unknown },
      width: "container", height: 240,
      encoding: {
        x: { field: "name", type: "ordinal", sort: null, title: "length, s", axis: { labelAngle: -45 } },
        y: { field: "num", type: "quantitative", title: "segments", axis: wholes(highest(bins, "name")) },
        tooltip: [{ field: "name", title: "length, s" }, { field: "num", title: "segments" }],
      },
    });
  }

  function colour(domain) {
    const colours = { ...about.colours, "no label": about.colours.unknown, [NO_PREDICTION]: about.colours.unknown, segments: about.colours.unknown };
    return { field: "outcome", type: "nominal", scale: { domain, range: domain.map((each) => colours[each]) }, title: null, legend: domain.length > 1 ? {} : null };
  }

  function draw(chart, spec) {
    const theme = dark.matches ? "dark" : "light";
    chart.parentElement.dataset.theme = theme;
    if (!spec.data.values.length) return chart.replaceChildren();
    const config = { ...about.themes[theme], axis: { ...about.themes[theme].axis, labelLimit: 110 } };
    return window.vegaEmbed(chart, spec, {
      config, actions: false, ast: true, defaultStyle: false, renderer: "canvas", tooltip: { theme, disableDefaultStyle: true },
    });
  }

  task.addEventListener("change", refresh);
  order.addEventListener("change", refresh);
  dark.addEventListener("change", refresh);
  return { refresh };
}

// An axis of counts: no halves where there are few.
function wholes(largest) {
  return largest <= 8 ? { values: [...Array(largest + 1).keys()], format: "d" } : { format: ",d" };
}

function highest(bins, field) {
  const sums = new Map();
  for (const bin of bins) sums.set(bin[field], (sums.get(bin[field]) ?? 0) + bin.num);
  return Math.max(1, ...sums.values());
}

function figure(title, controls) {
  const words = el("p", { class: "muted" });
  const chart = el("div", { "aria-hidden": "true" }); // Vega names what it draws into, and not well
  const named = el("div", { class: "chart", role: "img" }, chart);
  const root = el("figure", {}, el("figcaption", {}, el("strong", {}, title), ...controls), words, named);
  return { root, words, chart, named };
}
