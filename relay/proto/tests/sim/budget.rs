//! What unproven sources may be answered, told once more: loans that are paid back with time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use relay_proto::auth::AuthFailure;

/// Milliseconds until one reply is paid back, and how many may be owed.
const UNKNOWN: (u64, u64) = (100, 100);
const KNOWN: (u64, u64) = (1, 1_000);
const KNOWN_MS: u64 = 600_000;

/// What each prefix owes.
#[derive(Default)]
pub struct Budget {
    prefixes: BTreeMap<[u8; 8], Prefix>,
}

#[derive(Default)]
struct Prefix {
    unknown: Loan,
    known: Loan,
    known_until_ms: u64,
    /// Wrong credentials since the window began.
    guesses: Option<(u64, u32)>,
    silent_until_ms: u64,
}

#[derive(Default)]
struct Loan {
    owed_ms: u64,
    at_ms: u64,
}

impl Loan {
    fn owed_ms(&mut self, now_ms: u64) -> &mut u64 {
        self.owed_ms = self.owed_ms.saturating_sub(now_ms - self.at_ms);
        self.at_ms = now_ms;
        &mut self.owed_ms
    }

    fn take(&mut self, now_ms: u64, (each_ms, most): (u64, u64), part: u64) -> bool {
        let owed_ms = self.owed_ms(now_ms);
        let fits = *owed_ms + each_ms <= each_ms * most / part;
        *owed_ms += if fits { each_ms } else { 0 };
        fits
    }
}

impl Budget {
    /// Whether a reply may go there; `binding` may use half of a share.
    pub fn allows(
        &mut self,
        now_ms: u64,
        to: IpAddr,
        binding: bool,
        failure: Option<AuthFailure>,
    ) -> bool {
        let prefix = self.prefix(to);
        let guess = matches!(failure, Some(AuthFailure::BadMac | AuthFailure::UnknownUser));
        if guess && !prefix.may_guess(now_ms) {
            return false;
        }
        let part = if binding { 2 } else { 1 };
        if now_ms < prefix.known_until_ms {
            prefix.known.take(now_ms, KNOWN, part)
        } else {
            prefix.unknown.take(now_ms, UNKNOWN, part)
        }
    }

    /// A valid request came from there.
    pub fn verified(&mut self, now_ms: u64, from: IpAddr) {
        let prefix = self.prefix(from);
        if prefix.known_until_ms > 0 {
            let owed_ms = prefix.known.owed_ms(now_ms);
            *owed_ms = owed_ms.saturating_sub(1);
        }
        prefix.known_until_ms = now_ms + KNOWN_MS;
    }

    fn prefix(&mut self, ip: IpAddr) -> &mut Prefix {
        let key = match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                [a, b, c, 0, 0, 0, 0, 4]
            }
            IpAddr::V6(ip) => *ip.octets().first_chunk().expect("16 octets"),
        };
        self.prefixes.entry(key).or_default()
    }
}

impl Prefix {
    /// 20 wrong credentials in 10 s, then none for a minute.
    fn may_guess(&mut self, now_ms: u64) -> bool {
        if now_ms < self.silent_until_ms {
            return false;
        }
        let (until_ms, count) = match self.guesses {
            Some((until_ms, count)) if now_ms < until_ms => (until_ms, count),
            _ => (now_ms + 10_000, 0),
        };
        if count == 20 {
            self.guesses = None;
            self.silent_until_ms = now_ms + 60_000;
            return false;
        }
        self.guesses = Some((until_ms, count + 1));
        true
    }
}
