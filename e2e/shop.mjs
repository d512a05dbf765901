// A shop for tests: the demo in a process of its own, and a browser page.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

// Starts `cardshop demo` and waits for its first line. `events` collects what it says later.
export async function openShop(...words) {
  const folder = await mkdtemp(join(tmpdir(), "cardshop-e2e-"));
  const child = spawn(process.env.CARDSHOP_BINARY, ["--json", "demo", "--data", join(folder, "shop"), ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const events = [];
  const heard = new Map();
  const ready = new Promise((resolve, reject) => {
    child.on("exit", (code) => reject(new Error(`the demo ended with ${code}`)));
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
  return { ...(await ready), said, close };
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
