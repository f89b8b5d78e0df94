//! The invariants, each as one assertion with its number; called after every step.
//!
//! They look at bytes that went in and came out, at the [`Witness`] of what was granted, at the
//! simulated [`Edge`] and at the relay's snapshots, never at the model's opinion.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use relay_proto::revocation::Who as Named;
use relay_proto::{DropReason, Snapshot, Transport, Verdict};

use super::edge::Edge;
use super::message::{self, ERROR, SUCCESS, Stun};
use super::model::{Who, who};
use super::scene::{LISTENER_PORT, Reach, STUN_PORT, is_own, reach};
use super::tally::Tally;
use super::witness::Witness;
use crate::wire::Reply;

/// Longest life that a LIFETIME may grant, and the shortest, in seconds.
const GRANTED_S: std::ops::RangeInclusive<u32> = 600..=3_600;
/// How long a request's repetition must get the same answer (RFC 8489 §6.3.1), in milliseconds.
pub const REPEAT_MS: u64 = 40_000;

/// I-1: nothing to a peer without a live permission for its address or a live channel to it, nor
/// to where the policy forbids it at this moment.
pub fn i01_only_to_permitted_peers(
    seen: &Witness,
    now_ms: u64,
    via: &Who,
    to: SocketAddr,
    by_channel: bool,
    is_narrow: bool,
) {
    let grant = seen.live(now_ms, via).unwrap_or_else(|| panic!("I-1: {via:?} has no allocation"));
    let is_granted =
        if by_channel { grant.binds(now_ms, to) } else { grant.permits(now_ms, to.ip()) };
    assert!(is_granted, "I-1: {via:?} to {to} without a permission");
    assert_ne!(reach(to, is_narrow), Reach::Denied, "I-1: {to} is forbidden");
}

/// I-2: nothing to a client except from a permitted peer, and exactly the peer's bytes.
pub fn i02_only_from_permitted_peers(
    seen: &Witness,
    now_ms: u64,
    from: SocketAddr,
    bytes: &[u8],
    verdict: &Verdict<'_>,
) {
    let Verdict::ToClient { to, head, payload, .. } = verdict else { return };
    let client = who(*to);
    let grant = seen.live(now_ms, &client);
    let grant = grant.unwrap_or_else(|| panic!("I-2: {client:?} has no allocation"));
    let (is_granted, named) = match message::channel_data(head.as_bytes()) {
        _ if head.as_bytes()[0] < 0x40 => (grant.permits(now_ms, from.ip()), from),
        _ => {
            let [high, low, ..] = *head.as_bytes() else { panic!("I-2: no head") };
            let bound = grant.channels.get(&u16::from_be_bytes([high, low]));
            let bound = bound.filter(|(_, until_ms)| now_ms < *until_ms);
            (bound.is_some(), bound.map_or(from, |(peer, _)| *peer))
        }
    };
    assert!(is_granted, "I-2: {from} to {client:?} without a permission");
    assert_eq!(named, from, "I-2: another peer's channel");
    assert!(*payload == bytes, "I-2: other bytes than the peer's");
}

/// I-3: input that proves nothing leaves allocations, permissions and channels as they were.
pub fn i03_unproven_input_changes_nothing(before: &Snapshot, after: &Snapshot, bytes: &[u8]) {
    let state = |it: &Snapshot| {
        let gauges = (it.allocations, it.permissions, it.channels);
        (gauges, it.allocations_opened, it.allocations_closed)
    };
    assert_eq!(state(before), state(after), "I-3: by {bytes:02x?}");
}

/// I-4, as far as it shows from outside: a source that proves nothing leaves no entry in any
/// table and no effect but its reply. `tests/allocation_free.rs` counts the heap itself.
pub fn i04_strangers_leave_nothing(before: &Snapshot, after: &Snapshot, effects: usize) {
    assert_eq!(before.allocations, after.allocations, "I-4: a stranger has an entry");
    assert!(effects <= 1, "I-4: {effects} effects for a stranger");
}

