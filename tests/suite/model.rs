//! The model's counts of links.

/// A room of P people, T of them blocked.
#[derive(Clone, Copy)]
pub struct Room(u64, u64);

/// A number of links.
#[derive(Clone, Copy)]
pub struct LinkCount(u64);

impl LinkCount {
    pub fn count(self) -> u64 {
        self.0
    }
}

impl Room {
    pub fn new(people: u64, blocked: u64) -> Result<Self, String> {
        if blocked > people {
            Err(format!("{blocked} of {people}"))
        } else {
            Ok(Self(people, blocked))
        }
    }

    /// S.
    pub fn links(self) -> LinkCount {
        LinkCount(self.0 * (self.0 - 1) / 2)
    }

    /// K.
    pub fn relayed(self) -> LinkCount {
        LinkCount(self.1 * (2 * self.0).saturating_sub(self.1 + 1) / 2)
    }
}
