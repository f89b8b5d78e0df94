/**
 * What one end of a link does next: a pure function of its state, an event and the time.
 *
 * A link joins two people. The one who joined later offers, always, so both ends can never offer
 * at once. Every attempt to connect has an epoch; whatever belongs to an older epoch is dropped.
 * Any doubt ends in a rebuild: the next epoch with a fresh connection. A connection that worked
 * is kept until its successor works, because paths heal by themselves.
 *
 * All times are milliseconds of one monotonic clock.
 */
import type { Candidate, LinkBody, LinkState } from "../protocol.ts";

/** Local candidates wait this long for company, so that one message carries many. */
export const BATCH_MS = 50;
/** How long an offer waits for its answer. */
export const ANSWER_MS = 8_000;
/** How long a described connection may stay `new`. */
export const NEW_MS = 4_000;
/** How long a connection may stay `connecting`. */
export const CONNECTING_MS = 6_000;
/** How long a connection may stay `disconnected` before a second one is tried beside it. */
export const DISCONNECTED_MS = 2_000;
/** How long the answering end waits for an offer before it asks for one. */
export const OFFER_MS = 10_000;
/** The answering end lets the offerer act first by this much. */
export const PATIENCE_MS = 2_000;
/** Two rebuilds of one link are at least this far apart. */
export const REBUILD_GAP_MS = 2_000;
/** Pause before the first, second, … rebuild in a row. */
export const BACK_OFF_MS = [0, 2_000, 4_000, 8_000, 15_000] as const;
/** Most candidates kept for a description that has not come yet, and most in one message. */
export const CANDIDATES_MAX = 64;
/** A message whose epoch is further ahead is no honest rebuild. */
export const EPOCH_JUMP_MAX = 64;

/** The later joiner offers; the other end answers. */
export type Role = "offerer" | "answerer";

/** One connection and how far it has come. */
export interface Attempt {
  readonly epoch: number;
  /** `described` once both descriptions are under way to the connection. */
  readonly stage: "describing" | "offered" | "described";
  readonly connection: RTCPeerConnectionState;
  /** It has been connected at some time. */
  readonly worked: boolean;
  /** Own candidates that wait for {@link Attempt.flushAt}. */
  readonly outbox: readonly (Candidate | null)[];
  readonly flushAt: number | null;
  /** When the watchdog gives this attempt up. */
  readonly giveUpAt: number | null;
}

/** One end of a link. */
export interface Link {
  readonly role: Role;
  /** Factor on every pause, drawn once, so that many links do not rebuild in step. */
  readonly spread: number;
  /** The highest epoch that either end has begun; 0 before the first. */
  readonly epoch: number;
  readonly current: Attempt | null;
  /** A connection that worked and is kept until {@link Link.current} works. */
  readonly previous: Attempt | null;
  /** Candidates that came before their epoch's description. */
  readonly early: { readonly epoch: number; readonly candidates: readonly (Candidate | null)[] };
  readonly failures: number;
  readonly rebuildAt: number | null;
  readonly rebuiltAt: number;
  /** The path as this end and the other end see it. */
  readonly mine: LinkState | null;
  readonly theirs: LinkState | null;
}

/** What happened. Events of the own connection carry the epoch of that connection. */
export type Event =
  | { readonly on: "start" }
  | { readonly on: "message"; readonly epoch: number; readonly body: LinkBody }
  | { readonly on: "described"; readonly epoch: number; readonly sdp: string }
  | { readonly on: "candidate"; readonly epoch: number; readonly candidate: Candidate | null }
  | { readonly on: "connection"; readonly epoch: number; readonly state: RTCPeerConnectionState }
  | { readonly on: "path"; readonly epoch: number; readonly path: LinkState }
  | { readonly on: "broken"; readonly epoch: number }
  | { readonly on: "time" };

/** What to do about it, in order. `offer` and `accept` open the connection of their epoch. */
export type Action =
  | { readonly do: "offer"; readonly epoch: number }
  | { readonly do: "accept"; readonly epoch: number; readonly sdp: string }
  | { readonly do: "complete"; readonly epoch: number; readonly sdp: string }
  | {
      readonly do: "candidates";
      readonly epoch: number;
      readonly candidates: readonly (Candidate | null)[];
    }
  | { readonly do: "close"; readonly epoch: number }
  | { readonly do: "send"; readonly epoch: number; readonly body: LinkBody };

/** What a person is told about a link. */
export interface LinkView {
  readonly state: "connecting" | "connected" | "reconnecting";
  /** Whether media crosses a relay; `null` until one end knows. */
  readonly relayed: boolean | null;
}

/** A link before its `start`. `spread` is about 1, see {@link Link.spread}. */
export function newLink(role: Role, spread: number): Link {
  return {
    role,
    spread,
    epoch: 0,
    current: null,
    previous: null,
    early: { epoch: 0, candidates: [] },
    failures: 0,
    rebuildAt: null,
    rebuiltAt: Number.NEGATIVE_INFINITY,
    mine: null,
    theirs: null,
  };
}

