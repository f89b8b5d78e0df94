/** Firefox by WebDriver BiDi, as far as these tests need it: one tab in which to run code. */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WebSocket } from "ws";

/** How long Firefox may take until it can be driven. */
const START_MS = 20_000;

/**
 * Fake devices without a question, media on a page without HTTPS, and no word to anybody: updates,
 * captive portals, safe browsing and the rest would ask hosts that are not there.
 */
const PREFERENCES = {
  "app.normandy.enabled": false,
  "app.update.disabledForTesting": true,
  "browser.safebrowsing.downloads.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "media.autoplay.default": 0,
  "media.devices.insecure.enabled": true,
  "media.getusermedia.insecure.enabled": true,
  "media.gmp-manager.updateEnabled": false,
  "media.navigator.permission.disabled": true,
  "media.navigator.streams.fake": true,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "network.dns.disablePrefetch": true,
  "network.prefetch-next": false,
  "services.settings.server": "data:,#remote-settings-dummy/v1",
  "toolkit.telemetry.reportingpolicy.firstRun": false,
};

export class Firefox {
  #process;
  #profile;
  #socket;
  #context;
  #waiting = new Map();
  #serial = 0;
  /** Its version. */
  version = "";

  /** Starts it with an empty profile and one empty tab. */
  static async start(program = "firefox-esr") {
    const firefox = new Firefox();
    firefox.#profile = mkdtempSync(join(tmpdir(), "castling-firefox-"));
    const lines = Object.entries(PREFERENCES).map(
      ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`,
    );
    writeFileSync(join(firefox.#profile, "user.js"), lines.join(""));
    const args = ["--headless", "--no-remote", "--remote-debugging-port=0"];
    // The kernel kills it when this process ends, however that happens.
    firefox.#process = spawn(
      "setpriv",
      ["--pdeathsig", "KILL", program, ...args, "--profile", firefox.#profile],
      { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, HOME: firefox.#profile } },
    );
    await firefox.#connect(await firefox.#address());
    const { capabilities } = await firefox.#send("session.new", { capabilities: {} });
    firefox.version = capabilities.browserVersion;
    const { contexts } = await firefox.#send("browsingContext.getTree", {});
    firefox.#context = contexts[0].context;
    return firefox;
  }

  /** Opens `url` and waits until it has loaded. */
  async open(url) {
    await this.#send("browsingContext.navigate", { context: this.#context, url, wait: "complete" });
  }

  /** Calls `work` in the page with `argument`; both it and the answer pass as JSON. */
  async call(work, argument = null) {
    const answer = await this.#send("script.callFunction", {
      functionDeclaration: `async (text) => JSON.stringify(await (${work})(JSON.parse(text)))`,
      arguments: [{ type: "string", value: JSON.stringify(argument) }],
      target: { context: this.#context },
      awaitPromise: true,
    });
    if (answer.type === "exception") throw new Error(answer.exceptionDetails.text);
    return answer.result.type === "string" ? JSON.parse(answer.result.value) : undefined;
  }

  /** Closes it as its user would. */
  async close() {
    const ended = new Promise((resolve) => this.#process.on("exit", resolve));
    await this.#send("browser.close", {});
    await ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Where it listens, from what it says on its standard error. */
  #address() {
    return new Promise((resolve, reject) => {
      let said = "";
      const timer = setTimeout(() => reject(new Error(`Firefox is silent: ${said}`)), START_MS);
      this.#process.on("error", reject);
      this.#process.on("exit", () => reject(new Error(`Firefox ended: ${said}`)));
      this.#process.stderr.on("data", (bytes) => {
        said += bytes;
        const found = /WebDriver BiDi listening on (ws:\S+)/.exec(said);
        if (!found) return;
        clearTimeout(timer);
        resolve(`${found[1]}/session`);
      });
    });
  }

  #connect(address) {
    this.#socket = new WebSocket(address);
    this.#socket.on("message", (text) => {
      const { id, result, error, message } = JSON.parse(String(text));
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(new Error(`${error}: ${message}`));
      else waiting?.resolve(result);
    });
    return new Promise((resolve, reject) => {
      this.#socket.on("open", resolve).on("error", reject);
    });
  }

  #send(method, params) {
    const id = ++this.#serial;
    this.#socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }
}
