//! How many replies a source may be given that has proved nothing.
//!
//! The source of a UDP datagram may be forged, so each reply may hit somebody who asked for
//! nothing. A fixed table gives every prefix its share and grows with nobody: prefixes that meet
//! in a bucket have one share together, so that no pattern of sources gets more than its own.
#![deny(clippy::indexing_slicing)]

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;

use crate::Now;
use crate::auth::AuthFailure;

/// Buckets in the table.
pub const BUCKETS: usize = 4_096;
/// Replies that an unknown prefix may get at once; one more every [`UNKNOWN_INTERVAL_MS`].
pub const UNKNOWN_BURST: u64 = 100;
/// 10 replies a second.
pub const UNKNOWN_INTERVAL_MS: u64 = 100;
/// Replies that a known prefix may get at once; one more every [`KNOWN_INTERVAL_MS`].
pub const KNOWN_BURST: u64 = 1_000;
/// 1,000 replies a second.
pub const KNOWN_INTERVAL_MS: u64 = 1;
/// How long a prefix stays known after a valid request.
pub const KNOWN_MS: u64 = 600_000;
/// Binding is shed first: it may use one part in so many of a burst.
pub const BINDING_SHARE: u64 = 2;
/// Wrong credentials of one prefix that are answered within [`GUESS_WINDOW_MS`].
pub const GUESSES_MAX: u32 = 20;
/// Over how long wrong credentials are counted.
pub const GUESS_WINDOW_MS: u64 = 10_000;
/// How long wrong credentials meet silence after that.
pub const GUESS_SILENCE_MS: u64 = 60_000;

/// What a reply to an unverified source would say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// The answer to Binding.
    Binding,
    /// 400, 401 or 438; the failure, if credentials were refused.
    Refusal(Option<AuthFailure>),
}

/// The budget of every prefix: a /24 of IPv4, a /64 of IPv6. Clones are the same budget: workers
/// share it, because the kernel spreads the sources of a prefix over all of them.
#[derive(Clone)]
pub(crate) struct Limit {
    /// Each with a lock of its own, which is held for a few comparisons.
    buckets: Arc<[Mutex<Bucket>]>,
    hasher: FixedState,
}

impl Limit {
    /// Full budgets; `seed` keeps strangers from choosing whom they share a bucket with.
    pub fn new(seed: u64) -> Self {
        let buckets = (0..BUCKETS).map(|_| Mutex::default()).collect();
        Self { buckets, hasher: FixedState::with_seed(seed) }
    }

    /// Whether the reply may be sent; if so, it is charged.
    pub fn allows(&self, now: Now, to: IpAddr, kind: Kind) -> bool {
        let prefix = prefix(to);
        let mut bucket = self.bucket(prefix);
        // Nonces age by themselves and expired names say nothing of a password: neither is a
        // guess. Requests without credentials are still challenged, as a valid one begins so.
        let is_guess =
            matches!(kind, Kind::Refusal(Some(AuthFailure::BadMac | AuthFailure::UnknownUser)));
        if is_guess && !bucket.guesses.allow(now) {
            return false;
        }
        let part = if kind == Kind::Binding { BINDING_SHARE } else { 1 };
        if bucket.known == Some(prefix) && now.mono_ms < bucket.known_until_ms {
            bucket.known_share.take(now, KNOWN_INTERVAL_MS, KNOWN_BURST / part)
        } else {
            bucket.unknown_share.take(now, UNKNOWN_INTERVAL_MS, UNKNOWN_BURST / part)
        }
    }

    /// A request from there was valid, so somebody there reads what is sent to them.
    pub fn verified(&self, now: Now, from: IpAddr) {
        let prefix = prefix(from);
        let mut bucket = self.bucket(prefix);
        // The challenge that came before was read by whoever asked: it costs nothing after all.
        if bucket.known == Some(prefix) {
            bucket.known_share.give_back(KNOWN_INTERVAL_MS);
        }
        // A known prefix in the same bucket makes room, and its successor takes over the share
        // as it is: two that take turns gain nothing.
        bucket.known = Some(prefix);
        bucket.known_until_ms = now.mono_ms + KNOWN_MS;
    }

