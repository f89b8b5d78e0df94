//! The pool of relayed ports: random, quick when nearly full, and paired when asked.

use relay_proto::address::Family;

/// The free ports of one family, dealt out at random in constant time.
///
/// Even and odd ports are apart, so that EVEN-PORT finds one at once (RFC 8656 §18.7).
#[derive(Debug)]
pub struct PortPool {
    first: u16,
    /// Free ports by parity.
    free: [Vec<u16>; 2],
    /// Where a port stands in its list, [`TAKEN`] if it is not free.
    position: Vec<u32>,
}

const TAKEN: u32 = u32::MAX;
/// How often a pair is guessed before every even port is looked at.
const PAIR_TRIES: usize = 64;

impl PortPool {
    /// All ports from `first` to `last`, free.
    #[must_use]
    pub fn new((first, last): (u16, u16)) -> Self {
        let count = usize::from(last - first) + 1;
        let mut pool = Self { first, free: [Vec::new(), Vec::new()], position: vec![TAKEN; count] };
        for port in first..=last {
            pool.give_back(port);
        }
        pool
    }

    /// How many ports are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.iter().map(Vec::len).sum()
    }

    /// Any free port, each as likely as any other.
    pub fn take(&mut self) -> Option<u16> {
        let [even, odd] = &self.free;
        let drawn = draw(even.len() + odd.len())?;
        let (parity, at) = if drawn < even.len() { (0, drawn) } else { (1, drawn - even.len()) };
        Some(self.take_at(parity, at))
    }

    /// A free even port.
    pub fn take_even(&mut self) -> Option<u16> {
        let at = draw(self.free[0].len())?;
        Some(self.take_at(0, at))
    }

    /// An even port whose next port is free too; both are taken.
    pub fn take_pair(&mut self) -> Option<u16> {
        let is_paired =
            |pool: &Self, port: u16| port.checked_add(1).is_some_and(|next| pool.is_free(next));
        let guess = (0..PAIR_TRIES).find_map(|_| {
            let at = draw(self.free[0].len())?;
            is_paired(self, self.free[0][at]).then_some(at)
        });
        // Nearly full: look at every even port once, from a random one on.
        let at = guess.or_else(|| {
            let count = self.free[0].len();
            let start = draw(count)?;
            let mut rest = (0..count).map(|step| (start + step) % count);
            rest.find(|at| is_paired(self, self.free[0][*at]))
        })?;
        let port = self.take_at(0, at);
        let next = self.position[usize::from(port + 1 - self.first)];
        self.take_at(1, next as usize);
        Some(port)
    }

    /// Makes a port free again.
    pub fn give_back(&mut self, port: u16) {
        let slot = usize::from(port - self.first);
        debug_assert_eq!(self.position[slot], TAKEN, "port {port} was free already");
        let list = &mut self.free[usize::from(port % 2)];
        self.position[slot] = u32::try_from(list.len()).expect("at most 65,536 ports");
        list.push(port);
    }

    fn is_free(&self, port: u16) -> bool {
        let slot = port.checked_sub(self.first).map(usize::from);
        slot.and_then(|slot| self.position.get(slot)).is_some_and(|at| *at != TAKEN)
    }

    fn take_at(&mut self, parity: usize, at: usize) -> u16 {
        let list = &mut self.free[parity];
        let port = list.swap_remove(at);
        if let Some(moved) = list.get(at) {
            self.position[usize::from(moved - self.first)] =
                u32::try_from(at).expect("at most 65,536 ports");
        }
        self.position[usize::from(port - self.first)] = TAKEN;
        port
    }
}

/// The pools of both families, by [`Family::index`].
#[derive(Debug)]
pub struct Pools([PortPool; 2]);

impl Pools {
    /// All ports of the range free in both families.
    #[must_use]
    pub fn new(range: (u16, u16)) -> Self {
        Self([PortPool::new(range), PortPool::new(range)])
    }

    /// One family's pool.
    pub fn of(&mut self, family: Family) -> &mut PortPool {
        &mut self.0[family.index()]
    }
}

/// A number below `count` from the kernel's randomness, `None` if `count` is 0.
fn draw(count: usize) -> Option<usize> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    // The bias of a remainder of 64 bits is below 2^-48 here.
    let drawn = u64::from_le_bytes(bytes).checked_rem(count as u64)?;
    usize::try_from(drawn).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_dealt_once_and_comes_back() {
        let mut pool = PortPool::new((50_001, 50_020));
        for _ in 0..3 {
            let mut seen: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (50_001..=50_020).collect::<Vec<_>>());
            seen.into_iter().for_each(|port| pool.give_back(port));
        }
    }

    #[test]
    fn pairs_are_even_and_complete_until_none_is_left() {
        let mut pool = PortPool::new((50_001, 50_010));
        let mut pairs: Vec<_> = std::iter::from_fn(|| pool.take_pair()).collect();
        pairs.sort_unstable();
        // 50,010 is even, but its next port is out of range.
        assert_eq!(pairs, [50_002, 50_004, 50_006, 50_008]);
        assert_eq!(pool.take_even(), Some(50_010));
        assert_eq!(pool.take_even(), None);
        assert_eq!(pool.take(), Some(50_001));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn one_pair_among_many_singles_is_found() {
        let mut pool = PortPool::new((40_000, 49_999));
        while pool.take().is_some() {}
        for port in (40_000..50_000).step_by(2) {
            pool.give_back(port);
        }
        pool.give_back(44_445);
        assert_eq!(pool.take_pair(), Some(44_444));
        assert_eq!(pool.take_pair(), None);
    }

    /// ALC-18: every port is as likely as any other, whatever was dealt before it (RFC 6056 §3.2).
    ///
    /// The sums are chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6.
    /// Above 450 they are by chance once in 10^12 runs.
    #[test]
    fn ports_are_not_to_be_foretold() {
        const FIRST: u16 = 50_000;
        const PORTS: u16 = 10_240;
        const BINS: usize = 256;
        const CHI_SQUARE_MAX: f64 = 450.0;
        let mut pool = PortPool::new((FIRST, FIRST + PORTS - 1));
        let mut bins = [[0u32; BINS]; 3];
        let mut last = pool.take().expect("free");
        for _ in 0..10_240 {
            let port = pool.take().expect("free");
            pool.give_back(last);
            // Where it is, how far from the one before, and its low bits.
            let step = (port - FIRST + PORTS - (last - FIRST)) % PORTS;
            let at = [(port - FIRST) / 40, step / 40, port % 256];
            bins.iter_mut().zip(at).for_each(|(bins, at)| bins[usize::from(at)] += 1);
            last = port;
        }
        let expected = 10_240.0 / BINS as f64;
        for counts in bins {
            let term = |count: u32| (f64::from(count) - expected).powi(2) / expected;
            let sum: f64 = counts.into_iter().map(term).sum();
            assert!(sum < CHI_SQUARE_MAX, "{sum}");
        }
    }

    #[test]
    fn last_port_of_all_has_no_next() {
        let mut pool = PortPool::new((65_534, 65_535));
        assert_eq!(pool.take_pair(), Some(65_534));
        assert_eq!(pool.free(), 0);
    }
}
