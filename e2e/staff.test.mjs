// The back office in a browser, with and without JavaScript: the first five minutes, people and what they may, logs, keys,
// maintenance, the own account; and what an expert for accessibility finds on each page, in both languages.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { logIn, openBrowser, openNewShop, seriousFaults, watch } from "./shop.mjs";

const PASSWORD = "correct horse battery";
let shop, browser, page, watched, order;

before(async () => {
  [shop, browser] = await Promise.all([openNewShop(), openBrowser()]);
  await mkdir("output", { recursive: true });
  page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
  page.setDefaultTimeout(30_000);
  watched = watch(page, shop);
});
after(async () => {
  await browser?.close();
  await shop?.close();
});

// Each step begins where the one before ended: after a failure the others would only fail too.
let broken = false;
const step = (name, run) => test(name, async (t) => {
  if (broken) return t.skip("an earlier step failed");
  broken = true;
  await run().catch(async (error) => {
    await shot("failed");
    throw error;
  });
  broken = false;
});
const shot = (name) => page.screenshot({ path: `output/staff-${name}.png`, fullPage: true });
const open = (path) => page.goto(shop.http + path);
const press = (name, where = page) => where.getByRole("button", { name, exact: true }).click();
const notice = (text, where = page) => where.locator(".notice").getByText(text).waitFor();
const noFault = async (where = page) => assert.deepEqual(await seriousFaults(where), [], where.url());

