//! What workers share: control-path tables behind locks, and who owns which port.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use relay_proto::address::{Family, RelayAddr};
use relay_proto::attribute::ReservationToken;
use relay_proto::policy::RelayIp;
use relay_proto::relay::{PortFailure, Snapshot};
use relay_proto::request::PortWish;

use crate::caps::Caps;
use crate::host::Clock;
use crate::order::{Obeyed, Order, Orders};
use crate::ports::Pools;
use crate::quota::{Holder, Limits, Quotas};
use crate::socket::{self, Waker};

/// How long a port is kept for its RESERVATION-TOKEN (RFC 8656 §7.2).
const RESERVATION_LIFETIME_MS: u64 = 30_000;
/// Most ports kept for tokens at a time.
const RESERVATIONS_MAX: usize = 256;
/// Most ports tried when the host has given them to others.
const BIND_TRIES_MAX: usize = 8;
/// Longest wait for workers to obey.
const ORDER_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for workers to publish what they have counted.
const PUBLISH_WAIT: Duration = Duration::from_millis(500);

/// The tables that all workers of a server share.
pub struct Shared {
    /// The clock that all workers read.
    pub clock: Clock,
    /// One for each worker.
    pub mailboxes: Vec<Mailbox>,
    /// Sockets report the DSCP of what they receive, and it is passed on.
    preserves_dscp: bool,
    /// What may be carried.
    pub caps: Caps,
    relay_ips: Vec<RelayIp>,
    first_port: u16,
    /// Worker number plus one by port, 0 if closed, by family.
    owners: [Vec<AtomicU8>; 2],
    control: Mutex<Control>,
}

/// Touched by Allocate and by the end of an allocation only.
struct Control {
    pools: Pools,
    quotas: Quotas,
    reservations: Vec<Reservation>,
}

struct Reservation {
    token: ReservationToken,
    user: Box<str>,
    port: OpenPort,
    expires_ms: u64,
}

/// A relayed port that is bound.
#[derive(Debug)]
pub struct OpenPort {
    /// The socket; closing it gives nothing back to the pool.
    pub socket: UdpSocket,
    /// Its address in the form that clients are told.
    pub relayed: RelayAddr,
}

impl OpenPort {
    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(&self.relayed.0.ip())
    }
}

/// How workers and everybody else talk to one worker.
pub struct Mailbox {
    /// Ends the worker's wait.
    pub waker: Waker,
    /// The worker waits, or is about to.
    pub asleep: AtomicBool,
    /// The worker shall end.
    pub stop: AtomicBool,
    /// The worker's last turn, in milliseconds of the clock.
    pub beat_ms: AtomicU64,
    /// What the operator wants of the worker.
    pub orders: Orders,
    wanted: AtomicU64,
    published: Mutex<(u64, Snapshot)>,
    news: Condvar,
}

impl Shared {
    /// Tables for a server with as many workers as there are wakers.
    #[must_use]
    pub fn new(
        wakers: Vec<Waker>,
        relay_ips: Vec<RelayIp>,
        ports: (u16, u16),
        limits: Limits,
        caps: Caps,
    ) -> Self {
        let count = usize::from(ports.1 - ports.0) + 1;
        let owners = || (0..count).map(|_| AtomicU8::new(0)).collect();
        Self {
            clock: Clock::start(),
            mailboxes: wakers.into_iter().map(Mailbox::new).collect(),
            preserves_dscp: false,
            caps,
            relay_ips,
            first_port: ports.0,
            owners: [owners(), owners()],
            control: Mutex::new(Control {
                pools: Pools::new(ports),
                quotas: Quotas::new(limits),
                reservations: Vec::new(),
            }),
        }
    }

    /// The same tables for a server that passes the DSCP on, or does not.
    #[must_use]
    pub fn preserving_dscp(self, preserves_dscp: bool) -> Self {
        Self { preserves_dscp, ..self }
    }

    /// Opens a relayed port for `holder`, charged to its quotas, and makes `worker` its owner.
    ///
    /// # Errors
    /// A quota is used up, or no port is to be had.
    pub fn open_port(
        &self,
        worker: usize,
        family: Family,
        wish: PortWish,
        holder: &Holder,
    ) -> Result<OpenPort, PortFailure> {
        let ip = self.relay_ip(family)?;
        self.control().quotas.charge(holder)?;
        let opened = self.open_charged(worker, ip, wish, holder);
        if opened.is_err() {
            self.control().quotas.discharge(holder);
        }
        opened
    }

