// The page in headless Chromium, WebGPU on SwiftShader: its pictures are those of `freeguide sample`, its toy moves, and it
// says so where there is no WebGPU. Run by .ci/page; FREEGUIDE_PAGE names the built folder, FREEGUIDE_SCREENSHOT a file to
// take a picture of the page into.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { browser, open, serve } from "./site.js";

const ROOT = new URL("../../..", import.meta.url).pathname;
const MOST_BYTES = 3_000_000;
// Mean absolute difference, of 255.
const CLOSE = 2;
// A software adapter compiles the network's kernels for a while, and a step takes it a while.
const PATIENCE = { timeout: 240_000 };

let site;
let gpu;

before(async () => {
  site = await serve(process.env.FREEGUIDE_PAGE ?? join(ROOT, "out/web"));
  gpu = await browser({ webgpu: true });
});

after(async () => {
  await gpu?.close();
  site?.close();
});

// What `freeguide sample` makes of the embedded model's files, decoded by the browser: bytes of grey, row by row.
async function native(page, { class: chosen, w, seed }) {
  const folder = mkdtempSync(join(tmpdir(), "freeguide-page-"));
  try {
    const sample = ["run", "--quiet", "--", "sample", "--model", "assets/digits-model", "--precision", "f32"];
    const request = ["--class", String(chosen), "--w", String(w), "--seeds", String(seed), "--out", folder];
    execFileSync("cargo", [...sample, ...request], { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
    const files = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".png"));
    assert.equal(files.length, 1, `one picture in ${files}`);
    const png = readFileSync(join(folder, files[0])).toString("base64");
    return await page.evaluate(async (png) => {
      const blob = await (await fetch(`data:image/png;base64,${png}`)).blob();
      const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
      return Array.from({ length: data.length / 4 }, (_, at) => data[4 * at]);
    }, png);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const drawnCount = (page) => page.evaluate(() => window.freeguide.drawn.length);

// The picture that `act` makes the page draw, through the library's readback.
async function drawnBy(page, act) {
  const before = await drawnCount(page);
  await act();
  await page.waitForFunction(
    (before) => document.body.dataset.digits === "idle" && window.freeguide.drawn.length > before,
    before,
    PATIENCE,
  );
  return page.evaluate(() => {
    const picture = window.freeguide.drawn.at(-1);
    return { ...picture, pixels: Array.from(picture.pixels) };
  });
}

// Sets the controls as a person would and presses the button.
async function choose(page, { class: chosen, w, seed }) {
  await page.locator("#seed").fill(String(seed));
  await page.locator("#w").fill(String(w));
  await page.locator(`#classes label:has(input[value="${chosen}"])`).click();
  await page.waitForFunction(() => document.body.dataset.digits === "idle", null, PATIENCE);
  return drawnBy(page, () => page.locator("#draw").click());
}

// Grey levels of a canvas as it is on the screen, one for each of the picture's pixels.
async function onScreen(page, canvas) {
  const png = (await page.locator(canvas).screenshot()).toString("base64");
  return page.evaluate(async (png) => {
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const middle = (at, size) => Math.floor(((at + 0.5) / 8) * size);
    const grey = (at) =>
      context.getImageData(middle(at % 8, bitmap.width), middle(Math.floor(at / 8), bitmap.height), 1, 1).data[0];
    return Array.from({ length: 64 }, (_, at) => grey(at));
  }, png);
}

function difference(a, b) {
  assert.equal(a.length, b.length);
  return a.reduce((sum, value, at) => sum + Math.abs(value - b[at]), 0) / a.length;
}

test("pictures are the native ones of the same seeds", async (t) => {
  const { page, errors } = await open(gpu, site.url);
  await page.waitForFunction(() => document.body.dataset.digits === "idle", null, PATIENCE);
  assert.match(await page.locator("#device").textContent(), /WebGPU/);
  t.diagnostic(`${site.bytes} bytes loaded, ${await page.locator("#device").textContent()}`);
  assert.ok(site.bytes < MOST_BYTES, `the page loads ${site.bytes} bytes`);
  assert.deepEqual(site.missed, []);

  const pictures = [];
  for (const request of [
    { class: 7, w: 2.5, seed: 11 },
    { class: 3, w: 0, seed: 4294967295 },
    { class: "none", w: 1, seed: 5 },
  ]) {
    const picture = await choose(page, request);
    const { pixels, ...made } = picture;
    assert.deepEqual(made, { ...request, class: request.class === "none" ? undefined : request.class });
    const apart = difference(pixels, await native(page, request));
    t.diagnostic(`class ${request.class}, w ${request.w}, seed ${request.seed}: ${apart.toFixed(4)}/255 from native`);
    assert.ok(apart <= CLOSE, `${JSON.stringify(request)}: ${apart}/255`);
    // What a person sees is that picture.
    assert.ok(difference(pixels, await onScreen(page, "#picture")) <= CLOSE, "the canvas shows it");
    pictures.push(pixels);
  }
  // Different requests are different pictures: the comparison above can fail.
  assert.ok(difference(pictures[0], pictures[1]) > 10 && difference(pictures[1], pictures[2]) > 10);
  assert.deepEqual(errors, []);
  await page.close();
});

test("the strip, the row over w and a drag of the slider draw", async () => {
  const { page, errors } = await open(gpu, site.url);
  await page.waitForFunction(() => document.body.dataset.digits === "idle", null, PATIENCE);
  const last = await drawnBy(page, () => page.locator("#ladder").click());
  assert.equal(last.w, 6);
  const ws = await page.evaluate(() => window.freeguide.drawn.map((picture) => picture.w));
  assert.deepEqual(ws.slice(-6), [-1, 0, 1, 2, 4, 6]);
  // Pressing an earlier picture draws it again, bit for bit.
  const [kept] = await page.evaluate(() => window.freeguide.drawn.slice(-6).map((p) => Array.from(p.pixels)));
  const again = await drawnBy(page, () => page.locator('#drawn button[title*="w -1,"]').last().click());
  assert.equal(again.w, -1);
  assert.deepEqual(again.pixels, kept);
  const dragged = await drawnBy(page, () => page.locator("#w").press("ArrowRight"));
  assert.equal(dragged.w, -0.9);
  assert.deepEqual(errors, []);
  await page.close();
});

test("the toy follows its slider", async () => {
  const { page, errors } = await open(gpu, site.url);
  const state = () =>
    page.evaluate(() => {
      const { w, points } = window.freeguide.toy;
      const canvas = document.getElementById("plane");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      // The mean along the direction of each point's class: at 90, 210 and 330 degrees.
      let mean = 0;
      for (let at = 0; at < points.length; at += 3) {
        const angle = 2 * Math.PI * (0.25 + points[at + 2] / 3);
        mean += points[at] * Math.cos(angle) + points[at + 1] * Math.sin(angle);
      }
      return { w, count: points.length / 3, mean: (3 * mean) / points.length, pixels: Array.from(data).filter((_, at) => at % 101 === 0) };
    });
  const at = async (w) => {
    await page.locator("#toy-w").fill(String(w));
    await page.waitForFunction((w) => window.freeguide.toy?.w === w, w);
    return state();
  };
  const [plain, guided] = [await at(0), await at(3)];
  assert.equal(guided.count, plain.count);
  // 0.999 and 1.430 with many more points and steps; see src/diffusion/toy.
  assert.ok(Math.abs(plain.mean - 1) < 0.08 && Math.abs(guided.mean - 1.43) < 0.08, `${plain.mean}, ${guided.mean}`);
  const changed = plain.pixels.filter((value, i) => Math.abs(value - guided.pixels[i]) > 16).length;
  assert.ok(changed > 0.02 * plain.pixels.length, `${changed} values of the canvas changed`);
  await page.waitForFunction(() => document.getElementById("mean").textContent === "1.15");
  await page.locator("#sweep").click();
  await page.waitForFunction(() => window.freeguide.toy.w !== 3);
  assert.deepEqual(errors, []);
  await page.close();
});

test("without WebGPU the page says so, and the toy runs", async () => {
  const plain = await browser({ webgpu: false });
  try {
    for (const [prepare, words] of [
      ["delete Navigator.prototype.gpu", "has no WebGPU"],
      // Nothing is switched on in this browser: it knows WebGPU and has no adapter.
      ["navigator.gpu ?? Object.defineProperty(Navigator.prototype, 'gpu', { value: { requestAdapter: async () => null, getPreferredCanvasFormat: () => 'rgba8unorm', wgslLanguageFeatures: new Set() } })", "no adapter was given"],
    ]) {
      const context = await plain.newContext();
      await context.addInitScript(prepare);
      const page = await context.newPage();
      await page.goto(site.url);
      await page.locator("#notice:visible").waitFor(PATIENCE);
      const said = await page.locator("#notice").textContent();
      assert.ok(said.includes(words), said);
      assert.equal(await page.locator("#draw").isVisible(), false);
      assert.ok(await page.evaluate(() => window.freeguide.toy.points.length > 0));
      await context.close();
    }
  } finally {
    await plain.close();
  }
});

test("a device that is refused or lost is told in words", async () => {
  for (const [prepare, act, words] of [
    ["GPUAdapter.prototype.requestDevice = async () => { throw new Error('none left') }", () => {}, "gave no device"],
    [
      `const request = GPUAdapter.prototype.requestDevice;
       GPUAdapter.prototype.requestDevice = async function (...given) {
         return (window.device = await request.apply(this, given));
       };`,
      () => window.device.destroy(),
      "device was lost",
    ],
  ]) {
    const context = await gpu.newContext();
    await context.addInitScript(prepare);
    const page = await context.newPage();
    await page.goto(site.url);
    await page.waitForFunction(() => document.getElementById("device").dataset.state, null, PATIENCE);
    await page.evaluate(act);
    await page.locator("#notice:visible").waitFor(PATIENCE);
    const said = await page.locator("#notice").textContent();
    assert.ok(said.includes(words), said);
    await context.close();
  }
});

test("a screenshot", { skip: !process.env.FREEGUIDE_SCREENSHOT }, async () => {
  const { page } = await open(gpu, site.url, { colorScheme: "light" });
  await page.waitForFunction(() => document.body.dataset.digits === "idle", null, PATIENCE);
  await drawnBy(page, () => page.locator("#all").click());
  await drawnBy(page, () => page.locator("#ladder").click());
  await page.locator("#toy-w").fill("1.5");
  // Time stands still in the middle of a picture.
  await page.evaluate(() => {
    const next = window.requestAnimationFrame.bind(window);
    const progress = document.getElementById("progress");
    window.requestAnimationFrame = (frame) => next((now) => progress.value !== 38 && frame(now));
  });
  await page.locator('#classes label:has(input[value="3"])').click();
  await page.waitForFunction(() => document.getElementById("progress").value === 38, null, PATIENCE);
  await page.mouse.move(0, 0);
  await page.screenshot({ path: process.env.FREEGUIDE_SCREENSHOT, fullPage: true });
  await page.close();
});