/** The state after `event`, and what to do. */
export function reduce(link: Link, event: Event, now: number): [Link, Action[]] {
  const actions: Action[] = [];
  const next = step(link, event, now, actions);
  return [next, actions];
}

/** When {@link reduce} wants to see a `time` event next; `null` if nothing is waited for. */
export function wakeAt(link: Link): number | null {
  const times = [link.rebuildAt, link.current?.flushAt, link.current?.giveUpAt];
  const waiting = times.filter((time) => typeof time === "number");
  return waiting.length === 0 ? null : Math.min(...waiting);
}

/** The epoch of the connection that carries media: the newest one that is connected. */
export function liveEpoch(link: Link): number | null {
  const attempts = [link.current, link.previous];
  return attempts.find((attempt) => attempt?.connection === "connected")?.epoch ?? null;
}

/** The link in the words of {@link LinkView}. Either end's view makes a link relayed. */
export function viewOf(link: Link): LinkView {
  const worked = link.previous !== null || link.current?.worked === true;
  const state = liveEpoch(link) !== null ? "connected" : worked ? "reconnecting" : "connecting";
  const known = link.mine !== null || link.theirs !== null;
  const relayed = link.mine?.relayed === true || link.theirs?.relayed === true;
  return { state, relayed: known ? relayed : null };
}

function step(link: Link, event: Event, now: number, out: Action[]): Link {
  switch (event.on) {
    case "start":
      return link.role === "offerer"
        ? offer(link, link.epoch + 1, now, out)
        : { ...link, rebuildAt: now + OFFER_MS };
    case "message":
      return onMessage(link, event.epoch, event.body, now, out);
    case "described":
      return onDescribed(link, event.epoch, event.sdp, now, out);
    case "candidate":
      return onCandidate(link, event.epoch, event.candidate, now);
    case "connection":
      return onConnection(link, event.epoch, event.state, now, out);
    case "path":
      return onPath(link, event.epoch, event.path, out);
    case "broken":
      return event.epoch === link.current?.epoch ? planRebuild(link, now, out) : link;
    case "time":
      return onTime(link, now, out);
  }
}

function onMessage(link: Link, epoch: number, body: LinkBody, now: number, out: Action[]): Link {
  if (epoch < link.epoch || epoch > link.epoch + EPOCH_JUMP_MAX) return link;
  switch (body.kind) {
    case "offer": {
      if (link.role !== "answerer" || epoch === link.current?.epoch) return link;
      const opened = open(link, epoch, now, out);
      out.push({ do: "accept", epoch, sdp: body.body.sdp });
      return releaseEarly(opened, out);
    }
    case "answer": {
      const attempt = link.current;
      if (attempt?.epoch !== epoch || attempt.stage !== "offered") return link;
      out.push({ do: "complete", epoch, sdp: body.body.sdp });
      const giveUpAt = now + stretch(link, NEW_MS);
      return releaseEarly({ ...link, current: { ...attempt, stage: "described", giveUpAt } }, out);
    }
    case "cand": {
      if (acceptsCandidates(link, epoch)) {
        out.push({ do: "candidates", epoch, candidates: body.body });
        return link;
      }
      const before = link.early.epoch === epoch ? link.early.candidates : [];
      const candidates = [...before, ...body.body].slice(0, CANDIDATES_MAX);
      return { ...link, early: { epoch, candidates } };
    }
    case "reset": {
      if (link.role !== "offerer" || epoch === link.epoch) return link;
      // The epoch is taken over when the rebuild begins, so that both ends name the same one.
      const at = Math.max(now, link.rebuiltAt + REBUILD_GAP_MS);
      return at <= now
        ? offer(link, epoch, now, out)
        : { ...link, epoch: epoch - 1, rebuildAt: at };
    }
    case "state":
      return epoch === link.current?.epoch ? { ...link, theirs: body.body } : link;
  }
}

function onDescribed(link: Link, epoch: number, sdp: string, now: number, out: Action[]): Link {
  const attempt = link.current;
  if (attempt?.epoch !== epoch || attempt.stage !== "describing") return link;
  const offers = link.role === "offerer";
  out.push({ do: "send", epoch, body: { kind: offers ? "offer" : "answer", body: { sdp } } });
  const stage = offers ? "offered" : "described";
  const giveUpAt = now + (offers ? ANSWER_MS : stretch(link, NEW_MS));
  return { ...link, current: { ...attempt, stage, giveUpAt } };
}

function onCandidate(link: Link, epoch: number, candidate: Candidate | null, now: number): Link {
  const attempt = link.current;
  if (attempt?.epoch !== epoch || attempt.outbox.length >= CANDIDATES_MAX) return link;
  const outbox = [...attempt.outbox, candidate];
  return { ...link, current: { ...attempt, outbox, flushAt: attempt.flushAt ?? now + BATCH_MS } };
}

