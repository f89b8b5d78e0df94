//! Orders of the operator to a worker, which obeys them between two batches of packets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use relay_proto::relay::{Relay, Settings};
use relay_proto::{Alternates, ClientAddr, Now, Who};

/// Most orders that wait for one worker; only one that is stuck lets more than one wait.
const ORDERS_MAX: usize = 16;

/// What every worker is to do.
#[derive(Clone)]
pub enum Order {
    /// Go by these settings.
    Configure(Arc<Settings>),
    /// End a user's or a room's allocations and revoke the name until this Unix second.
    Kick(Who, u64),
    /// Revoke the name until this Unix second.
    Revoke(Who, u64),
    /// Open nothing new.
    Drain(Alternates),
}

/// What an order came to.
#[derive(Debug, Default)]
pub struct Obeyed {
    /// Clients whose allocations were ended.
    pub kicked: Vec<ClientAddr>,
    /// The Unix second until which a name is revoked here.
    pub until: u64,
}

impl Order {
    /// Tells the relay; its effects are the caller's.
    pub fn obey(self, now: Now, relay: &mut Relay) -> Obeyed {
        match self {
            Self::Configure(settings) => relay.configure(Settings::clone(&settings)),
            Self::Kick(who, until) => {
                let kicked = relay.kick(now, &who, until);
                return Obeyed { kicked: kicked.clients, until: kicked.until };
            }
            Self::Revoke(who, until) => relay.revoke(now, &who, until),
            Self::Drain(alternates) => relay.drain(alternates),
        }
        Obeyed::default()
    }
}

/// Orders that wait for one worker.
#[derive(Default)]
pub struct Orders {
    /// Read once per turn, so that a worker without orders takes no lock.
    waiting: AtomicBool,
    queue: Mutex<VecDeque<Waiting>>,
}

/// An order and whoever waits for it.
pub struct Waiting {
    /// What to do.
    pub order: Order,
    done: SyncSender<Obeyed>,
}

impl Waiting {
    /// Says that the order was obeyed.
    pub fn answer(self, obeyed: Obeyed) {
        // Whoever gave it may have stopped waiting.
        let _ = self.done.try_send(obeyed);
    }
}

impl Orders {
    /// Gives an order; the answer comes when it was obeyed. `None` if too many wait.
    pub fn give(&self, order: Order) -> Option<Receiver<Obeyed>> {
        let (done, answer) = sync_channel(1);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= ORDERS_MAX {
            return None;
        }
        queue.push_back(Waiting { order, done });
        self.waiting.store(true, Ordering::Release);
        Some(answer)
    }

    /// The next order, if one waits.
    pub fn next(&self) -> Option<Waiting> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queue.pop_front();
        self.waiting.store(!queue.is_empty(), Ordering::Release);
        next
    }
}
