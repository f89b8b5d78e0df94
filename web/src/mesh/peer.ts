/**
 * The edge of one link: does what the reducer in `link.ts` decides and tells it what happened.
 */
import type { LinkBody } from "../protocol.ts";
import type { Clock } from "./clock.ts";
import { Connection, type Outgoing, type Tracks } from "./connection.ts";
import {
  type Action,
  type Event,
  type Link,
  type LinkView,
  liveEpoch,
  newLink,
  type Role,
  reduce,
  viewOf,
  wakeAt,
} from "./link.ts";
import { framesOf, type Path, pathOf } from "./path.ts";

/** How often the path of a connected link is read. */
export const PATH_POLL_MS = 1_500;

/** Why a relay did not help, by the code of its refusal (RFC 8656 §18). */
export type RelayTrouble = "refused" | "full";

/** What a peer needs from its room. */
export interface PeerHost {
  readonly clock: Clock;
  connect(): RTCPeerConnection;
  outgoing(): Outgoing;
  relayAddresses(): ReadonlySet<string>;
  send(epoch: number, body: LinkBody): void;
  /** Something that a person can see has changed. */
  changed(): void;
}

/** A link at one moment: the path with what flowed on it, for statistics and tests. */
export interface LinkStats extends Path {
  readonly state: RTCPeerConnectionState;
  readonly epoch: number;
  readonly framesDecoded: number;
  readonly framesSent: number;
}

const NOTHING: Tracks = { mic: null, cam: null };

/** See the module. */
export class Peer {
  readonly #host: PeerHost;
  readonly #connections = new Map<number, Connection>();
  #link: Link;
  #trouble: RelayTrouble | null = null;
  #cancelWake: () => void = () => undefined;
  #cancelPoll: () => void = () => undefined;
  #silent = false;
  #closed = false;

  constructor(host: PeerHost, role: Role, spread: number) {
    this.#host = host;
    this.#link = newLink(role, spread);
  }

  /** Begins: the offerer offers, the other end waits for it. */
  start(): void {
    this.#dispatch({ on: "start" });
  }

  /** Takes what the other end says. */
  receive(epoch: number, body: LinkBody): void {
    this.#dispatch({ on: "message", epoch, body });
  }

