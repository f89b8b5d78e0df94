//! Bit rates: how much may pass, as a value.
#![deny(clippy::indexing_slicing)]

use std::num::NonZeroU64;

use crate::Now;

/// How much may come at once after a pause: this long at the full rate, and one datagram more.
pub const BURST_NS: u64 = 500_000_000;

/// A bit rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// A rate in bits per second; `None` for 0, which is no rate at all.
    #[must_use]
    pub fn from_bps(bps: u64) -> Option<Self> {
        NonZeroU64::new(bps).map(Self)
    }

    /// The rate in bits per second.
    #[must_use]
    pub fn bps(self) -> u64 {
        self.0.get()
    }

    /// How long so many bytes take, in nanoseconds, rounded up.
    #[must_use]
    pub fn time_ns(self, bytes: usize) -> u64 {
        let bits = (bytes as u128).saturating_mul(8_000_000_000);
        u64::try_from(bits.div_ceil(u128::from(self.0.get()))).unwrap_or(u64::MAX)
    }
}

/// What one sender has used of a rate, kept as the moment at which all of it has had its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    until_ns: u64,
}

impl Used {
    /// Whether `bytes` may pass now; if so, they are charged.
    #[inline(never)] // few relays have a rate
    pub fn take(&mut self, now: Now, rate: Rate, bytes: usize) -> bool {
        let after = after(self.until_ns, now, rate, bytes);
        if let Some(until_ns) = after {
            self.until_ns = until_ns;
        }
        after.is_some()
    }
}

/// The moment at which all is had, if `bytes` pass now; `None` if they may not.
#[must_use]
pub fn after(until_ns: u64, now: Now, rate: Rate, bytes: usize) -> Option<u64> {
    let now_ns = now.mono_ms.saturating_mul(1_000_000);
    let from_ns = until_ns.max(now_ns);
    let is_within = from_ns.saturating_sub(now_ns) <= BURST_NS;
    is_within.then(|| from_ns.saturating_add(rate.time_ns(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(used: &mut Used, rate: Rate, from_ms: u64, for_ms: u64, bytes: usize) -> usize {
        let moments = (from_ms..from_ms + for_ms).flat_map(|at| [at; 20]);
        let now = |mono_ms| Now { mono_ms, unix_s: 0 };
        moments.filter(|at| used.take(now(*at), rate, bytes)).count() * bytes
    }

    #[test]
    fn rate_holds_over_time_and_a_pause_saves_half_a_second() {
        let rate = Rate::from_bps(8_000_000).expect("a rate");
        let mut used = Used::default();
        // 1,000 bytes take one millisecond; half a second's worth passes at once.
        assert_eq!(passed(&mut used, rate, 0, 1_000, 1_000), 1_500_000);
        assert_eq!(passed(&mut used, rate, 1_000, 1_000, 1_000), 1_000_000);
        assert_eq!(passed(&mut used, rate, 3_600_000, 1_000, 1_000), 1_500_000, "no more saved");
    }

    #[test]
    fn longest_datagram_passes_at_the_lowest_rate() {
        let rate = Rate::from_bps(1).expect("a rate");
        let mut used = Used::default();
        let now = |mono_ms| Now { mono_ms, unix_s: 0 };
        assert!(used.take(now(0), rate, 65_507));
        assert!(!used.take(now(1_000), rate, 0));
        assert!(used.take(now(65_507 * 8_000), rate, 65_507));
        assert_eq!(Rate::from_bps(0), None);
    }

    #[test]
    fn nothing_overflows_at_the_end_of_time() {
        let rate = Rate::from_bps(1).expect("a rate");
        let mut used = Used::default();
        let end = Now { mono_ms: u64::MAX, unix_s: 0 };
        assert!(used.take(end, rate, usize::MAX));
        assert_eq!(rate.time_ns(usize::MAX), u64::MAX);
    }
}
