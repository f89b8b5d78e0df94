/** One person with a browser of their own, behind a network of their own. */

import { fileURLToPath } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";

/** What a link looks like from one end: the page's own test view, as far as the suite uses it. */
export interface LinkView {
  peer: string;
  name: string;
  state: string;
  relayed: boolean | null;
  ownLeg: boolean;
  bytesSent: number;
  bytesReceived: number;
  packetsSent: number;
  packetsReceived: number;
  framesDecoded: number;
  /** The browser's own entry, with the `timestamp` at which it was true. */
  pair: { timestamp?: number };
}

/** All links of a page at one moment. */
export interface Sample {
  links: LinkView[];
  /** The badges' texts as a person sees them, one for each other member. */
  badges: string[];
}

/** What the browser of a person is like. */
export interface Setup {
  name: string;
  /** Chromium unless said otherwise. */
  browser?: "chromium" | "firefox";
  /** Where the browser runs. */
  namespace: string;
  /** Base address of the page. */
  origin: string;
  /** `"camera"` and microphone, `"microphone"` alone, no device at `"none"`. */
  devices: "camera" | "microphone" | "none";
  /** Whether the browser's question for the devices is answered with no. */
  refuse?: boolean;
  /** Treat `origin` as if it had a certificate. */
  trusted?: boolean;
  /** Believe in every certificate. */
  gullible?: boolean;
}

/** A person in a class, whatever the browser. */
export interface Caller {
  readonly setup: Setup;
  /** What the page complained about on its console. */
  readonly complaints: readonly string[];
  /** Opens the lobby and joins; resolves when the room is on the screen. */
  join(room: string): Promise<void>;
  /** All links at this moment. */
  sample(): Promise<Sample>;
  close(): Promise<void>;
}

/** The longest wait for anything that a person would see within a second or two. */
export const PATIENCE_MS = 30_000;

/** Frames a second of the fake camera: several browsers share few cores. */
const FAKE_FPS = 5;

const FAKE_DEVICES = {
  camera: [`--use-fake-device-for-media-stream=fps=${FAKE_FPS}`],
  microphone: ["--use-fake-device-for-media-stream=device-count=0"],
  none: [],
};

/** A person whose browser is Chromium. */
export class Person implements Caller {
  private constructor(
    readonly setup: Setup,
    private readonly browser: Browser,
    readonly page: Page,
    /** What the page complained about on its console. */
    readonly complaints: string[],
  ) {}

  /** Starts the browser; no page is open yet. */
  static async launch(setup: Setup): Promise<Person> {
    const trusted = setup.trusted ?? true;
    const browser = await chromium.launch({
      executablePath: fileURLToPath(new URL("chromium-in-namespace.sh", import.meta.url)),
      env: { ...process.env, CASTLING_NETNS: setup.namespace },
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--mute-audio",
        "--no-first-run",
        "--disable-background-networking",
        "--autoplay-policy=no-user-gesture-required",
        ...(setup.refuse ? ["--deny-permission-prompts"] : ["--use-fake-ui-for-media-stream"]),
        ...FAKE_DEVICES[setup.devices],
        ...(setup.gullible ? ["--ignore-certificate-errors"] : []),
        ...(trusted ? [`--unsafely-treat-insecure-origin-as-secure=${setup.origin}`] : []),
      ],
    });
    const page = await browser.newPage({ viewport: { width: 640, height: 480 } });
    page.setDefaultTimeout(PATIENCE_MS);
    const complaints: string[] = [];
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") complaints.push(message.text());
    });
    return new Person(setup, browser, page, complaints);
  }

  /** Opens the lobby of a room. */
  async open(room: string): Promise<void> {
    await this.page.goto(`${this.setup.origin}/r/${room}`);
    await this.page.getByTestId("join").waitFor();
  }

  /** Enters a name and presses the button. */
  async askToJoin(): Promise<void> {
    await this.page.getByTestId("name").fill(this.setup.name);
    await this.page.getByTestId("join").click();
  }

  /** Opens the lobby and joins; resolves when the room is on the screen. */
  async join(room: string): Promise<void> {
    await this.open(room);
    await this.askToJoin();
    await this.page.getByTestId("leave").waitFor();
  }

  /** What the page says when something is refused. */
  async error(): Promise<string> {
    const shown = this.page.getByTestId("error").first();
    await shown.waitFor();
    return (await shown.innerText()).trim();
  }

  /** The sentence on the screen that fits `pattern`, once it is there. */
  async sentence(pattern: RegExp): Promise<string> {
    const shown = this.page.getByText(pattern).first();
    await shown.waitFor();
    return (await shown.innerText()).trim();
  }

  /** All links at this moment. */
  async sample(): Promise<Sample> {
    const links = await this.page.evaluate(() => {
      const { castling } = globalThis as unknown as {
        castling: { links(): Promise<LinkView[]> };
      };
      return castling.links();
    });
    const badges = await this.page.getByTestId("badge").allInnerTexts();
    return { links, badges };
  }

  async close(): Promise<void> {
    await this.browser.close();
  }
}
