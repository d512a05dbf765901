// The bench page: behind a login, live, and from this shop alone.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { logIn, openBrowser, openShop } from "./shop.mjs";

let shop, browser;
before(async () => {
  [shop, browser] = await Promise.all([openShop(), openBrowser()]);
  await mkdir("output", { recursive: true });
});
after(async () => {
  await browser?.close();
  await shop?.close();
});

test("the bench needs a login, and a wrong password is told so", async () => {
  const page = await browser.newPage();
  await page.goto(`${shop.http}/bench`);
  assert.match(page.url(), /\/login$/);
  await logIn(page, { ...shop, password: "wrong" });
  await page.getByRole("alert").waitFor();
  assert.match(page.url(), /\/login$/);
  await page.close();
});

test("tiles follow the slots without a reload, and nothing is loaded from elsewhere", async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 760 } });
  const elsewhere = [];
  const errors = [];
  page.on("request", (r) => r.url().startsWith(shop.http) || elsewhere.push(r.url()));
  page.on("pageerror", (e) => errors.push(e.message));
  page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
  await logIn(page, shop);
  await page.locator(".tile").first().waitFor();
  await page.evaluate(() => { window.loadedOnce = true; });
  await shop.said("done");
  // The last card stays until virtual hands take it; every order row and tile was replaced in place.
  await page.locator("#orders").getByText("written").waitFor();
  await page.locator("#orders").getByText("3 of 3").waitFor();
  assert.equal(await page.locator(".tile").count(), 4);
  await page.screenshot({ path: "output/bench.png" });
  assert.equal(await page.evaluate(() => window.loadedOnce), true, "the page was not loaded again");
  assert.deepEqual(elsewhere, []);
  assert.deepEqual(errors, []);
  await page.close();
});

test("without JavaScript the page shows the same after a reload", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await logIn(page, shop);
  assert.equal(await page.locator(".tile").count(), 4);
  await context.close();
});

test("open orders beyond the newest are shown too, and the page is not loaded again and again", async () => {
  const call = async (method, path, token, body) => {
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
    const answer = await fetch(`${shop.http}/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return answer.json();
  };
  const { username, password } = shop;
  const { access_token: token } = await call("POST", "/auth/login", "", { username, password });
  const [configuration] = (await call("GET", "/configurations", token)).items;
  const recipient = { name: "Village school", address: "2 Example Road", country: "FR" };
  const order = { kind: "physical", configuration: configuration.id, quantity: 1, channel: configuration.channel, recipient };
  const ids = [];
  for (let n = 0; n < 25; n++) ids.push((await call("POST", "/orders", token, order)).id);

  const page = await browser.newPage();
  await logIn(page, shop);
  await page.locator(".tile").first().waitFor();
  await page.evaluate(() => { window.loadedOnce = true; });
  await page.locator(`[id="${ids[0]}"]`).waitFor();
  const shown = await page.locator("#orders tr").evaluateAll((rows) => rows.map((row) => row.id));
  assert.deepEqual(shown.slice(0, 25), ids.toReversed(), "newest first");
  assert.equal(await page.evaluate(() => window.loadedOnce), true, "the page was not loaded again");
  await page.close();
});

test("logging out ends the session", async () => {
  const page = await browser.newPage();
  await logIn(page, shop);
  await page.getByRole("button", { name: /Log out/ }).click();
  await page.goto(`${shop.http}/bench`);
  assert.match(page.url(), /\/login$/);
  await page.close();
});
