// The office: a school's manager makes a configuration, chooses content for it, keeps addresses, and orders; with and without
// JavaScript, in both languages. Content comes from a library of this test's own.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { openBrowser, openNewShop, seriousFaults, watch } from "./shop.mjs";

const GB = 1_000_000_000;
const PASSWORD = "correct-horse-battery";
let library, shop, browser, page, watched, staff;

const entry = (name, title, language, gb) => `<entry><id>urn:uuid:${name}</id><name>${name}</name><title>${title}</title>
  <language>${language}</language><category>wikipedia</category><updated>2026-01-01T00:00:00Z</updated>
  <link rel="http://opds-spec.org/acquisition" type="application/x-zim" length="${gb * GB}"
    href="https://download.example/${name}.zim"/></entry>`;
const FEED = `<feed>${entry("wiki_fr", "Wikipédia", "fra", 20)}${entry("wiki_en", "Wikipedia", "eng", 90)}${
  entry("ted", "TED talks", "eng", 2)}</feed>`;

before(async () => {
  library = createServer((_, answer) => answer.end(FEED));
  await new Promise((resolve) => library.listen(0, "127.0.0.1", resolve));
  const feed = `http://127.0.0.1:${library.address().port}/catalog`;
  [shop, browser] = await Promise.all([openNewShop("--catalogue", feed, "--catalogue-private"), openBrowser()]);
  await mkdir("output", { recursive: true });
  staff = (await call("/auth/login", { username: shop.username, password: shop.password })).access_token;
  for (const username of ["awa", "stranger"]) {
    const organization = await call("/organizations", { name: `School of ${username}`, units: 5 }, staff);
    await call("/users", { username, password: PASSWORD, role: "manager", organization: organization.id }, staff);
  }
  while ((await call("/content", null, staff)).items.length === 0) await new Promise((resolve) => setImmediate(resolve));
  page = await open("awa");
  watched = watch(page, shop);
});
after(async () => {
  await browser?.close();
  await shop?.close();
  library?.close();
});

async function call(path, body, token) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const request = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const answer = await fetch(`${shop.http}/api/v1${path}`, request);
  assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

// Somebody's page, in a browser of its own.
async function open(username, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en", ...options });
  const opened = await context.newPage();
  opened.setDefaultTimeout(20_000);
  const password = username === shop.username ? shop.password : PASSWORD;
  await opened.goto(`${shop.http}/login`);
  await opened.locator("[name=username]").fill(username);
  await opened.locator("[name=password]").fill(password);
  await opened.locator("main button, form button").first().click();
  await opened.waitForURL(`${shop.http}/bench`);
  return opened;
}

// Each step begins where the one before ended: after a failure the others would only fail too.
let broken = false;
const step = (name, run) => test(name, async (t) => {
  if (broken) return t.skip("an earlier step failed");
  broken = true;
  await run().catch(async (error) => {
    await page.screenshot({ path: "output/office-failed.png" });
    throw error;
  });
  broken = false;
});
const go = (name) => page.getByRole("navigation", { name: "Cardshop" }).getByRole("link", { name, exact: true }).click();
const press = (name) => page.getByRole("button", { name, exact: true }).click();
const follow = (name) => page.getByRole("link", { name, exact: true }).click();
const notice = (text) => page.locator(".notice").getByText(text).waitFor();
const told = (text) => page.locator("p.fault[role=alert]").getByText(text).waitFor();
// For eyes that see little, in the dark, and on a phone.
async function fit(opened = page) {
  assert.deepEqual(await seriousFaults(opened), []);
  await opened.emulateMedia({ colorScheme: "dark" });
  assert.deepEqual(await seriousFaults(opened), []);
  await opened.emulateMedia({ colorScheme: "light" });
  const size = opened.viewportSize();
  await opened.setViewportSize({ width: 390, height: 844 });
  const wide = await opened.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(wide <= 0, `${opened.url()} is ${wide} points wider than a phone`);
  await opened.setViewportSize(size);
}

let configuration;
step("a configuration is made by its form, and a wrong one is told so and loses nothing", async () => {
  await go("Configurations");
  await follow("New configuration");
  await page.getByLabel("Name", { exact: true }).fill("Kita");
  await page.getByLabel("Password of the Wi-Fi").fill("short");
  await page.getByLabel("Time zone of the hotspot").fill("Africa/Bamako");
  await press("Save");
  await told("wifi_password: must be 8 to 63 characters");
  assert.equal(await page.getByLabel("Time zone of the hotspot").inputValue(), "Africa/Bamako");
  await fit();
  await page.getByLabel("Password of the Wi-Fi").fill("correct horse");
  await press("Save");
  await notice("It is made");
  configuration = new URL(page.url()).pathname;
  await fit();
});

