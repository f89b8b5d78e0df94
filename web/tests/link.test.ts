import { describe, expect, it } from "vitest";
import {
  type Action,
  ANSWER_MS,
  BACK_OFF_MS,
  BATCH_MS,
  CANDIDATES_MAX,
  CONNECTING_MS,
  DISCONNECTED_MS,
  EPOCH_JUMP_MAX,
  type Event,
  type Link,
  newLink,
  OFFER_MS,
  PATIENCE_MS,
  REBUILD_GAP_MS,
  type Role,
  reduce,
  viewOf,
  wakeAt,
} from "../src/mesh/link.ts";
import type { Candidate, LinkBody } from "../src/protocol.ts";
import { seeded } from "./random.ts";

const candidate = (text: string): Candidate => ({
  candidate: text,
  sdpMid: "0",
  sdpMLineIndex: 0,
  usernameFragment: null,
});
const OFFER: LinkBody = { kind: "offer", body: { sdp: "offer" } };
const ANSWER: LinkBody = { kind: "answer", body: { sdp: "answer" } };

/** One end with a clock that the test turns. */
class End {
  link: Link;
  now = 0;

  constructor(role: Role) {
    this.link = newLink(role, 1);
  }

  feed(event: Event): Action[] {
    const [link, actions] = reduce(this.link, event, this.now);
    this.link = link;
    return actions;
  }

  message(epoch: number, body: LinkBody): Action[] {
    return this.feed({ on: "message", epoch, body });
  }

  state(epoch: number, state: RTCPeerConnectionState): Action[] {
    return this.feed({ on: "connection", epoch, state });
  }

  /** Lets `ms` pass, with a `time` event at every moment that the link asked for. */
  pass(ms: number): Action[] {
    const until = this.now + ms;
    const actions: Action[] = [];
    for (let at = wakeAt(this.link); at !== null && at <= until; at = wakeAt(this.link)) {
      this.now = Math.max(this.now, at);
      actions.push(...this.feed({ on: "time" }));
    }
    this.now = until;
    return actions;
  }

  /** Up to a connection that works. */
  static connected(role: Role): End {
    const end = new End(role);
    end.feed({ on: "start" });
    if (role === "answerer") end.message(1, OFFER);
    end.feed({ on: "described", epoch: 1, sdp: "own" });
    if (role === "offerer") end.message(1, ANSWER);
    end.state(1, "connecting");
    end.state(1, "connected");
    end.now = 60_000;
    return end;
  }
}

describe("making a link", () => {
  it("the offerer offers at once and completes on the answer", () => {
    const end = new End("offerer");
    expect(end.feed({ on: "start" })).toEqual([{ do: "offer", epoch: 1 }]);
    expect(end.feed({ on: "described", epoch: 1, sdp: "own" })).toEqual([
      { do: "send", epoch: 1, body: { kind: "offer", body: { sdp: "own" } } },
    ]);
    expect(end.message(1, ANSWER)).toEqual([{ do: "complete", epoch: 1, sdp: "answer" }]);
  });

  it("the other end waits for the offer and answers it", () => {
    const end = new End("answerer");
    expect(end.feed({ on: "start" })).toEqual([]);
    expect(end.message(1, OFFER)).toEqual([{ do: "accept", epoch: 1, sdp: "offer" }]);
    expect(end.feed({ on: "described", epoch: 1, sdp: "own" })).toEqual([
      { do: "send", epoch: 1, body: { kind: "answer", body: { sdp: "own" } } },
    ]);
  });

  it("an offer to the offerer is ignored, so offers never cross", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    expect(end.message(1, OFFER)).toEqual([]);
    expect(end.message(2, OFFER)).toEqual([]);
  });

  it("an answer is taken once", () => {
    const end = End.connected("offerer");
    expect(end.message(1, ANSWER)).toEqual([]);
  });

  it("the same offer is answered once", () => {
    const end = new End("answerer");
    end.message(1, OFFER);
    expect(end.message(1, OFFER)).toEqual([]);
  });
});

