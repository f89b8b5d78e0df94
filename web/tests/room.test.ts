import { beforeEach, describe, expect, it } from "vitest";
import { PATH_POLL_MS } from "../src/mesh/peer.ts";
import { Room } from "../src/mesh/room.ts";
import type { ClientMessage, Peer, ServerMessage } from "../src/protocol.ts";
import { TestClock } from "./clock.ts";

const MEDIA = { mic: true, cam: true };
const ICE = { servers: [{ urls: ["turn:203.0.113.10:3478"] }], ttl: 1800 };

/**
 * A double of `RTCPeerConnection`: it has slots, descriptions and a state, and it connects when
 * the test says so. It carries no media and knows no network.
 */
class Connection {
  static readonly all: Connection[] = [];
  connectionState: RTCPeerConnectionState = "new";
  localDescription: { sdp: string } | null = null;
  remote: string | undefined;
  onicecandidate: unknown = null;
  onicecandidateerror: ((event: { errorCode: number }) => void) | null = null;
  onconnectionstatechange: (() => void) | null = null;
  readonly transceivers: object[] = [];
  readonly stats: object[] = [];

  constructor() {
    Connection.all.push(this);
  }

  addTransceiver(kind: string): object {
    const sender = {
      track: null as unknown,
      getParameters: () => ({ encodings: [{}] }),
      setParameters: async () => undefined,
      replaceTrack: async (track: unknown) => {
        sender.track = track;
      },
    };
    const transceiver = { sender, receiver: { track: { kind } } };
    this.transceivers.push(transceiver);
    return transceiver;
  }

  getTransceivers(): object[] {
    return this.transceivers;
  }

  async setLocalDescription(): Promise<void> {
    this.localDescription = { sdp: `description ${Connection.all.indexOf(this)}` };
  }

  async setRemoteDescription({ type, sdp }: { type: string; sdp: string }): Promise<void> {
    this.remote = sdp;
    if (type === "offer") for (const kind of ["audio", "video"]) this.addTransceiver(kind);
  }

  async addIceCandidate(): Promise<void> {}

  async getStats(): Promise<object[]> {
    return this.stats;
  }

  become(state: RTCPeerConnectionState): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }

  close(): void {
    this.connectionState = "closed";
  }
}

/** The last connection that was made. */
function latest(): Connection {
  const connection = Connection.all.at(-1);
  if (!connection) throw new Error("no connection was made");
  return connection;
}

