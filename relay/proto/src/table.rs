//! All allocations of one worker: a slab, and who finds what in it.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::address::{AllocationId, ClientAddr, Family, RelayAddr};
use crate::allocation::Allocation;
use crate::dual::{Leg, Second};

/// The slab and its indexes. A client and a relayed address have at most one allocation each;
/// an allocation has a relayed address of each family at most.
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_client: HashMap<ClientAddr, u32, FixedState>,
    by_relay: HashMap<RelayAddr, u32, FixedState>,
}

#[derive(Default)]
struct Slot {
    /// Counts the slot's allocations, so that an old id finds nothing.
    generation: u32,
    allocation: Option<Box<Allocation>>,
}

impl Table {
    /// An empty table; `seed` keeps strangers from choosing colliding addresses.
    pub fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_relay: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Takes an allocation in; its client must have none.
    pub fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("ports, and so slots, are far fewer")
        });
        let earlier = self.by_client.insert(allocation.client, index);
        debug_assert!(earlier.is_none(), "one allocation a client");
        let slot = &mut self.slots[index as usize];
        slot.allocation = Some(Box::new(allocation));
        AllocationId { index, generation: slot.generation }
    }

    /// Makes an allocation known by a relayed address, its first or its second.
    pub fn open(&mut self, id: AllocationId, relayed: RelayAddr) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(id.index())?;
        let allocation = slot.allocation.as_mut().filter(|_| slot.generation == id.generation)?;
        if allocation.relayed.is_none() {
            allocation.relayed = Some(relayed);
            // A reserved port is of the family that its pair was asked for (RFC 8656 §7.2), which
            // only the edge knows.
            allocation.family = Family::of(&relayed.0.ip());
        } else {
            let expires_ms = allocation.expires_ms;
            allocation.second = Second::Open(Box::new(Leg { relayed, expires_ms }));
        }
        self.by_relay.insert(relayed, id.index);
        Some(allocation)
    }

    /// Takes an allocation out.
    pub fn remove(&mut self, id: AllocationId) -> Option<Box<Allocation>> {
        let slot = self.slots.get_mut(id.index())?;
        let allocation = slot.allocation.take_if(|_| slot.generation == id.generation)?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.by_client.remove(&allocation.client);
        for relayed in allocation.addresses() {
            self.by_relay.remove(&relayed);
        }
        Some(allocation)
    }

    /// Takes one of an allocation's two addresses away; `false` if it has not both.
    pub fn end_address(&mut self, id: AllocationId, family: Family) -> bool {
        let ended = self.by_id(id).and_then(|allocation| allocation.end_address(family));
        ended.is_some_and(|relayed| self.by_relay.remove(&relayed).is_some())
    }

    /// The allocation with this id.
    pub fn by_id(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(id.index())?;
        slot.allocation.as_deref_mut().filter(|_| slot.generation == id.generation)
    }

    /// The client's allocation.
    pub fn by_client(&mut self, client: ClientAddr) -> Option<(AllocationId, &mut Allocation)> {
        let index = *self.by_client.get(&client)?;
        self.at(index)
    }

    /// The allocation behind a relayed address.
    pub fn by_relay(&mut self, relayed: RelayAddr) -> Option<(AllocationId, &mut Allocation)> {
        let index = *self.by_relay.get(&relayed)?;
        self.at(index)
    }

    /// Every allocation, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (AllocationId, &Allocation)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let id = AllocationId { index, generation: slot.generation };
            Some((id, slot.allocation.as_deref()?))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_client.len()
    }

    fn at(&mut self, index: u32) -> Option<(AllocationId, &mut Allocation)> {
        let slot = self.slots.get_mut(index as usize)?;
        let id = AllocationId { index, generation: slot.generation };
        slot.allocation.as_deref_mut().map(|allocation| (id, allocation))
    }
}
