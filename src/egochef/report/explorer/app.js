// The page: filters and the table of segments; the server filters, sorts and cuts pages. The address holds the state.
import DataTable from "./datatables.js";
import { breakable, clock, el, getJson, hidden, mark, percent, whole } from "./dom.js";
import { makePanel } from "./panel.js";
import { makePlots } from "./plots.js";

const TYPING_MS = 120, MOVING_MS = 150, IDLE_MS = 1000;
const PAIRS = { "": "All", both_right: "Both right", only_first: "Only A right", only_second: "Only B right", both_wrong: "Both wrong" };
const find = (selector) => document.querySelector(selector);
const form = find("#filters"), search = find("#search"), help = find("#help"), plotsBox = find("#plots");
const narrow = window.matchMedia("(max-width: 899px)");

let about;
try {
  about = await getJson("/api/about");
} catch (error) {
  tell(error.message);
  throw error;
}
find("#title").textContent = `${about.title} · ${whole(about.num_segments)} segments`;
document.title = `${about.title} · EgoChef explorer`;
document.body.classList.toggle("with-runs", about.runs.length > 0);
fillForm();
const asked = new URLSearchParams(window.location.search);
setForm(asked);

const panel = makePanel(find("#panel"), { onMove: move, onClose: close });
const plots = makePlots(plotsBox, about, { filters, onClass: (task, id) => choose(task, String(id)) });
let waiting = null, typing = null, moving = null, selected = decodeURIComponent(window.location.hash.slice(1)) || null;
let answer = { rows: [] }, land = null; // where the selection goes when the next page comes: first or last row

const columns = makeColumns();
const names = columns.map((column) => column.name);
const table = new DataTable("#table", {
  serverSide: true, searching: false, ordering: true, processing: false, autoWidth: false, orderMulti: false,
  pageLength: about.rows_a_page, lengthChange: false,
  displayStart: Math.max(0, about.rows_a_page * ((Number(asked.get("page")) || 1) - 1)),
  order: [[Math.max(0, names.indexOf(asked.get("sort"))), asked.get("order") === "desc" ? "desc" : "asc"]],
  layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null, bottom: "paging" },
  language: { emptyTable: "No segment passes the filters.", zeroRecords: "No segment passes the filters.", aria: { paginate: { previous: "Previous page", next: "Next page", first: "First page", last: "Last page" } } },
  columns, ajax: fetchRows, createdRow: dressRow, drawCallback: () => landOnRow(),
});

async function fetchRows(request, done) {
  waiting?.abort();
  waiting = new AbortController();
  const { signal } = waiting;
  const parameters = filters();
  const { column, dir } = request.order[0] ?? { column: 0, dir: "asc" };
  parameters.set("sort", names[column]);
  parameters.set("order", dir);
  keepAddress(parameters, request.start);
  find("#segments").setAttribute("aria-busy", "true");
  let rows = [];
  try {
    answer = await getJson("/api/rows", new URLSearchParams([...parameters, ["start", request.start], ["count", request.length]]), signal);
    rows = answer.rows;
    tell("");
    summarise(answer);
    done({ draw: request.draw, recordsTotal: answer.total, recordsFiltered: answer.matched, data: rows });
  } catch (error) {
    if (signal.aborted) return;
    tell(error.message);
    done({ draw: request.draw, recordsTotal: 0, recordsFiltered: 0, data: [] });
  }
  find("#segments").setAttribute("aria-busy", "false");
  find("#segments").dataset.draw = request.draw;
}

// ---- the table

