//! How fast one client may ask: a bucket of tokens that refills with time.

use std::time::{Duration, Instant};

/// A rate with a burst, and a larger burst for a fresh client.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Tokens that come back per second.
    pub per_second: f64,
    /// Tokens that a rested client has.
    pub burst: f64,
    /// Tokens that a client has in its `fresh` time.
    pub fresh_burst: f64,
    /// How long a client counts as fresh.
    pub fresh: Duration,
}

/// What one client has left of a [`Limit`].
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    limit: Limit,
    born: Instant,
    read: Instant,
    tokens: f64,
}

impl Pace {
    /// A client that comes now.
    #[must_use]
    pub fn new(limit: Limit, now: Instant) -> Self {
        Self { limit, born: now, read: now, tokens: limit.fresh_burst }
    }

    /// Takes one token; `false` if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.read);
        let fresh = now.saturating_duration_since(self.born) < self.limit.fresh;
        let most = if fresh { self.limit.fresh_burst } else { self.limit.burst };
        self.tokens = (self.tokens + idle.as_secs_f64() * self.limit.per_second).min(most);
        self.read = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        per_second: 20.0,
        burst: 100.0,
        fresh_burst: 200.0,
        fresh: Duration::from_secs(10),
    };

    fn taken(pace: &mut Pace, now: Instant) -> usize {
        std::iter::repeat_with(|| pace.take(now)).take_while(|had| *had).count()
    }

    #[test]
    fn a_fresh_client_has_the_larger_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMIT, start);
        assert_eq!(taken(&mut pace, start), 200);
        assert_eq!(taken(&mut pace, start + Duration::from_millis(500)), 10);
    }

    #[test]
    fn a_rested_client_has_the_smaller_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMIT, start);
        assert_eq!(taken(&mut pace, start + Duration::from_secs(3600)), 100);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMIT, start);
        taken(&mut pace, start);
        assert!(!pace.take(start));
    }
}
