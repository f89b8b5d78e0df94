import { describe, expect, it } from "vitest";
import { acquire, type Kind, REFUSALS_MAX, type Source, type Wish } from "../src/devices/ladder.ts";
import { CHOICES_MAX, Memory, type Store } from "../src/devices/memory.ts";
import { loudness } from "../src/devices/meter.ts";
import { sentencesFor } from "../src/ui/pickers.tsx";

const BOTH: Wish = { mic: null, cam: null };

/** What a double's device does when it is asked for. */
type Behaviour = "works" | "NotFoundError" | "NotReadableError" | "NotAllowedError" | "AbortError";

/**
 * A double of the browser's devices: each kind works or fails with one error, as browsers do when
 * both are asked for at once. It hands out objects in place of tracks.
 */
class Devices {
  readonly asked: string[] = [];
  readonly #behaviour: Record<Kind, Behaviour>;
  readonly #permissions: Partial<Record<Kind, PermissionState>>;
  /** Ids that exist; asking for another one exactly is over-constrained. */
  ids = ["default"];

  constructor(
    behaviour: Record<Kind, Behaviour>,
    permissions: Partial<Record<Kind, PermissionState>> = {},
  ) {
    this.#behaviour = behaviour;
    this.#permissions = permissions;
  }

  get source(): Source {
    return {
      devices: { getUserMedia: (constraints) => this.#get(constraints ?? {}) },
      permission: async (kind) => this.#permissions[kind] ?? "prompt",
    };
  }

  async #get(constraints: MediaStreamConstraints): Promise<MediaStream> {
    const wanted: [Kind, boolean | MediaTrackConstraints | undefined][] = [
      ["mic", constraints.audio],
      ["cam", constraints.video],
    ];
    const kinds = wanted.filter(([, wish]) => wish !== undefined);
    this.asked.push(kinds.map(([kind]) => kind).join("+"));
    for (const [, wish] of kinds) {
      const id = typeof wish === "object" ? wish.deviceId : undefined;
      const exact = typeof id === "object" && "exact" in id ? String(id.exact) : undefined;
      if (exact !== undefined && !this.ids.includes(exact)) throw named("OverconstrainedError");
    }
    for (const [kind] of kinds) {
      const behaviour = this.#behaviour[kind];
      if (behaviour !== "works") throw named(behaviour);
    }
    const has = (kind: Kind) => kinds.some(([each]) => each === kind);
    return {
      getAudioTracks: () => (has("mic") ? [{ kind: "audio" }] : []),
      getVideoTracks: () => (has("cam") ? [{ kind: "video" }] : []),
    } as unknown as MediaStream;
  }
}

function named(name: string): Error {
  return Object.assign(new Error(name), { name });
}

describe("the ladder", () => {
  it("gets both with one question", async () => {
    const devices = new Devices({ mic: "works", cam: "works" });
    const result = await acquire(devices.source, BOTH);
    expect(result).toMatchObject({ mic: { kind: "audio" }, cam: { kind: "video" }, problems: {} });
    expect(devices.asked).toEqual(["mic+cam"]);
  });

  it("gets the microphone where there is no camera", async () => {
    const devices = new Devices({ mic: "works", cam: "NotFoundError" });
    const result = await acquire(devices.source, BOTH);
    expect(result).toMatchObject({ mic: { kind: "audio" }, cam: null });
    expect(result.problems).toEqual({ cam: "missing" });
  });

  it("gets the camera where there is no microphone", async () => {
    const devices = new Devices({ mic: "NotFoundError", cam: "works" });
    const result = await acquire(devices.source, BOTH);
    expect(result).toMatchObject({ mic: null, cam: { kind: "video" } });
    expect(result.problems).toEqual({ mic: "missing" });
  });

  it("ends as a listener where there is nothing", async () => {
    const devices = new Devices({ mic: "NotFoundError", cam: "NotFoundError" });
    const result = await acquire(devices.source, BOTH);
    expect(result).toEqual({ mic: null, cam: null, problems: { mic: "missing", cam: "missing" } });
  });

  it("says of each device what is wrong with it", async () => {
    const devices = new Devices({ mic: "AbortError", cam: "NotReadableError" });
    const result = await acquire(devices.source, BOTH);
    expect(result.problems).toEqual({ mic: "stopped", cam: "busy" });
  });

  it("asks a person who refuses no more than twice", async () => {
    const devices = new Devices({ mic: "NotAllowedError", cam: "NotAllowedError" });
    const result = await acquire(devices.source, BOTH);
    expect(result.problems).toEqual({ mic: "blocked", cam: "blocked" });
    expect(devices.asked).toHaveLength(REFUSALS_MAX);
  });

  it("does not ask again for what is denied for good", async () => {
    const permissions = { cam: "denied", mic: "granted" } as const;
    const devices = new Devices({ mic: "works", cam: "NotAllowedError" }, permissions);
    const result = await acquire(devices.source, BOTH);
    expect(result.mic).not.toBeNull();
    expect(result.problems).toEqual({ cam: "blocked" });
    expect(devices.asked).toEqual(["mic+cam", "mic"]);
  });

  it("takes the default when the chosen device is gone", async () => {
    const devices = new Devices({ mic: "works", cam: "works" });
    const result = await acquire(devices.source, { cam: "unplugged" });
    expect(result.cam).not.toBeNull();
    expect(devices.asked).toEqual(["cam", "cam"]);
  });

  it("says that the page was opened without HTTPS", async () => {
    const source: Source = { devices: undefined, permission: async () => "prompt" };
    const result = await acquire(source, BOTH);
    expect(result.problems).toEqual({ mic: "insecure", cam: "insecure" });
  });
});