function makeColumns() {
  const cell = (name, title, content, more = {}) => ({
    name, title, data: null, className: `c-${name.replaceAll("_", "-")}`, orderSequence: ["asc", "desc"], render: (_, __, row) => content(row), ...more,
  });
  const text = (value) => el("span", value ? {} : { class: "muted" }, ...breakable(value ?? "–"));
  const found = [
    cell("segment", "Segment", (row) => el("span", { class: "id" }, row.id)),
    cell("narration", "Narration", (row) => el("span", {}, el("span", {}, row.narration || el("span", { class: "muted" }, "no narration")), el("span", { class: "sub muted" }, row.id))),
    cell("verb", "Verb", (row) => text(row.verb)),
    cell("noun", "Noun", (row) => text(row.noun)),
  ];
  if (about.runs.length) {
    found.push(cell("predicted_verb", "Says", (row) => said(row.shown)));
    found.push(cell("confidence", "Confidence", (row) => sure(row.shown), { orderSequence: ["desc", "asc"] }));
  }
  if (about.runs.length > 1) {
    found.push(cell("predicted_other", "Other says", (row) => said(row.other), { orderable: false }));
    found.push(cell("other_confidence", "Confidence", (row) => sure(row.other), { orderSequence: ["desc", "asc"] }));
  }
  found.push(cell("start", "Start", (row) => clock(row.start_s)));
  found.push(cell("length", "Length", (row) => `${row.length_s.toFixed(2)} s`));
  if (about.splits.length > 1) found.push(cell("split", "Split", (row) => row.split));
  return found;
}

function said(run) {
  if (!run) return el("span", { class: "muted" }, "–");
  return el("span", { class: "said" }, el("span", {}, mark(run.verb_is), ...breakable(run.verb)), " ", el("span", {}, mark(run.noun_is), ...breakable(run.noun)));
}

function sure(run) {
  return run ? el("span", {}, mark(run[`${form.elements.task.value || "action"}_is`]), percent(run.confidence, 0)) : el("span", { class: "muted" }, "–");
}

function dressRow(tr, row) {
  tr.dataset.id = row.id;
  tr.tabIndex = -1;
}

const rowsOf = () => [...document.querySelectorAll("#table tbody tr[data-id]")];

function landOnRow() {
  const rows = rowsOf();
  const row = land === "first" ? rows[0] : land === "last" ? rows.at(-1) : rows.find((each) => each.dataset.id === selected) ?? rows[0];
  const landing = land;
  land = null;
  if (!row) return;
  row.tabIndex = 0;
  if (landing) select(row, { focus: true });
  else if (row.dataset.id === selected) row.setAttribute("aria-current", "true");
}

function select(row, { focus = false } = {}) {
  for (const each of rowsOf()) {
    each.tabIndex = each === row ? 0 : -1;
    each.removeAttribute("aria-current");
  }
  row.setAttribute("aria-current", "true");
  selected = row.dataset.id;
  if (focus) row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
  if (panel.isOpen()) {
    window.clearTimeout(moving);
    moving = window.setTimeout(() => open(selected), MOVING_MS);
  }
}

function move(by) {
  const rows = rowsOf();
  const at = rows.findIndex((row) => row.dataset.id === selected);
  const to = at < 0 ? (by > 0 ? 0 : rows.length - 1) : at + by;
  if (rows[to]) return select(rows[to], { focus: !document.activeElement?.closest("#panel") });
  const { page, pages } = table.page.info();
  if (page + by < 0 || page + by >= pages) return undefined;
  land = by > 0 ? "first" : "last";
  return table.page(page + by).draw("page");
}

// ---- the panel

function open(id) {
  selected = id;
  document.body.classList.add("with-panel");
  find("main").inert = find("#filters-box").inert = narrow.matches;
  panel.open(id);
  if (narrow.matches) panel.focus();
  keepHash(id);
}

function openRow(row) {
  if (row) select(row);
  if (selected) open(selected);
}

function close() {
  if (!panel.isOpen()) return;
  window.clearTimeout(moving);
  panel.hide();
  document.body.classList.remove("with-panel");
  find("main").inert = find("#filters-box").inert = false;
  keepHash("");
  rowsOf().find((row) => row.dataset.id === selected)?.focus();
}

// ---- filters

