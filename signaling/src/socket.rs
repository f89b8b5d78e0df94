//! One WebSocket and the rooms: reads, writes, and knows when to give up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite;

use crate::hub::{Hub, Membership, Place, frame};
use crate::ice;
use crate::outlet::Inlet;
use crate::pace::{Limit, Pace};
use crate::protocol::{ClientMessage, ErrorCode, LeftReason, VERSION};
use crate::room::Refusal;

/// Longest frame and message, in bytes. A description with 20 media sections stays below 20 KiB.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// When things happen on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A connection says `hello` within this time.
    pub hello_within: Duration,
    /// Every client is pinged this often.
    pub ping_every: Duration,
    /// A client from which nothing came for this long is gone.
    pub dead_after: Duration,
    /// A member is given fresh credentials this often.
    pub reissue_every: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            hello_within: Duration::from_secs(5),
            ping_every: Duration::from_secs(20),
            dead_after: Duration::from_secs(45),
            reissue_every: ice::TTL / 2,
        }
    }
}

/// How long a closing connection may take to hear our last words.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Deepest nesting of JSON.
pub const DEPTH_MAX: usize = 6;
/// Frames of any kind from one client. Seven links that trickle are some 140 messages.
pub const FRAMES: Limit =
    Limit { per_second: 20.0, burst: 100.0, fresh_burst: 200.0, fresh: Duration::from_secs(10) };

/// Close codes (RFC 6455 §7.4.1 and the IANA registry).
mod code {
    pub const GOODBYE: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const POLICY: u16 = 1008;
    pub const TOO_LARGE: u16 = 1009;
    pub const RESTART: u16 = 1012;
    pub const TRY_AGAIN: u16 = 1013;
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client closed it.
    Goodbye,
    /// It broke, or fell silent.
    Lost,
    /// The client did what it may not, or cannot be let in.
    Refused(Refusal),
    /// A frame was longer than [`FRAME_BYTES_MAX`].
    TooLarge,
    /// The client reads more slowly than the others write.
    SlowReader,
    /// The server ends.
    Restart,
}

/// Serves one connection to its end; without a seat it is told why and closed. `host` is the name
/// of the page's server, without port.
pub async fn serve(socket: WebSocket, hub: Arc<Hub>, place: Place, host: Option<String>) {
    let (sink, stream) = socket.split();
    let mut writer = Writer { sink };
    let mut reader = Reader { stream, pace: Pace::new(FRAMES, Instant::now()), hub: hub.clone() };
    let end = match &place {
        Place::Seat(_) => visit(&mut writer, &mut reader, &hub, host).await,
        Place::TurnedAway(refusal, _) => End::Refused(refusal.clone()),
    };
    tracing::debug!(?end, "connection ends");
    // In time or not: this is the last that the client hears.
    let _ = timeout(CLOSE_WITHIN, writer.close(reader, end)).await;
    // Before the connection goes: who sees it closed finds the seat free.
    drop(place);
}

/// From `hello` to the end of the membership.
async fn visit(
    writer: &mut Writer,
    reader: &mut Reader,
    hub: &Arc<Hub>,
    host: Option<String>,
) -> End {
    let greeted = tokio::select! {
        hello = timeout(hub.timing.hello_within, reader.next()) => hello.unwrap_or_else(|_| Err(late())),
        () = hub.closed() => Err(End::Restart),
    };
    let entered = greeted.and_then(|hello| admit(hub, hello, host));
    hub.metrics.joined(match &entered {
        Ok(_) => None,
        Err(End::Refused(refusal)) => Some(refusal.code),
        Err(_) => Some(ErrorCode::BadMessage),
    });
    let (mut membership, inlet) = match entered {
        Ok(entered) => entered,
        Err(end) => return end,
    };
    let overflow = inlet.overflow();
    let end = tokio::select! {
        end = listen(reader, &membership) => end,
        end = writer.speak(inlet, &membership, hub.timing) => end,
        _ = overflow => End::SlowReader,
        () = hub.closed() => End::Restart,
    };
    if matches!(end, End::Goodbye) {
        membership.reason = LeftReason::Left;
    }
    end
}

fn admit(
    hub: &Arc<Hub>,
    hello: ClientMessage,
    host: Option<String>,
) -> Result<(Membership, Inlet), End> {
    let ClientMessage::Hello { v, room, name, media } = hello else {
        return Err(bad_message("The first message of a connection is hello."));
    };
    if v != VERSION {
        return Err(unsupported_version());
    }
    hub.enter(&room, &name, media, host).map_err(End::Refused)
}

/// Passes on what the member says, until it ends.
async fn listen(reader: &mut Reader, membership: &Membership) -> End {
    loop {
        let told = match reader.next().await {
            Ok(message) => membership.tell(message),
            Err(end) => return end,
        };
        match told {
            Err(refusal) if refusal.code == ErrorCode::BadMessage => return End::Refused(refusal),
            Err(refusal) => membership.answer(&refusal.message()),
            Ok(()) => {}
        }
    }
}

struct Reader {
    stream: SplitStream<WebSocket>,
    pace: Pace,
    hub: Arc<Hub>,
}