step("content is searched and ticked, and what it needs follows each tick", async () => {
  await follow("Content");
  await page.locator("#needs").getByText("8 GB", { exact: true }).waitFor();
  await page.getByLabel("Sort").selectOption("Largest first");
  await page.getByRole("main").getByRole("button", { name: "Search", exact: true }).click();
  assert.deepEqual(await page.locator("tbody tr td:first-child").allInnerTexts(), ["Wikipedia", "Wikipédia", "TED talks"]);
  await page.getByLabel("Wikipédia").check();
  await page.locator("#needs").getByText("32 GB", { exact: true }).waitFor();
  await page.getByLabel("Wikipedia").check();
  await page.locator("#needs").getByText("128 GB", { exact: true }).waitFor();
  await page.getByLabel("Wikipedia").uncheck();
  await page.locator("#needs").getByText("32 GB", { exact: true }).waitFor();
  await fit();
  await page.screenshot({ path: "output/office-content.png" });
  await press("Save");
  await notice("Saved");
  await page.getByText("wiki_fr").waitFor();
});

step("without JavaScript, in French, a button computes the same", async () => {
  const plain = await open("awa", { javaScriptEnabled: false, locale: "fr" });
  await plain.goto(`${shop.http}${configuration}/content?language=eng`);
  assert.equal(await plain.locator("tbody tr").count(), 2);
  await plain.getByLabel("TED talks").check();
  await plain.locator("#needs").getByText("20.0 Go").or(plain.locator("#needs").getByText("20,0 Go")).waitFor();
  await plain.getByRole("button", { name: "Calculer" }).click();
  await plain.locator("#needs").getByText("22,0 Go").waitFor();
  assert.ok(await plain.getByLabel("TED talks").isChecked(), "what was ticked stays ticked");
  await plain.getByRole("button", { name: "Enregistrer" }).click();
  await plain.locator(".notice").getByText("Enregistré").waitFor();
  await plain.getByText("ted", { exact: false }).first().waitFor();
  await plain.context().close();
});

step("a logo is shown as a card gets it, and what is no picture is refused", async () => {
  await page.goto(`${shop.http}${configuration}/branding`);
  await page.getByLabel("Colour").fill("#0a56c2");
  const file = (name, buffer) => ({ name, mimeType: "image/png", buffer });
  await page.getByLabel("Logo").setInputFiles(file("logo.png", Buffer.from("no picture")));
  await press("Save");
  await told("branding.logo.png: is no PNG, JPEG or WebP picture");
  const picture = await page.screenshot({ clip: { x: 0, y: 0, width: 300, height: 100 } });
  await page.getByLabel("Logo").setInputFiles(file("logo.png", picture));
  await press("Save");
  await notice("Saved");
  await follow("Look");
  const shown = page.locator("img.logo");
  assert.deepEqual(await shown.evaluate(async (img) => (await img.decode(), [img.naturalWidth, img.naturalHeight])), [300, 100]);
  await fit();
  await page.screenshot({ path: "output/office-branding.png" });
});

step("an app is typed in, and one that cannot be is told so", async () => {
  await page.goto(`${shop.http}${configuration}/apps`);
  const app = page.getByRole("group", { name: "App 1" });
  await app.getByLabel("Name", { exact: true }).fill("kiwix");
  await app.getByLabel("Container image").fill("two words");
  await press("Save");
  await told("apps[0].image: must be a name like");
  await app.getByLabel("Container image").fill("ghcr.io/offspot/kiwix-serve:dev");
  await app.getByLabel("Environment").fill("TITLE={name}");
  await fit();
  await press("Save");
  await notice("Saved");
});

