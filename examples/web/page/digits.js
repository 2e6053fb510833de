// The digits: what the controls ask for, one picture after the other, and the strip of those drawn.

import { Digits } from "./freeguide.js";

const KEPT = 18;
// Denoising steps a frame: for a picture to look on, for a row of them, and to follow a slider.
const PACE = { slow: 1, row: 4, follow: 16 };
const LADDER = [-1, 0, 1, 2, 4, 6];

const element = (id) => document.getElementById(id);

let digits;
let current = null; // the picture under way
let waiting = []; // those after it
let ticking = false;

// For the strip, the console and the tests: { class, w, seed, pixels }, the last one last.
const drawn = [];
window.freeguide = { drawn };

function settings() {
  const chosen = new FormData(element("controls")).get("class");
  return {
    class: chosen === "none" ? undefined : Number(chosen),
    w: Number(element("w").value),
    seed: Number(element("seed").value),
  };
}

function show({ class: chosen, w, seed }) {
  const value = chosen === undefined ? "none" : String(chosen);
  element("controls").querySelector(`[name="class"][value="${value}"]`).checked = true;
  element("w").value = w;
  element("seed").value = seed;
  describe();
}

function describe() {
  const { class: chosen, w } = settings();
  element("w-value").textContent = w.toFixed(1).replace("-", "−");
  const scale = (1 + w).toFixed(1);
  let text = `plain conditional: the network's own idea of the class`;
  if (chosen === undefined) text = "no class: any digit, and w has nothing to pull at";
  else if (w <= -1) text = "unconditional: the class is not looked at";
  else if (w < 0) text = `weaker than conditional: guidance scale ${scale}`;
  else if (w > 0) text = `guided: ${w.toFixed(1)} differences beyond, as most tools count a guidance scale of ${scale}`;
  element("w-meaning").textContent = text;
}

// Draws these, in place of whatever is under way.
function draw(wanted, pace = PACE.slow) {
  if (!element("controls").reportValidity()) return;
  waiting = wanted.map((one) => ({ pace, keep: true, ...one }));
  next();
}

// Draws this as soon as the picture under way is done, if that one follows a slider too.
function follow(wanted) {
  if (!element("seed").checkValidity()) return;
  waiting = [{ pace: PACE.follow, keep: false, ...wanted }];
  if (current?.pace !== PACE.follow) next();
}

function next() {
  current = waiting.shift() ?? null;
  document.body.dataset.digits = current ? "drawing" : "idle";
  if (!current) return;
  digits.start(current.class, current.w, current.seed);
  current.begun = performance.now();
  element("progress").max = digits.steps;
  if (!ticking) tick();
}

// A device that failed says so at the next call.
function failed(error) {
  current = null;
  waiting = [];
  document.body.dataset.digits = "failed";
  window.dispatchEvent(new CustomEvent("freeguide-failure", { detail: error.message ?? String(error) }));
}

function tick() {
  ticking = false;
  if (!current) return;
  let step;
  try {
    step = digits.frame(current.pace, element("smooth").checked);
  } catch (error) {
    failed(error);
    return;
  }
  element("progress").value = step;
  if (step < digits.steps) {
    // The first step of all waits for the browser to compile the kernels.
    const preparing = drawn.length === 0 && step <= 2 && performance.now() - current.begun > 400;
    element("status").textContent = preparing ? "preparing kernels …" : `step ${step} of ${digits.steps}`;
    ticking = true;
    requestAnimationFrame(tick);
  } else {
    finish(current).catch(failed);
  }
}

async function finish(picture) {
  const pixels = await digits.read();
  // Another one was begun meanwhile.
  if (picture !== current) return;
  const seconds = ((performance.now() - picture.begun) / 1e3).toFixed(1);
  element("status").textContent = `${digits.steps} steps, ${seconds} s`;
  if (picture.keep) keep({ class: picture.class, w: picture.w, seed: picture.seed, pixels });
  next();
}

function keep(picture) {
  drawn.push(picture);
  drawn.splice(0, drawn.length - KEPT);
  const size = digits.size;
  const image = new ImageData(size, size);
  picture.pixels.forEach((grey, at) => image.data.set([grey, grey, grey, 255], 4 * at));
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(image, 0, 0);

  const button = document.createElement("button");
  button.type = "button";
  const label = document.createElement("span");
  label.textContent = `w ${picture.w}`.replace("-", "−");
  button.append(canvas, label);
  button.title = `class ${picture.class ?? "none"}, w ${picture.w}, seed ${picture.seed}`;
  button.addEventListener("click", () => {
    show(picture);
    draw([settings()]);
  });
  const item = document.createElement("li");
  item.append(button);
  const strip = element("drawn");
  strip.append(item);
  while (strip.children.length > KEPT) strip.firstChild.remove();
}

function controls() {
  const classes = [...Array(10).keys(), "none"].map((value) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "class", value, checked: value === 7 });
    const text = document.createElement("span");
    text.textContent = value;
    label.append(input, text);
    return label;
  });
  element("classes").replaceChildren(...classes);
  describe();

  const now = () => draw([settings()]);
  element("classes").addEventListener("change", () => (describe(), now()));
  element("w").addEventListener("input", () => (describe(), follow(settings())));
  element("w").addEventListener("change", () => {
    if (!element("seed").checkValidity()) return;
    waiting = [{ pace: PACE.follow, keep: true, ...settings() }];
    if (!current) next();
  });
  element("seed").addEventListener("change", now);
  element("controls").addEventListener("submit", (event) => (event.preventDefault(), now()));
  element("other").addEventListener("click", () => {
    element("seed").value = Math.floor(Math.random() * 10000);
    now();
  });
  // The picture as it stands, drawn anew; what is under way is drawn anyway.
  element("smooth").addEventListener("change", () => {
    if (!current) digits.frame(0, element("smooth").checked);
  });
  element("all").addEventListener("click", () => {
    draw([...Array(10).keys()].map((digit) => ({ ...settings(), class: digit })), PACE.row);
  });
  element("ladder").addEventListener("click", () => {
    draw(LADDER.map((w) => ({ ...settings(), w })), PACE.row);
  });
}

// An error is in words for a person.
export async function startDigits() {
  digits = await Digits.open(element("picture"), element("latent"));
  controls();
  draw([settings()]);
}
