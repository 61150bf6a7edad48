// One segment: its pictures, its truth and what every run says of it.
import { clock, el, getJson, hidden, mark, percent } from "./dom.js";
import { makePlayer } from "./player.js";

const TASKS = ["verb", "noun", "action"];

export function makePanel(root, { onMove, onClose }) {
  const player = makePlayer();
  const title = el("h2", { id: "panel-title", tabindex: "-1" });
  const facts = el("p", { class: "muted facts" });
  const scores = el("div", { class: "scores" });
  const previous = el("button", { type: "button", "aria-label": "Previous segment" }, "‹");
  const next = el("button", { type: "button", "aria-label": "Next segment" }, "›");
  const close = el("button", { type: "button", "aria-label": "Close the segment", "aria-keyshortcuts": "Escape" }, "×");
  root.setAttribute("aria-labelledby", title.id);
  root.removeAttribute("aria-label");
  root.append(
    el("div", { class: "panel-head" }, title, el("div", { class: "tools" }, previous, next, close)),
    facts, player.root, scores,
  );
  previous.addEventListener("click", () => onMove(-1));
  next.addEventListener("click", () => onMove(1));
  close.addEventListener("click", onClose);
  let waiting = null;

  async function open(id) {
    waiting?.abort();
    waiting = new AbortController();
    const { signal } = waiting;
    root.hidden = false;
    try {
      const segment = await getJson("/api/segment", { id }, signal);
      title.textContent = segment.narration || segment.id;
      facts.replaceChildren(...factsOf(segment));
      scores.replaceChildren(...scoresOf(segment));
      root.dataset.id = id;
      await player.load(id, segment.stop_s - segment.start_s);
    } catch (error) {
      if (signal.aborted) return;
      player.stop();
      title.textContent = id;
      facts.textContent = error.message;
      scores.replaceChildren();
    }
  }

  function hide() {
    waiting?.abort();
    player.stop();
    root.hidden = true;
    delete root.dataset.id;
  }

  return { open, hide, player, focus: () => title.focus(), isOpen: () => !root.hidden };
}

function factsOf(segment) {
  const length = (segment.stop_s - segment.start_s).toFixed(2);
  const lines = [[segment.id, segment.split, segment.participant], [`${clock(segment.start_s)} to ${clock(segment.stop_s)}`, `${length} s`]];
  return lines.map((line) => el("span", {}, line.join(" · ")));
}

function scoresOf(segment) {
  const { truth, runs } = segment;
  const happens = el("p", { class: "truth" }, el("span", { class: "muted" }, "Truth "), truth.action ?? "not public for this split");
  const silent = runs.filter((run) => !run.tasks).map((run) => el("p", { class: "muted" }, `${run.name}: no prediction, it was not scored on this split.`));
  const said = runs.filter((run) => run.tasks);
  const tasks = said.length ? TASKS : [];
  return [happens, ...silent, ...tasks.map((task) => el("section", { class: "task" },
    el("h3", {}, task[0].toUpperCase() + task.slice(1)),
    el("div", { class: "runs" }, ...said.map((run) => listOf(run, task, runs.length > 1))),
  ))];
}

function listOf(run, task, named) {
  const { best, truth } = run.tasks[task];
  const rows = best.map((each, place) => scoreRow(each.name, each.prob, truth && place === 0 ? (each.true ? "right" : "wrong") : null, each.true));
  if (truth && !best.some((each) => each.true)) {
    rows.push(scoreRow(truth.name, truth.prob, null, true, truth.rank ? `rank ${truth.rank}` : "not listed"));
  }
  const name = el("h4", {}, run.name);
  return el("div", { class: "run" }, named ? name : null, el("ol", { "aria-label": `${run.name}, ${task}` }, ...rows));
}

function scoreRow(name, prob, verdict, isTruth, note = "") {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.max(0.5, 100 * (prob ?? 0))}%`;
  return el("li", { class: isTruth ? "is-truth" : null },
    el("span", { class: "name" }, mark(verdict), name, isTruth ? el("span", { class: "tag" }, note ? `truth, ${note}` : "truth") : null),
    el("span", { class: "number" }, prob === null ? "–" : percent(prob)),
    el("span", { class: "meter", "aria-hidden": "true" }, fill),
    hidden("."),
  );
}