step("a configuration is copied, taken along as a file, and deleted after a question", async () => {
  await press("Duplicate");
  await notice("This is the copy");
  const copy = new URL(page.url()).pathname;
  const download = page.waitForEvent("download");
  await follow("Download with passwords");
  const chunks = [];
  for await (const chunk of await (await download).createReadStream()) chunks.push(chunk);
  const file = JSON.parse(Buffer.concat(chunks).toString());
  assert.equal(file.recipe.configuration.wifi_password, "correct horse");
  await follow("Delete");
  await page.getByText("Delete Kita (2)?").waitFor();
  await fit();
  await press("Delete");
  await notice("It is deleted");
  assert.equal((await page.goto(shop.http + copy)).status(), 404);
  await page.goto(`${shop.http}/configurations`);
  const upload = async (content) => {
    const buffer = Buffer.from(JSON.stringify(content));
    await page.getByLabel("File of a configuration").setInputFiles({ name: "c.json", mimeType: "application/json", buffer });
    await press("Import");
  };
  await upload({ ...file, strange: 1 });
  await told('has a key "strange"');
  file.recipe.configuration.content.push({ name: "gone_fr", flavour: "maxi" });
  await upload({ ...file, name: "From a file" });
  await notice("The file is imported");
  await page.locator("#needs").getByText("Not in the catalogue any more").waitFor();
  await page.getByText("gone_fr maxi").first().waitFor();
  await fit();
  await go("Configurations");
  await page.getByRole("row").filter({ hasText: "From a file" }).getByText("Not in the catalogue any more").waitFor();
  await fit();
});

step("an address is kept, and a number that is none is told so", async () => {
  await go("Addresses");
  await follow("New address");
  await page.getByLabel("Person").fill("Awa Traoré");
  await page.getByLabel("Street").fill("2 rue X\nB.P. 7");
  await page.getByLabel("City", { exact: true }).fill("Kita");
  await page.getByLabel("Country").selectOption({ label: "Mali" });
  await page.getByLabel("Phone").fill("20 21 22 23");
  await press("Save");
  await told("field phone: must begin with +");
  await fit();
  await page.getByLabel("Phone").fill("00223 20 21 22 23");
  await press("Save");
  await notice("It is made");
  const row = page.getByRole("row").filter({ hasText: "Awa Traoré" });
  assert.match(await row.innerText(), /2 rue X, B\.P\. 7, Kita\tMali\t\+22320212223\tA parcel reaches it/);
  await fit();
  await follow("New address");
  await page.getByLabel("Person").fill("Somewhere");
  await press("Save");
  await page.getByText(/No parcel reaches it: it lacks Street/).waitFor();
});

step("an order tells what fits, what it costs and when another must end first, and is placed to the book's address", async () => {
  await go("Orders");
  await follow("New order");
  await page.getByLabel("Configuration").selectOption({ label: "Kita" });
  await page.locator("#media").getByText(/16 GB: too small, the image needs/).waitFor({ state: "attached" });
  assert.equal(await page.locator("#media option:disabled").count(), 2);
  await page.getByLabel("Number of cards").fill("9");
  await page.getByLabel("Number of cards").blur();
  await page.getByText("This order costs 9 units; you have 5").waitFor();
  await page.getByText("That is more than you have").waitFor();
  await page.getByLabel("Number of cards").fill("2");
  await page.getByLabel("Number of cards").blur();
  await page.getByText("This order costs 2 units; you have 5").waitFor();
  const book = page.getByLabel("Address from the book");
  assert.equal(await book.locator("option:disabled").count(), 1, "a parcel would not arrive");
  await book.selectOption({ index: await book.locator("option").allInnerTexts().then((all) => all.findIndex((t) => t.includes("Kita"))) });
  await fit();
  await page.screenshot({ path: "output/office-order.png", fullPage: true });
  await press("Place the order");
  await notice("The order is placed");
  await page.getByText("B.P. 7").waitFor();
  await go("Orders");
  await follow("New order");
  await page.getByText("Your organization has an open order, Kita").waitFor();
  await page.goto(`${shop.http}${configuration}?delete=1`);
  await press("Delete");
  await page.getByText(/this configuration is needed by order Kita/).waitFor();
});

step("what is another organization's is not there for a stranger, and sizes of cards are staff's", async () => {
  const { items } = await call("/addresses", null, staff);
  const stranger = await open("stranger");
  for (const path of [configuration, `${configuration}/general`, `${configuration}/export?secrets=1`, `/addresses/${items[0].id}`]) {
    const answer = await stranger.request.get(shop.http + path);
    assert.equal(answer.status(), 404, path);
    assert.ok(!(await answer.text()).includes("correct horse"));
  }
  assert.equal((await stranger.goto(`${shop.http}/media`)).status(), 403);
  await stranger.context().close();
  const office = await open(shop.username, { locale: "fr" });
  await office.goto(`${shop.http}/media`);
  await office.getByRole("heading", { name: "Tailles de cartes" }).waitFor();
  await office.getByLabel("Chacune de ces cartes a au moins").first().fill("7 700 000 000");
  await office.getByRole("button", { name: "Enregistrer" }).first().click();
  await office.locator(".notice").getByText("Enregistré").waitFor();
  await fit(office);
  await office.context().close();
});

test("no page asked another place for anything, and none had an error", () => watched.done());