/// I-5: a granted lifetime is 0 or 600 s to 3,600 s, unless the session ends sooner.
pub fn i05_lifetimes_are_granted_within_bounds(
    granted_s: u32,
    age_ms: u64,
    session_s_max: Option<u32>,
) {
    let most_s =
        session_s_max.map_or(u64::MAX, |most| u64::from(most).saturating_sub(age_ms / 1_000));
    let is_short = granted_s > 0 && u64::from(granted_s) <= most_s && session_s_max.is_some();
    let is_usual = granted_s == 0 || GRANTED_S.contains(&granted_s);
    assert!(is_usual || is_short, "I-5: {granted_s} s were granted");
    assert!(u64::from(granted_s) <= most_s, "I-5: {granted_s} s outlive the session");
}

/// I-6: free, used and reserved ports are the pool; each that was opened is closed once.
pub fn i06_ports_are_conserved(edge: &Edge) {
    let (free, used, reserved) = edge.census();
    assert_eq!(free + used + reserved, edge.pool(), "I-6: {free} + {used} + {reserved}");
    assert_eq!(edge.opens, edge.closes + used as u64, "I-6: opens and closes");
}

/// I-7: a client has one allocation and a port has one owner; no user is above the quota.
pub fn i07_tuples_and_ports_are_unique(edge: &Edge, quota: usize) {
    let (mut clients, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for port in edge.open.values() {
        assert!(clients.insert(who(port.client)), "I-7: two ports of {:?}", port.client);
        assert!(ports.insert(port.at), "I-7: {} twice", port.at);
        let user = edge.open.values().filter(|it| it.user == port.user);
        assert!(user.count() <= quota, "I-7: {} is above the quota", port.user);
    }
}

/// I-8: counters are the network's tally, to the byte; they never go backwards.
pub fn i08_counters_are_the_networks(tally: &Tally, before: &Snapshot, after: &Snapshot) {
    let (ours, theirs) = (&tally.traffic, &after.traffic);
    for (at, label) in Transport::ALL.map(|it| (it.index(), it.label())) {
        assert_eq!(ours.client[at], theirs.client[at], "I-8: clients over {label}");
    }
    assert_eq!(ours.peer, theirs.peer, "I-8: peers");
    assert_eq!(ours.hairpin, theirs.hairpin, "I-8: hairpin");
    for reason in DropReason::ALL {
        let [mine, its] = [ours, theirs].map(|it| it.dropped[reason.index()]);
        assert_eq!(mine, its, "I-8: dropped as {}", reason.label());
        assert!(its >= before.traffic.dropped[reason.index()], "I-8: {} fell", reason.label());
    }
    assert_eq!(tally.requests, Tally::requests_of(after), "I-8: replies by method and code");
    assert_eq!(after.conservation_errors, 0, "I-8: an allocation lost count");
}

/// I-9: what is open at the edge is what lives in the relay, and is charged to its user.
pub fn i09_gauges_are_what_is_open(edge: &Edge, after: &Snapshot) {
    let [opened, closed] = [&after.allocations_opened[..], &after.allocations_closed[..]]
        .map(|counts| counts.iter().sum::<u64>());
    assert_eq!(opened - closed, edge.open.len() as u64, "I-9: opened {opened}, closed {closed}");
    let known = edge.open.len() + edge.waiting.len();
    assert!(after.allocations <= known as u64, "I-9: {} allocations", after.allocations);
}

/// I-9, an hour after everybody left: nothing is left.
pub fn i09_nothing_stays_of_those_who_left(edge: &Edge, after: &Snapshot) {
    let gauges = [
        after.allocations,
        after.permissions,
        after.channels,
        after.allocations_carrying,
        after.links_one_sided,
        after.link_ends_two_sided,
    ];
    assert_eq!(gauges, [0; 6], "I-9: gauges an hour later");
    assert_eq!(edge.open.len(), 0, "I-9: ports an hour later");
}

/// I-10: channel numbers are those that may be; that they are bound to one peer each is judged
/// by [`Witness::granted`].
pub fn i10_channel_numbers_are_in_range(seen: &Witness, client: &Who, highest: u16) {
    let Some(grant) = seen.grants.get(client) else { return };
    let mut numbers = grant.channels.keys();
    assert!(numbers.all(|it| (0x4000..=highest).contains(it)), "I-10: {:x?}", grant.channels);
}

/// I-11: permissions and channels are live exactly as long as the last success of their own kind
/// made them so: data, Send and Refresh add nothing.
pub fn i11_only_requests_extend(seen: &Witness, now_ms: u64, after: &Snapshot) {
    let live = || seen.grants.values().filter(|it| now_ms < it.ends_ms);
    let permissions = live().flat_map(|it| it.permissions.values());
    let channels = live().flat_map(|it| it.channels.values().map(|(_, until_ms)| until_ms));
    let counts = [
        permissions.filter(|it| now_ms < **it).count(),
        channels.filter(|it| now_ms < **it).count(),
    ];
    assert_eq!(
        [after.permissions, after.channels],
        counts.map(|it| it as u64),
        "I-11: what is live"
    );
}

/// I-12: a request that comes again within 40 s gets the same answer, and changes nothing more.
///
/// Only successes bind: a refusal may have become groundless. What is left of a session may have
/// become less.
pub fn i12_repeated_request_gets_the_same_answer(first: &[u8], second: &[u8]) {
    let [Some(one), Some(two)] = [first, second].map(Stun::read) else {
        panic!("I-12: an answer that is no message")
    };
    let shorter = one.number(0x000D) > two.number(0x000D) && one.method == 4;
    assert!(first == second || shorter, "I-12: {first:02x?}, then {second:02x?}");
}

/// I-13: at most one answer to a request, none to anything else.
pub fn i13_one_answer_at_most(bytes: &[u8], replies: usize) {
    let is_request = Stun::read(bytes).is_some_and(|it| it.class == message::REQUEST);
    assert!(replies <= usize::from(is_request), "I-13: {replies} answers to {bytes:02x?}");
}

/// I-14: over UDP an answer to somebody unproven is at most twice as long as what was asked. The
/// one exception is Binding's to IPv6: 44 bytes for 20.
pub fn i14_answers_to_strangers_are_short(bytes: &[u8], reply: &Reply) {
    let stun = Stun::read(&reply.bytes).unwrap_or_else(|| panic!("I-14: no message"));
    let is_exempt = stun.method == 1 && reply.to.remote.is_ipv6() && reply.bytes.len() <= 44;
    let is_short = reply.bytes.len() <= 2 * bytes.len();
    assert!(is_exempt || is_short, "I-14: {} bytes for {}", reply.bytes.len(), bytes.len());
}

/// I-15: a 401 or 438 says how to do better; a TURN success is signed, and only for who proved
/// to be somebody.
pub fn i15_challenges_and_successes_are_whole(reply: &[u8], is_proven: bool) {
    let stun = Stun::read(reply).unwrap_or_else(|| panic!("I-15: no message {reply:02x?}"));
    if stun.class == ERROR && matches!(stun.code(), Some(401 | 438)) {
        let is_whole = stun.value(0x0014).is_some() && stun.value(0x0015).is_some();
        assert!(is_whole, "I-15: a challenge without REALM or NONCE");
    }
    if stun.class == SUCCESS && stun.method != 1 {
        assert!(is_proven, "I-15: success without proof");
        assert!(stun.integrity.is_some(), "I-15: success without integrity");
    }
}

/// I-16: a request succeeds only with a nonce that this boot gave to this client within 605 s.
pub fn i16_nonce_is_the_clients_and_fresh(is_known: bool) {
    assert!(is_known, "I-16: success with a nonce of nobody");
}

/// I-17: the wall clock moves no lifetime. A jump in between must leave the gauges alone.
pub fn i17_wall_clock_ends_nothing(before: &Snapshot, after: &Snapshot) {
    let gauges = |it: &Snapshot| (it.allocations, it.permissions, it.channels);
    assert_eq!(gauges(before), gauges(after), "I-17: gauges after a jump of the wall clock");
}

/// I-18: what is for one client reaches this client alone. `owner` holds the port it came to.
pub fn i18_payload_goes_to_the_owner(owner: Option<Who>, to: Who) {
    assert_eq!(owner, Some(to), "I-18: another's payload");
}

/// I-19, down: over a stream everything is a multiple of 4 long, and padding is zero.
pub fn i19_stream_output_is_padded(bytes: &[u8], payload_len: usize) {
    assert!(bytes.len().is_multiple_of(4), "I-19: {} bytes over a stream", bytes.len());
    let padding = &bytes[bytes.len().min(4 + payload_len)..];
    assert!(bytes[0] < 0x40 || padding.iter().all(|byte| *byte == 0), "I-19: {padding:?}");
}

/// I-19, up: whatever the split, the messages are those that were written.
pub fn i19_split_changes_nothing(written: Option<&[u8]>, read: &[u8]) {
    assert_eq!(written, Some(read), "I-19: another message than was written");
}

/// I-20: once the timer reports nothing left, nothing is overdue.
pub fn i20_nothing_is_overdue(seen: &Witness, edge: &Edge, now_ms: u64) {
    for port in edge.open.values() {
        let is_live = seen.live(now_ms, &who(port.client)).is_some();
        assert!(is_live, "I-20: {} of {:?} is overdue", port.at, port.client);
    }
}

/// I-21: no own service is ever a destination.
pub fn i21_own_services_are_no_destination(to: SocketAddr) {
    let is_service = matches!(to.port(), LISTENER_PORT | STUN_PORT) && is_own(to.ip());
    assert!(!is_service, "I-21: {to}");
}

/// I-22: when `Kick` has returned, the kicked have no port left for a byte to come or go.
pub fn i22_nothing_is_left_of_the_kicked(edge: &Edge, named: &Named) {
    let mut left = edge.open.values().filter(|port| named.means(&port.user));
    let found = left.next();
    assert!(found.is_none(), "I-22: {found:?} after the kick of {named:?}");
}

/// I-23, as far as it concerns the core: all that becomes a label comes from a fixed list.
/// `relay/server` tests the series and logs themselves.
pub fn i23_series_are_bounded(after: &Snapshot) {
    assert!(after.requests.len() <= 7 * 16, "I-23: {} kinds of answer", after.requests.len());
    let is_word = |label: &str| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    assert!(DropReason::ALL.iter().all(|it| is_word(it.label())), "I-23: labels are words");
}

/// I-24: a newcomer for whom there is no room gets 486, 508 or 440, and nothing else changes.
pub fn i24_newcomers_are_turned_away(before: &Snapshot, after: &Snapshot, code: u16) {
    assert!(matches!(code, 440 | 486 | 508), "I-24: {code} for want of a port");
    let carried = |it: &Snapshot| (it.permissions, it.channels);
    assert_eq!(carried(before), carried(after), "I-24: others were touched");
}

/// I-25: once faults have stopped, each client relays again.
pub fn i25_clients_relay_again(
    relays: bool,
    client: usize,
    codes: &[(relay_proto::stun::Method, u16)],
) {
    assert!(relays, "I-25: client {client} does not relay; it was answered {codes:?}");
}

/// I-26: after a start nothing of an earlier life is believed or carried.
pub fn i26_boot_begins_with_nothing(after: &Snapshot) {
    let all = [after.allocations, after.permissions, after.channels];
    assert_eq!(all, [0; 3], "I-26: a fresh start has allocations");
}