    /// Opens a port of the other family for an allocation that has one, and was charged for it.
    ///
    /// # Errors
    /// No port is to be had.
    pub fn open_second_port(
        &self,
        worker: usize,
        family: Family,
        wish: PortWish,
        holder: &Holder,
    ) -> Result<OpenPort, PortFailure> {
        self.open_charged(worker, self.relay_ip(family)?, wish, holder)
    }

    fn relay_ip(&self, family: Family) -> Result<RelayIp, PortFailure> {
        let ip = self.relay_ips.iter().find(|ip| Family::of(&ip.local) == family);
        ip.copied().ok_or(PortFailure::Family)
    }

    fn open_charged(
        &self,
        worker: usize,
        ip: RelayIp,
        wish: PortWish,
        holder: &Holder,
    ) -> Result<OpenPort, PortFailure> {
        let (family, user) = (Family::of(&ip.local), &*holder.user);
        let opened = match wish {
            PortWish::Any => self.bind(ip, |pools| pools.of(family).take()),
            PortWish::Even => self.bind(ip, |pools| pools.of(family).take_even()),
            PortWish::EvenAndNext(token) => self.bind_pair(ip, token, user),
            PortWish::Reserved(token) => self.redeem(token, user),
        };
        let port = opened.ok_or(PortFailure::Capacity)?;
        if self.preserves_dscp
            && let Err(error) = socket::report_class(port.socket.as_fd(), family == Family::V4)
        {
            tracing::warn!(%error, "a relayed port does not report the DSCP");
        }
        self.set_owner(port.relayed, u8::try_from(worker + 1).unwrap_or(0));
        Ok(port)
    }

    /// Closes an allocation's last port and gives its quota back.
    pub fn close_port(&self, port: OpenPort, holder: &Holder) {
        self.close_one_port(port);
        self.control().quotas.discharge(holder);
    }

    /// Closes one of an allocation's two ports.
    pub fn close_one_port(&self, port: OpenPort) {
        self.set_owner(port.relayed, 0);
        self.give_back(port);
    }

    /// The worker that owns a relayed address, if it is open.
    #[must_use]
    pub fn owner(&self, relayed: RelayAddr) -> Option<usize> {
        let owner = self.owner_cell(relayed)?.load(Ordering::Acquire);
        usize::from(owner).checked_sub(1)
    }

    /// Free relayed ports, the fewer of both families.
    #[must_use]
    pub fn ports_free(&self) -> usize {
        let mut control = self.control();
        let free = |ip: &RelayIp| control.pools.of(Family::of(&ip.local)).free();
        self.relay_ips.iter().map(free).min().unwrap_or(0)
    }

