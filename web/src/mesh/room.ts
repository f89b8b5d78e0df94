/**
 * The people in the room and the links to them.
 *
 * A lost signalling socket never ends media. Whoever lost it comes back under a new id, is known
 * again by the name, which is unique in a room, and the old link plays on until the new one works.
 */
import type {
  ClientMessage,
  LinkBody,
  Media,
  Peer as PeerInfo,
  ServerMessage,
} from "../protocol.ts";
import type { Clock } from "./clock.ts";
import type { Tracks } from "./connection.ts";
import type { LinkView, Role } from "./link.ts";
import { relayAddressesOf } from "./path.ts";
import { type LinkStats, Peer, type PeerHost, type RelayTrouble } from "./peer.ts";
import { budget } from "./planner.ts";

/** What a room needs from the page around it. */
export interface RoomHost {
  readonly clock: Clock;
  /** A number from 0 up to, but not including, 1. */
  random(): number;
  connect(configuration: RTCConfiguration): RTCPeerConnection;
  /** Keeps the own sound and picture together at the other ends. */
  readonly stream: MediaStream;
  send(message: ClientMessage): void;
  /** Somebody came, went or changed. */
  changed(): void;
}

/** Somebody else in the room. */
export interface Member {
  readonly id: string;
  readonly name: string;
  readonly media: Media;
  readonly link: LinkView;
  readonly received: Tracks;
  readonly trouble: RelayTrouble | null;
}

/** The statistics of the link to `peer`; `relayed` is what both ends together know. */
export interface MemberStats extends LinkStats {
  readonly peer: string;
  readonly name: string;
}

interface Entry {
  info: PeerInfo;
  link: Peer;
  /** The link of an earlier membership, kept until {@link Entry.link} works. */
  old: Peer | null;
  /** Cannot be reached over signalling; media may still flow. */
  away: boolean;
}

/** See the module. */
export class Room {
  readonly #host: RoomHost;
  /** By id, in the order of arrival. */
  #entries = new Map<string, Entry>();
  #servers: RTCIceServer[] = [];
  #relayAddresses: ReadonlySet<string> = new Set();
  #tracks: Tracks = { mic: null, cam: null };

  constructor(host: RoomHost) {
    this.#host = host;
  }

  /** Everybody else, in the order of arrival. */
  members(): Member[] {
    return [...this.#entries.values()].map(({ info, link, old }) => {
      const shown = old && link.view.state !== "connected" ? old : link;
      return {
        id: info.id,
        name: info.name,
        media: info.media,
        link: shown.view,
        received: shown.received(),
        trouble: link.trouble,
      };
    });
  }

  /** Statistics of every link that has a connection. */
  async stats(): Promise<MemberStats[]> {
    const all = [...this.#entries.values()].map(async ({ info, link }) => {
      const stats = await link.stats();
      const relayed = link.view.relayed ?? stats?.relayed ?? false;
      return stats && { ...stats, relayed, peer: info.id, name: info.name };
    });
    return (await Promise.all(all)).filter((stats) => stats !== null);
  }

  /** Takes a message of the server; those that concern no link are passed over. */
  receive(message: ServerMessage): void {
    switch (message.t) {
      case "welcome":
        this.#useServers(message.ice.servers);
        this.#reconcile(message.peers);
        break;
      case "joined":
        this.#enter(message.peer, "answerer");
        break;
      case "left":
        if (message.reason === "lost") this.#lose(message.id);
        else this.#remove(message.id);
        break;
      case "link": {
        const { from, epoch, t: _, ...body } = message;
        this.#entries.get(from)?.link.receive(epoch, body as LinkBody);
        break;
      }
      case "media": {
        const entry = this.#entries.get(message.from);
        if (entry) entry.info = { ...entry.info, media: message.media };
        break;
      }
      case "ice":
        this.#useServers(message.ice.servers);
        break;
      case "pong":
      case "error":
        return;
    }
    this.#changed();
  }

  /** Sends these tracks to everybody from now on. */
  setTracks(tracks: Tracks): void {
    this.#tracks = tracks;
    this.#updateLinks();
  }

  /** Ends all links. */
  close(): void {
    for (const { link, old } of this.#entries.values()) {
      link.close();
      old?.close();
    }
    this.#entries.clear();
  }

  /** After a new `welcome`: links to everybody listed are new, who is not listed is away. */
  #reconcile(peers: readonly PeerInfo[]): void {
    for (const id of [...this.#entries.keys()]) this.#lose(id);
    for (const peer of peers) this.#enter(peer, "offerer");
  }

  #enter(info: PeerInfo, role: Role): void {
    const known = [...this.#entries.values()].find((entry) => sameName(entry.info, info));
    known?.old?.close();
    known?.link.silence();
    const link = new Peer(this.#peerHost(info.id), role, 0.7 + 0.6 * this.#host.random());
    const entry = { info, link, old: known?.link ?? null, away: false };
    if (known) this.#replace(known.info.id, entry);
    else this.#entries.set(info.id, entry);
    link.start();
    this.#updateLinks();
  }

  /** Puts `entry` where the person was before, so that nobody's tile moves. */
  #replace(id: string, entry: Entry): void {
    const entries = [...this.#entries];
    this.#entries = new Map(
      entries.map(([key, value]) => (key === id ? [entry.info.id, entry] : [key, value])),
    );
  }

  #lose(id: string): void {
    const entry = this.#entries.get(id);
    if (!entry) return;
    entry.away = true;
    entry.link.silence();
  }

  #remove(id: string): void {
    const entry = this.#entries.get(id);
    if (!entry) return;
    this.#entries.delete(id);
    entry.link.close();
    entry.old?.close();
    this.#updateLinks();
  }

  /** Drops what has served its time: replaced links, and people away whose media stopped. */
  #changed(): void {
    for (const [id, entry] of [...this.#entries]) {
      const works = entry.link.view.state === "connected";
      if (entry.old && works) {
        entry.old.close();
        entry.old = null;
      }
      const plays = works || entry.old?.view.state === "connected";
      if (entry.away && !plays) this.#remove(id);
    }
    this.#host.changed();
  }

  #useServers(servers: RTCIceServer[]): void {
    this.#servers = servers;
    this.#relayAddresses = relayAddressesOf(
      servers.map(({ urls }) => ({ urls: typeof urls === "string" ? [urls] : urls })),
    );
    for (const { link } of this.#entries.values()) link.useServers(servers);
  }

  #updateLinks(): void {
    for (const { link, old } of this.#entries.values()) {
      link.update();
      old?.update();
    }
  }

  #peerHost(to: string): PeerHost {
    return {
      clock: this.#host.clock,
      connect: () => this.#host.connect({ iceServers: this.#servers, bundlePolicy: "max-bundle" }),
      outgoing: () => ({
        tracks: this.#tracks,
        stream: this.#host.stream,
        budget: budget(this.#entries.size + 1),
      }),
      relayAddresses: () => this.#relayAddresses,
      send: (epoch, body) => this.#host.send({ t: "link", to, epoch, ...body }),
      changed: () => this.#changed(),
    };
  }
}

function sameName(a: PeerInfo, b: PeerInfo): boolean {
  return a.name.toLocaleLowerCase() === b.name.toLocaleLowerCase();
}
