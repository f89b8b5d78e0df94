//! The `signaling_` metrics. Label values come from fixed lists, never from what people type.

use std::collections::BTreeMap;

use prometheus::{Encoder as _, IntCounter, IntGauge, Opts, Registry, TextEncoder};

use crate::protocol::{ClientMessage, ErrorCode, LinkBody};

/// `type` of a frame that is no message.
const INVALID: &str = "invalid";
/// `result` of a join that was granted.
const GRANTED: &str = "ok";

/// Values of `type` in `signaling_messages_total`.
const TYPES: [&str; 9] =
    ["hello", "offer", "answer", "cand", "reset", "state", "media", "ping", INVALID];

/// Values of `result` in `signaling_joins_total`.
const RESULTS: [&str; 9] = [
    GRANTED,
    "bad_message",
    "unsupported_version",
    "bad_room",
    "bad_name",
    "name_taken",
    "room_full",
    "overloaded",
    "rate_limited",
];

/// Everything that the server counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Rooms with somebody in them.
    pub rooms: IntGauge,
    /// Members of all rooms.
    pub participants: IntGauge,
    /// Open WebSockets of `/ws`, members or not.
    pub sockets: IntGauge,
    /// Credentials given out.
    pub credentials: IntCounter,
    joins: BTreeMap<&'static str, IntCounter>,
    messages: BTreeMap<&'static str, IntCounter>,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauge = |options: Opts| {
            let gauge = IntGauge::with_opts(options).expect("names are valid");
            registry.register(Box::new(gauge.clone())).expect("names are used once");
            gauge
        };
        let counter = |options: Opts| {
            let counter = IntCounter::with_opts(options).expect("names are valid");
            registry.register(Box::new(counter.clone())).expect("names are used once");
            counter
        };
        let family = |name: &str, help: &str, label: &str, values: &[&'static str]| {
            let one = |value: &&'static str| {
                (*value, counter(Opts::new(name, help).const_label(label, *value)))
            };
            values.iter().map(one).collect()
        };
        let sockets = Opts::new("signaling_ws_connections", "Open WebSockets");
        Self {
            rooms: gauge(Opts::new("signaling_rooms", "Rooms with somebody in them")),
            participants: gauge(Opts::new("signaling_participants", "People in all rooms")),
            sockets: gauge(sockets.const_label("realm", "class")),
            credentials: counter(Opts::new(
                "signaling_credentials_issued_total",
                "TURN credentials given to members",
            )),
            joins: family("signaling_joins_total", "Requests to enter a room", "result", &RESULTS),
            messages: family("signaling_messages_total", "Frames from clients", "type", &TYPES),
            registry,
        }
    }

    /// Counts a request to enter; `None` is one that was granted.
    pub fn joined(&self, refused: Option<ErrorCode>) {
        if let Some(counter) = self.joins.get(refused.map_or(GRANTED, label)) {
            counter.inc();
        }
    }

    /// Counts a frame; `None` is one that is no message.
    pub fn received(&self, message: Option<&ClientMessage>) {
        if let Some(counter) = self.messages.get(message.map_or(INVALID, kind)) {
            counter.inc();
        }
    }

    /// The Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        encoded.expect("no metric family is empty");
        String::from_utf8(out).expect("names and labels are text")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn kind(message: &ClientMessage) -> &'static str {
    match message {
        ClientMessage::Hello { .. } => "hello",
        ClientMessage::Media { .. } => "media",
        ClientMessage::Ping => "ping",
        ClientMessage::Link { body, .. } => match body {
            LinkBody::Offer { .. } => "offer",
            LinkBody::Answer { .. } => "answer",
            LinkBody::Cand(_) => "cand",
            LinkBody::Reset => "reset",
            LinkBody::State(_) => "state",
        },
    }
}

/// The code as it is on the wire.
fn label(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadMessage => "bad_message",
        ErrorCode::UnsupportedVersion => "unsupported_version",
        ErrorCode::BadRoom => "bad_room",
        ErrorCode::BadName => "bad_name",
        ErrorCode::NameTaken => "name_taken",
        ErrorCode::RoomFull => "room_full",
        ErrorCode::Overloaded => "overloaded",
        ErrorCode::RateLimited => "rate_limited",
        ErrorCode::NoSuchPeer => "no_such_peer",
        ErrorCode::NotAllowed => "not_allowed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Media;

    #[test]
    fn each_count_has_its_own_line() {
        let metrics = Metrics::new();
        metrics.joined(None);
        metrics.joined(Some(ErrorCode::RoomFull));
        metrics.received(None);
        let media = Media { mic: true, cam: true };
        metrics.received(Some(&ClientMessage::Media { media }));
        let text = metrics.text();
        for line in [
            "signaling_joins_total{result=\"ok\"} 1",
            "signaling_joins_total{result=\"room_full\"} 1",
            "signaling_joins_total{result=\"bad_name\"} 0",
            "signaling_messages_total{type=\"invalid\"} 1",
            "signaling_messages_total{type=\"media\"} 1",
            "signaling_ws_connections{realm=\"class\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