    fn bucket(&self, prefix: Prefix) -> MutexGuard<'_, Bucket> {
        let hash = self.hasher.hash_one(prefix) % BUCKETS as u64;
        let at = usize::try_from(hash).expect("a remainder of the number of buckets");
        let bucket = self.buckets.get(at).expect("a remainder of the number of buckets");
        // Whoever panicked in here left numbers that are still numbers.
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bits of an address that a household or a school shares, of both families apart.
type Prefix = (bool, u64);

fn prefix(of: IpAddr) -> Prefix {
    match of.to_canonical() {
        IpAddr::V4(ip) => (false, u64::from(ip.to_bits() >> 8)),
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, ..] = ip.octets();
            (true, u64::from_be_bytes([a, b, c, d, e, f, g, h]))
        }
    }
}

#[derive(Default)]
struct Bucket {
    unknown_share: Share,
    /// The prefix here that was valid last.
    known: Option<Prefix>,
    known_until_ms: u64,
    known_share: Share,
    guesses: Guesses,
}

/// A token bucket, kept as the moment at which it is full again.
#[derive(Default)]
struct Share {
    full_at_ms: u64,
}

impl Share {
    /// Takes one reply, unless `burst` of them are on loan already.
    fn take(&mut self, now: Now, interval_ms: u64, burst: u64) -> bool {
        let full_at_ms = self.full_at_ms.max(now.mono_ms) + interval_ms;
        let is_within = full_at_ms - now.mono_ms <= interval_ms * burst;
        if is_within {
            self.full_at_ms = full_at_ms;
        }
        is_within
    }

    fn give_back(&mut self, interval_ms: u64) {
        self.full_at_ms = self.full_at_ms.saturating_sub(interval_ms);
    }
}

/// Counts wrong credentials.
#[derive(Default)]
struct Guesses {
    count: u32,
    window_ends_ms: u64,
    silent_until_ms: u64,
}

impl Guesses {
    fn allow(&mut self, now: Now) -> bool {
        if now.mono_ms < self.silent_until_ms {
            return false;
        }
        if now.mono_ms >= self.window_ends_ms {
            *self = Self { window_ends_ms: now.mono_ms + GUESS_WINDOW_MS, ..Self::default() };
        }
        if self.count == GUESSES_MAX {
            *self = Self { silent_until_ms: now.mono_ms + GUESS_SILENCE_MS, ..Self::default() };
            return false;
        }
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const CHALLENGE: Kind = Kind::Refusal(None);
    const GUESS: Kind = Kind::Refusal(Some(AuthFailure::BadMac));

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_s: 0 }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn allowed(limit: &Limit, now_ms: u64, to: &str, kind: Kind, asked: u64) -> usize {
        (0..asked).filter(|_| limit.allows(at(now_ms), ip(to), kind)).count()
    }

    #[test]
    fn prefix_gets_a_burst_and_then_ten_a_second() {
        for to in ["192.0.2.1", "2001:db8::1"] {
            let limit = Limit::new(1);
            assert_eq!(allowed(&limit, 0, to, CHALLENGE, 1_000), 100);
            assert_eq!(allowed(&limit, 99, to, CHALLENGE, 1_000), 0);
            assert_eq!(allowed(&limit, 1_000, to, CHALLENGE, 1_000), 10);
            assert_eq!(allowed(&limit, 3_600_000, to, CHALLENGE, 1_000), 100, "no more saved");
        }
    }

    #[test]
    fn workers_have_one_budget_together() {
        let limit = Limit::new(1);
        let other = limit.clone();
        assert_eq!(allowed(&limit, 0, "192.0.2.1", CHALLENGE, 60), 60);
        assert_eq!(allowed(&other, 0, "192.0.2.2", CHALLENGE, 60), 40);
        other.verified(at(0), ip("192.0.2.2"));
        assert_eq!(allowed(&limit, 0, "192.0.2.1", CHALLENGE, 2_000), 1_000);
    }

    #[test]
    fn neighbours_share_and_strangers_do_not() {
        let limit = Limit::new(1);
        assert_eq!(allowed(&limit, 0, "192.0.2.1", CHALLENGE, 200), 100);
        assert_eq!(allowed(&limit, 0, "192.0.2.254", CHALLENGE, 1), 0);
        assert_eq!(allowed(&limit, 0, "::ffff:192.0.2.7", CHALLENGE, 1), 0);
        assert_eq!(allowed(&limit, 0, "192.0.3.1", CHALLENGE, 200), 100);
        assert_eq!(allowed(&limit, 0, "2001:db8::1", CHALLENGE, 200), 100);
        assert_eq!(allowed(&limit, 0, "2001:db8::ffff:0:0:1", CHALLENGE, 1), 0);
        assert_eq!(allowed(&limit, 0, "2001:db8:0:1::1", CHALLENGE, 200), 100);
    }

