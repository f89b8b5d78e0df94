/**
 * The socket to the server: says hello, keeps it alive, and comes back when it is lost.
 *
 * It touches no media. After a loss it says hello again, which makes a new membership.
 */
import type { Clock } from "./mesh/clock.ts";
import {
  type ClientMessage,
  type ErrorCode,
  readServerMessage,
  type ServerMessage,
} from "./protocol.ts";

/** Pauses before the first, second and every further attempt to come back, each ±30 %. */
export const RETRY_MS = [0, 300, 1_200] as const;
/** The pause after {@link RETRY_SOON_MS} without success. */
export const RETRY_LATE_MS = 7_000;
export const RETRY_SOON_MS = 60_000;
/** A ping goes out this often, */
export const PING_MS = 5_000;
/** and a socket that says nothing for this long is dead. */
export const SILENCE_MS = 12_000;
/** How long a new socket may take until the server's welcome. */
export const WELCOME_MS = 10_000;

/** How far the socket is. */
export type Status = "connecting" | "member" | "retrying" | "ended";

/** Why the server will not have us; `code` is `null` if it could not be reached at all. */
export interface Refusal {
  readonly code: ErrorCode | null;
  /** The server's sentence. */
  readonly text: string;
}

/** What the socket needs, and whom it tells. */
export interface SignalingHost {
  readonly clock: Clock;
  /** A number from 0 up to, but not including, 1. */
  random(): number;
  open(): WebSocket;
  /** The first frame of every connection. */
  hello(): Extract<ClientMessage, { t: "hello" }>;
  message(message: ServerMessage): void;
  status(status: Status): void;
  /** The end: the server refused, or was never there. */
  refused(refusal: Refusal): void;
}

/** See the module. */
export class Signaling {
  readonly #host: SignalingHost;
  #socket: WebSocket | null = null;
  #timers: (() => void)[] = [];
  /** It has been a member, so it comes back by itself. */
  #wasMember = false;
  /** What the server last complained about, for a close without a welcome. */
  #complaint: Refusal = { code: null, text: "" };
  #attempts = 0;
  #lostAt = 0;
  #heardAt = 0;
  #ended = false;

  constructor(host: SignalingHost) {
    this.#host = host;
  }

  /** Connects and asks to enter. */
  start(): void {
    this.#host.status("connecting");
    this.#open();
  }

  /** Sends to the server. What cannot be sent now is dropped: a new membership says it anew. */
  send(message: ClientMessage): void {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  /** Comes back at once, for example because the network is there again. */
  hurry(): void {
    if (this.#ended || this.#socket) return;
    this.#stopTimers();
    this.#open();
  }

  /** Says goodbye. */
  leave(): void {
    this.#end(1000);
  }

  #open(): void {
    const socket = this.#host.open();
    this.#socket = socket;
    this.#later(WELCOME_MS, () => this.#drop());
    socket.onopen = () => this.send(this.#host.hello());
    socket.onmessage = ({ data }) => {
      this.#heardAt = this.#host.clock.now();
      const message = typeof data === "string" ? readServerMessage(data) : null;
      if (message) this.#receive(message);
    };
    socket.onclose = () => this.#drop();
  }

  #receive(message: ServerMessage): void {
    if (message.t === "welcome") {
      this.#wasMember = true;
      this.#attempts = 0;
      this.#stopTimers();
      this.#host.status("member");
      this.#ping();
    }
    if (message.t === "error") {
      this.#complaint = { code: message.code, text: message.text };
      if (this.#isFinal(message.code)) {
        this.#refuse();
        return;
      }
    }
    this.#host.message(message);
  }

  /** Whether asking again would bring the same answer. */
  #isFinal(code: ErrorCode): boolean {
    switch (code) {
      case "unsupported_version":
      case "bad_room":
      case "bad_name":
        return true;
      case "name_taken":
      case "room_full":
      case "overloaded":
        // Who comes back may meet the remains of the own lost membership.
        return !this.#wasMember;
      case "bad_message":
      case "rate_limited":
      case "no_such_peer":
      case "not_allowed":
        return false;
    }
  }

  #ping(): void {
    this.#later(PING_MS, () => {
      if (this.#host.clock.now() - this.#heardAt > SILENCE_MS) return this.#drop();
      this.send({ t: "ping" });
      this.#ping();
    });
  }

  /** The socket is gone: come back later, or give up if it never worked. */
  #drop(): void {
    if (this.#ended) return;
    this.#forget();
    if (!this.#wasMember) {
      this.#refuse();
      return;
    }
    const now = this.#host.clock.now();
    if (this.#attempts === 0) this.#lostAt = now;
    this.#host.status("retrying");
    const soon = RETRY_MS[Math.min(this.#attempts, RETRY_MS.length - 1)] ?? RETRY_LATE_MS;
    const pause = now - this.#lostAt > RETRY_SOON_MS ? RETRY_LATE_MS : soon;
    this.#attempts += 1;
    this.#later(pause * (0.7 + 0.6 * this.#host.random()), () => this.#open());
  }

  #refuse(): void {
    this.#end(1000);
    this.#host.refused(this.#complaint);
  }

  #end(code: number): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#forget(code);
    this.#host.status("ended");
  }

  #forget(code?: number): void {
    this.#stopTimers();
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  #later(ms: number, work: () => void): void {
    this.#timers.push(this.#host.clock.after(ms, work));
  }

  #stopTimers(): void {
    for (const cancel of this.#timers) cancel();
    this.#timers = [];
  }
}
