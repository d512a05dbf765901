// A whole shift by the pages alone, as somebody does it who never read a manual: first login, an appliance that joins, an
// order, cards that are wrong and right, labels, and the parcel.
import assert from "node:assert/strict";
import { mkdir, rename } from "node:fs/promises";
import { after, before, test } from "node:test";
import { logIn, openAppliance, openBrowser, openNewShop, seriousFaults, watch } from "./shop.mjs";

const GB = 1_000_000_000;
let shop, browser, page, appliance, watched;

before(async () => {
  [shop, browser] = await Promise.all([openNewShop(), openBrowser()]);
  await mkdir("output", { recursive: true });
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(90_000);
  watched = watch(page, shop);
});
after(async () => {
  await browser?.close();
  await appliance?.close();
  await shop?.close();
});

// Each step begins where the one before ended: after a failure the others would only fail too.
let broken = false;
const step = (name, run) => test(name, async (t) => {
  if (broken) return t.skip("an earlier step failed");
  broken = true;
  await run().catch(async (error) => {
    await shot("failed");
    t.diagnostic(appliance?.log() ?? "no appliance");
    throw error;
  });
  broken = false;
});
const go = (name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
const shot = (name) => page.screenshot({ path: `output/${name}.png` });
const tile = (name) => page.getByRole("article", { name, exact: true });
const state = (name, word) => page.locator(`article[aria-label="${name}"][data-state="${word}"]`).waitFor();
const press = (name, button) => tile(name).getByRole("button", { name: button }).click();
const notice = (text) => page.locator(".notice").getByText(text).waitFor();

step("a new shop has a login, five first minutes that can be skipped, and nothing to do yet", async () => {
  await logIn(page, shop);
  await page.getByRole("link", { name: "Skip all, to the bench" }).click();
  await page.getByText("No appliance has reported a slot yet.").waitFor();
  await go("Appliances");
  await page.getByText("No appliance has joined yet.").waitFor();
});

step("an appliance joins by a downloaded file and is approved by its code", async () => {
  await page.getByLabel("Label").fill("Front bench");
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download JOIN.TXT" }).click();
  const file = await download;
  assert.equal(file.suggestedFilename(), "JOIN.TXT");
  appliance = await openAppliance(shop, await file.path(), 2);
  const code = await appliance.code();
  await page.goto(`${shop.http}/bench`);
  await page.getByRole("link", { name: "Appliances that wait for approval: 1" }).click();
  assert.equal(await page.locator(".pending .code").textContent(), code, "the same code on both screens");
  assert.deepEqual(await seriousFaults(page), []);
  await shot("appliance-waits");
  await page.getByRole("button", { name: "Approve" }).click();
  await notice("The appliance is approved");
  await go("Bench");
  await state("s01", "empty");
  await state("s02", "empty");
});

step("a slot gets its name, strobes, is held and goes on", async () => {
  await go("Appliances");
  await page.getByRole("link", { name: "Front bench" }).click();
  await page.getByLabel("Name of the slot s01").fill("A");
  await page.getByRole("row").filter({ has: page.getByLabel("Name of the slot s01") }).getByRole("button", { name: "Rename" }).click();
  await notice("The slot has its new name");
  await state("A", "empty");
  await press("A", "Show me");
  await notice("The light of the slot strobes");
  await press("A", "Hold");
  await state("A", "held");
  await press("A", "Let it go on");
  await state("A", "empty");
});

step("a screen on the wall follows the bench without a login, until it is ended", async () => {
  await page.getByRole("link", { name: "Screens" }).click();
  await page.getByLabel("Name of the screen").fill("front-door");
  await page.getByRole("button", { name: "Make a screen" }).click();
  const link = await page.getByRole("link", { name: "Open the screen" }).getAttribute("href");
  const context = await browser.newContext();
  const wall = await context.newPage();
  wall.setDefaultTimeout(90_000);
  await wall.goto(shop.http + link);
  await wall.locator('article[aria-label="A"][data-state="empty"]').waitFor();
  await wall.getByText("Live", { exact: true }).waitFor();
  assert.equal(wall.url(), `${shop.http}/tv`, "the key is not in the address any more");
  assert.equal(await wall.locator("button, nav, input").count(), 0, "nothing to press");
  assert.deepEqual(await seriousFaults(wall), []);
  await go("Bench");
  await press("A", "Hold");
  await wall.locator('article[aria-label="A"][data-state="held"]').waitFor();
  await wall.screenshot({ path: "output/screen.png" });
  await press("A", "Let it go on");
  await wall.locator('article[aria-label="A"][data-state="empty"]').waitFor();
  await page.getByRole("link", { name: "Screens" }).click();
  await page.getByRole("button", { name: "End it" }).click();
  await notice("The screen is ended");
  await wall.getByText("its key was ended").waitFor();
  await context.close();
});

step("an order is placed by its form, and a wrong one is told so", async () => {
  const call = async (path, body, token) => {
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
    const answer = await fetch(`${shop.http}/api/v1${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return answer.json();
  };
  const { username, password } = shop;
  const { access_token: token } = await call("/auth/login", { username, password });
  const files = [{ to: "/data/library/hello.txt", content: "A library of one page.\n".repeat(1000) }];
  const offspot = { name: "school", language: "en", timezone: "UTC" };
  await call("/configurations", { name: "School library", recipe: { files, offspot } }, token);

  await go("Orders");
  await page.getByRole("link", { name: "New order" }).click();
  await page.getByLabel("Configuration").selectOption({ label: "School library" });
  await page.getByLabel("Number of cards").fill("2");
  await page.getByLabel("Name of the recipient").fill("Village school");
  await page.getByLabel("Address", { exact: true }).fill("2 Example Road");
  await page.getByLabel("Country").fill("FR");
  await shot("order-form");
  assert.deepEqual(await seriousFaults(page), []);
  await page.getByRole("button", { name: "Place the order" }).click();
  await notice("The order is placed");
  await page.locator('.status[data-status="ready"]').waitFor();
  assert.deepEqual(await seriousFaults(page), []);
});

step("a card that is too small is refused with both sizes, and a stranger's data asks first", async () => {
  await go("Bench");
  await state("A", "wanted");
  await appliance.insert("s01", 20_000_000);
  await state("A", "unsuitable");
  await tile("A").getByText(/Needs at least .*, this card has 20 MB/).waitFor();
  await appliance.remove("s01");
  await state("A", "wanted");
  await appliance.insert("s01", 4 * GB, foreignCard());
  await state("A", "confirm");
  await shot("bench-asks");
  assert.deepEqual(await seriousFaults(page), []);
  await press("A", "Erase this card");
  await state("A", "done");
  await tile("A").getByText("Take the card, copy 1 of 2").waitFor();
});

step("a finished card that comes back is guarded until it is released", async () => {
  await rename(appliance.path("s01"), appliance.path("finished"));
  await state("A", "wanted");
  await rename(appliance.path("finished"), appliance.path("s02"));
  await state("s02", "guarded");
  await tile("s02").getByText(/Finished card of order .*, not shipped: take it out/).waitFor();
  await tile("s02").getByRole("button", { name: "Allow to erase" }).waitFor();
  await appliance.remove("s02");
  await state("s02", "empty"); // the other slot waits for the last card
});

step("the second card is written without JavaScript on the page", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const plain = await context.newPage();
  await logIn(plain, shop);
  const slot = plain.getByRole("article", { name: "A", exact: true });
  await slot.getByRole("button", { name: "Show me" }).click();
  await plain.locator(".notice").getByText("The light of the slot strobes").waitFor();
  await appliance.insert("s01", 4 * GB);
  for (;;) {
    await plain.reload();
    if ((await slot.getAttribute("data-state")) === "done") break;
  }
  await context.close();
});

step("written cards have labels and records, and are shipped, never more than there are", async () => {
  await go("Orders");
  await page.getByRole("row", { name: /School library/ }).getByRole("link").click();
  await page.locator('.status[data-status="written"]').waitFor();
  // Papers come with the session of the page.
  const paper = async (address) => (await page.request.get(new URL(address, page.url()).href)).headers()["content-type"];
  const slip = page.getByRole("link", { name: "Delivery slip (PDF)" });
  assert.equal(await paper(await slip.getAttribute("href")), "application/pdf");
  const form = page.locator('form[action$="/labels"]');
  await form.getByRole("combobox").selectOption("zpl");
  const labels = await form.evaluate((f) => `${f.action}?${new URLSearchParams(new FormData(f))}`);
  assert.equal(await paper(labels), "text/plain; charset=utf-8");
  await page.getByRole("link", { name: "Label sheet" }).click();
  assert.equal(await page.locator(".label").count(), 2);
  assert.equal(await page.locator(".label .qr svg").count(), 2);
  await shot("labels");
  const code = (await page.locator(".label").first().innerText()).split("\n").at(-1).trim();
  // A scanner types without looking where the cursor is.
  await page.locator("h1").click();
  await page.keyboard.type(code);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: `Card ${code}` }).waitFor();
  assert.deepEqual(await seriousFaults(page), []);
  await page.locator("dd a").first().click();

  const count = page.getByLabel("Cards in the parcel");
  assert.equal(await count.inputValue(), "2");
  await count.fill("3");
  await page.getByRole("button", { name: "Ship", exact: true }).click();
  assert.equal(await page.locator(".notice").count(), 0, "the browser holds the form back");
  await count.fill("1");
  await page.getByLabel("Tracking code").fill("AB 1");
  await page.getByRole("button", { name: "Ship", exact: true }).click();
  await notice("The shipment is noted");
  await page.getByRole("button", { name: "Ship", exact: true }).click();
  await page.locator('.status[data-status="shipped"]').waitFor();
  await shot("order-shipped");
  watched.done();
});

step("statistics, appliances, cards and preferences pass the expert for accessibility, in both languages and dark", async () => {
  for (const [language, colorScheme, bench] of [["fr", "light", "Établi"], ["en", "dark", "Bench"]]) {
    await page.emulateMedia({ colorScheme });
    await page.goto(`${shop.http}/preferences`);
    await page.locator("select[name=language]").selectOption(language);
    await page.locator("main button").click();
    await page.getByRole("link", { name: bench, exact: true }).waitFor();
    for (const path of ["bench", "orders", "orders/new", "appliances", "cards", "statistics", "preferences"]) {
      await page.goto(`${shop.http}/${path}`);
      assert.deepEqual(await seriousFaults(page), [], `${path} in ${language}, ${colorScheme}`);
      await shot(`${path.replace("/", "-")}-${language}`);
    }
  }
  await page.setViewportSize({ width: 390, height: 800 });
  await page.goto(`${shop.http}/bench`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(wide <= 0, `a telephone would have to scroll ${wide} px sideways`);
  await shot("bench-phone");
});

step("the log of an appliance is read, and the page goes on by itself when the shop's stream breaks", async () => {
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.goto(`${shop.http}/appliances`);
  await page.getByRole("link", { name: "Front bench" }).click();
  await page.getByRole("button", { name: "Show its log" }).click();
  await page.locator("pre").getByText("state=Done").first().waitFor();
  await page.goto(`${shop.http}/bench`);
  await page.getByText("Live", { exact: true }).waitFor();
  await page.evaluate(() => { window.loadedOnce = true; });
  await page.context().setOffline(true);
  await appliance.remove("s01");
  await page.context().setOffline(false);
  await state("A", "empty");
  assert.equal(await page.evaluate(() => window.loadedOnce), true, "the page was not loaded again");
});

// A card from a camera: a boot record, and a FAT32 file system with one folder. (With fewer clusters than FAT32 should
// have, as some programs make it: such a card was once taken for an empty one.)
function foreignCard() {
  const sector = 512, start = 2048, reserved = 32, fat = 1024;
  const bytes = Buffer.alloc((start + reserved + 2 * fat + 64) * sector);
  bytes.writeUInt8(0x0c, 446 + 4); // partition type FAT32, LBA
  bytes.writeUInt32LE(start, 446 + 8);
  bytes.writeUInt32LE(4_000_000, 446 + 12);
  bytes.writeUInt16LE(0xaa55, 510);
  const at = start * sector;
  Buffer.from([0xeb, 0x58, 0x90]).copy(bytes, at);
  bytes.write("MSDOS5.0", at + 3, "latin1");
  bytes.writeUInt16LE(sector, at + 11);
  bytes.writeUInt8(64, at + 13); // sectors of a cluster
  bytes.writeUInt16LE(reserved, at + 14);
  bytes.writeUInt8(2, at + 16); // FATs
  bytes.writeUInt8(0xf8, at + 21);
  bytes.writeUInt32LE(4_000_000, at + 32);
  bytes.writeUInt32LE(fat, at + 36);
  bytes.writeUInt32LE(2, at + 44); // the root folder's cluster
  bytes.writeUInt16LE(1, at + 48);
  bytes.writeUInt8(0x29, at + 66);
  bytes.write("CAMERA     FAT32   ", at + 71, "latin1");
  bytes.writeUInt16LE(0xaa55, at + 510);
  for (const copy of [0, 1]) {
    const table = at + (reserved + copy * fat) * sector;
    [0x0ffffff8, 0x0fffffff, 0x0fffffff].forEach((entry, n) => bytes.writeUInt32LE(entry, table + 4 * n));
  }
  const root = at + (reserved + 2 * fat) * sector;
  bytes.write("CAMERA     ", root, "latin1");
  bytes.writeUInt8(0x08, root + 11);
  bytes.write("DCIM       ", root + 32, "latin1");
  bytes.writeUInt8(0x10, root + 32 + 11);
  return bytes;
}
