import { describe, expect, it } from "vitest";
import type { ClientMessage, ServerMessage } from "../src/protocol.ts";
import {
  PING_MS,
  RETRY_LATE_MS,
  RETRY_MS,
  RETRY_SOON_MS,
  type Refusal,
  SILENCE_MS,
  Signaling,
  type Status,
  WELCOME_MS,
} from "../src/signaling.ts";
import { TestClock } from "./clock.ts";

/** A double of a WebSocket: keeps what is sent, and the test plays the server. */
class Socket {
  readonly sent: ClientMessage[] = [];
  readyState = 0;
  closed: number | undefined;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;

  send(frame: string): void {
    this.sent.push(JSON.parse(frame) as ClientMessage);
  }

  close(code?: number): void {
    this.readyState = 3;
    this.closed = code;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  say(message: ServerMessage): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  welcome(): void {
    const ice = { servers: [], ttl: 1 };
    this.say({ t: "welcome", you: "me", key: "k", room: "r", peopleMax: 12, peers: [], ice });
  }

  lose(): void {
    this.readyState = 3;
    this.onclose?.();
  }
}

const HELLO = {
  t: "hello",
  v: 1,
  room: "r",
  name: "Ana",
  media: { mic: true, cam: true },
} as const;

/** A socket under test with all that it told. `random` in the middle makes pauses exact. */
function start() {
  const clock = new TestClock();
  const sockets: Socket[] = [];
  const told = { statuses: [] as Status[], refusals: [] as Refusal[], tags: [] as string[] };
  const signaling = new Signaling({
    clock,
    random: () => 0.5,
    open: () => {
      const socket = new Socket();
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    hello: () => HELLO,
    message: ({ t }) => told.tags.push(t),
    status: (status) => told.statuses.push(status),
    refused: (refusal) => told.refusals.push(refusal),
  });
  signaling.start();
  const last = () => {
    const socket = sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  };
  return { clock, sockets, told, signaling, last };
}

describe("entering", () => {
  it("begins with hello", () => {
    const { last, told } = start();
    last().open();
    expect(last().sent).toEqual([HELLO]);
    last().welcome();
    expect(told.statuses).toEqual(["connecting", "member"]);
  });

  it.each(["name_taken", "room_full", "bad_room", "bad_name", "overloaded"] as const)(
    "ends on %s with the server's sentence",
    (code) => {
      const { last, told } = start();
      last().open();
      last().say({ t: "error", code, text: "Because." });
      expect(told.refusals).toEqual([{ code, text: "Because." }]);
      expect(told.statuses.at(-1)).toBe("ended");
    },
  );

  it("ends when the server is not there", () => {
    const { clock, sockets, told, last } = start();
    last().lose();
    expect(told.refusals).toEqual([{ code: null, text: "" }]);
    clock.pass(60_000);
    expect(sockets).toHaveLength(1);
  });

  it("ends when the server says nothing", () => {
    const { clock, told, last } = start();
    last().open();
    clock.pass(WELCOME_MS);
    expect(told.refusals).toHaveLength(1);
  });

  it("tells why the server closed after a complaint", () => {
    const { last, told } = start();
    last().open();
    last().say({ t: "error", code: "rate_limited", text: "Too fast." });
    last().lose();
    expect(told.refusals).toEqual([{ code: "rate_limited", text: "Too fast." }]);
  });
});

describe("a member who loses the socket", () => {
  it("comes back at once, then with pauses, and says hello again", () => {
    const { clock, sockets, told, last } = start();
    last().open();
    last().welcome();
    for (const [attempt, pause] of [...RETRY_MS, RETRY_MS[2]].entries()) {
      last().lose();
      expect(told.statuses.at(-1)).toBe("retrying");
      clock.pass(pause);
      expect(sockets).toHaveLength(attempt + 2);
    }
    last().open();
    expect(last().sent).toEqual([HELLO]);
    last().welcome();
    expect(told.statuses.at(-1)).toBe("member");
    expect(told.refusals).toEqual([]);
  });

  it("asks less often after a minute", () => {
    const { clock, sockets, last } = start();
    last().open();
    last().welcome();
    last().lose();
    while (clock.now() <= RETRY_SOON_MS) {
      clock.pass(RETRY_MS[2]);
      last().lose();
    }
    const before = sockets.length;
    clock.pass(RETRY_LATE_MS - 1);
    expect(sockets).toHaveLength(before);
    clock.pass(1);
    expect(sockets).toHaveLength(before + 1);
  });

  it("keeps asking while the server still holds the lost membership", () => {
    const { clock, sockets, told, last } = start();
    last().open();
    last().welcome();
    last().lose();
    clock.pass(0);
    last().open();
    last().say({ t: "error", code: "name_taken", text: "Taken." });
    last().lose();
    clock.pass(RETRY_MS[1]);
    expect(sockets).toHaveLength(3);
    expect(told.refusals).toEqual([]);
  });

  it("notices a socket that died without a word", () => {
    const { clock, sockets, told, last } = start();
    last().open();
    last().welcome();
    clock.pass(PING_MS);
    expect(last().sent.at(-1)).toEqual({ t: "ping" });
    last().say({ t: "pong" });
    clock.pass(SILENCE_MS + 2 * PING_MS);
    expect(told.statuses).toContain("retrying");
    expect(sockets.length).toBeGreaterThan(1);
  });

  it("hurries when the network is back", () => {
    const { clock, sockets, signaling, last } = start();
    last().open();
    last().welcome();
    last().lose();
    clock.pass(0);
    last().lose();
    signaling.hurry();
    expect(sockets).toHaveLength(3);
  });

  it("does not come back after leaving", () => {
    const { clock, sockets, signaling, last } = start();
    last().open();
    last().welcome();
    signaling.leave();
    expect(last().closed).toBe(1000);
    signaling.hurry();
    clock.pass(60_000);
    expect(sockets).toHaveLength(1);
  });
});
