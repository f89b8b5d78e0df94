//! What the whole relay may send in a second, and what one credential may carry in its life.
//!
//! Both are off by default, and then cost the path of a packet one comparison.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use relay_proto::credential;
use relay_proto::relay::PortFailure;
use relay_proto::shape::{self, Rate};
use relay_proto::{DropReason, Now};

/// Most credentials whose bytes are remembered; those that have expired make room.
const CREDENTIALS_MAX: usize = 16_384;

/// The caps of a server, shared by its workers.
pub struct Caps {
    /// In bits per second; 0 is off.
    rate_max: AtomicU64,
    /// When all that was sent has had its time, in nanoseconds of the clock.
    until_ns: AtomicU64,
    /// `u64::MAX` is off.
    credential_bytes_max: AtomicU64,
    credentials: Mutex<HashMap<Box<str>, Usage>>,
}

/// Payload carried for one credential in bytes, both ways together.
pub type Usage = Arc<AtomicU64>;

impl Caps {
    /// Caps on what the relay sends, and on what is carried for one credential in bytes.
    #[must_use]
    pub fn new(rate_max: Option<Rate>, credential_bytes_max: Option<u64>) -> Self {
        let caps = Self {
            rate_max: AtomicU64::new(0),
            until_ns: AtomicU64::new(0),
            credential_bytes_max: AtomicU64::new(u64::MAX),
            credentials: Mutex::default(),
        };
        caps.set(rate_max, credential_bytes_max);
        caps
    }

    /// Other caps from now on. What allocations opened without a cap for their credential carry
    /// stays uncounted.
    pub fn set(&self, rate_max: Option<Rate>, credential_bytes_max: Option<u64>) {
        self.rate_max.store(rate_max.map_or(0, Rate::bps), Relaxed);
        self.credential_bytes_max.store(credential_bytes_max.unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether there is nothing to ask.
    pub fn are_off(&self) -> bool {
        self.rate_max().is_none() && self.credential_bytes_max().is_none()
    }

    fn rate_max(&self) -> Option<Rate> {
        Rate::from_bps(self.rate_max.load(Relaxed))
    }

    fn credential_bytes_max(&self) -> Option<u64> {
        Some(self.credential_bytes_max.load(Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }

    /// Where a new allocation's payload is counted; `None` if nobody asks.
    ///
    /// Static users have no expiry and are not capped.
    ///
    /// # Errors
    /// The relay sends as much as it may already, so that calls which are there keep what they
    /// have; or the credential has had its bytes.
    pub fn admit(&self, now: Now, username: &str) -> Result<Option<Usage>, PortFailure> {
        if self.is_busy(now) {
            return Err(PortFailure::Capacity);
        }
        let Some(bytes_max) = self.credential_bytes_max() else { return Ok(None) };
        if credential::split(username).is_none() {
            return Ok(None);
        }
        let mut known = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(username) && known.len() >= CREDENTIALS_MAX {
            known.retain(|name, _| credential::split(name).is_some_and(|it| it.0 > now.unix_s));
            if known.len() >= CREDENTIALS_MAX {
                return Err(PortFailure::Quota);
            }
        }
        let usage = known.entry(username.into()).or_default();
        let is_left = usage.load(Relaxed) < bytes_max;
        is_left.then(|| Some(usage.clone())).ok_or(PortFailure::Quota)
    }

    /// Charges payload to its credential.
    ///
    /// # Errors
    /// The credential has had its bytes.
    pub fn carry(&self, usage: Option<&Usage>, bytes: usize) -> Result<(), DropReason> {
        let (Some(usage), Some(bytes_max)) = (usage, self.credential_bytes_max()) else {
            return Ok(());
        };
        let before = usage.fetch_add(bytes as u64, Relaxed);
        if before < bytes_max { Ok(()) } else { Err(DropReason::Quota) }
    }

    /// Charges what is to be sent to the rate of the whole relay.
    ///
    /// # Errors
    /// It is above the rate.
    pub fn send(&self, now: Now, bytes: usize) -> Result<(), DropReason> {
        let Some(rate) = self.rate_max() else { return Ok(()) };
        let charge = |until_ns| shape::after(until_ns, now, rate, bytes);
        let charged = self.until_ns.fetch_update(Relaxed, Relaxed, charge);
        charged.map(|_| ()).map_err(|_| DropReason::Shaped)
    }

    /// Half of the burst is used up: more comes in than may go out.
    fn is_busy(&self, now: Now) -> bool {
        let until_ns = self.until_ns.load(Relaxed);
        let now_ns = now.mono_ms.saturating_mul(1_000_000);
        self.rate_max().is_some() && until_ns.saturating_sub(now_ns) > shape::BURST_NS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { mono_ms: 1_000, unix_s: 1_000 };

    #[test]
    fn credential_has_its_bytes_once_wherever_it_is_used() {
        let caps = Caps::new(None, Some(1_000));
        let [first, second] = [(); 2].map(|()| caps.admit(NOW, "2000:maths.ana").expect("new"));
        assert_eq!(caps.carry(first.as_ref(), 600), Ok(()));
        assert_eq!(caps.carry(second.as_ref(), 600), Ok(()), "the last one may pass the mark");
        assert_eq!(caps.carry(first.as_ref(), 1), Err(DropReason::Quota));
        assert_eq!(caps.admit(NOW, "2000:maths.ana").err(), Some(PortFailure::Quota));
        assert!(caps.admit(NOW, "2001:maths.ana").is_ok(), "a renewed credential");
    }

    #[test]
    fn static_user_is_not_capped() {
        let caps = Caps::new(None, Some(1));
        let usage = caps.admit(NOW, "operator").expect("no cap");
        assert!(usage.is_none());
        assert_eq!(caps.carry(usage.as_ref(), 1_000_000), Ok(()));
    }

    #[test]
    fn full_table_forgets_the_expired_and_nobody_else() {
        let caps = Caps::new(None, Some(1));
        for at in 0..CREDENTIALS_MAX {
            let expires = if at < 10 { 1_001 } else { 9_000 };
            assert!(caps.admit(NOW, &format!("{expires}:user-{at}")).is_ok());
        }
        assert_eq!(caps.admit(NOW, "9000:one-more").err(), Some(PortFailure::Quota));
        assert!(caps.admit(NOW, "9000:user-77").is_ok(), "one that is known");
        let later = Now { mono_ms: 2_000, unix_s: 1_001 };
        assert!(caps.admit(later, "9000:one-more").is_ok());
        let known = caps.credentials.lock().expect("whole").len();
        assert_eq!(known, CREDENTIALS_MAX - 9);
    }

    #[test]
    fn rate_of_all_refuses_newcomers_before_it_drops_media() {
        let caps = Caps::new(Rate::from_bps(8_000_000), None);
        let mut sent = 0;
        while caps.admit(NOW, "1:ana").is_ok() {
            caps.send(NOW, 1_000).expect("not above the rate yet");
            sent += 1;
        }
        assert_eq!(sent, 251);
        while caps.send(NOW, 1_000).is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 501, "half a second's worth, and one more");
        assert_eq!(caps.send(NOW, 0), Err(DropReason::Shaped));
        let later = Now { mono_ms: 2_000, ..NOW };
        assert!(caps.admit(later, "1:ana").is_ok());
        assert_eq!(caps.send(later, 1_000), Ok(()));
    }
}