describe("sentences about devices", () => {
  it("are one for one reason and two for two", () => {
    expect(sentencesFor({})).toEqual([]);
    expect(sentencesFor({ mic: "insecure", cam: "insecure" })).toHaveLength(1);
    expect(sentencesFor({ mic: "blocked", cam: "blocked" })).toHaveLength(1);
    expect(sentencesFor({ mic: "missing", cam: "busy" })).toHaveLength(2);
  });
});

/** A double of `localStorage`. */
function store(): Store & { readonly map: Map<string, string> } {
  const map = new Map<string, string>();
  return {
    map,
    getItem: (key) => map.get(key) ?? null,
    setItem: (key, value) => void map.set(key, value),
  };
}

const camera = (deviceId: string, label = `Camera ${deviceId}`) =>
  ({ deviceId, label, kind: "videoinput" }) as const;

describe("the memory", () => {
  it("finds the device chosen last among those available", () => {
    const disk = store();
    new Memory(disk).remember(camera("a"));
    new Memory(disk).remember(camera("b"));
    const later = new Memory(disk);
    expect(later.find("videoinput", [camera("a"), camera("b")])).toEqual(camera("b"));
    expect(later.find("videoinput", [camera("a")])).toEqual(camera("a"));
    expect(later.find("videoinput", [camera("c")])).toBeUndefined();
    expect(later.find("audioinput", [camera("a")])).toBeUndefined();
  });

  it("knows a device by its label when its id has changed", () => {
    const memory = new Memory(store());
    memory.remember(camera("old", "Desk camera"));
    expect(memory.find("videoinput", [camera("new", "Desk camera")])?.deviceId).toBe("new");
  });

  it("does not mistake devices without labels for each other", () => {
    const memory = new Memory(store());
    memory.remember(camera("old", ""));
    expect(memory.find("videoinput", [camera("new", "")])).toBeUndefined();
  });

  it("keeps few choices of each kind", () => {
    const memory = new Memory(store());
    memory.remember({ deviceId: "m", label: "Mic", kind: "audioinput" });
    for (const id of ["a", "b", "c", "d", "d"]) memory.remember(camera(id));
    expect(memory.choices("videoinput").map(({ deviceId }) => deviceId)).toEqual(["d", "c", "b"]);
    expect(memory.choices("videoinput")).toHaveLength(CHOICES_MAX);
    expect(memory.choices("audioinput")).toHaveLength(1);
  });

  it("stores nothing but id, label and kind", () => {
    const disk = store();
    const device = { ...camera("a"), groupId: "changes" };
    new Memory(disk).remember(device);
    expect([...disk.map.values()].join()).not.toContain("changes");
  });

  it("remembers the name, and survives a store that refuses or holds rubbish", () => {
    const disk = store();
    new Memory(disk).name = "Ana";
    expect(new Memory(disk).name).toBe("Ana");
    disk.map.set("castling.devices", '{"not":"a list"}');
    expect(new Memory(disk).choices("videoinput")).toEqual([]);
    const refuse = () => {
      throw named("SecurityError");
    };
    const memory = new Memory({ getItem: refuse, setItem: refuse });
    memory.name = "Ben";
    expect(memory.name).toBe("Ben");
  });
});

describe("loudness", () => {
  it("runs from silence to full level", () => {
    expect(loudness(new Float32Array(8))).toBe(0);
    expect(loudness(new Float32Array(8).fill(1))).toBe(1);
    expect(loudness(new Float32Array(8).fill(0.0316))).toBeCloseTo(0.5, 1);
  });
});