describe("epochs", () => {
  it("what belongs to an older epoch is dropped", () => {
    const end = End.connected("answerer");
    end.message(3, OFFER);
    const before = end.link;
    for (const body of [OFFER, { kind: "cand", body: [candidate("late")] } as LinkBody]) {
      expect(end.message(2, body)).toEqual([]);
    }
    expect(end.link).toBe(before);
  });

  it("an answer to an older offer is dropped", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    end.feed({ on: "described", epoch: 1, sdp: "own" });
    end.pass(ANSWER_MS);
    end.feed({ on: "described", epoch: 2, sdp: "own" });
    expect(end.message(1, ANSWER)).toEqual([]);
    expect(end.message(2, ANSWER)).toEqual([{ do: "complete", epoch: 2, sdp: "answer" }]);
  });

  it("an epoch far ahead is no honest rebuild", () => {
    const end = End.connected("offerer");
    expect(end.message(1 + EPOCH_JUMP_MAX + 1, { kind: "reset" })).toEqual([]);
    expect(end.message(1 + EPOCH_JUMP_MAX, { kind: "reset" })).not.toEqual([]);
  });
});

describe("candidates", () => {
  it("wait for the description of their epoch", () => {
    const end = new End("answerer");
    expect(end.message(1, { kind: "cand", body: [candidate("early")] })).toEqual([]);
    expect(end.message(1, OFFER)).toEqual([
      { do: "accept", epoch: 1, sdp: "offer" },
      { do: "candidates", epoch: 1, candidates: [candidate("early")] },
    ]);
  });

  it("wait at the offerer for the answer", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    end.feed({ on: "described", epoch: 1, sdp: "own" });
    expect(end.message(1, { kind: "cand", body: [candidate("early"), null] })).toEqual([]);
    expect(end.message(1, ANSWER)).toEqual([
      { do: "complete", epoch: 1, sdp: "answer" },
      { do: "candidates", epoch: 1, candidates: [candidate("early"), null] },
    ]);
  });

  it("that wait are bounded", () => {
    const end = new End("answerer");
    for (let i = 0; i < 100; i++) end.message(1, { kind: "cand", body: [candidate(`${i}`)] });
    expect(end.link.early.candidates).toHaveLength(CANDIDATES_MAX);
  });

  it("leave in one batch, after their description", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    end.feed({ on: "candidate", epoch: 1, candidate: candidate("a") });
    expect(end.pass(BATCH_MS)).toEqual([]);
    end.feed({ on: "described", epoch: 1, sdp: "own" });
    end.feed({ on: "candidate", epoch: 1, candidate: null });
    expect(end.pass(BATCH_MS)).toEqual([
      { do: "send", epoch: 1, body: { kind: "cand", body: [candidate("a"), null] } },
    ]);
  });
});

describe("the watchdog", () => {
  it("offers anew when no answer comes", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    end.feed({ on: "described", epoch: 1, sdp: "own" });
    expect(end.pass(ANSWER_MS - 1)).toEqual([]);
    expect(end.pass(1)).toEqual([
      { do: "close", epoch: 1 },
      { do: "offer", epoch: 2 },
    ]);
  });

  it("gives up a connection that stays connecting", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    end.feed({ on: "described", epoch: 1, sdp: "own" });
    end.message(1, ANSWER);
    end.state(1, "connecting");
    expect(end.pass(CONNECTING_MS - 1)).toEqual([]);
    expect(end.pass(1)).toContainEqual({ do: "offer", epoch: 2 });
  });

  it("lets the answering end ask for an offer that never came", () => {
    const end = new End("answerer");
    end.feed({ on: "start" });
    expect(end.pass(OFFER_MS)).toEqual([{ do: "send", epoch: 1, body: { kind: "reset" } }]);
    expect(end.message(1, OFFER)).toEqual([{ do: "accept", epoch: 1, sdp: "offer" }]);
  });

  it("asks again when the question is lost, too", () => {
    const end = new End("answerer");
    end.feed({ on: "start" });
    end.pass(OFFER_MS);
    expect(end.pass(OFFER_MS)).toEqual([{ do: "send", epoch: 2, body: { kind: "reset" } }]);
  });

  it("leaves a link in peace that works", () => {
    const end = End.connected("offerer");
    expect(wakeAt(end.link)).toBeNull();
  });

  it("pauses longer after every failure in a row", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    const pauses: number[] = [];
    for (let epoch = 1; epoch <= BACK_OFF_MS.length + 1; epoch++) {
      end.now += REBUILD_GAP_MS;
      end.state(epoch, "failed");
      const before = end.now;
      const at = wakeAt(end.link) ?? before;
      if (end.link.epoch === epoch) end.pass(at - before);
      expect(end.link.epoch).toBe(epoch + 1);
      pauses.push(end.now - before);
    }
    expect(pauses).toEqual([...BACK_OFF_MS, BACK_OFF_MS.at(-1)]);
  });
});