    /// Relayed ports of one family in all.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.owners[0].len()
    }

    /// Frees ports whose tokens nobody has redeemed in time.
    pub fn sweep_reservations(&self) {
        let now_ms = self.clock.now().mono_ms;
        let mut control = self.control();
        let expired = control.reservations.extract_if(.., |it| it.expires_ms <= now_ms);
        let expired: Vec<_> = expired.collect();
        drop(control);
        expired.into_iter().for_each(|reservation| self.give_back(reservation.port));
    }

    /// Other limits from now on, for what is opened next.
    pub fn set_limits(&self, limits: Limits) {
        self.control().quotas.set_limits(limits);
    }

    /// Live allocations.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.control().quotas.all()
    }

    /// Gives every worker an order and waits until all have obeyed; what each of them answers.
    ///
    /// One that is stuck obeys when it turns again, and is missing from the answers.
    pub fn order(&self, order: &Order) -> Vec<Obeyed> {
        let give = |mailbox: &Mailbox| {
            let answer = mailbox.orders.give(order.clone());
            mailbox.waker.wake();
            answer
        };
        let given: Vec<_> = self.mailboxes.iter().map(give).collect();
        let until = Instant::now() + ORDER_WAIT;
        let wait = |answer: Receiver<Obeyed>| {
            answer.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
        };
        let obeyed: Vec<_> = given.into_iter().filter_map(|answer| wait(answer?)).collect();
        if obeyed.len() < self.mailboxes.len() {
            tracing::error!("a packet thread is stuck and has not obeyed yet");
        }
        obeyed
    }

    /// What each worker has counted up to now.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let asked: Vec<_> = self.mailboxes.iter().map(Mailbox::ask).collect();
        self.mailboxes.iter().zip(asked).map(|(mailbox, ask)| mailbox.answer(ask)).collect()
    }

    /// Takes ports from the pool until one can be bound.
    fn bind(&self, ip: RelayIp, take: impl Fn(&mut Pools) -> Option<u16>) -> Option<OpenPort> {
        let mut refused = Vec::new();
        let opened = (0..BIND_TRIES_MAX).find_map(|_| {
            let port = take(&mut self.control().pools)?;
            let opened = bind_one(ip, port);
            if opened.is_none() {
                refused.push(port);
            }
            opened
        });
        // Ports of others go back only now, so that no try meets the same one again.
        self.give_back_unbound(ip, refused);
        opened
    }

    /// An even port, and the next one put aside for the token (RFC 8656 §7.2).
    fn bind_pair(&self, ip: RelayIp, token: ReservationToken, user: &str) -> Option<OpenPort> {
        let family = Family::of(&ip.local);
        let mut refused = Vec::new();
        let opened = (0..BIND_TRIES_MAX).find_map(|_| {
            let port = self.control().pools.of(family).take_pair()?;
            match (bind_one(ip, port), bind_one(ip, port + 1)) {
                (Some(even), Some(next)) => Some((even, next)),
                _ => {
                    refused.extend([port, port + 1]);
                    None
                }
            }
        });
        self.give_back_unbound(ip, refused);
        let (even, next) = opened?;
        let expires_ms = self.clock.now().mono_ms + RESERVATION_LIFETIME_MS;
        let reservation = Reservation { token, user: user.into(), port: next, expires_ms };
        let mut control = self.control();
        if control.reservations.len() < RESERVATIONS_MAX {
            control.reservations.push(reservation);
            return Some(even);
        }
        drop(control);
        self.give_back(even);
        self.give_back(reservation.port);
        None
    }

    fn redeem(&self, token: ReservationToken, user: &str) -> Option<OpenPort> {
        self.sweep_reservations();
        let mut control = self.control();
        let mine = |it: &Reservation| it.token == token && *it.user == *user;
        let at = control.reservations.iter().position(mine)?;
        Some(control.reservations.swap_remove(at).port)
    }

    fn give_back(&self, port: OpenPort) {
        let OpenPort { socket, relayed } = port;
        // Closed before it is free, so that whoever takes it can bind it.
        drop(socket);
        let family = Family::of(&relayed.0.ip());
        self.control().pools.of(family).give_back(relayed.0.port());
    }

    fn give_back_unbound(&self, ip: RelayIp, ports: Vec<u16>) {
        let mut control = self.control();
        let pool = control.pools.of(Family::of(&ip.local));
        ports.into_iter().for_each(|port| pool.give_back(port));
    }

    fn set_owner(&self, relayed: RelayAddr, owner: u8) {
        if let Some(cell) = self.owner_cell(relayed) {
            cell.store(owner, Ordering::Release);
        }
    }

    fn owner_cell(&self, relayed: RelayAddr) -> Option<&AtomicU8> {
        let slot = relayed.0.port().checked_sub(self.first_port)?;
        self.owners[Family::of(&relayed.0.ip()).index()].get(usize::from(slot))
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // A panicking worker ends the process; a poisoned lock is never carried on with.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    fn new(waker: Waker) -> Self {
        Self {
            waker,
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            beat_ms: AtomicU64::new(0),
            orders: Orders::default(),
            wanted: AtomicU64::new(0),
            published: Mutex::new((0, Snapshot::default())),
            news: Condvar::new(),
        }
    }

    /// Says that the worker is about to wait; it looks at its rings once more after this.
    pub fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        // Pairs with the fence in `nudge`: either the worker sees what was put into its ring, or
        // whoever put it there sees the worker asleep.
        fence(Ordering::SeqCst);
    }

    /// Wakes the worker if it sleeps; called after something was put where it will look.
    pub fn nudge(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// The number of the newest request for a snapshot.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Answers all requests up to `number`.
    pub fn publish(&self, number: u64, snapshot: Snapshot) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        *published = (number, snapshot);
        self.news.notify_all();
    }

    fn ask(&self) -> u64 {
        let number = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.waker.wake();
        number
    }

    fn answer(&self, number: u64) -> Snapshot {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |published: &mut (u64, Snapshot)| published.0 < number;
        let waited = self.news.wait_timeout_while(published, PUBLISH_WAIT, wait);
        // A worker that is too busy to answer in time is shown as it last was.
        let (published, _) = waited.unwrap_or_else(PoisonError::into_inner);
        published.1.clone()
    }
}