    #[test]
    fn binding_leaves_half_for_challenges() {
        let limit = Limit::new(1);
        assert_eq!(allowed(&limit, 0, "192.0.2.1", Kind::Binding, 200), 50);
        assert_eq!(allowed(&limit, 0, "192.0.2.1", CHALLENGE, 200), 50);
        assert_eq!(allowed(&limit, 1_000, "192.0.2.1", Kind::Binding, 200), 0);
        assert_eq!(allowed(&limit, 1_000, "192.0.2.1", CHALLENGE, 200), 10);
    }

    #[test]
    fn valid_request_makes_its_prefix_known_for_ten_minutes() {
        let limit = Limit::new(1);
        limit.verified(at(0), ip("192.0.2.1"));
        assert_eq!(allowed(&limit, 0, "192.0.2.2", CHALLENGE, 2_000), 1_000);
        assert_eq!(allowed(&limit, 500, "192.0.2.2", CHALLENGE, 2_000), 500);
        assert_eq!(allowed(&limit, 599_999, "192.0.2.2", CHALLENGE, 2_000), 1_000);
        assert_eq!(allowed(&limit, 600_000, "192.0.2.2", CHALLENGE, 2_000), 100);
        assert_eq!(allowed(&limit, 0, "192.0.3.1", CHALLENGE, 2_000), 100, "nobody else");
    }

    /// However fast they come: thousands of allocations may be made through one NAT at once.
    #[test]
    fn challenge_that_is_answered_costs_nothing() {
        let limit = Limit::new(1);
        for _ in 0..10_000 {
            assert_eq!(allowed(&limit, 0, "192.0.2.1", CHALLENGE, 1), 1);
            limit.verified(at(0), ip("192.0.2.1"));
        }
        assert_eq!(allowed(&limit, 0, "192.0.2.1", CHALLENGE, 2_000), 1_000, "no more saved");
    }

    /// A victim's share is its own, whoever else is forged to push it out of the table.
    #[test]
    fn spray_of_prefixes_does_not_refill_a_bucket() {
        let limit = Limit::new(1);
        let victim = "192.0.2.1";
        let mut replies = allowed(&limit, 0, victim, CHALLENGE, 200);
        for high in 0..65_536u32 {
            let other = IpAddr::V4(Ipv4Addr::from_bits((10 << 24) + (high << 8)));
            limit.allows(at(0), other, CHALLENGE);
            limit.verified(at(0), other);
            replies += usize::from(limit.allows(at(0), ip(victim), CHALLENGE));
        }
        assert_eq!(replies, 100);
    }

    /// Colliding prefixes that are both known share 1,000 a second and never mint more.
    #[test]
    fn known_prefixes_that_take_turns_gain_nothing() {
        let limit = Limit::new(1);
        let mut replies = 0;
        for high in 0..8 * BUCKETS as u128 {
            let other = IpAddr::V6(Ipv6Addr::from_bits((0x2001 << 112) + (high << 64)));
            limit.verified(at(0), other);
            replies += (0..1_000).take_while(|_| limit.allows(at(0), other, CHALLENGE)).count();
        }
        assert!(replies <= BUCKETS * 1_000, "{replies}");
    }

    #[test]
    fn guessing_meets_silence_for_a_minute() {
        let limit = Limit::new(1);
        let from = "192.0.2.1";
        assert_eq!(allowed(&limit, 5, from, GUESS, 19), 19);
        assert_eq!(allowed(&limit, 10_005, from, GUESS, 20), 20, "another ten seconds");
        assert_eq!(allowed(&limit, 11_000, from, GUESS, 1), 0);
        assert_eq!(allowed(&limit, 70_999, from, GUESS, 1), 0);
        assert_eq!(allowed(&limit, 11_000, from, CHALLENGE, 5), 5, "others may still begin");
        let stale = Kind::Refusal(Some(AuthFailure::StaleNonce));
        assert_eq!(allowed(&limit, 11_000, from, stale, 30), 30);
        assert_eq!(allowed(&limit, 11_000, "192.0.3.1", GUESS, 1), 1);
        assert_eq!(allowed(&limit, 71_000, from, GUESS, 30), 20);
    }
}
