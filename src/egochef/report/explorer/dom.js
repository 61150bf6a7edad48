// Small helpers: elements whose text is always text, numbers for people, JSON from the server.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const hidden = (text) => el("span", { class: "hidden" }, text);
// Long names of nouns, such as liquid:washing:up, may break at their colons.
export function breakable(name) {
  return name.split(":").flatMap((part, place) => (place ? [":", el("wbr"), part] : [part]));
}

export const whole = (number) => number.toLocaleString("en-US");
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

// What has begun, not what is nearest: 59.999 s is 0:00:59.99.
export function clock(seconds) {
  const hundredths = Math.floor(Math.round(seconds * 1000) / 10);
  const rest = ((hundredths % 6000) / 100).toFixed(2).padStart(5, "0");
  return `${Math.floor(hundredths / 360000)}:${String(Math.floor(hundredths / 6000) % 60).padStart(2, "0")}:${rest}`;
}

// ✓ or ✗ with a word for who hears the page; nothing where nobody knows.
export function mark(verdict) {
  if (!verdict) return null;
  return el("span", { class: `mark ${verdict}` }, el("span", { "aria-hidden": "true" }, verdict === "right" ? "✓" : "✗"), hidden(`${verdict}: `));
}

export async function getJson(path, parameters, signal) {
  const query = new URLSearchParams(parameters).toString();
  let response;
  try {
    response = await fetch(query ? `${path}?${query}` : path, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is egochef explore still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}
