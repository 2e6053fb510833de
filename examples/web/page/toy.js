// The toy: the library computes densities and points, this file draws them.

import { toy_density, toy_measure, toy_points } from "./freeguide.js";

const HALF = 2.6; // the square drawn is [-HALF, HALF]²
const CELLS = 96;
const POINTS = 900;
const MEASURED = 3000;
const STEPS = 64;
const SETTLE_MS = 200;
const SWEEP_MS = 9000;

const element = (id) => document.getElementById(id);

let seed = 1;
let origin = null; // the points at w = 0
let asked = false; // whether a frame is on its way
let settled; // the timer of the measurement
let sweep = null;

const plane = () => element("plane");
const weight = () => Number(element("toy-w").value);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Canvas coordinates of a point, y upwards.
function place(x, y) {
  const { width, height } = plane();
  return [((x + HALF) / (2 * HALF)) * width, ((HALF - y) / (2 * HALF)) * height];
}

function paint() {
  asked = false;
  const w = weight();
  element("toy-w-value").textContent = w.toFixed(2).replace("-", "−");
  const context = plane().getContext("2d");
  context.clearRect(0, 0, plane().width, plane().height);
  shade(context, toy_density(w, HALF, CELLS));
  const points = toy_points(w, STEPS, POINTS, seed);
  origin ??= toy_points(0, STEPS, POINTS, seed);
  dots(context, points, element("trails").checked && w !== 0);
  // For the tests: what is on the canvas.
  window.freeguide = Object.assign(window.freeguide ?? {}, { toy: { w, points } });
  if (sweep === null) {
    clearTimeout(settled);
    settled = setTimeout(measure, SETTLE_MS);
  }
}

function shade(context, density) {
  const [red, green, blue] = style("--shade").split(" ").map(Number);
  const most = density.reduce((a, b) => Math.max(a, b), 0);
  const image = new ImageData(CELLS, CELLS);
  density.forEach((value, at) => {
    // Rows come from below.
    const row = CELLS - 1 - Math.floor(at / CELLS);
    const to = 4 * (row * CELLS + (at % CELLS));
    image.data.set([red, green, blue, 200 * (value / most) ** 0.8], to);
  });
  const small = new OffscreenCanvas(CELLS, CELLS);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, plane().width, plane().height);
}

function dots(context, points, trails) {
  const colours = [0, 1, 2].map((number) => style(`--class-${number}`));
  const radius = plane().width / 260;
  for (const [number, colour] of colours.entries()) {
    const lines = new Path2D();
    const circles = new Path2D();
    for (let at = 0; at < points.length; at += 3) {
      if (points[at + 2] !== number) continue;
      const [x, y] = place(points[at], points[at + 1]);
      if (trails) {
        lines.moveTo(...place(origin[at], origin[at + 1]));
        lines.lineTo(x, y);
      }
      circles.moveTo(x + radius, y);
      circles.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = radius / 2;
    context.globalAlpha = 0.35;
    context.stroke(lines);
    context.globalAlpha = 0.9;
    context.fill(circles);
  }
  context.globalAlpha = 1;
}

function measure() {
  const found = toy_measure(weight(), STEPS, MEASURED, seed);
  element("sampled-mean").textContent = found.sampled_mean.toFixed(2);
  element("mean").textContent = found.mean.toFixed(2);
  element("distance").textContent = found.total_variation.toFixed(2);
  element("floor").textContent = found.floor.toFixed(2);
  found.free();
}

// Once a frame at most, however often the slider moves.
function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(paint);
}

function play(on) {
  element("sweep").setAttribute("aria-pressed", String(on));
  element("sweep").textContent = on ? "Pause" : "Play";
  if (sweep !== null) cancelAnimationFrame(sweep);
  sweep = null;
  if (!on) return ask();
  const slider = element("toy-w");
  const [low, high] = [Number(slider.min), Number(slider.max)];
  // Begins where the slider stands, goes up and down evenly.
  const start = performance.now() - ((weight() - low) / (high - low)) * SWEEP_MS;
  const frame = (now) => {
    const turn = (Math.max(0, now - start) / SWEEP_MS) % 2;
    slider.value = low + (high - low) * (turn < 1 ? turn : 2 - turn);
    paint();
    sweep = requestAnimationFrame(frame);
  };
  sweep = requestAnimationFrame(frame);
}

export function startToy() {
  element("toy-w").addEventListener("input", () => (sweep === null ? ask() : play(false)));
  element("trails").addEventListener("change", ask);
  element("sweep").addEventListener("click", () => play(sweep === null));
  element("toy-noise").addEventListener("click", () => {
    seed = Math.floor(Math.random() * 2 ** 32);
    origin = null;
    ask();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ask);
  paint();
}
