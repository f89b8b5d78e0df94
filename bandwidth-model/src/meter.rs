//! What a provider counts: the same traffic is billed by different meters.

use crate::error::ModelError;
use crate::links::Room;
use crate::rates::relay_rate;
use crate::units::BitsPerSec;

/// Which bytes a provider adds up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meter {
    /// Sent by the server's interface.
    NicTx,
    /// Received by the server's interface.
    NicRx,
    /// Sent and received, added.
    NicSum,
    /// Sent or received, whichever is more.
    NicMax,
    /// From the relay to its TURN clients.
    ClientTx,
    /// Between the relay and its TURN clients, both ways.
    ClientSum,
}

impl Meter {
    /// All meters.
    pub const ALL: [Self; 6] =
        [Self::NicTx, Self::NicRx, Self::NicSum, Self::NicMax, Self::ClientTx, Self::ClientSum];

    /// Its name in price books and vectors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NicTx => "nic_tx",
            Self::NicRx => "nic_rx",
            Self::NicSum => "nic_sum",
            Self::NicMax => "nic_max",
            Self::ClientTx => "client_tx",
            Self::ClientSum => "client_sum",
        }
    }

    /// The meter of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meter| meter.name() == name)
    }

    /// The rate this meter counts.
    ///
    /// `hairpin_nat` says that the server stands behind a 1:1 NAT and sends the hop between two
    /// allocations out of its interface and back in. Castling's relay never does.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn rate(
        self,
        room: Room,
        stream: BitsPerSec,
        hairpin_nat: bool,
    ) -> Result<BitsPerSec, ModelError> {
        let two_sided = u128::from(room.two_sided().count());
        let detour = stream.times(if hairpin_nat { 2 * two_sided } else { 0 })?;
        let nic_each_way = relay_rate(room, stream)?.plus(detour)?;
        // A two-sided link has two client legs, each with one stream in either direction.
        let client_each_way = stream.times(u128::from(room.one_sided().count()) + 2 * two_sided)?;
        match self {
            Self::NicTx | Self::NicRx | Self::NicMax => Ok(nic_each_way),
            Self::NicSum => nic_each_way.times(2),
            Self::ClientTx => Ok(client_each_way),
            Self::ClientSum => client_each_way.times(2),
        }
    }
}

/// The 95th percentile as transit is billed: of the samples in falling order, the first after
/// the top twentieth. Zero without samples.
#[must_use]
pub fn percentile_95(samples: &[BitsPerSec]) -> BitsPerSec {
    let mut falling = samples.to_vec();
    falling.sort_unstable_by(|left, right| right.cmp(left));
    falling.get(samples.len() / 20).copied().unwrap_or_default()
}
