// Builds the dashboard's scripts and stylesheet into the router's package data. Run it by `make dashboard`.
//
// bundle.json beside the results holds the SHA-256 of every source and of every result, so that a test notices a source
// that was changed without a build, and a result that was changed by hand. LICENSES.txt holds the licences of what is
// bundled.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const OUT = "../router/spillway_router/dashboard/static";
const BUNDLED = { echarts: ["LICENSE", "NOTICE", "licenses/LICENSE-d3"], zrender: ["LICENSE"], "htmx.org": ["LICENSE"], tslib: ["LICENSE.txt"] };
const SOURCES = ["build.mjs", "package.json", "package-lock.json", ...readdirSync("src").sort().map((name) => `src/${name}`)];

await build({
  entryPoints: ["src/app.js", "src/charts.js", "src/app.css"],
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022", "chrome109", "firefox115", "safari16.4"],
  legalComments: "none",
  outdir: OUT,
});

const licences = Object.entries(BUNDLED).map(([name, files]) => {
  const { version } = JSON.parse(readFileSync(join("node_modules", name, "package.json"), "utf8"));
  const texts = files.map((file) => readFileSync(join("node_modules", name, file), "utf8").trim());
  return `${name} ${version}\n${"=".repeat(72)}\n${texts.join("\n\n")}\n`;
});
writeFileSync(join(OUT, "LICENSES.txt"), licences.join("\n\n"));

const hash = (file) => createHash("sha256").update(readFileSync(file)).digest("hex");
const results = ["app.css", "app.js", "charts.js", "LICENSES.txt"];
const bundle = {
  sources: Object.fromEntries(SOURCES.map((name) => [name, hash(name)])),
  results: Object.fromEntries(results.map((name) => [name, hash(join(OUT, name))])),
};
writeFileSync(join(OUT, "bundle.json"), JSON.stringify(bundle, null, 1) + "\n");