impl Reader {
    /// The next message. Every frame counts against the rate, and every frame is a sign of life.
    async fn next(&mut self) -> Result<ClientMessage, End> {
        loop {
            let frame = match timeout(self.hub.timing.dead_after, self.stream.next()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(broken(error)),
                Ok(None) | Err(_) => return Err(End::Lost),
            };
            if !self.pace.take(Instant::now()) {
                let text = "Too many messages at once; the connection is closed.";
                return Err(End::Refused(Refusal::new(ErrorCode::RateLimited, text)));
            }
            match frame {
                Message::Text(text) => {
                    let message = parse(&text);
                    self.hub.metrics.received(message.as_ref().ok());
                    return message;
                }
                Message::Binary(_) => {
                    self.hub.metrics.received(None);
                    return Err(bad_message("Messages are text frames."));
                }
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => {
                    let goodbye = frame
                        .is_none_or(|frame| matches!(frame.code, code::GOODBYE | code::GOING_AWAY));
                    return Err(if goodbye { End::Goodbye } else { End::Lost });
                }
            }
        }
    }
}

struct Writer {
    sink: SplitSink<WebSocket, Message>,
}

impl Writer {
    /// Writes the member's queue, pings and fresh credentials, until the socket breaks.
    async fn speak(&mut self, mut inlet: Inlet, membership: &Membership, timing: Timing) -> End {
        let every = |period| {
            let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut ping = every(timing.ping_every);
        let mut reissue = every(timing.reissue_every);
        loop {
            let message = tokio::select! {
                text = inlet.next() => match text {
                    Some(text) => Message::Text(text),
                    None => return End::Lost,
                },
                _ = ping.tick() => Message::Ping(Vec::new().into()),
                _ = reissue.tick() => {
                    membership.reissue();
                    continue;
                }
            };
            if self.sink.send(message).await.is_err() {
                return End::Lost;
            }
        }
    }

    /// Says why, and waits until the client has heard it: a connection that is dropped with
    /// unread bytes in it is reset, and the client would lose our last words.
    async fn close(&mut self, mut reader: Reader, end: End) -> Result<(), axum::Error> {
        let (code, reason) = match &end {
            End::Goodbye | End::Lost => return self.sink.close().await,
            End::Refused(refusal) => {
                self.sink.send(Message::Text(frame(&refusal.message()))).await?;
                let again = refusal.code == ErrorCode::Overloaded;
                (if again { code::TRY_AGAIN } else { code::POLICY }, "refused")
            }
            End::TooLarge => (code::TOO_LARGE, "frame too large"),
            End::SlowReader => (code::TRY_AGAIN, "reads too slowly"),
            End::Restart => (code::RESTART, "restart"),
        };
        let reason = Utf8Bytes::from_static(reason);
        self.sink.send(Message::Close(Some(CloseFrame { code, reason }))).await?;
        if matches!(end, End::TooLarge) {
            // The rest of the frame cannot be read; the caller's time limit ends this.
            std::future::pending::<()>().await;
        }
        while let Some(Ok(_)) = reader.stream.next().await {}
        Ok(())
    }
}

/// Text to message. Unknown fields are ignored, so that newer clients may say more.
fn parse(text: &str) -> Result<ClientMessage, End> {
    /// What every version of `hello` has.
    #[derive(Deserialize)]
    struct Greeting {
        t: String,
        v: u32,
    }
    if !is_shallow(text) {
        return Err(bad_message("The message is nested too deeply."));
    }
    serde_json::from_str(text).map_err(|_| match serde_json::from_str::<Greeting>(text) {
        Ok(greeting) if greeting.t == "hello" && greeting.v != VERSION => unsupported_version(),
        _ => bad_message("This is not a message of the class protocol."),
    })
}

/// Whether nesting stays within [`DEPTH_MAX`]; brackets inside strings do not nest.
fn is_shallow(text: &str) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return false;
        }
    }
    true
}

fn broken(error: axum::Error) -> End {
    match error.into_inner().downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => End::TooLarge,
        _ => End::Lost,
    }
}

fn bad_message(text: &str) -> End {
    End::Refused(Refusal::new(ErrorCode::BadMessage, text))
}

fn unsupported_version() -> End {
    let text = "This page and the server are of different versions; please reload the page.";
    End::Refused(Refusal::new(ErrorCode::UnsupportedVersion, text))
}

fn late() -> End {
    bad_message("The connection said nothing for too long.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_of_strings() {
        assert!(is_shallow(&format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX))));
        assert!(!is_shallow(&"[".repeat(DEPTH_MAX + 1)));
        assert!(is_shallow(r#"{"a":"[[[[[[[[\"{{{{{{{{"}"#));
        assert!(is_shallow("]]]]]]]]"));
    }

    #[test]
    fn a_hello_of_another_version_is_told_so_whatever_its_shape() {
        let code = |text: &str| match parse(text) {
            Err(End::Refused(refusal)) => Some(refusal.code),
            _ => None,
        };
        let other = Some(ErrorCode::UnsupportedVersion);
        assert_eq!(code(r#"{"t":"hello","v":2,"token":"x"}"#), other);
        assert_eq!(code(r#"{"t":"hello","v":1}"#), Some(ErrorCode::BadMessage));
        assert_eq!(code(r#"{"t":"dance"}"#), Some(ErrorCode::BadMessage));
        assert_eq!(code(r#"{"t":"ping","more":[]}"#), None);
    }
}
