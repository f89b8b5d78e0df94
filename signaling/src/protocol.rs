//! Every message of the class protocol on `/ws`, both directions.
//!
//! UTF-8 JSON text frames, one object each, tag `t`. The TypeScript types in `web/src/wire` are
//! generated from this file; each message has a golden file in `signaling/tests/wire` that the
//! Rust and the TypeScript tests both parse.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The protocol version that a client names in its `hello`.
pub const VERSION: u32 = 1;

/// A member's id: 16 hexadecimal digits, drawn at random by the server.
pub type PeerId = String;

/// What a client sends.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(tag = "t", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ClientMessage {
    /// First frame of a connection: asks to enter `room` as `name`.
    Hello {
        /// [`VERSION`].
        v: u32,
        /// Name or number of the room, as typed.
        room: String,
        /// What the others see, at most 40 characters.
        name: String,
        /// What the member sends when it enters.
        media: Media,
    },
    /// Something for one other member of the room.
    Link {
        /// The member it is for.
        to: PeerId,
        /// Counts the rebuilds of the link, from 1. Receivers drop older epochs.
        epoch: u32,
        /// What it says.
        #[serde(flatten)]
        body: LinkBody,
    },
    /// The member's microphone or camera went on or off.
    Media {
        /// The new state.
        media: Media,
    },
    /// Asks for a `pong`, to see that the socket lives.
    Ping,
}

/// What the server sends.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(tag = "t", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ServerMessage {
    /// Answer to `hello`: the client is a member now.
    Welcome {
        /// The client's own id.
        you: PeerId,
        /// Bearer key for `GET /api/ice`, valid while the socket lives.
        key: String,
        /// The room's name in its canonical form.
        room: String,
        /// Most people this room holds.
        people_max: u32,
        /// The members that were there before.
        peers: Vec<Peer>,
        /// STUN and TURN servers for `RTCPeerConnection`.
        ice: Ice,
    },
    /// Somebody entered. The newcomer offers.
    Joined {
        /// The newcomer.
        peer: Peer,
    },
    /// Somebody is gone: close the link.
    Left {
        /// The member that left.
        id: PeerId,
        /// How it went.
        reason: LeftReason,
    },
    /// Something from another member; `from` is stamped by the server.
    Link {
        /// The member that sent it.
        from: PeerId,
        /// The sender's epoch of this link.
        epoch: u32,
        /// What it says.
        #[serde(flatten)]
        body: LinkBody,
    },
    /// A member's microphone or camera went on or off.
    Media {
        /// The member.
        from: PeerId,
        /// Its new state.
        media: Media,
    },
    /// Fresh servers and credentials, to be applied with `setConfiguration`.
    Ice {
        /// What replaces the servers of `welcome`.
        ice: Ice,
    },
    /// Answer to `ping`.
    Pong,
    /// The request was refused. A connection that is not a member yet is closed after it.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people: one sentence.
        text: String,
    },
}

/// What two members tell each other about their link.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(tag = "kind", content = "body", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum LinkBody {
    /// Session description of the offerer, the later joiner (RFC 8829 §4.1.8).
    Offer {
        /// The description.
        sdp: String,
    },
    /// Session description of the other side.
    Answer {
        /// The description.
        sdp: String,
    },
    /// Candidates, batched; `null` ends the list (RFC 8838).
    Cand(Vec<Option<Candidate>>),
    /// Close and build anew: the message's epoch is the new one.
    Reset,
    /// How the sender sees the link.
    State(LinkState),
}

/// An ICE candidate as in `RTCIceCandidateInit`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// The `candidate-attribute` (RFC 8839 §5.1).
    pub candidate: String,
    /// Identification of the media section.
    pub sdp_mid: Option<String>,
    /// Index of the media section.
    #[serde(rename = "sdpMLineIndex")]
    pub sdp_m_line_index: Option<u16>,
    /// Fragment of the ICE generation it belongs to.
    pub username_fragment: Option<String>,
}

/// One end's view of a link, taken from its selected candidate pair.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkState {
    /// The media crosses a relay.
    pub relayed: bool,
    /// This end uses an allocation of its own.
    pub own_leg: bool,
}

/// What a member sends to the others.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// The microphone is on.
    pub mic: bool,
    /// The camera is on.
    pub cam: bool,
}

/// A member as the others see it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its id.
    pub id: PeerId,
    /// What it called itself.
    pub name: String,
    /// Counts the arrivals of the room. Of two members the later one offers.
    pub join_no: u32,
    /// What it sends.
    pub media: Media,
}

/// STUN and TURN servers with the member's credentials.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Ice {
    /// For `RTCConfiguration.iceServers`.
    pub servers: Vec<IceServer>,
    /// Seconds until the credentials stop opening new allocations.
    pub ttl: u32,
}

/// One entry of `RTCConfiguration.iceServers`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, TS)]
pub struct IceServer {
    /// `stun:` and `turn:` URLs (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// `<unix expiry>:<room>.<peer>`, only with `turn:` URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub username: Option<String>,
    /// The password that belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub credential: Option<String>,
}

/// Why a member is gone.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LeftReason {
    /// It said goodbye: close code 1000 or 1001.
    Left,
    /// Its socket died.
    Lost,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, not a message, or not allowed at this point.
    BadMessage,
    /// The client speaks another [`VERSION`].
    UnsupportedVersion,
    /// The room's name is empty or too long.
    BadRoom,
    /// The name is empty or too long.
    BadName,
    /// Somebody in the room has this name.
    NameTaken,
    /// The room has no place left.
    RoomFull,
    /// The server holds as many rooms or sockets as it may.
    Overloaded,
    /// Too many messages.
    RateLimited,
    /// The addressed member is not in the room.
    NoSuchPeer,
    /// The message is not this member's to send.
    NotAllowed,
}
