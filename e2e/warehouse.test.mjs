// A browser as a client of the warehouse: what a person does with the link of a virtual order.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { openBrowser, openShop } from "./shop.mjs";

let shop, browser;
before(async () => {
  [shop, browser] = await Promise.all([openShop(), openBrowser()]);
});
after(async () => {
  await browser?.close();
  await shop?.close();
});

test("a browser downloads an image by its public link, whole and by range, until the link ends", async () => {
  await shop.said("done");
  const json = { "content-type": "application/json" };
  const { username, password } = shop;
  const login = await fetch(`${shop.http}/api/v1/auth/login`, { method: "POST", headers: json, body: JSON.stringify({ username, password }) });
  const bearer = { ...json, authorization: `Bearer ${(await login.json()).access_token}` };
  const [image] = (await (await fetch(`${shop.warehouse}/images`, { headers: bearer })).json()).items;
  const bytes = Buffer.from(await (await fetch(`${shop.warehouse}/images/${image.id}`, { headers: bearer })).arrayBuffer());
  const link = `${shop.warehouse}/links/01ja0000000000000000000000`;
  const body = JSON.stringify({ image: image.id, name: "Library", expires: "2099-01-01T00:00:00Z" });
  const { path } = await (await fetch(link, { method: "PUT", headers: bearer, body })).json();

  const page = await browser.newPage();
  const begun = page.waitForEvent("download");
  // The navigation becomes a download, which the browser reports as an aborted one.
  await page.goto(`${shop.warehouse}${path}`).catch(() => {});
  const download = await begun;
  assert.equal(download.suggestedFilename(), "Library.img");
  assert.ok(bytes.equals(await readFile(await download.path())));

  await page.goto(`${shop.warehouse}/health`);
  const part = (range) => page.evaluate(async ([path, range]) => {
    const answer = await fetch(path, { headers: { range } });
    return [answer.status, answer.headers.get("content-range"), [...new Uint8Array(await answer.arrayBuffer())]];
  }, [path, range]);
  assert.deepEqual(await part("bytes=512-521"), [206, `bytes 512-521/${bytes.length}`, [...bytes.subarray(512, 522)]]);
  assert.equal((await part(`bytes=${bytes.length}-`))[0], 416);

  assert.equal((await fetch(link, { method: "DELETE", headers: bearer })).status, 204);
  assert.equal((await part("bytes=0-1"))[0], 410);
  await page.close();
});
