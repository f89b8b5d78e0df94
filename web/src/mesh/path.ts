/**
 * Which way a link's media takes, read from the candidate pair in use.
 *
 * Never inferred from descriptions or gathered candidates: a relay candidate is gathered on every
 * link and used on few.
 */
import type { LinkState } from "../protocol.ts";

/** The transport of one connection at one moment. Bytes and packets count from its start. */
export interface Path extends LinkState {
  readonly kind: { readonly local: CandidateKind; readonly remote: CandidateKind };
  /** How this end reaches its relay: `udp`, `tcp` or `tls`; `null` without an own leg. */
  readonly relayProtocol: string | null;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly packetsSent: number;
  readonly packetsReceived: number;
  /** Round-trip time of the last connectivity check, in seconds. */
  readonly roundTripTime: number | null;
  /** The pair as the browser reports it. */
  readonly pair: Readonly<Record<string, unknown>>;
}

/** `host`, `srflx`, `prflx` or `relay` (RFC 8445 §5.1.1); empty if the browser does not say. */
export type CandidateKind = string;

/** One entry of `getStats`, of which the browser fills in what it knows. */
type Stat = Record<string, unknown>;

/**
 * The selected path, or `null` before there is one.
 *
 * `relayAddresses` are addresses known to be the relay's: behind a symmetric NAT the other end's
 * relay candidate can appear here as `prflx`, before it is signalled. Its address may even be
 * empty, and then only the other end knows; see {@link Link.theirs}.
 */
export function pathOf(stats: Iterable<unknown>, relayAddresses: ReadonlySet<string>): Path | null {
  const byId = new Map<unknown, Stat>();
  for (const stat of stats) if (isStat(stat)) byId.set(stat["id"], stat);
  const all = [...byId.values()];

  const transport = all.find((stat) => stat["type"] === "transport");
  const pair = byId.get(transport?.["selectedCandidatePairId"]) ?? all.find(isSelectedPair);
  if (!pair) return null;
  const local = byId.get(pair["localCandidateId"]) ?? {};
  const remote = byId.get(pair["remoteCandidateId"]) ?? {};

  const ownLeg = local["candidateType"] === "relay";
  const remoteAddress = word(remote["address"]);
  const theirLeg =
    remote["candidateType"] === "relay" ||
    (remoteAddress !== "" && relayAddresses.has(remoteAddress));
  const counts = transport ?? pair;
  return {
    relayed: ownLeg || theirLeg,
    ownLeg,
    kind: { local: word(local["candidateType"]), remote: word(remote["candidateType"]) },
    relayProtocol: ownLeg ? word(local["relayProtocol"]) || null : null,
    bytesSent: amount(counts["bytesSent"] ?? pair["bytesSent"]),
    bytesReceived: amount(counts["bytesReceived"] ?? pair["bytesReceived"]),
    packetsSent: amount(counts["packetsSent"] ?? pair["packetsSent"]),
    packetsReceived: amount(counts["packetsReceived"] ?? pair["packetsReceived"]),
    roundTripTime:
      typeof pair["currentRoundTripTime"] === "number" ? pair["currentRoundTripTime"] : null,
    pair,
  };
}

/** The addresses that the `turn:` URLs name directly. Host names are left to the other end. */
export function relayAddressesOf(
  servers: readonly { readonly urls: readonly string[] }[],
): Set<string> {
  const addresses = new Set<string>();
  for (const url of servers.flatMap((server) => server.urls)) {
    const host = /^turns?:(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::\d+)?(?:\?|$)/i.exec(url);
    const address = host?.[1] ?? host?.[2];
    if (address) addresses.add(address);
  }
  return addresses;
}

/** Frames decoded of all inbound video and encoded of all outbound video. */
export function framesOf(stats: Iterable<unknown>): { decoded: number; sent: number } {
  let decoded = 0;
  let sent = 0;
  for (const stat of stats) {
    if (!isStat(stat) || stat["kind"] !== "video") continue;
    if (stat["type"] === "inbound-rtp") decoded += amount(stat["framesDecoded"]);
    if (stat["type"] === "outbound-rtp") sent += amount(stat["framesSent"]);
  }
  return { decoded, sent };
}

/** Firefox before 124 has no transport entry that names the pair. */
function isSelectedPair(stat: Stat): boolean {
  if (stat["type"] !== "candidate-pair") return false;
  return stat["selected"] === true || (stat["nominated"] === true && stat["state"] === "succeeded");
}

function isStat(value: unknown): value is Stat {
  return typeof value === "object" && value !== null;
}

function word(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function amount(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}
