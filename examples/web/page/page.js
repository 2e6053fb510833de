// The page's entry: loads the program, starts both halves, and says in words what is missing.

import init from "./freeguide.js";
import { startDigits } from "./digits.js";
import { startToy } from "./toy.js";

const element = (id) => document.getElementById(id);

// What a person can do about it stands in the words.
function missing() {
  if (!window.isSecureContext) {
    return "Browsers offer WebGPU only to pages over https or from localhost; this one came another way.";
  }
  return navigator.gpu
    ? null
    : "This browser has no WebGPU, or it is switched off. Current versions of Chrome, Edge and Safari have it, and Firefox on most systems.";
}

// Says why there are no digits; what fails after it follows from the first.
function refuse(what, hint = "The toy on this page runs without a GPU.") {
  if (!element("notice").hidden) return;
  element("device").textContent = "no WebGPU device";
  element("device").dataset.state = "missing";
  const notice = element("notice");
  const title = document.createElement("strong");
  title.textContent = "The digits cannot be drawn here.";
  const paragraphs = [what, hint].map((text) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    return paragraph;
  });
  notice.replaceChildren(title, ...paragraphs);
  notice.hidden = false;
  element("digits").classList.add("off");
}

// What the browser tells of the GPU; little, so that nobody is known by it.
async function adapterName() {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  const { vendor, architecture, description } = adapter?.info ?? {};
  return description || [vendor, architecture].filter(Boolean).join(" ");
}

// Marks along a slider's scale; a whole number each.
function marks() {
  for (const scale of document.querySelectorAll(".scale")) {
    const slider = scale.previousElementSibling;
    const [low, high] = [Number(slider.min), Number(slider.max)];
    for (let mark = low; mark <= high; mark += 1) {
      const label = document.createElement("span");
      label.textContent = String(mark).replace("-", "−");
      label.style.setProperty("--at", (mark - low) / (high - low));
      scale.append(label);
    }
  }
}

async function main() {
  marks();
  try {
    await init();
  } catch (error) {
    refuse("The page's program did not load.", error.message);
    return;
  }
  startToy();
  const reason = missing();
  if (reason) {
    refuse(reason);
    return;
  }
  window.addEventListener("freeguide-failure", (event) => refuse(event.detail));
  try {
    await startDigits();
    element("device").textContent = ["WebGPU", await adapterName()].filter(Boolean).join(" · ");
    element("device").dataset.state = "ready";
  } catch (error) {
    refuse(error.message);
  }
}

main();
