/** A person whose browser is Firefox. */

import { Firefox } from "./firefox.ts";
import { until } from "./lines.ts";
import { type Caller, type LinkView, PATIENCE_MS, type Sample, type Setup } from "./person.ts";

export class FirefoxPerson implements Caller {
  private constructor(
    readonly setup: Setup,
    private readonly firefox: Firefox,
  ) {}

  /** Starts the browser; no page is open yet. */
  static async launch(setup: Setup): Promise<FirefoxPerson> {
    const { hostname } = new URL(setup.origin);
    const firefox = await Firefox.start(setup.namespace, {
      // As if the page had a certificate.
      "dom.securecontext.allowlist": hostname,
    });
    return new FirefoxPerson(setup, firefox);
  }

  get complaints(): readonly string[] {
    return this.firefox.complaints;
  }

  async join(room: string): Promise<void> {
    await this.firefox.open(`${this.setup.origin}/r/${room}`);
    await this.#shown("join");
    await this.firefox.call((name) => {
      const field = document.querySelector<HTMLInputElement>("[data-testid=name]");
      if (!field) throw new Error("no field for the name");
      field.value = name;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }, this.setup.name);
    await this.firefox.call(() => {
      document.querySelector<HTMLButtonElement>("[data-testid=join]")?.click();
    }, null);
    await this.#shown("leave");
  }

  sample(): Promise<Sample> {
    return this.firefox.call(async () => {
      const { castling } = globalThis as unknown as {
        castling: { links(): Promise<LinkView[]> };
      };
      const badges = document.querySelectorAll<HTMLElement>("[data-testid=badge]");
      const texts = [...badges].map((badge) => badge.innerText);
      return { links: await castling.links(), badges: texts };
    }, null);
  }

  close(): Promise<void> {
    return this.firefox.close();
  }

  /** Waits until the element is on the screen. */
  #shown(testId: string): Promise<true> {
    return until(testId, PATIENCE_MS, async () => {
      const there = await this.firefox.call(
        (id) => document.querySelector(`[data-testid=${id}]`)?.checkVisibility() ?? false,
        testId,
      );
      return there || undefined;
    });
  }
}
