//! How many streams may be without an allocation, in all and from one address.
//!
//! A class that joins from one school opens more streams at once than one address may have, and
//! each is a stranger for two round trips only. So some more wait unread until one of them is known
//! or gone.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::oneshot;

/// Most streams without an allocation.
const STRANGERS_MAX: usize = 256;
/// Most of them from one address.
const STRANGERS_PER_IP_MAX: usize = 32;
/// Most streams that wait to be one of them.
const WAITING_MAX: usize = 128;

/// Counts the streams without an allocation.
#[derive(Clone, Default)]
pub struct Strangers(Rc<RefCell<Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
    /// In the order of their arrival.
    waiting: VecDeque<(IpAddr, oneshot::Sender<Ticket>)>,
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

    /// A place among those who wait for a ticket, if there is one; dropping it gives it up.
    pub fn wait(&self, ip: IpAddr) -> Option<oneshot::Receiver<Ticket>> {
        let waiting = &mut self.0.borrow_mut().waiting;
        waiting.retain(|(_, sender)| !sender.is_closed());
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiting.push_back((ip, sender));
        Some(receiver)
    }

    /// Gives a ticket to the first of those who wait that may have one.
    fn admit_next(&self) {
        let next = {
            let counts = &mut *self.0.borrow_mut();
            counts.waiting.retain(|(_, sender)| !sender.is_closed());
            let room = |ip: &IpAddr| {
                let from_here = counts.by_ip.get(ip).copied().unwrap_or(0);
                counts.all < STRANGERS_MAX && from_here < STRANGERS_PER_IP_MAX
            };
            let at = counts.waiting.iter().position(|(ip, _)| room(ip));
            at.and_then(|at| counts.waiting.remove(at))
        };
        let Some((ip, sender)) = next else { return };
        if let Some(ticket) = self.admit(ip) {
            // Whoever waits is on this thread, and was there a moment ago.
            let _ = sender.send(ticket);
        }
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
        {
            let mut counts = self.strangers.0.borrow_mut();
            counts.all -= 1;
            if let Some(ip) = self.ip
                && let Some(from_here) = counts.by_ip.get_mut(&ip)
            {
                *from_here -= 1;
                if *from_here == 0 {
                    counts.by_ip.remove(&ip);
                }
            }
        }
        self.strangers.admit_next();
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

    #[test]
    fn who_waits_gets_the_next_place_in_turn_and_who_leaves_gets_none() {
        let strangers = Strangers::default();
        let ip = IpAddr::from([192, 0, 2, 1]);
        let mut here: Vec<_> = std::iter::from_fn(|| strangers.admit(ip)).collect();
        let mut waiting: Vec<_> = std::iter::from_fn(|| strangers.wait(ip)).collect();
        assert_eq!(waiting.len(), WAITING_MAX);
        let elsewhere = IpAddr::from([192, 0, 2, 2]);
        assert!(strangers.wait(elsewhere).is_none() && strangers.admit(elsewhere).is_some());
        assert!(waiting.iter_mut().all(|it| it.try_recv().is_err()), "no place is free");
        drop(waiting.remove(0));
        here.pop();
        let mut served = waiting.remove(0);
        assert!(served.try_recv().is_ok(), "the first that is still there");
        assert!(waiting[1].try_recv().is_err(), "and nobody else");
        drop(served);
        drop((here, waiting));
        assert_eq!(strangers.0.borrow().all, 0);
        assert!(strangers.0.borrow().by_ip.is_empty());
    }
}
