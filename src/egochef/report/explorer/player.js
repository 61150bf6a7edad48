// Plays a segment's pictures: all are fetched, then drawn one after the other on a canvas.
import { clock, el, getJson } from "./dom.js";

const MIN_STEP_MS = 60, MAX_STEP_MS = 250;
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

export function makePlayer() {
  const canvas = el("canvas", { role: "img" });
  const note = el("p", { class: "note" });
  const button = el("button", { type: "button", class: "play", "aria-keyshortcuts": "Space" });
  const scrub = el("input", { type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "Picture" });
  const time = el("span", { class: "muted time" });
  const controls = el("div", { class: "controls" }, button, scrub, time);
  const screen = el("div", { class: "screen" }, canvas, note);
  const root = el("div", { class: "player" }, screen, controls);
  let pictures = [], times = [], at = 0, timer = null, stepMs = MIN_STEP_MS, waiting = null;

  function show(number) {
    at = number;
    if (pictures.length) canvas.getContext("2d").drawImage(pictures[at], 0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", `Picture ${at + 1} of ${pictures.length}`);
    scrub.value = at;
    scrub.setAttribute("aria-valuetext", `${at + 1} of ${pictures.length}, ${clock(times[at])}`);
    time.textContent = `${at + 1}/${pictures.length} · ${clock(times[at])}`;
  }

  function set(playing) {
    window.clearInterval(timer);
    timer = playing && pictures.length > 1 ? window.setInterval(() => show((at + 1) % pictures.length), stepMs) : null;
    button.textContent = timer ? "Pause" : "Play";
    root.dataset.playing = Boolean(timer);
  }

  function step(by) {
    if (!pictures.length) return;
    set(false);
    show((at + by + pictures.length) % pictures.length);
  }

  function say(text) {
    note.textContent = text;
    note.hidden = !text;
    canvas.classList.toggle("dim", Boolean(text));
    controls.inert = Boolean(text);
  }

  function stop() {
    waiting?.abort();
    set(false);
    pictures = [];
  }

  async function load(id, lengthS) {
    stop();
    waiting = new AbortController();
    const { signal } = waiting;
    root.dataset.state = "loading";
    say("Loading pictures …");
    try {
      const clip = await getJson("/api/clip", { id }, signal);
      if (clip.fault) throw new Error(clip.fault);
      const loaded = await Promise.all(clip.times_s.map((_, number) => picture(id, number, signal)));
      if (signal.aborted) return;
      [pictures, times] = [loaded, clip.times_s];
      stepMs = Math.min(MAX_STEP_MS, Math.max(MIN_STEP_MS, (1000 * lengthS) / pictures.length));
      [canvas.width, canvas.height] = [clip.width_px, clip.height_px];
      screen.style.aspectRatio = Math.max(1, clip.width_px / clip.height_px);
      scrub.max = pictures.length - 1;
      say("");
      show(0);
      set(!still.matches);
      root.dataset.state = "ready";
    } catch (error) {
      if (signal.aborted) return;
      root.dataset.state = "fault";
      time.textContent = "";
      say(`No pictures. ${error.message}`);
    }
  }

  button.addEventListener("click", () => set(!timer));
  scrub.addEventListener("input", () => { set(false); show(Number(scrub.value)); });
  set(false);
  return { root, load, stop, step, toggle: () => set(!timer) };
}

async function picture(id, number, signal) {
  const response = await fetch(`/api/picture?${new URLSearchParams({ id, number })}`, { signal });
  if (!response.ok) throw new Error((await response.json()).error);
  return createImageBitmap(await response.blob());
}
