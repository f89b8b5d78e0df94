// Generated from signaling/src/protocol.rs by its test; do not edit.

export const VERSION = 1;

/**
 * What a client sends.
 */
export type ClientMessage = { "t": "hello",
/**
 * [`VERSION`].
 */
v: number,
/**
 * Name or number of the room, as typed.
 */
room: string,
/**
 * What the others see, at most 40 characters.
 */
name: string,
/**
 * What the member sends when it enters.
 */
media: Media, } | { "t": "link",
/**
 * The member it is for.
 */
to: string,
/**
 * Counts the rebuilds of the link, from 1. Receivers drop older epochs.
 */
epoch: number, } & ({ "kind": "offer", "body": {
/**
 * The description.
 */
sdp: string, } } | { "kind": "answer", "body": {
/**
 * The description.
 */
sdp: string, } } | { "kind": "cand", "body": Array<Candidate | null> } | { "kind": "reset" } | { "kind": "state", "body": LinkState }) | { "t": "media",
/**
 * The new state.
 */
media: Media, } | { "t": "ping" };

/**
 * What the server sends.
 */
export type ServerMessage = { "t": "welcome",
/**
 * The client's own id.
 */
you: string,
/**
 * Bearer key for `GET /api/ice`, valid while the socket lives.
 */
key: string,
/**
 * The room's name in its canonical form.
 */
room: string,
/**
 * Most people this room holds.
 */
peopleMax: number,
/**
 * The members that were there before.
 */
peers: Array<Peer>,
/**
 * STUN and TURN servers for `RTCPeerConnection`.
 */
ice: Ice, } | { "t": "joined",
/**
 * The newcomer.
 */
peer: Peer, } | { "t": "left",
/**
 * The member that left.
 */
id: string,
/**
 * How it went.
 */
reason: LeftReason, } | { "t": "link",
/**
 * The member that sent it.
 */
from: string,
/**
 * The sender's epoch of this link.
 */
epoch: number, } & ({ "kind": "offer", "body": {
/**
 * The description.
 */
sdp: string, } } | { "kind": "answer", "body": {
/**
 * The description.
 */
sdp: string, } } | { "kind": "cand", "body": Array<Candidate | null> } | { "kind": "reset" } | { "kind": "state", "body": LinkState }) | { "t": "media",
/**
 * The member.
 */
from: string,
/**
 * Its new state.
 */
media: Media, } | { "t": "ice",
/**
 * What replaces the servers of `welcome`.
 */
ice: Ice, } | { "t": "pong" } | { "t": "error",
/**
 * For programs.
 */
code: ErrorCode,
/**
 * For people: one sentence.
 */
text: string, };

/**
 * What two members tell each other about their link.
 */
export type LinkBody = { "kind": "offer", "body": {
/**
 * The description.
 */
sdp: string, } } | { "kind": "answer", "body": {
/**
 * The description.
 */
sdp: string, } } | { "kind": "cand", "body": Array<Candidate | null> } | { "kind": "reset" } | { "kind": "state", "body": LinkState };

/**
 * An ICE candidate as in `RTCIceCandidateInit`.
 */
export type Candidate = {
/**
 * The `candidate-attribute` (RFC 8839 §5.1).
 */
candidate: string,
/**
 * Identification of the media section.
 */
sdpMid: string | null,
/**
 * Index of the media section.
 */
sdpMLineIndex: number | null,
/**
 * Fragment of the ICE generation it belongs to.
 */
usernameFragment: string | null, };

/**
 * One end's view of a link, taken from its selected candidate pair.
 */
export type LinkState = {
/**
 * The media crosses a relay.
 */
relayed: boolean,
/**
 * This end uses an allocation of its own.
 */
ownLeg: boolean, };

/**
 * What a member sends to the others.
 */
export type Media = {
/**
 * The microphone is on.
 */
mic: boolean,
/**
 * The camera is on.
 */
cam: boolean, };

/**
 * A member as the others see it.
 */
export type Peer = {
/**
 * Its id.
 */
id: string,
/**
 * What it called itself.
 */
name: string,
/**
 * Counts the arrivals of the room. Of two members the later one offers.
 */
joinNo: number,
/**
 * What it sends.
 */
media: Media, };

/**
 * STUN and TURN servers with the member's credentials.
 */
export type Ice = {
/**
 * For `RTCConfiguration.iceServers`.
 */
servers: Array<IceServer>,
/**
 * Seconds until the credentials stop opening new allocations.
 */
ttl: number, };

/**
 * One entry of `RTCConfiguration.iceServers`.
 */
export type IceServer = {
/**
 * `stun:` and `turn:` URLs (RFC 7064, RFC 7065).
 */
urls: Array<string>,
/**
 * `<unix expiry>:<room>.<peer>`, only with `turn:` URLs.
 */
username?: string,
/**
 * The password that belongs to it.
 */
credential?: string, };

/**
 * Why a member is gone.
 */
export type LeftReason = "left" | "lost";

/**
 * Why a request was refused.
 */
export type ErrorCode = "bad_message" | "unsupported_version" | "bad_room" | "bad_name" | "name_taken" | "room_full" | "overloaded" | "rate_limited" | "no_such_peer" | "not_allowed";
