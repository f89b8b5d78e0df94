//! What all connections share: the rooms, the queues of their members, the credentials.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::ice::Issuer;
use crate::metrics::Metrics;
use crate::outlet::{Inlet, Outlet, outlet};
use crate::pace::{Limit, Pace};
use crate::protocol::{ClientMessage, ErrorCode, Ice, LeftReason, Media, PeerId, ServerMessage};
use crate::room::{Letter, PEOPLE_MAX, Refusal, Rooms};
use crate::socket::Timing;
use crate::visitor;

/// Calls of `GET /api/ice` by one member: six a minute.
const ICE_CALLS: Limit =
    Limit { per_second: 0.1, burst: 6.0, fresh_burst: 6.0, fresh: Duration::ZERO };

/// Most connections at once that are only told that there is no place.
const TURNED_AWAY_MAX: usize = 256;

/// The shared state of the server. It holds keys, so its debug form says nothing.
pub struct Hub {
    state: Mutex<State>,
    issuer: Issuer,
    /// Under which keys are remembered: what is in memory opens nothing.
    key: [u8; 32],
    limits: Limits,
    /// When things happen on its connections.
    pub timing: Timing,
    /// What is counted.
    pub metrics: Metrics,
    /// Turns `true` when the server ends; every seat holds a receiver.
    closing: watch::Sender<bool>,
    turned_away: Arc<Semaphore>,
}

/// Most WebSockets at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub sockets: usize,
    /// From one address, or one /64 of IPv6.
    pub sockets_per_ip: usize,
}

#[derive(Debug, Default)]
struct State {
    rooms: Rooms,
    outlets: HashMap<PeerId, Outlet>,
    /// Members by the hash of their key for `GET /api/ice`.
    keys: HashMap<[u8; 32], KeyHolder>,
    sockets: usize,
    sockets_of: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct KeyHolder {
    member: PeerId,
    pace: Pace,
}

/// A place in the count of open sockets; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    hub: Arc<Hub>,
    address: IpAddr,
    _alive: watch::Receiver<bool>,
}

/// What a new socket gets.
#[derive(Debug)]
pub enum Place {
    /// It may ask to enter a room.
    Seat(Seat),
    /// All seats are taken; it may be told so.
    TurnedAway(Refusal, OwnedSemaphorePermit),
}

/// A member's hold on its room; the room is left when it is dropped.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    id: PeerId,
    key_hash: [u8; 32],
    host: Option<String>,
    /// How the others are told that the member is gone.
    pub reason: LeftReason,
}