describe("a rebuild", () => {
  it("keeps a connection that worked until its successor works", () => {
    const end = End.connected("offerer");
    expect(end.state(1, "failed")).toEqual([{ do: "offer", epoch: 2 }]);
    expect(viewOf(end.link).state).toBe("reconnecting");
    end.feed({ on: "described", epoch: 2, sdp: "own" });
    end.message(2, ANSWER);
    expect(end.state(2, "connected")).toEqual([{ do: "close", epoch: 1 }]);
    expect(viewOf(end.link).state).toBe("connected");
  });

  it("is not needed when a disconnected path heals by itself", () => {
    const end = End.connected("offerer");
    end.state(1, "disconnected");
    end.pass(DISCONNECTED_MS - 1);
    expect(end.state(1, "connected")).toEqual([]);
    expect(wakeAt(end.link)).toBeNull();
  });

  it("is left to the offerer first", () => {
    const end = End.connected("answerer");
    expect(end.state(1, "failed")).toEqual([]);
    expect(end.pass(PATIENCE_MS)).toEqual([{ do: "send", epoch: 2, body: { kind: "reset" } }]);
  });

  it("that the other end asks for takes its epoch", () => {
    const end = End.connected("offerer");
    expect(end.message(4, { kind: "reset" })).toEqual([{ do: "offer", epoch: 4 }]);
  });

  it("that is asked for at once again has to wait", () => {
    const end = End.connected("offerer");
    end.message(2, { kind: "reset" });
    expect(end.message(3, { kind: "reset" })).toEqual([]);
    expect(end.pass(REBUILD_GAP_MS)).toContainEqual({ do: "offer", epoch: 3 });
  });

  it("follows when the connection refuses a description", () => {
    const end = new End("offerer");
    end.feed({ on: "start" });
    end.now = REBUILD_GAP_MS;
    expect(end.feed({ on: "broken", epoch: 1 })).toContainEqual({ do: "offer", epoch: 2 });
  });
});

describe("the path", () => {
  it("is told to the other end once for every change", () => {
    const end = End.connected("offerer");
    const path = { relayed: true, ownLeg: true };
    expect(end.feed({ on: "path", epoch: 1, path })).toEqual([
      { do: "send", epoch: 1, body: { kind: "state", body: path } },
    ]);
    expect(end.feed({ on: "path", epoch: 1, path })).toEqual([]);
  });

  it("is relayed if either end sees a relay", () => {
    const end = End.connected("offerer");
    expect(viewOf(end.link).relayed).toBeNull();
    end.feed({ on: "path", epoch: 1, path: { relayed: false, ownLeg: false } });
    expect(viewOf(end.link).relayed).toBe(false);
    end.message(1, { kind: "state", body: { relayed: true, ownLeg: true } });
    expect(viewOf(end.link).relayed).toBe(true);
  });
});