fn bind_one(ip: RelayIp, port: u16) -> Option<OpenPort> {
    let socket = socket::bind_relayed(SocketAddr::new(ip.local, port)).ok()?;
    Some(OpenPort { socket, relayed: RelayAddr(SocketAddr::new(ip.external, port)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: RelayIp = RelayIp {
        local: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        external: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

    /// Tests run at once, so each has a range of its own.
    fn shared(ports: (u16, u16), per_user: usize) -> Shared {
        let wakers = vec![Waker::new().expect("waker"), Waker::new().expect("waker")];
        let limits = Limits { per_user, per_room: 1000, users_per_ip: 1000, all: 1000 };
        Shared::new(wakers, vec![LOOPBACK], ports, limits, Caps::new(None, None))
    }

    fn holder(user: &str) -> Holder {
        Holder { user: user.into(), ip: [192, 0, 2, 1].into() }
    }

    #[test]
    fn twenty_ports_come_and_go_without_a_leak() {
        let shared = shared((20_100, 20_119), 1000);
        for _ in 0..40 {
            let open = |_| shared.open_port(1, Family::V4, PortWish::Any, &holder("ana")).ok();
            let ports: Vec<_> = (0..20).filter_map(open).collect();
            assert_eq!(ports.len(), 20);
            assert_eq!(shared.owner(ports[0].relayed), Some(1));
            let next = shared.open_port(0, Family::V4, PortWish::Any, &holder("ben")).err();
            assert_eq!(next, Some(PortFailure::Capacity));
            ports.into_iter().for_each(|port| shared.close_port(port, &holder("ana")));
            assert_eq!(shared.ports_free(), 20);
        }
        assert!(shared.control().quotas.is_empty());
    }

    #[test]
    fn quota_is_per_user_and_comes_back() {
        let shared = shared((20_200, 20_219), 2);
        let open = |user| shared.open_port(0, Family::V4, PortWish::Any, &holder(user));
        let (first, second) = (open("ana").expect("one"), open("ana").expect("two"));
        assert_eq!(open("ana").err(), Some(PortFailure::Quota));
        assert!(open("ben").is_ok());
        shared.close_port(first, &holder("ana"));
        assert!(open("ana").is_ok());
        drop(second);
    }

    #[test]
    fn reserved_port_is_its_users_and_only_once() {
        let shared = shared((20_300, 20_309), 10);
        let token = *b"01234567";
        let wish = PortWish::EvenAndNext(token);
        let even = shared.open_port(0, Family::V4, wish, &holder("ana")).expect("pair");
        let port = even.relayed.0.port();
        assert_eq!(port % 2, 0);
        let redeem =
            |user| shared.open_port(1, Family::V4, PortWish::Reserved(token), &holder(user));
        assert_eq!(redeem("ben").err(), Some(PortFailure::Capacity));
        let next = redeem("ana").expect("the next port");
        assert_eq!(next.relayed.0.port(), port + 1);
        assert_eq!(shared.owner(next.relayed), Some(1));
        assert_eq!(redeem("ana").err(), Some(PortFailure::Capacity));
    }

    #[test]
    fn port_of_another_program_is_passed_over() {
        let shared = shared((20_400, 20_401), 10);
        let taken = UdpSocket::bind("127.0.0.1:20400").expect("free");
        let port =
            shared.open_port(0, Family::V4, PortWish::Any, &holder("ana")).expect("the other");
        assert_eq!(port.relayed.0.port(), 20_401);
        let none = shared.open_port(0, Family::V4, PortWish::Any, &holder("ana")).err();
        assert_eq!(none, Some(PortFailure::Capacity));
        drop(taken);
        assert!(shared.open_port(0, Family::V4, PortWish::Any, &holder("ana")).is_ok());
    }
}