/// Why `GET /api/ice` gives nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IceRefusal {
    /// The key is no member's.
    NotAMember,
    /// The member asks too often.
    TooOften,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Hub {
    /// A server without anybody in it.
    #[must_use]
    pub fn new(issuer: Issuer, limits: Limits, timing: Timing, key: [u8; 32]) -> Self {
        let (closing, _) = watch::channel(false);
        let state = Mutex::default();
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        Self { state, issuer, key, limits, timing, metrics: Metrics::new(), closing, turned_away }
    }

    /// Counts a new socket from `address`; `None` if there is not even time to turn it away.
    pub fn sit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = visitor::neighbourhood(address);
        let mut state = self.lock();
        let here = state.sockets_of.get(&address).copied().unwrap_or(0);
        if state.sockets >= self.limits.sockets || here >= self.limits.sockets_per_ip {
            let permit = self.turned_away.clone().try_acquire_owned().ok()?;
            let text = "The server has as many visitors as it can serve. Try again in a minute.";
            return Some(Place::TurnedAway(Refusal::new(ErrorCode::Overloaded, text), permit));
        }
        state.sockets += 1;
        state.sockets_of.insert(address, here + 1);
        self.metrics.sockets.inc();
        let alive = self.closing.subscribe();
        Some(Place::Seat(Seat { hub: self.clone(), address, _alive: alive }))
    }

    /// Takes a member in; its welcome is the first frame of the queue. `host` is the name of the
    /// page's server, without port.
    ///
    /// # Errors
    /// As [`Rooms::enter`].
    pub fn enter(
        self: &Arc<Self>,
        room: &str,
        name: &str,
        media: Media,
        host: Option<String>,
    ) -> Result<(Membership, Inlet), Refusal> {
        let mut state = self.lock();
        let entered = state.rooms.enter(room, name, media, || u64::from_ne_bytes(random()))?;
        let id = entered.me.id.clone();
        let key: String = random::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
        let welcome = ServerMessage::Welcome {
            you: id.clone(),
            key: key.clone(),
            room: entered.room.clone(),
            people_max: u32::try_from(PEOPLE_MAX).expect("a small constant"),
            peers: entered.peers,
            ice: self.issue(&entered.room, &id, host.as_deref()),
        };
        let (outlet, inlet) = outlet();
        outlet.push(frame(&welcome));
        state.outlets.insert(id.clone(), outlet);
        let key_hash = self.hash(&key);
        let holder = KeyHolder { member: id.clone(), pace: Pace::new(ICE_CALLS, Instant::now()) };
        state.keys.insert(key_hash, holder);
        state.deliver(entered.letters);
        self.gauge(&state);
        let reason = LeftReason::Lost;
        Ok((Membership { hub: self.clone(), id, key_hash, host, reason }, inlet))
    }

    /// Fresh credentials for whoever holds `key`.
    ///
    /// # Errors
    /// See [`IceRefusal`].
    pub fn ice(&self, key: &str, host: Option<&str>, now: Instant) -> Result<Ice, IceRefusal> {
        let mut state = self.lock();
        let holder = state.keys.get_mut(&self.hash(key)).ok_or(IceRefusal::NotAMember)?;
        if !holder.pace.take(now) {
            return Err(IceRefusal::TooOften);
        }
        let member = holder.member.clone();
        let room = state.rooms.home(&member).ok_or(IceRefusal::NotAMember)?;
        Ok(self.issue(room, &member, host))
    }

    /// Tells every connection that the server ends.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until every seat is given back.
    pub async fn emptied(&self) {
        self.closing.closed().await;
    }

    /// Waits for [`Hub::close`].
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closing = self.closing.subscribe();
        async move {
            // An error means that the hub itself is gone, which is an end, too.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    fn issue(&self, room: &str, peer: &PeerId, host: Option<&str>) -> Ice {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.credentials.inc();
        self.issuer.issue(room, peer, host, now.as_secs())
    }

    fn hash(&self, key: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes any key");
        mac.update(key.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn gauge(&self, state: &State) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let rooms = count(state.rooms.rooms());
        if rooms != self.metrics.rooms.get() {
            tracing::info!(rooms, "a room opened or ended");
        }
        self.metrics.rooms.set(rooms);
        self.metrics.participants.set(count(state.rooms.people()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl State {
    fn deliver(&self, letters: Vec<Letter>) {
        for letter in letters {
            if let Some(outlet) = self.outlets.get(&letter.to) {
                outlet.push(frame(&letter.message));
            }
        }
    }
}

impl Membership {
    /// Passes on what the member says.
    ///
    /// # Errors
    /// As [`Rooms::tell`].
    pub fn tell(&self, message: ClientMessage) -> Result<(), Refusal> {
        let mut state = self.hub.lock();
        let letters = state.rooms.tell(&self.id, message)?;
        state.deliver(letters);
        Ok(())
    }

    /// Puts a message to the member itself at the end of its queue.
    pub fn answer(&self, message: &ServerMessage) {
        if let Some(outlet) = self.hub.lock().outlets.get(&self.id) {
            outlet.push(frame(message));
        }
    }

    /// Puts fresh credentials into the member's queue.
    pub fn reissue(&self) {
        let state = self.hub.lock();
        let Some(room) = state.rooms.home(&self.id) else { return };
        let ice = self.hub.issue(room, &self.id, self.host.as_deref());
        if let Some(outlet) = state.outlets.get(&self.id) {
            outlet.push(frame(&ServerMessage::Ice { ice }));
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.outlets.remove(&self.id);
        state.keys.remove(&self.key_hash);
        let letters = state.rooms.leave(&self.id, self.reason);
        state.deliver(letters);
        self.hub.gauge(&state);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.sockets -= 1;
        let left = state.sockets_of.get_mut(&self.address).map(|here| {
            *here -= 1;
            *here
        });
        if left == Some(0) {
            state.sockets_of.remove(&self.address);
        }
        self.hub.metrics.sockets.dec();
    }
}

/// Random bytes from the operating system.
///
/// # Panics
/// If it has none: nothing secret can be made then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A message as a text frame.
#[must_use]
pub fn frame(message: &ServerMessage) -> axum::extract::ws::Utf8Bytes {
    serde_json::to_string(message).expect("messages have only text keys").into()
}
