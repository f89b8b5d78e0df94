import { describe, expect, it } from "vitest";
import { framesOf, pathOf, relayAddressesOf } from "../src/mesh/path.ts";

const NO_RELAYS = new Set<string>();
const RELAY = new Set(["203.0.113.10"]);

/** What a browser reports about one connection, with these two candidates selected. */
function report(local: object, remote: object): object[] {
  return [
    // Gathered and never used, as on every link.
    { id: "spare", type: "local-candidate", candidateType: "relay", relayProtocol: "udp" },
    { id: "other", type: "candidate-pair", localCandidateId: "spare", remoteCandidateId: "R" },
    { id: "T", type: "transport", selectedCandidatePairId: "P", bytesSent: 10, packetsReceived: 3 },
    { id: "P", type: "candidate-pair", localCandidateId: "L", remoteCandidateId: "R" },
    { id: "L", type: "local-candidate", ...local },
    { id: "R", type: "remote-candidate", ...remote },
  ];
}

describe("a path", () => {
  it("is direct between hosts, whatever else was gathered", () => {
    const stats = report(
      { candidateType: "host" },
      { candidateType: "srflx", address: "192.0.2.1" },
    );
    expect(pathOf(stats, RELAY)).toMatchObject({
      relayed: false,
      ownLeg: false,
      kind: { local: "host", remote: "srflx" },
      relayProtocol: null,
      bytesSent: 10,
      packetsReceived: 3,
    });
  });

  it("is relayed with an own leg if the local candidate is a relay's", () => {
    const local = { candidateType: "relay", relayProtocol: "udp" };
    const stats = report(local, { candidateType: "host", address: "192.0.2.1" });
    expect(pathOf(stats, NO_RELAYS)).toMatchObject({
      relayed: true,
      ownLeg: true,
      relayProtocol: "udp",
    });
  });

  it("is relayed without an own leg if the remote candidate is a relay's", () => {
    const stats = report({ candidateType: "srflx" }, { candidateType: "relay" });
    expect(pathOf(stats, NO_RELAYS)).toMatchObject({ relayed: true, ownLeg: false });
  });

  it("is relayed if a relay candidate was learnt from its packets before it was signalled", () => {
    const remote = { candidateType: "prflx", address: "203.0.113.10" };
    expect(pathOf(report({ candidateType: "host" }, remote), RELAY)?.relayed).toBe(true);
    expect(pathOf(report({ candidateType: "host" }, remote), NO_RELAYS)?.relayed).toBe(false);
  });

  it("is not taken for relayed because the far address is empty", () => {
    // Behind a symmetric NAT the browser hides it; then only the other end knows.
    const remote = { candidateType: "prflx", address: "" };
    const addresses = new Set(["", "203.0.113.10"]);
    expect(pathOf(report({ candidateType: "host" }, remote), addresses)?.relayed).toBe(false);
    const absent = { candidateType: "prflx" };
    expect(pathOf(report({ candidateType: "host" }, absent), addresses)?.relayed).toBe(false);
  });

  it("is unknown before a pair is selected", () => {
    expect(pathOf([], NO_RELAYS)).toBeNull();
    expect(pathOf([{ id: "T", type: "transport" }], NO_RELAYS)).toBeNull();
  });

  it("is found without a transport entry", () => {
    const stats = [
      { id: "A", type: "candidate-pair", nominated: true, state: "failed" },
      {
        id: "B",
        type: "candidate-pair",
        nominated: true,
        state: "succeeded",
        bytesSent: 7,
        localCandidateId: "L",
      },
      { id: "L", type: "local-candidate", candidateType: "relay" },
    ];
    expect(pathOf(stats, NO_RELAYS)).toMatchObject({ relayed: true, bytesSent: 7 });
  });
});

describe("the relay's addresses", () => {
  it("are those that turn URLs name as numbers", () => {
    const urls = [
      "turn:203.0.113.10:3478?transport=udp",
      "turns:[2001:db8::1]:5349",
      "turn:192.0.2.9",
      "turn:relay.example:3478",
      "stun:198.51.100.1:3478",
    ];
    expect(relayAddressesOf([{ urls }])).toEqual(
      new Set(["203.0.113.10", "2001:db8::1", "192.0.2.9"]),
    );
  });
});

it("frames are counted over all video and no audio", () => {
  const stats = [
    { id: "1", type: "inbound-rtp", kind: "video", framesDecoded: 5 },
    { id: "2", type: "inbound-rtp", kind: "video", framesDecoded: 6 },
    { id: "3", type: "inbound-rtp", kind: "audio", framesDecoded: 100 },
    { id: "4", type: "outbound-rtp", kind: "video", framesSent: 7 },
  ];
  expect(framesOf(stats)).toEqual({ decoded: 11, sent: 7 });
});
