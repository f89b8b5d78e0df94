// Fails when the built page is heavier than a phone on a school network should load.
import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const BUDGET_BYTES = { ".js": 60 * 1024, ".css": 12 * 1024 };

const assets = new URL("../dist/assets/", import.meta.url);
let failed = false;
for (const [ending, budget] of Object.entries(BUDGET_BYTES)) {
  const files = readdirSync(assets).filter((name) => name.endsWith(ending));
  const bytes = files.reduce(
    (sum, name) => sum + gzipSync(readFileSync(new URL(name, assets))).length,
    0,
  );
  const over = bytes > budget;
  failed ||= over;
  console.log(`${ending}: ${bytes} bytes gzipped of ${budget}${over ? ": too heavy" : ""}`);
}
process.exitCode = failed ? 1 : 0;
