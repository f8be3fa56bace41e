// Opens pages of a router in a real headless Chromium and says what is wrong with them. One JSON object comes in on
// standard input, one goes out:
//   in:  {url, key, chromium, pages: [{name, path, click?: [selector]}], widths: [px], schemes: ["light", "dark"],
//         shots: {folder, names: [...], full} | null, stories: [{name, steps: [[action, ...]]}],
//         timed: {path, runs} | null, held: {path, pages, seconds} | null}
//   out: {version, visits, failures: [text], axe: [text], foreign: [url], checks, times_s: [s]}
// A page fails by a console message of level error, an uncaught error, an answer of 400 and more, a layout that is wider
// than the window, names broken letter by letter, or a chart that is not drawn. axe holds violations of accessibility, foreign what was asked elsewhere.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const axeSource = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const plan = JSON.parse(readFileSync(0, "utf8"));
const result = { version: "", visits: 0, checks: 0, failures: [], axe: [], foreign: [], times_s: [] };
const browser = await chromium.launch({ executablePath: plan.chromium, args: ["--no-sandbox", "--disable-gpu"] });
result.version = browser.version();
const home = new URL(plan.url).origin;

function check(holds, words) {
  result.checks += 1;
  if (!holds) result.failures.push(words);
}

function listen(page, where, expected = []) {
  page.on("console", (message) => {
    if (message.type() === "error" && !expected.some((words) => message.text().includes(words))) result.failures.push(`${where()}: console: ${message.text()}`);
  });
  page.on("pageerror", (error) => result.failures.push(`${where()}: ${error.message}`));
  page.on("request", (request) => {
    const origin = new URL(request.url()).origin;
    if (origin !== home && !request.url().startsWith("data:")) result.foreign.push(`${where()}: ${request.url()}`);
  });
}

async function contextOf(width, scheme) {
  const context = await browser.newContext({
    viewport: { width, height: Math.max(900, Math.round(width * 0.75)) },
    colorScheme: scheme,
    reducedMotion: "reduce",
    deviceScaleFactor: plan.scale ?? 1,
    bypassCSP: false,
  });
  context.setDefaultTimeout(20000);
  if (plan.key) {
    const page = await context.newPage();
    await page.goto(`${plan.url}/sign-in`);
    await page.fill("#key", plan.key);
    await Promise.all([page.waitForURL(`${home}/`), page.click("main button.main")]);
    await page.close();
  }
  return context;
}

async function visit(page, spec, width, schemes) {
  const where = (scheme) => `${spec.name} at ${width} px, ${scheme}`;
  const answer = await page.goto(plan.url + spec.path, { waitUntil: "load" });
  check(answer.status() < 400, `${where(schemes[0])}: status ${answer.status()}`);
  for (const selector of spec.click ?? []) await page.click(selector);
  // Injected as a debugger would, since the page's own policy lets no foreign script in.
  await page.evaluate(axeSource);
  for (const [index, scheme] of schemes.entries()) {
    if (index) await page.emulateMedia({ colorScheme: scheme });
    await judge(page, where(scheme), index ? COLOURS : {});
    if (plan.shots?.names.includes(spec.name)) {
      await page.evaluate(() => window.scrollTo(0, 0));
      await page.screenshot({ path: `${plan.shots.folder}/${spec.name}-${width}-${scheme}.png`, fullPage: plan.shots.full ?? true });
    }
    result.visits += 1;
  }
}

// The rules of axe that depend on the colours; the others say the same of a page in each scheme.
const COLOURS = { runOnly: { type: "rule", values: ["color-contrast", "link-in-text-block"] } };

