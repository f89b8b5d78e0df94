//! The model's half that requests do not begin: ports, the timer, the operator, the network.

use std::net::SocketAddr;

use relay_proto::icmp::IcmpFate;
use relay_proto::revocation::Who as Named;
use relay_proto::{AllocationId, Family, PortFailure, credential};

use super::model::{Allocation, Answer, Expected, Model, Who, is_forbidden};
use super::requests::{ALLOCATE, user};

impl Model {
    /// The edge opened the port that `id` waits for.
    pub fn port_opened(&mut self, id: AllocationId, client: Who, relayed: SocketAddr) -> Expected {
        let mut out = Expected::default();
        match self.ids.get(&id).and_then(|who| self.allocations.get_mut(who)) {
            Some(allocation) => {
                allocation.relayed = Some(relayed);
                allocation.family = Family::of(&relayed.ip());
                self.opened[client.2] += 1;
                self.allocated(client, &mut out);
            }
            None => out.closes.push(client),
        }
        out
    }

    /// It could not; `at_once` if that was the answer to the effect itself.
    pub fn port_failed(&mut self, id: AllocationId, why: PortFailure, at_once: bool) -> Expected {
        let mut out = Expected::default();
        if why == PortFailure::Quota && at_once && self.replace_silent(id, &mut out) {
            return out;
        }
        let Some(who) = self.ids.remove(&id) else { return out };
        let Some(allocation) = self.allocations.remove(&who) else { return out };
        let code = match why {
            PortFailure::Quota => 486,
            PortFailure::Capacity => 508,
            PortFailure::Family => 440,
        };
        let (id, seal) = (allocation.id, Some(allocation.seal));
        let to = Some(who);
        out.answers.push(Answer { to, method: ALLOCATE, id, code, seal, ..Answer::default() });
        out
    }

    /// The longest silent allocation of the same user gives way, once.
    fn replace_silent(&mut self, id: AllocationId, out: &mut Expected) -> bool {
        let Some(who) = self.ids.get(&id).copied() else { return false };
        let Some(asking) = self.allocations.get_mut(&who) else { return false };
        if asking.has_replaced {
            return false;
        }
        let (now_s, name) = (asking.heard_s, user(&asking.username).to_owned());
        let count = if self.searches.0 == now_s { self.searches.1 + 1 } else { 1 };
        self.searches = (now_s, count);
        if count > 100 {
            return false;
        }
        asking.has_replaced = true;
        // Of two that are silent for as long, the one in the earlier slot.
        let ids = self.ids.iter().filter_map(|(id, who)| {
            let it = self.allocations.get(who)?;
            let is_ghost = it.relayed.is_some() && now_s - it.heard_s >= 30;
            (is_ghost && user(&it.username) == name).then_some((it.heard_s, id.index(), *who))
        });
        let Some((.., ghost)) = ids.min() else { return false };
        self.end(ghost, 3, out);
        out.opens.push(who);
        true
    }

    /// The operator ends whom this names; returns until when the name is revoked.
    pub fn kick(&mut self, named: &Named, until: u64) -> (u64, Expected) {
        let mut out = Expected::default();
        let meant = self.allocations.iter().filter(|(_, it)| named.means(user(&it.username)));
        let meant: Vec<_> = meant.map(|(who, it)| (*who, it.username.clone())).collect();
        let expiry = |name: &str| credential::split(name).map_or(0, |(expiry, _)| expiry);
        let until = meant.iter().map(|(_, name)| expiry(name)).fold(until, u64::max);
        for (who, _) in meant {
            self.end(who, 4, &mut out);
        }
        self.revoked.push((named.clone(), until));
        (until, out)
    }

    /// Who is told of an error of the network, ten times a second at most.
    pub fn icmp(&mut self, now_ms: u64, at: AllocationId, peer: SocketAddr) -> Option<Who> {
        let is_narrow = self.is_narrow;
        let who = self.ids.get(&at).copied();
        let it = who.and_then(|who| self.allocations.get_mut(&who));
        let it = it.filter(|it| now_ms < it.ends_ms && it.permits(now_ms, peer.ip()));
        let fate = match it.filter(|_| !is_forbidden(peer, is_narrow)) {
            None => IcmpFate::Ignored,
            Some(it) => {
                let told = if it.icmp.0 == now_ms / 1_000 { it.icmp.1 } else { 0 };
                it.icmp = (now_ms / 1_000, told + u8::from(told < 10));
                if told < 10 { IcmpFate::Told } else { IcmpFate::RateLimited }
            }
        };
        self.icmp_errors[fate.index()] += 1;
        who.filter(|_| fate == IcmpFate::Told)
    }

    /// Ends an allocation; `why` is its place among the reasons.
    pub fn end(&mut self, who: Who, why: usize, out: &mut Expected) {
        let Some(gone) = self.allocations.remove(&who) else { return };
        self.ids.retain(|_, it| *it != who);
        if gone.relayed.is_some() {
            self.closed[why] += 1;
            out.closes.push(who);
        }
    }

    /// Ends all that is over, as often as the relay's timer is asked.
    pub fn tick(&mut self, now_ms: u64) -> Expected {
        let mut out = Expected::default();
        let over = |it: &Allocation| now_ms >= it.ends_ms && it.relayed.is_some();
        let ended = self.allocations.iter().filter(|(_, it)| over(it)).map(|(who, _)| *who);
        for who in ended.collect::<Vec<_>>() {
            self.end(who, 0, &mut out);
        }
        out
    }
}