async function call(path, body, token) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(`${shop.http}/api/v1${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  return answer.json();
}

step("a new shop is set up in five steps: a password, who orders, who sends", async () => {
  await logIn(page, shop);
  await page.getByText("Step 1 of 5").waitFor();
  await noFault();
  await shot("first");
  await page.getByLabel("Password now").fill("not this");
  await page.getByLabel("New password").fill(PASSWORD);
  await press("Change the password");
  await page.getByRole("alert").getByText("the password is not right").waitFor();
  await page.getByLabel("Password now").fill(shop.password);
  await page.getByLabel("New password").fill(PASSWORD);
  await press("Change the password");
  shop.password = PASSWORD;
  await page.getByText("Step 2 of 5").waitFor();
  await page.getByLabel("Name", { exact: true }).fill("School");
  await press("Make");
  await page.getByText("Step 3 of 5").waitFor();
  await page.getByLabel("Name of the sender").fill("The Shop");
  await press("Save");
  await page.getByRole("link", { name: "Next" }).click();
  await page.getByText("Step 5 of 5").waitFor();
  await noFault();
  await page.getByRole("link", { name: "Next" }).click();
  await page.getByText("The shop is ready").waitFor();
  await page.getByRole("navigation").getByRole("link", { name: "Back office" }).click();
  await page.getByRole("heading", { name: "What is left to set up" }).waitFor();
  assert.equal(await page.getByText("Make the first organization").count(), 0);
  await shot("office");
});

step("a user is invited by a link, sets a password with it and sees what its role may", async () => {
  await page.getByRole("link", { name: "Users", exact: true }).click();
  await page.getByLabel("User name").fill("ada");
  await page.getByLabel("Role").last().selectOption({ label: "Manager" });
  await press("Make");
  const link = await page.locator("#secret").textContent();
  await shot("invited");
  await noFault();
  const context = await browser.newContext();
  const own = await context.newPage();
  await own.goto(link);
  await own.getByLabel("New password").waitFor();
  assert.equal(own.url(), `${shop.http}/password`, "the token is not in the address any more");
  await noFault(own);
  await own.getByLabel("New password").fill(PASSWORD);
  await press("Set the password", own);
  await own.getByRole("link", { name: "Log in" }).click();
  await own.getByLabel("User name").fill("ada");
  await own.getByLabel("Password").fill(PASSWORD);
  await press("Log in", own);
  await own.getByRole("navigation").getByRole("link", { name: "Back office" }).click();
  await own.getByRole("link", { name: "Auto-images" }).waitFor();
  assert.equal(await own.getByRole("link", { name: "Users", exact: true }).count(), 0);
  assert.equal((await own.goto(`${shop.http}/office/users`)).status(), 403);
  await page.getByRole("button", { name: "Lock out" }).click();
  await notice("Saved");
  await own.goto(`${shop.http}/bench`);
  assert.match(own.url(), /\/login$/, "who is locked out is out at once");
  await context.close();
});

step("without JavaScript an organization is made, given units, changed and removed after a question", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const plain = await context.newPage();
  await logIn(plain, shop);
  await plain.goto(`${shop.http}/office/organizations`);
  await plain.getByLabel("Name", { exact: true }).fill("Library");
  await press("Make", plain);
  await notice("Made", plain);
  await plain.getByLabel("Units to add").fill("7");
  await plain.getByLabel("Reason").fill("a gift");
  await press("Book", plain);
  await notice("The units are booked", plain);
  await plain.getByLabel("Units to add").fill("-9");
  await plain.getByLabel("Reason").fill("a mistake");
  await press("Book", plain);
  await plain.getByRole("alert").getByText("would leave less than 0").waitFor();
  assert.equal(await plain.getByLabel("Reason").inputValue(), "a mistake", "what was typed stays");
  await press("Remove the organization", plain);
  await plain.getByText("Do you mean it?").waitFor();
  await plain.getByRole("link", { name: "No, back" }).click();
  // The button has the same name on both pages.
  await plain.getByLabel("Units to add").waitFor();
  await press("Remove the organization", plain);
  await plain.getByText("Do you mean it?").waitFor();
  await press("Remove the organization", plain);
  await notice("It is deleted", plain);
  assert.equal(await plain.getByRole("link", { name: "Library" }).count(), 0);
  await context.close();
});

step("an order's log is read in colour, and a manager of another channel finds nothing of it", async () => {
  const { access_token: token } = await call("/auth/login", { username: "admin", password: PASSWORD });
  const files = [{ to: "/data/hello.txt", content: "A library of one page.\n" }];
  const recipe = { files, offspot: { name: "school", language: "en", timezone: "UTC" } };
  const configuration = await call("/configurations", { name: "School library", channel: "default", recipe }, token);
  order = await call("/orders", { kind: "virtual", configuration: configuration.id, channel: "default" }, token);
  await call("/channels", { slug: "north" }, token);
  await call("/users", { username: "nora", password: PASSWORD, role: "manager", channels: ["north"] }, token);
  await open("/office/orders");
  await page.getByRole("row", { name: /School library/ }).getByRole("link", { name: "Logs" }).click();
  await page.getByRole("link", { name: `${order.id}-image` }).click();
  const build = page.getByRole("link", { name: "Build", exact: true });
  for (let tries = 0; (await build.count()) === 0; tries++) {
    assert.ok(tries < 600, "the creator wrote no log");
    await page.reload();
  }
  await build.click();
  // The page is loaded anew when the task ends.
  await page.locator('dd [data-state="succeeded"]').waitFor();
  await page.locator("#log").getByText("e2fsck").first().waitFor();
  await noFault();
  await shot("log");
  const path = new URL(page.url()).pathname;
  const context = await browser.newContext();
  const other = await context.newPage();
  await logIn(other, { ...shop, username: "nora", password: PASSWORD });
  await other.waitForURL(/\/bench$/);
  for (const hidden of [path, `${path}/text`, `/orders/${order.id}`, `/office/tasks/${order.id}-image`]) {
    assert.equal((await other.goto(shop.http + hidden)).status(), 404, hidden);
  }
  await context.close();
});

step("several orders are chosen, and canceled after a question that names them", async () => {
  await open("/office/orders?status=nothing");
  await page.getByLabel(/^Choose School library/).check();
  await press("Cancel");
  await page.getByText(/Cancel: School library\./).waitFor();
  await page.getByRole("link", { name: "No, back" }).click();
  await page.getByRole("heading", { name: "All orders" }).waitFor();
});

step("a key is shown once and ended after a question", async () => {
  await open("/office/api-keys");
  await page.getByLabel("Name", { exact: true }).fill("program");
  await press("Make");
  const key = await page.locator("#secret").textContent();
  const known = await fetch(`${shop.http}/api/v1/me`, { headers: { authorization: `Bearer ${key}` } });
  assert.equal(known.status, 200);
  await open("/office/api-keys");
  assert.ok(!(await page.content()).includes(key));
  await page.getByRole("button", { name: "End program" }).click();
  await press("End");
  await notice("Ended");
  const ended = await fetch(`${shop.http}/api/v1/me`, { headers: { authorization: `Bearer ${key}` } });
  assert.equal(ended.status, 401);
});

step("a letter's text is previewed, refused while it is wrong, and its test stands among the messages", async () => {
  await open("/office");
  await page.getByRole("link", { name: "Letters", exact: true }).click();
  await page.getByRole("row", { name: "Order placed" }).getByRole("link").first().click();
  const text = page.locator("textarea[name=body]");
  const before = await text.inputValue();
  await text.fill(`${before}\n{{ nobody }}\n`);
  await press("Save");
  await page.getByRole("alert").getByText("there is no nobody").waitFor();
  assert.match(await text.inputValue(), /\{\{ nobody \}\}/, "what was typed stays");
  await text.fill(`${before}\n<script>document.title = "it ran"</script>\n`);
  await press("Preview");
  await page.getByText("As HTML").waitFor();
  assert.notEqual(await page.title(), "it ran");
  await noFault();
  await shot("letter");
  await page.getByLabel("To; empty for you").fill("me@example.org");
  await press("Send a test");
  await notice("It goes out with the next ones");
  await open("/office/messages");
  await page.getByRole("row", { name: "me@example.org" }).getByRole("button").waitFor();
  await shot("messages");
});

step("maintenance stands on every page with a way to its reason, until it ends", async () => {
  await open("/office/site");
  await page.getByLabel("Reason").fill("stock-taking");
  await press("Begin maintenance");
  await open("/orders");
  await page.locator(".banner").getByRole("link", { name: "Maintenance and keys" }).click();
  await page.getByText("stock-taking").waitFor();
  await press("End maintenance");
  await notice("Saved");
});

step("the public page says 200 when every part works", async () => {
  for (let tries = 0; ; tries++) {
    const answer = await open("/status");
    const seen = (await page.locator("#warehouses").count()) > 0;
    if (seen && answer.status() === 200) break;
    assert.ok(tries < 600, await page.locator("main").innerText());
  }
  await page.getByText("Everything works.").waitFor();
  await noFault();
});

step("every page of the back office passes the expert for accessibility, in both languages and dark", async () => {
  const rooms = ["organizations", "users", "channels", "warehouses", "auto-images", "api-keys", "hooks", "join-tokens",
    "site", "jobs", "work", "orders", "tasks", "audit", "statistics", "messages", "webhooks", "templates",
    "templates/order_created/en"].map((room) => `office/${room}`);
  for (const [language, colorScheme] of [["fr", "light"], ["en", "dark"]]) {
    await page.emulateMedia({ colorScheme });
    await open("/preferences");
    await page.locator("select[name=language]").selectOption(language);
    await page.locator("main button").click();
    await page.locator(`html[lang=${language}]`).waitFor();
    // Three tabs share the work.
    const paths = ["office", ...rooms, "account", "api", "password", "forgot", "status", "first?step=2"];
    const look = async (tab) => {
      await tab.emulateMedia({ colorScheme });
      for (let path = paths.shift(); path; path = paths.shift()) {
        await tab.goto(`${shop.http}/${path}`);
        await noFault(tab);
        assert.equal(await tab.locator("html").getAttribute("lang"), language, path);
      }
    };
    const tabs = [page, await page.context().newPage(), await page.context().newPage()];
    await Promise.all(tabs.map(look));
    await Promise.all(tabs.slice(1).map((tab) => tab.close()));
    await open("/office/users");
    await page.getByRole("link", { name: "ada" }).click();
    await noFault();
    await shot(`user-${language}`);
  }
  await page.setViewportSize({ width: 390, height: 800 });
  for (const path of ["/office", "/office/users", "/office/messages", "/office/templates/order_created/en", "/account"]) {
    await open(path);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(wide <= 0, `${path}: a telephone would have to scroll ${wide} px sideways`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
});

step("the own account shows its logins, and ending all ends this one too", async () => {
  await page.getByRole("link", { name: "Account" }).click();
  assert.ok((await page.locator("tbody tr").count()) >= 2, "this login and the one without JavaScript");
  await shot("account");
  await page.getByLabel("Your password").first().fill(PASSWORD);
  await press("Log out everywhere");
  await page.waitForURL(/\/login$/);
  await logIn(page, shop);
  await page.waitForURL(/\/bench$/);
  watched.done();
});
