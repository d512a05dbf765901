// A shop for tests: the demo, or a new shop with an appliance whose slots are files, and a browser page.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

// Starts `cardshop demo` and waits for its first line. `events` collects what it says later.
export async function openShop(...words) {
  const folder = await mkdtemp(join(tmpdir(), "cardshop-e2e-"));
  return start(folder, ["demo", "--data", join(folder, "shop"), ...words]);
}

// Starts `cardshop up` with an empty data folder: a shop on its first day.
export async function openNewShop(...words) {
  const folder = await mkdtemp(join(tmpdir(), "cardshop-e2e-"));
  return start(folder, ["up", "--data", join(folder, "shop"), "--listen", "127.0.0.1:0", "--with-creator", ...words]);
}

async function start(folder, words) {
  const child = spawn(process.env.CARDSHOP_BINARY, ["--json", ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const events = [];
  const heard = new Map();
  const ready = new Promise((resolve, reject) => {
    child.on("exit", (code) => reject(new Error(`the shop ended with ${code}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const event = JSON.parse(line);
      events.push(event);
      heard.get(event.event)?.(event);
      if (event.event === "ready") resolve(event);
    });
  });
  const said = (name) => events.find((e) => e.event === name) ?? new Promise((resolve) => heard.set(name, resolve));
  const close = async () => {
    const gone = new Promise((resolve) => child.on("exit", resolve));
    child.kill("SIGTERM");
    await gone;
    await rm(folder, { recursive: true });
  };
  return { ...(await ready), folder, said, close };
}

export function openBrowser() {
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
}

export async function logIn(page, shop) {
  await page.goto(shop.http);
  await page.getByLabel("User name").fill(shop.username);
  await page.getByLabel("Password").fill(shop.password);
  await page.getByRole("button", { name: "Log in" }).click();
}

// An appliance with slots s01, s02 … that are files of `folder`: a card is in one while its file is there.
export async function openAppliance(shop, joinFile, slots) {
  const folder = join(shop.folder, "appliance");
  const file = (slot) => join(shop.folder, slot);
  const names = Array.from({ length: slots }, (_, n) => `s${String(n + 1).padStart(2, "0")}`);
  const table = names.map((slot) => `[[slot]]\nid = "${slot}"\ndevice = "${file(slot)}"\n`);
  const config = join(shop.folder, "agent.toml");
  await writeFile(config, `data = "${folder}"\njoin = "${joinFile}"\n${table.join("")}`);
  const child = spawn(join(dirname(process.env.CARDSHOP_BINARY), "cardshop-agent"), ["--config", config], {
    stdio: ["ignore", "inherit", "pipe"],
  });
  let log = "";
  child.stderr.on("data", (bytes) => { log += bytes; });
  const gone = new Promise((resolve) => child.on("exit", resolve));
  return {
    // What the console of an appliance would show to the person who compares.
    code: async () => {
      for (;;) {
        const code = /WaitingForApproval\("([A-Z0-9]+)"\)/.exec(log);
        if (code) return code[1];
        await new Promise((resolve) => child.stderr.once("data", resolve));
      }
    },
    insert: async (slot, size, head) => {
      // In one step, so that nobody sees a card that grows.
      const made = await open(`${file(slot)}.new`, "w");
      await made.truncate(size);
      if (head) await made.write(head, 0, head.length, 0);
      await made.close();
      await rename(`${file(slot)}.new`, file(slot));
    },
    log: () => log.split("\n").slice(-20).join("\n"),
    remove: (slot) => rm(file(slot)),
    path: file,
    close: async () => { child.kill("SIGTERM"); await gone; },
  };
}

// What an expert for accessibility finds serious on this page.
export async function seriousFaults(page) {
  const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
  await page.evaluate(await readFile(axe, "utf8"));
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).slice(0, 3).join(" | ")}`);
}

// Collects what a page asks of other places, and its errors; `done` asserts that there was none.
export function watch(page, shop) {
  const wrong = [];
  page.on("request", (r) => r.url().startsWith(shop.http) || r.url().startsWith("data:") || wrong.push(r.url()));
  page.on("pageerror", (e) => wrong.push(e.message));
  return { done: () => assert.deepEqual(wrong, []) };
}
