/**
 * The class protocol on `/ws`: the types generated from `signaling/src/protocol.rs`, and the
 * reader that turns a frame from the network into one of them or into nothing.
 */
import type {
  Candidate,
  ErrorCode,
  Ice,
  IceServer,
  LinkBody,
  LinkState,
  Media,
  Peer,
  ServerMessage,
} from "./wire/protocol.ts";

export type * from "./wire/protocol.ts";
export { VERSION } from "./wire/protocol.ts";

/**
 * Reads one text frame. `null` for anything that is not a message of this version, so that a
 * newer server's message is passed over instead of breaking the class.
 */
export function readServerMessage(frame: string): ServerMessage | null {
  try {
    const value: unknown = JSON.parse(frame);
    const tag = isRecord(value) ? value["t"] : undefined;
    if (typeof tag !== "string" || !Object.hasOwn(SERVER_MESSAGES, tag)) return null;
    return SERVER_MESSAGES[tag as ServerMessage["t"]](value);
  } catch (error) {
    if (error instanceof Unreadable || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Turns an unknown value into a `T`, or throws {@link Unreadable}. */
type Reader<T> = (value: unknown) => T;

class Unreadable extends Error {}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  if (typeof value !== "string") throw new Unreadable();
  return value;
}

function flag(value: unknown): boolean {
  if (typeof value !== "boolean") throw new Unreadable();
  return value;
}

/** An unsigned 32-bit number. */
function count(value: unknown): number {
  if (typeof value !== "number" || value >>> 0 !== value) throw new Unreadable();
  return value;
}

function oneOf<T extends string>(words: Record<T, true>): Reader<T> {
  return (value) => {
    if (typeof value !== "string" || !Object.hasOwn(words, value)) throw new Unreadable();
    return value as T;
  };
}

function list<T>(item: Reader<T>): Reader<T[]> {
  return (value) => {
    if (!Array.isArray(value)) throw new Unreadable();
    return value.map(item);
  };
}

function nullable<T>(inner: Reader<T>): Reader<T | null> {
  return (value) => (value === null || value === undefined ? null : inner(value));
}

/** An object with exactly these fields; further ones are left out of the result. */
function fields<T>(readers: { [K in keyof T]-?: Reader<T[K]> }): Reader<T> {
  return (value) => {
    if (!isRecord(value)) throw new Unreadable();
    const result: Partial<T> = {};
    for (const key of Object.keys(readers) as (keyof T & string)[]) {
      result[key] = readers[key](value[key]);
    }
    return result as T;
  };
}

function tagged<T extends string>(word: T): Reader<T> {
  return oneOf({ [word]: true } as Record<T, true>);
}

const media = fields<Media>({ mic: flag, cam: flag });
const peer = fields<Peer>({ id: text, name: text, joinNo: count, media });
const linkState = fields<LinkState>({ relayed: flag, ownLeg: flag });
const description = fields<{ sdp: string }>({ sdp: text });
const candidate = fields<Candidate>({
  candidate: text,
  sdpMid: nullable(text),
  sdpMLineIndex: nullable(count),
  usernameFragment: nullable(text),
});

function iceServer(value: unknown): IceServer {
  if (!isRecord(value)) throw new Unreadable();
  const server: IceServer = { urls: list(text)(value["urls"]) };
  if (value["username"] !== undefined) server.username = text(value["username"]);
  if (value["credential"] !== undefined) server.credential = text(value["credential"]);
  return server;
}

const ice = fields<Ice>({ servers: list(iceServer), ttl: count });

type OfKind<K extends LinkBody["kind"]> = Extract<LinkBody, { kind: K }>;

const LINK_BODIES: { [K in LinkBody["kind"]]: Reader<OfKind<K>> } = {
  offer: fields<OfKind<"offer">>({ kind: tagged("offer"), body: description }),
  answer: fields<OfKind<"answer">>({ kind: tagged("answer"), body: description }),
  cand: fields<OfKind<"cand">>({ kind: tagged("cand"), body: list(nullable(candidate)) }),
  reset: fields<OfKind<"reset">>({ kind: tagged("reset") }),
  state: fields<OfKind<"state">>({ kind: tagged("state"), body: linkState }),
};

function link(value: unknown): OfTag<"link"> {
  const head = fields<{ t: "link"; from: string; epoch: number }>({
    t: tagged("link"),
    from: text,
    epoch: count,
  })(value);
  const kind = isRecord(value) ? value["kind"] : undefined;
  if (typeof kind !== "string" || !Object.hasOwn(LINK_BODIES, kind)) throw new Unreadable();
  return { ...head, ...LINK_BODIES[kind as LinkBody["kind"]](value) };
}

const errorCode = oneOf<ErrorCode>({
  bad_message: true,
  unsupported_version: true,
  bad_room: true,
  bad_name: true,
  name_taken: true,
  room_full: true,
  overloaded: true,
  rate_limited: true,
  no_such_peer: true,
  not_allowed: true,
});

type OfTag<K extends ServerMessage["t"]> = Extract<ServerMessage, { t: K }>;

/** One reader per message: a message added in Rust does not compile here until it has one. */
const SERVER_MESSAGES: { [K in ServerMessage["t"]]: Reader<OfTag<K>> } = {
  welcome: fields<OfTag<"welcome">>({
    t: tagged("welcome"),
    you: text,
    key: text,
    room: text,
    peopleMax: count,
    peers: list(peer),
    ice,
  }),
  joined: fields<OfTag<"joined">>({ t: tagged("joined"), peer }),
  left: fields<OfTag<"left">>({
    t: tagged("left"),
    id: text,
    reason: oneOf({ left: true, lost: true }),
  }),
  link,
  media: fields<OfTag<"media">>({ t: tagged("media"), from: text, media }),
  ice: fields<OfTag<"ice">>({ t: tagged("ice"), ice }),
  pong: fields<OfTag<"pong">>({ t: tagged("pong") }),
  error: fields<OfTag<"error">>({ t: tagged("error"), code: errorCode, text }),
};