function onConnection(
  link: Link,
  epoch: number,
  connection: RTCPeerConnectionState,
  now: number,
  out: Action[],
): Link {
  if (epoch === link.previous?.epoch) {
    return { ...link, previous: { ...link.previous, connection } };
  }
  const attempt = link.current;
  if (attempt?.epoch !== epoch) return link;
  const seen = { ...link, current: { ...attempt, connection } };
  switch (connection) {
    case "new":
      return seen;
    case "connecting":
      return watch(seen, now + stretch(link, CONNECTING_MS));
    case "connected": {
      if (link.previous) out.push({ do: "close", epoch: link.previous.epoch });
      const current = { ...attempt, connection, worked: true, giveUpAt: null };
      return { ...link, current, previous: null, failures: 0, rebuildAt: null };
    }
    case "disconnected":
      return watch(seen, now + DISCONNECTED_MS);
    case "failed":
    case "closed":
      return planRebuild(seen, now, out);
  }
}

/** Tells the other end when the path seen from here has changed. */
function onPath(link: Link, epoch: number, path: LinkState, out: Action[]): Link {
  if (epoch !== link.current?.epoch) return link;
  const same = link.mine?.relayed === path.relayed && link.mine.ownLeg === path.ownLeg;
  if (same) return link;
  out.push({ do: "send", epoch, body: { kind: "state", body: path } });
  return { ...link, mine: path };
}

function onTime(link: Link, now: number, out: Action[]): Link {
  const flushed = flush(link, now, out);
  const giveUpAt = flushed.current?.giveUpAt ?? null;
  if (giveUpAt !== null && giveUpAt <= now) return planRebuild(flushed, now, out);
  if (flushed.rebuildAt !== null && flushed.rebuildAt <= now) return rebuild(flushed, now, out);
  return flushed;
}

/** Sends the batch of own candidates that is due, after the description they belong to. */
function flush(link: Link, now: number, out: Action[]): Link {
  const attempt = link.current;
  if (!attempt || attempt.flushAt === null || attempt.flushAt > now) return link;
  if (attempt.stage === "describing") {
    return { ...link, current: { ...attempt, flushAt: now + BATCH_MS } };
  }
  out.push({ do: "send", epoch: attempt.epoch, body: { kind: "cand", body: [...attempt.outbox] } });
  return { ...link, current: { ...attempt, outbox: [], flushAt: null } };
}

/** Gives the current attempt up and chooses the time of the next. */
function planRebuild(link: Link, now: number, out: Action[]): Link {
  if (link.rebuildAt !== null) return watch(link, null);
  const step = Math.min(link.failures, BACK_OFF_MS.length - 1);
  const pause = (BACK_OFF_MS[step] ?? 0) * link.spread;
  const patience = link.role === "answerer" ? PATIENCE_MS : 0;
  const rebuildAt = Math.max(now + pause, link.rebuiltAt + REBUILD_GAP_MS) + patience;
  const planned = { ...watch(link, null), failures: link.failures + 1, rebuildAt };
  return rebuildAt <= now ? rebuild(planned, now, out) : planned;
}

/** The offerer offers anew; the other end asks it to. */
function rebuild(link: Link, now: number, out: Action[]): Link {
  const epoch = link.epoch + 1;
  if (link.role === "offerer") return offer(link, epoch, now, out);
  out.push({ do: "send", epoch, body: { kind: "reset" } });
  const retired = retire(link, out);
  return { ...retired, epoch, rebuiltAt: now, rebuildAt: now + OFFER_MS };
}

function offer(link: Link, epoch: number, now: number, out: Action[]): Link {
  const opened = open(link, epoch, now, out);
  out.push({ do: "offer", epoch });
  return opened;
}

function open(link: Link, epoch: number, now: number, out: Action[]): Link {
  const current: Attempt = {
    epoch,
    stage: "describing",
    connection: "new",
    worked: false,
    outbox: [],
    flushAt: null,
    giveUpAt: now + ANSWER_MS,
  };
  const retired = retire(link, out);
  return { ...retired, epoch, current, rebuildAt: null, rebuiltAt: now, mine: null, theirs: null };
}

/** Keeps the current connection as the previous one if it ever worked, and closes it if not. */
function retire(link: Link, out: Action[]): Link {
  const { current } = link;
  if (!current) return link;
  if (!current.worked || current.connection === "closed") {
    out.push({ do: "close", epoch: current.epoch });
    return { ...link, current: null };
  }
  // There is no other previous one: it was closed when the current one began to work.
  return { ...link, current: null, previous: current };
}

/** The answering end describes with the offer in hand, so it can take candidates at once. */
function acceptsCandidates(link: Link, epoch: number): boolean {
  const attempt = link.current;
  if (attempt?.epoch !== epoch) return false;
  return link.role === "answerer" || attempt.stage === "described";
}

function releaseEarly(link: Link, out: Action[]): Link {
  const { epoch, candidates } = link.early;
  if (epoch !== link.current?.epoch || candidates.length === 0) return link;
  out.push({ do: "candidates", epoch, candidates });
  return { ...link, early: { epoch, candidates: [] } };
}

function watch(link: Link, giveUpAt: number | null): Link {
  return link.current ? { ...link, current: { ...link.current, giveUpAt } } : link;
}

/** Slow machines get more time with every failure. */
function stretch(link: Link, ms: number): number {
  return ms * (1 + link.failures / 2);
}
