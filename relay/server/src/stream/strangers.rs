//! How many streams may wait without an allocation, in all and from one address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// Most streams without an allocation.
const STRANGERS_MAX: usize = 256;
/// Most of them from one address.
const STRANGERS_PER_IP_MAX: usize = 32;

/// Counts the streams without an allocation.
#[derive(Clone, Default)]
pub struct Strangers(Rc<RefCell<Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// The right to be one of them; dropping it makes room.
pub struct Ticket {
    strangers: Strangers,
    ip: Option<IpAddr>,
}

impl Strangers {
    /// Lets one more in, if there is room.
    pub fn admit(&self, ip: IpAddr) -> Option<Ticket> {
        let mut counts = self.0.borrow_mut();
        let from_here = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if counts.all >= STRANGERS_MAX || from_here >= STRANGERS_PER_IP_MAX {
            return None;
        }
        counts.all += 1;
        counts.by_ip.insert(ip, from_here + 1);
        Some(Ticket { strangers: self.clone(), ip: Some(ip) })
    }

    /// Lets one in of whom it is not known yet where they are: a proxy speaks for many.
    pub fn admit_proxied(&self) -> Option<Ticket> {
        let mut counts = self.0.borrow_mut();
        if counts.all >= STRANGERS_MAX {
            return None;
        }
        counts.all += 1;
        Some(Ticket { strangers: self.clone(), ip: None })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.strangers.0.borrow_mut();
        counts.all -= 1;
        let Some(ip) = self.ip else { return };
        if let Some(from_here) = counts.by_ip.get_mut(&ip) {
            *from_here -= 1;
            if *from_here == 0 {
                counts.by_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_and_all_of_them_have_a_limit_and_nothing_is_kept() {
        let strangers = Strangers::default();
        let ip = |last: usize| IpAddr::from([192, 0, 2, u8::try_from(last).expect("small")]);
        let from_one: Vec<_> = std::iter::from_fn(|| strangers.admit(ip(1))).collect();
        assert_eq!(from_one.len(), STRANGERS_PER_IP_MAX);
        let others: Vec<_> =
            (0..STRANGERS_MAX).map_while(|at| strangers.admit(ip(2 + at / 8))).collect();
        assert_eq!(others.len(), STRANGERS_MAX - STRANGERS_PER_IP_MAX);
        assert!(strangers.admit_proxied().is_none(), "they count among all");
        drop(from_one);
        let proxied: Vec<_> = std::iter::from_fn(|| strangers.admit_proxied()).collect();
        assert_eq!(proxied.len(), STRANGERS_PER_IP_MAX);
        drop(proxied);
        assert!(strangers.admit(ip(1)).is_some());
        drop(others);
        assert_eq!(strangers.0.borrow().all, 0);
        assert!(strangers.0.borrow().by_ip.is_empty());
    }
}
