//! A client that comes back from another address finds its quota full of its own ghosts.

use crate::address::AllocationId;
use crate::auth::user_of;
use crate::relay::{Closed, Queued, Relay};

/// How long a client has been silent at least before its allocation gives way to another of its
/// user, in seconds. One that carries a call is heard of every few seconds (RFC 7675 §5.1); one
/// that waits unused for minutes may go, which costs its client a candidate and no call.
pub const SILENCE_S: u32 = 30;
/// Most searches for such an allocation, one every so many seconds: each looks at all of them.
const SEARCHES_PER_S: u32 = 100;

/// How many searches there were in the current second.
#[derive(Debug, Default)]
pub(crate) struct Searches {
    second: u32,
    count: u32,
}

impl Searches {
    fn allow(&mut self, second: u32) -> bool {
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count += 1;
        self.count <= SEARCHES_PER_S
    }
}

impl Relay {
    /// Closes the longest silent allocation of the same user and asks for the port again; `false`
    /// if there is none, or one has given way already, or the answer came late.
    pub(crate) fn replace_silent(&mut self, id: AllocationId) -> bool {
        let is_asked =
            |queued: &Queued| matches!(queued, Queued::OpenPort { id: at, .. } if *at == id);
        if !self.current.as_ref().is_some_and(is_asked) {
            return false;
        }
        let Some(asking) = self.table.by_id(id).filter(|it| !it.has_replaced) else { return false };
        let asked_s = asking.heard_s;
        if !self.searches.allow(asked_s) {
            return false;
        }
        asking.has_replaced = true;
        let user = asking.owner.username.clone();
        let Some(ghost) = self.longest_silent(user_of(&user), asked_s) else { return false };
        self.close(ghost, Closed::Replaced);
        self.effects.extend(self.current.take());
        true
    }

    fn longest_silent(&self, user: &str, now_s: u32) -> Option<AllocationId> {
        let mine = self.table.iter().filter(|(_, it)| user_of(&it.owner.username) == user);
        let silent = mine.filter(|(_, it)| {
            it.relayed.is_some() && now_s.saturating_sub(it.heard_s) >= SILENCE_S
        });
        silent.min_by_key(|(_, it)| it.heard_s).map(|(id, _)| id)
    }
}