  /** The link as a person sees it. */
  get view(): LinkView {
    return viewOf(this.#link);
  }

  /**
   * Why the relay did not help. A full one matters only to who needs it; a refusal is said even
   * on a link that works, as it will hit the next person behind a firewall.
   */
  get trouble(): RelayTrouble | null {
    const idle = this.#trouble === "full" && this.view.state === "connected";
    return idle ? null : this.#trouble;
  }

  /** What the other end sends, from the connection that works. */
  received(): Tracks {
    return this.#live()?.received() ?? NOTHING;
  }

  /** Sends the room's present tracks and keeps to its present budget. */
  update(): void {
    const { tracks, budget } = this.#host.outgoing();
    for (const [epoch, connection] of this.#connections) {
      connection.replaceTracks(tracks).catch(() => this.#dispatch({ on: "broken", epoch }));
      connection.applyBudget(budget).catch(() => this.#dispatch({ on: "broken", epoch }));
    }
  }

  /** Uses fresh servers and credentials for what is gathered from now on. */
  useServers(servers: RTCIceServer[]): void {
    for (const connection of this.#connections.values()) connection.useServers(servers);
  }

  /** Keeps the media of a person who cannot be reached any more, but neither speaks nor rebuilds. */
  silence(): void {
    this.#silent = true;
    this.#cancelWake();
  }

  /** The present statistics; `null` before the first connection. */
  async stats(): Promise<LinkStats | null> {
    const epoch = liveEpoch(this.#link) ?? this.#link.current?.epoch;
    const connection = epoch === undefined ? undefined : this.#connections.get(epoch);
    if (epoch === undefined || !connection) return null;
    const stats = await connection.stats();
    const frames = framesOf(stats);
    return {
      ...(pathOf(stats, this.#host.relayAddresses()) ?? NO_PATH),
      state: connection.state,
      epoch,
      framesDecoded: frames.decoded,
      framesSent: frames.sent,
    };
  }

  /** Ends the link. */
  close(): void {
    this.#closed = true;
    this.#cancelWake();
    this.#cancelPoll();
    for (const connection of this.#connections.values()) connection.close();
    this.#connections.clear();
  }

  #live(): Connection | undefined {
    const epoch = liveEpoch(this.#link) ?? this.#link.previous?.epoch ?? this.#link.current?.epoch;
    return epoch === undefined ? undefined : this.#connections.get(epoch);
  }

  #dispatch(event: Event): void {
    if (this.#closed) return;
    const now = this.#host.clock.now();
    const before = this.#link;
    const [link, actions] = reduce(before, event, now);
    this.#link = link;
    for (const action of actions) this.#act(action);
    this.#cancelWake();
    const at = wakeAt(link);
    if (at !== null && !this.#silent) {
      const wake = () => this.#dispatch({ on: "time" });
      this.#cancelWake = this.#host.clock.after(Math.max(0, at - now), wake);
    }
    if (event.on === "connection" && event.state === "connected") this.#poll();
    if (link !== before) this.#host.changed();
  }

  #act(action: Action): void {
    const { epoch } = action;
    switch (action.do) {
      case "offer":
        this.#describe(epoch, this.#open(epoch).offer(this.#host.outgoing()));
        return;
      case "accept":
        this.#describe(epoch, this.#open(epoch).accept(action.sdp, this.#host.outgoing()));
        return;
      case "complete":
        this.#watch(epoch, this.#connections.get(epoch)?.complete(action.sdp));
        return;
      case "candidates":
        this.#watch(epoch, this.#connections.get(epoch)?.addCandidates(action.candidates));
        return;
      case "close":
        this.#connections.get(epoch)?.close();
        this.#connections.delete(epoch);
        return;
      case "send":
        if (!this.#silent) this.#host.send(epoch, action.body);
        return;
    }
  }

  #open(epoch: number): Connection {
    this.#trouble = null;
    const connection = new Connection(this.#host.connect(), {
      candidate: (candidate) => this.#dispatch({ on: "candidate", epoch, candidate }),
      state: (state) => this.#dispatch({ on: "connection", epoch, state }),
      serverError: (code) => this.#serverError(code),
    });
    this.#connections.set(epoch, connection);
    return connection;
  }

  #describe(epoch: number, description: Promise<string>): void {
    const described = description.then((sdp) => this.#dispatch({ on: "described", epoch, sdp }));
    this.#watch(epoch, described);
  }

  #watch(epoch: number, work: Promise<void> | undefined): void {
    work?.catch(() => this.#dispatch({ on: "broken", epoch }));
  }

  #serverError(code: number): void {
    const trouble = TROUBLES.get(code);
    if (!trouble) return;
    this.#trouble = trouble;
    this.#host.changed();
  }

  /** Reads the path now and then for as long as the link lives. */
  #poll(): void {
    this.#cancelPoll();
    this.#cancelPoll = this.#host.clock.after(PATH_POLL_MS, () => this.#poll());
    const epoch = liveEpoch(this.#link);
    const connection = epoch === null ? undefined : this.#connections.get(epoch);
    if (epoch === null || !connection) return;
    connection
      .stats()
      .then((stats) => {
        const path = pathOf(stats, this.#host.relayAddresses());
        if (!path || liveEpoch(this.#link) !== epoch) return;
        const { relayed, ownLeg } = path;
        this.#dispatch({ on: "path", epoch, path: { relayed, ownLeg } });
      })
      // A connection that was closed meanwhile has no statistics, and none are missed.
      .catch(() => undefined);
  }
}

const TROUBLES: ReadonlyMap<number, RelayTrouble> = new Map([
  [401, "refused"],
  [403, "refused"],
  [441, "refused"],
  [486, "full"],
  [508, "full"],
] as const);

const NO_PATH: Path = {
  relayed: false,
  ownLeg: false,
  kind: { local: "", remote: "" },
  relayProtocol: null,
  bytesSent: 0,
  bytesReceived: 0,
  packetsSent: 0,
  packetsReceived: 0,
  roundTripTime: null,
  pair: {},
};