function fillForm() {
  const options = (select, all, values) => select.replaceChildren(...(all === null ? [] : [el("option", { value: "" }, all)]), ...values.map(([value, text]) => el("option", { value }, text)));
  const same = (list) => list.map((each) => [each, each]);
  const named = (list) => list.map((name, id) => [String(id), name]).sort((a, b) => a[1].localeCompare(b[1], "en"));
  const { elements } = form;
  options(elements.split, "all", same(about.splits));
  options(elements.participant, "all", same(about.participants));
  options(elements.verb, "all", named(about.verbs));
  options(elements.noun, "all", named(about.nouns));
  options(elements.predicted_verb, "anything", named(about.verbs));
  options(elements.predicted_noun, "anything", named(about.nouns));
  for (const select of form.querySelectorAll(".verdict")) options(select, "anything", same(["right", "wrong"]));
  options(elements.run, null, about.runs.map((name, place) => [place ? String(place) : "", name]));
  options(elements.other, "nothing", about.runs.map((name, place) => [String(place), name]));
  find("#pairs").append(...Object.entries(PAIRS).map(([value, text]) => el("label", {}, el("input", { type: "radio", name: "pair", value, checked: value === "" }), el("span", { class: "words" }, text), el("span", { class: "number muted", "data-pair": value }))));
  find(".of-runs").hidden = about.runs.length === 0;
  find(".of-pairs").hidden = about.runs.length < 2;
  fillVideos();
}

// The videos of the chosen participant.
function fillVideos() {
  const { participant, video } = form.elements;
  const owner = about.participants.indexOf(participant.value);
  const before = video.value;
  const there = about.videos.filter(([, who]) => owner < 0 || who === owner).map(([name]) => name);
  video.replaceChildren(el("option", { value: "" }, "all"), ...there.map((name) => el("option", { value: name }, name)));
  video.value = there.includes(before) ? before : "";
}

function setForm(parameters) {
  if (about.scored_split && !parameters.has("split")) parameters.set("split", about.scored_split);
  if (about.runs.length > 1 && !parameters.has("other")) parameters.set("other", parameters.get("run") === "1" ? "0" : "1");
  for (const [name, value] of parameters) {
    const control = form.elements[name];
    if (control === undefined) continue;
    control.value = value;
    if (control.tagName === "SELECT" && control.selectedIndex < 0) control.value = "";
    if (name === "participant") fillVideos();
  }
}

// What is asked of the server: the form without its empty fields.
function filters() {
  const parameters = new URLSearchParams([...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value !== ""));
  if (!parameters.has("other")) parameters.delete("pair");
  return parameters;
}

function choose(name, value) {
  form.elements[name].value = value;
  refresh();
}

function refresh() {
  window.clearTimeout(typing);
  if (form.elements.other.value === "" && form.elements.pair.value !== "") form.elements.pair.value = "";
  table.draw();
  plots.refresh();
}