async function judge(page, where, rules) {
  if (await page.locator("[data-chart]").count()) await page.locator("[data-chart] svg path").first().waitFor({ state: "attached" });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  check(wide <= 0, `${where}: ${wide} px wider than the window`);
  // A first column that is too narrow breaks its words letter by letter: a short text that is higher than wide.
  const broken = await page.evaluate(() =>
    [...document.querySelectorAll("table tr > :first-child")].filter((cell) => {
      const text = document.createRange(); // not the cell, which is as high as the highest of its row
      text.selectNodeContents(cell);
      const { width, height } = text.getBoundingClientRect();
      return cell.textContent.length < 30 && width > 0 && height > 3 * width;
    }).length,
  );
  check(broken === 0, `${where}: ${broken} names are broken letter by letter`);
  check((await page.locator("h1").count()) === 1, `${where}: not exactly one h1`);
  const found = await page.evaluate((options) => window.axe.run(document, { resultTypes: ["violations"], ...options }), rules);
  check(found.violations.length === 0, `${where}: axe finds ${found.violations.map((one) => one.id).join(", ")}`);
  for (const one of found.violations) {
    result.axe.push(`${where}: ${one.id} (${one.impact}): ${one.nodes.map((node) => node.html.slice(0, 120)).slice(0, 3).join(" | ")}`);
  }
}

const ACTIONS = {
  goto: (page, path) => page.goto(plan.url + path),
  click: (page, selector) => page.click(selector),
  press: (page, key) => page.keyboard.press(key),
  fill: (page, selector, text) => page.fill(selector, text),
  select: (page, selector, value) => page.selectOption(selector, value),
  url: (page, path) => page.waitForURL((url) => (url.pathname + url.search).startsWith(path)),
  text: (page, selector, words) => page.locator(selector, { hasText: words }).first().waitFor(),
  focused: (page, words) =>
    page.waitForFunction((text) => (document.activeElement.textContent + (document.activeElement.id || "")).includes(text), words),
  fetched: async (page, path) => {
    const status = await page.evaluate(async (address) => (await fetch(address)).status, path);
    if (status !== 200) throw new Error(`${path} answers ${status}`);
  },
};

async function walk(story) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 } });
  context.setDefaultTimeout(20000);
  const page = await context.newPage();
  let at = story.name;
  // Chromium reports the refusal of a wrong key, too.
  listen(page, () => at, ["status of 401"]);
  for (const [action, ...values] of story.steps) {
    at = `${story.name}: ${action} ${values.join(" ")}`;
    try {
      await ACTIONS[action](page, ...values);
      check(true);
    } catch (error) {
      check(false, `${at}: ${error.message.split("\n")[0]}`);
      break;
    }
  }
  await context.close();
}

// A page is loaded in one scheme and then changes to the others, as it does in the evening; which is first differs by width.
for (const [index, width] of plan.widths.entries()) {
  const first = index % plan.schemes.length;
  const schemes = [...plan.schemes.slice(first), ...plan.schemes.slice(0, first)];
  const context = await contextOf(width, schemes[0]);
  for (const spec of plan.pages) {
    const page = await context.newPage();
    listen(page, () => `${spec.name} at ${width} px`);
    await visit(page, spec, width, schemes).catch((error) => check(false, `${spec.name} at ${width} px: ${error.message.split("\n")[0]}`));
    await page.close();
  }
  await context.close();
}
for (const story of plan.stories ?? []) await walk(story);

// From the click on a link to the drawn chart, in a window of its own each, so that nothing is there from before.
for (let run = 0; run < (plan.timed?.runs ?? 0); run += 1) {
  const context = await contextOf(1200, "light");
  const page = await context.newPage();
  listen(page, () => `timed ${plan.timed.path}`);
  const began = performance.now();
  await page.goto(plan.url + plan.timed.path, { waitUntil: "load" });
  await page.locator("[data-chart] svg path").first().waitFor({ state: "attached" });
  result.times_s.push((performance.now() - began) / 1000);
  await context.close();
}

// Live pages that stay open, each in a window of its own. The line on standard error says that all are live.
if (plan.held) {
  const contexts = await Promise.all(Array.from({ length: plan.held.pages }, () => contextOf(1200, "light")));
  for (const context of contexts) {
    const page = await context.newPage();
    listen(page, () => "held");
    await page.goto(plan.url + plan.held.path);
    await page.locator("[data-live=on]").waitFor();
  }
  process.stderr.write("live\n");
  await new Promise((resolve) => setTimeout(resolve, plan.held.seconds * 1000));
}
await browser.close();
process.stdout.write(JSON.stringify(result));