/** Lets promises that are settled already have their effect. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

const peer = (id: string, name: string, joinNo = 1): Peer => ({ id, name, joinNo, media: MEDIA });
const welcome = (peers: Peer[]): ServerMessage => ({
  t: "welcome",
  you: "me",
  key: "k",
  room: "r",
  peopleMax: 12,
  peers,
  ice: ICE,
});
const joined = (who: Peer): ServerMessage => ({ t: "joined", peer: who });
const offerFrom = (from: string, epoch = 1): ServerMessage => ({
  t: "link",
  from,
  epoch,
  kind: "offer",
  body: { sdp: "their offer" },
});

function enter() {
  const clock = new TestClock();
  const sent: ClientMessage[] = [];
  const room = new Room({
    clock,
    random: () => 0.5,
    connect: () => new Connection() as unknown as RTCPeerConnection,
    stream: {} as MediaStream,
    send: (message) => sent.push(message),
    changed: () => undefined,
  });
  const links = () => sent.filter((message) => message.t === "link");
  return { clock, room, sent, links };
}

beforeEach(() => {
  Connection.all.length = 0;
});

describe("who offers", () => {
  it("a newcomer offers to everybody who is there", async () => {
    const { room, links } = enter();
    room.receive(welcome([peer("a", "Ana"), peer("b", "Ben")]));
    await settle();
    expect(links()).toMatchObject([
      { to: "a", kind: "offer", epoch: 1 },
      { to: "b", kind: "offer", epoch: 1 },
    ]);
  });

  it("who is there waits, and answers with the offer in hand", async () => {
    const { room, links } = enter();
    room.receive(welcome([]));
    room.receive(joined(peer("c", "Cem")));
    await settle();
    expect(Connection.all).toHaveLength(0);
    room.receive(offerFrom("c"));
    await settle();
    expect(links()).toMatchObject([{ to: "c", kind: "answer", epoch: 1 }]);
    expect(latest().remote).toBe("their offer");
  });

  it("an offer without the two slots is given up, not answered", async () => {
    const { room, links, clock } = enter();
    room.receive(welcome([]));
    room.receive(joined(peer("c", "Cem")));
    room.receive(offerFrom("c"));
    latest().addTransceiver = () => ({});
    await settle();
    clock.pass(10_000);
    expect(links()).toMatchObject([{ kind: "reset", epoch: 2 }]);
  });
});

describe("members", () => {
  it("come, change and go", () => {
    const { room } = enter();
    room.receive(welcome([peer("a", "Ana")]));
    room.receive(joined(peer("b", "Ben")));
    room.receive({ t: "media", from: "b", media: { mic: false, cam: true } });
    expect(room.members().map(({ name, media }) => [name, media.mic])).toEqual([
      ["Ana", true],
      ["Ben", false],
    ]);
    room.receive({ t: "left", id: "a", reason: "left" });
    expect(room.members().map(({ name }) => name)).toEqual(["Ben"]);
    expect(Connection.all[0]?.connectionState).toBe("closed");
  });

  it("that nobody knows change nothing", () => {
    const { room } = enter();
    room.receive(welcome([]));
    room.receive(offerFrom("ghost"));
    room.receive({ t: "left", id: "ghost", reason: "lost" });
    room.receive({ t: "media", from: "ghost", media: MEDIA });
    expect(room.members()).toEqual([]);
    expect(Connection.all).toEqual([]);
  });
});

describe("a lost socket", () => {
  it("of somebody else leaves the media alone until it stops by itself", async () => {
    const { room } = enter();
    room.receive(welcome([peer("a", "Ana")]));
    await settle();
    latest().become("connected");
    room.receive({ t: "left", id: "a", reason: "lost" });
    expect(room.members()).toMatchObject([{ name: "Ana", link: { state: "connected" } }]);
    latest().become("disconnected");
    expect(room.members()).toEqual([]);
  });

  it("of somebody else: who comes back keeps the place, and the old link until the new works", async () => {
    const { room } = enter();
    room.receive(welcome([peer("a", "Ana"), peer("b", "Ben")]));
    await settle();
    const [old] = Connection.all;
    for (const connection of Connection.all) connection.become("connected");
    room.receive({ t: "left", id: "a", reason: "lost" });
    room.receive(joined(peer("a2", "ana", 3)));
    room.receive(offerFrom("a2"));
    await settle();
    expect(room.members()).toMatchObject([{ id: "a2", link: { state: "connected" } }, { id: "b" }]);
    expect(old?.connectionState).toBe("connected");
    latest().become("connected");
    expect(old?.connectionState).toBe("closed");
    expect(room.members()).toMatchObject([{ id: "a2", link: { state: "connected" } }, { id: "b" }]);
  });

  it("of one's own makes new links beside the old ones", async () => {
    const { room, links } = enter();
    room.receive(welcome([peer("a", "Ana")]));
    await settle();
    const old = latest();
    old.become("connected");
    room.receive(welcome([peer("a", "Ana")]));
    await settle();
    expect(old.connectionState).toBe("connected");
    expect(room.members()).toMatchObject([{ id: "a", link: { state: "connected" } }]);
    expect(links()).toHaveLength(2);
    latest().become("connected");
    expect(old.connectionState).toBe("closed");
  });
});

describe("the path", () => {
  it("is shown as soon as a pair is selected, and told to the other end", async () => {
    const { room, links, clock } = enter();
    room.receive(welcome([peer("a", "Ana")]));
    await settle();
    latest().become("connected");
    await settle();
    expect(room.members()[0]?.link.relayed).toBeNull();
    latest().stats.push(
      {
        id: "P",
        type: "candidate-pair",
        nominated: true,
        state: "succeeded",
        localCandidateId: "L",
      },
      { id: "L", type: "local-candidate", candidateType: "relay" },
    );
    clock.pass(PATH_POLL_MS);
    await settle();
    expect(room.members()[0]?.link.relayed).toBe(true);
    expect(links().at(-1)).toMatchObject({
      to: "a",
      kind: "state",
      body: { relayed: true, ownLeg: true },
    });
    expect(await room.stats()).toMatchObject([{ peer: "a", name: "Ana", relayed: true }]);
  });

  it.each([
    [401, "refused"],
    [441, "refused"],
    [486, "full"],
    [701, null],
  ])("tells what error %i of a relay means", async (errorCode, trouble) => {
    const { room } = enter();
    room.receive(welcome([peer("a", "Ana")]));
    await settle();
    latest().onicecandidateerror?.({ errorCode });
    expect(room.members()[0]?.trouble).toBe(trouble);
  });
});
