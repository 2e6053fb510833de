// The built page on a local port, and Chromium with or without WebGPU.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join, normalize } from "node:path";
import { chromium } from "playwright-core";

const TYPES = { html: "text/html", css: "text/css", js: "text/javascript", wasm: "application/wasm" };
// Offline and quiet: Chromium's own services have nothing to look for.
const QUIET = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
// SwiftShader in place of a GPU, for the compositor too: else there are no textures for a canvas to be drawn into, and the
// device is lost at the first.
const WEBGPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
  "--use-vulkan=swiftshader",
  "--use-angle=swiftshader",
  // A busy machine compiles kernels for longer than the watchdog waits.
  "--disable-gpu-watchdog",
];

// What a plain file server does; `bytes` counts what it has sent.
export async function serve(folder) {
  const site = { bytes: 0, missed: [] };
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, "http://localhost").pathname;
    const name = normalize(path === "/" ? "/index.html" : path);
    try {
      const body = await readFile(join(folder, name));
      site.bytes += body.length;
      response.writeHead(200, { "content-type": TYPES[name.split(".").pop()] ?? "application/octet-stream" });
      response.end(body);
    } catch {
      site.missed.push(path);
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  site.url = `http://127.0.0.1:${server.address().port}/`;
  site.close = () => server.close();
  return site;
}

// Playwright gives each a fresh profile.
export function browser({ webgpu }) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: webgpu ? [...QUIET, ...WEBGPU] : QUIET,
  });
}

// A page whose errors are kept.
export async function open(chromium, url, options = {}) {
  const page = await chromium.newPage({ viewport: { width: 1200, height: 900 }, ...options });
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(url);
  return { page, errors };
}