form.addEventListener("change", (event) => {
  if (event.target.name === "participant") fillVideos();
  if (event.target !== search) refresh();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => window.setTimeout(() => {
  setForm(new URLSearchParams());
  fillVideos();
  refresh();
}));
for (const field of [search, form.elements.at_least, form.elements.at_most]) {
  field.addEventListener("input", () => {
    window.clearTimeout(typing);
    typing = window.setTimeout(refresh, TYPING_MS);
  });
}

// ---- words

function summarise({ matched, total, runs, pairs }) {
  const parts = [el("p", {}, el("strong", {}, whole(matched)), ` of ${whole(total)} segments`)];
  runs.forEach((run, place) => {
    const letter = runs.length > 1 ? `${"AB"[place]}: ` : "";
    const shares = ["verb", "noun", "action"].map((task) => el("span", {}, `${task} `, el("strong", {}, run.judged ? percent(run.right[task] / run.judged) : "–")));
    const note = run.judged ? `of ${whole(run.judged)}` : run.predicted ? `${whole(run.predicted)} predicted, no labels` : "no prediction here";
    parts.push(el("p", { class: "accuracy" }, el("span", { class: "run-name" }, letter + run.name), ...shares, el("span", { class: "muted" }, note)));
  });
  find("#summary").replaceChildren(...parts);
  const [first, second] = runs.map((run) => run.name);
  find("#pairs").hidden = !pairs;
  for (const label of find("#pairs").children) {
    const value = label.querySelector("input").value;
    if (value) label.querySelector(".number").textContent = pairs ? whole(pairs[value]) : "";
    label.querySelector(".words").textContent = PAIRS[value].replace("A", value === "only_first" ? first ?? "A" : "A").replace("B", value === "only_second" ? second ?? "B" : "B");
  }
  document.body.classList.toggle("compares", runs.length > 1);
  nameColumns(runs);
  const set = [...filters().keys()].filter((name) => !["run", "other", "task", "search"].includes(name)).length - (about.scored_split && form.elements.split.value === about.scored_split ? 1 : 0);
  find("#filters-count").textContent = set ? `(${set} set)` : "";
}

function nameColumns(runs) {
  const name = (column, text) => {
    const place = names.indexOf(column);
    if (place >= 0) table.column(place).header().querySelector(".dt-column-title").textContent = text;
  };
  if (!runs.length) return;
  name("predicted_verb", runs.length > 1 ? `A: ${runs[0].name}` : `${runs[0].name} says`);
  name("predicted_other", runs.length > 1 ? `B: ${runs[1].name}` : "–");
}

function tell(message) {
  find("#fault").textContent = message;
  find("#fault").hidden = !message;
}

function keepAddress(parameters, start) {
  const kept = new URLSearchParams(parameters);
  if (kept.get("sort") === "segment" && kept.get("order") === "asc") ["sort", "order"].forEach((name) => kept.delete(name));
  if (about.runs.length > 1 && !kept.has("other")) kept.set("other", "");
  if (about.scored_split && !kept.has("split")) kept.set("split", ""); // else it would come back
  if (start) kept.set("page", start / about.rows_a_page + 1);
  if (!plotsBox.hidden) kept.set("plots", "1");
  const query = kept.toString();
  window.history.replaceState(null, "", (query ? `/?${query}` : "/") + window.location.hash);
}

function keepHash(id) {
  window.history.replaceState(null, "", window.location.pathname + window.location.search + (id ? `#${encodeURIComponent(id)}` : ""));
}

// ---- pointer and keys

find("#table").addEventListener("click", (event) => {
  const row = event.target.closest("tbody tr[data-id]");
  if (!row) return;
  select(row, { focus: true });
  open(row.dataset.id);
});

function showPlots(shown) {
  plotsBox.hidden = !shown;
  find("#plots-button").setAttribute("aria-expanded", String(shown));
  plots.refresh();
}

find("#plots-button").addEventListener("click", () => {
  showPlots(plotsBox.hidden);
  const { start } = table.page.info();
  const [column, dir] = table.order()[0];
  keepAddress(new URLSearchParams([...filters(), ["sort", names[column]], ["order", dir]]), start);
});
find("#help-button").addEventListener("click", () => help.showModal());
help.addEventListener("click", (event) => event.target === help && help.close());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const { target, key } = event;
  const types = target.closest("select, textarea, input:not([type=range], [type=radio])");
  if (types) {
    if (key === "Escape") types.blur();
    if (target === search && (key === "Enter" || key === "ArrowDown")) {
      event.preventDefault();
      land = "first"; // of what was typed last, which may not be here yet
      refresh();
    }
    return;
  }
  const presses = target.closest("button, summary, a, input, th");
  const isRange = target.closest("input");
  const actions = {
    "/": () => { search.focus(); search.select(); },
    "?": () => help.showModal(),
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: isRange ? null : () => move(1),
    ArrowUp: isRange ? null : () => move(-1),
    ArrowRight: isRange || !panel.isOpen() ? null : () => panel.player.step(1),
    ArrowLeft: isRange || !panel.isOpen() ? null : () => panel.player.step(-1),
    Enter: presses ? null : () => openRow(target.closest("tr[data-id]")),
    " ": (presses && target.type !== "range") || !panel.isOpen() ? null : () => panel.player.toggle(),
    Escape: close,
  };
  if (!actions[key]) return;
  event.preventDefault();
  actions[key]();
});

// ---- the start

find("#filters-box").open = !narrow.matches;
narrow.addEventListener("change", () => {
  find("#filters-box").open = !narrow.matches;
  find("main").inert = find("#filters-box").inert = narrow.matches && panel.isOpen();
});
if (asked.get("plots") === "1") showPlots(true);
else window.setTimeout(() => fetch("/static/vega.js").then((made) => made.blob()).catch(() => {}), IDLE_MS); // which takes the server a second, the first time
if (selected) open(selected);
