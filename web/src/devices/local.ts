/**
 * The own camera and microphone: what is on, which devices there are, and what went wrong.
 */
import { acquire, type Kind, type Problem, type Source, type Wish } from "./ladder.ts";
import type { Memory } from "./memory.ts";

/** Plugging one thing in announces several devices one after the other. */
export const SETTLE_MS = 1_000;

const DEVICE_KIND = { mic: "audioinput", cam: "videoinput" } as const;

/** What a person sees of the own devices. */
export interface LocalView {
  readonly mic: MediaStreamTrack | null;
  readonly cam: MediaStreamTrack | null;
  readonly problems: { readonly [K in Kind]?: Problem };
  readonly devices: readonly MediaDeviceInfo[];
  /** The browser is being asked, perhaps with a question to the person. */
  readonly asking: boolean;
}

/** What the devices need, and whom they tell. */
export interface LocalHost {
  readonly source: Source;
  readonly media: MediaDevices | undefined;
  readonly memory: Memory;
  changed(): void;
  /** A device in use was unplugged; `found` says whether another took its place. */
  lost(kind: Kind, found: boolean): void;
}

/** See the module. Off is really off: a camera that is off is released and its light goes out. */
export class Local {
  readonly #host: LocalHost;
  #tracks: Record<Kind, MediaStreamTrack | null> = { mic: null, cam: null };
  #on: Record<Kind, boolean> = { mic: true, cam: true };
  /** Replaced, never changed in place, so that a new problem differs from one already seen. */
  #problems: { readonly [K in Kind]?: Problem } = {};
  #devices: readonly MediaDeviceInfo[] = [];
  #asking = false;
  #chain: Promise<void> = Promise.resolve();
  #settle: ReturnType<typeof setTimeout> | undefined;

  constructor(host: LocalHost) {
    this.#host = host;
    host.media?.addEventListener?.("devicechange", () => {
      clearTimeout(this.#settle);
      this.#settle = setTimeout(() => this.#queue(() => this.#onDeviceChange()), SETTLE_MS);
    });
  }

  /** The present state; a track is there only while its device is on. */
  get view(): LocalView {
    return {
      mic: this.#on.mic ? this.#tracks.mic : null,
      cam: this.#on.cam ? this.#tracks.cam : null,
      problems: this.#problems,
      devices: this.#devices,
      asking: this.#asking,
    };
  }

  /** Turns on what is wanted, as far as it can be had. */
  start(): Promise<void> {
    return this.#queue(() => this.#acquire(["mic", "cam"]));
  }

  /** Turns a device on or off. */
  set(kind: Kind, on: boolean): Promise<void> {
    return this.#queue(async () => {
      this.#on[kind] = on;
      if (!on) {
        // A muted microphone stays open, so that one is heard at the first word.
        if (kind === "cam") this.#drop(kind);
        else if (this.#tracks.mic) this.#tracks.mic.enabled = false;
        this.#setProblem(kind, undefined);
      } else if (this.#tracks[kind]) {
        this.#tracks[kind].enabled = true;
      } else {
        await this.#acquire([kind]);
      }
    });
  }

  /** Uses another device from now on, and remembers it. */
  choose(kind: Kind, deviceId: string): Promise<void> {
    return this.#queue(async () => {
      const device = this.#devices.find((each) => each.deviceId === deviceId);
      if (device) this.#host.memory.remember(device);
      if (!this.#on[kind]) return;
      this.#drop(kind);
      await this.#acquire([kind]);
    });
  }

  /** The device in use, or the one that would be used. */
  chosen(kind: Kind): string | undefined {
    const inUse = this.#tracks[kind]?.getSettings().deviceId;
    return inUse ?? this.#host.memory.find(DEVICE_KIND[kind], this.#devices)?.deviceId;
  }

  /** Releases everything. */
  stop(): Promise<void> {
    return this.#queue(async () => {
      this.#drop("mic");
      this.#drop("cam");
    });
  }

  async #acquire(kinds: readonly Kind[]): Promise<void> {
    const missing = kinds.filter((kind) => this.#on[kind] && !this.#tracks[kind]);
    if (missing.length === 0) return;
    this.#asking = true;
    this.#host.changed();
    const result = await acquire(this.#host.source, this.#wish(missing));
    this.#asking = false;
    for (const kind of missing) {
      this.#setProblem(kind, result.problems[kind]);
      this.#hold(kind, result[kind]);
    }
    await this.#list();
    await this.#preferRemembered(missing);
  }

  /** Ids of remembered devices are hidden until the first permission, so labels are tried after. */
  async #preferRemembered(kinds: readonly Kind[]): Promise<void> {
    for (const kind of kinds) {
      const track = this.#tracks[kind];
      const remembered = this.#host.memory.find(DEVICE_KIND[kind], this.#devices);
      const inUse = track?.getSettings().deviceId;
      if (!track || !remembered || !inUse || remembered.deviceId === inUse) continue;
      const result = await acquire(this.#host.source, { [kind]: remembered.deviceId });
      if (!result[kind]) continue;
      this.#drop(kind);
      this.#hold(kind, result[kind]);
    }
  }

  #wish(kinds: readonly Kind[]): Wish {
    const deviceOf = (kind: Kind) =>
      this.#host.memory.find(DEVICE_KIND[kind], this.#devices)?.deviceId ??
      this.#host.memory.choices(DEVICE_KIND[kind])[0]?.deviceId ??
      null;
    return Object.fromEntries(kinds.map((kind) => [kind, deviceOf(kind)]));
  }

  #hold(kind: Kind, track: MediaStreamTrack | null): void {
    this.#tracks[kind] = track;
    if (!track) return;
    track.onended = () =>
      this.#queue(async () => {
        if (this.#tracks[kind] !== track) return;
        this.#drop(kind);
        await this.#acquire([kind]);
        this.#host.lost(kind, this.#tracks[kind] !== null);
      });
  }

  #setProblem(kind: Kind, problem: Problem | undefined): void {
    if (!problem && !this.#problems[kind]) return;
    const { [kind]: _, ...others } = this.#problems;
    this.#problems = problem ? { ...others, [kind]: problem } : others;
  }

  #drop(kind: Kind): void {
    const track = this.#tracks[kind];
    this.#tracks[kind] = null;
    if (!track) return;
    track.onended = null;
    track.stop();
  }

  async #onDeviceChange(): Promise<void> {
    await this.#list();
    // What was missing may just have been plugged in; a refusal is not asked about again.
    const missing = (["mic", "cam"] as const).filter((kind) => this.#problems[kind] === "missing");
    const found = missing.filter((kind) =>
      this.#devices.some((device) => device.kind === DEVICE_KIND[kind]),
    );
    await this.#acquire(found);
  }

  async #list(): Promise<void> {
    this.#devices = (await this.#host.media?.enumerateDevices().catch(() => [])) ?? [];
  }

  #queue(work: () => Promise<void>): Promise<void> {
    const done = this.#chain.then(work).then(() => this.#host.changed());
    this.#chain = done.catch(() => undefined);
    return done;
  }
}