describe("two ends over a network that loses and delays", () => {
  const seeds = Array.from({ length: 200 }, (_, index) => index + 1);

  it.each(seeds)("meet in one epoch and never offer at once, seed %i", (seed) => {
    const world = new World(seeded(seed));
    world.run(30_000, 0.3);
    world.run(120_000, 0);
    expect(world.offersFrom("answerer")).toBe(0);
    expect(world.openMost).toBeLessThanOrEqual(2);
    expect(world.states()).toEqual(["connected", "connected"]);
  });
});

/**
 * Two reducers, a network between them, and connections that work once both ends have described
 * the same epoch. A double: it knows nothing of real connections but their states.
 */
class World {
  /** The most connections that an end had at once. */
  openMost = 0;
  readonly #random: () => number;
  readonly #ends = { offerer: new End("offerer"), answerer: new End("answerer") };
  readonly #connections = { offerer: new Set<number>(), answerer: new Set<number>() };
  readonly #described = new Set<string>();
  #mail: { at: number; to: Role; epoch: number; body: LinkBody }[] = [];
  #offers = { offerer: 0, answerer: 0 };
  #now = 0;
  #loss = 0;

  constructor(random: () => number) {
    this.#random = random;
    for (const role of ["offerer", "answerer"] as const) this.#feed(role, { on: "start" });
  }

  offersFrom(role: Role): number {
    return this.#offers[role];
  }

  states(): string[] {
    return [viewOf(this.#ends.offerer.link).state, viewOf(this.#ends.answerer.link).state];
  }

  run(ms: number, loss: number): void {
    this.#loss = loss;
    const until = this.#now + ms;
    while (this.#now < until) {
      this.#now += 10;
      const due = this.#mail.filter(({ at }) => at <= this.#now);
      this.#mail = this.#mail.filter(({ at }) => at > this.#now);
      for (const { to, epoch, body } of due) this.#feed(to, { on: "message", epoch, body });
      for (const role of ["offerer", "answerer"] as const) {
        const at = wakeAt(this.#ends[role].link);
        if (at !== null && at <= this.#now) this.#feed(role, { on: "time" });
        // While the network is bad, connections fail now and then.
        const current = this.#ends[role].link.current;
        if (current?.worked && this.#random() < this.#loss / 500) this.#fail(current.epoch);
      }
    }
  }

  #feed(role: Role, event: Event): void {
    const end = this.#ends[role];
    end.now = this.#now;
    for (const action of end.feed(event)) this.#act(role, action);
  }

  #act(role: Role, action: Action): void {
    const { epoch } = action;
    switch (action.do) {
      case "offer":
      case "accept":
        if (action.do === "offer") this.#offers[role] += 1;
        this.#connections[role].add(epoch);
        this.openMost = Math.max(this.openMost, this.#connections[role].size);
        this.#feed(role, { on: "described", epoch, sdp: `${role}${epoch}` });
        if (action.do === "accept") this.#describe(role, epoch);
        break;
      case "complete":
        this.#describe(role, epoch);
        break;
      case "close":
        this.#connections[role].delete(epoch);
        this.#described.delete(`${role}${epoch}`);
        break;
      case "send": {
        if (this.#random() < this.#loss) break;
        const at = this.#now + 10 + this.#random() * 200;
        const to = role === "offerer" ? "answerer" : "offerer";
        this.#mail.push({ at, to, epoch, body: action.body });
        break;
      }
      case "candidates":
        break;
    }
  }

  #describe(role: Role, epoch: number): void {
    this.#described.add(`${role}${epoch}`);
    this.#feed(role, { on: "connection", epoch, state: "connecting" });
    const both = ["offerer", "answerer"].every((each) => this.#described.has(`${each}${epoch}`));
    if (both) this.#each(epoch, "connected");
  }

  #fail(epoch: number): void {
    this.#each(epoch, "failed");
  }

  #each(epoch: number, state: RTCPeerConnectionState): void {
    for (const role of ["offerer", "answerer"] as const) {
      if (this.#connections[role].has(epoch)) this.#feed(role, { on: "connection", epoch, state });
    }
  }
}
