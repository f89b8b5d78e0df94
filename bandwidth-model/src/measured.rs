//! A relay's counters against the model: did it carry what was predicted?

use crate::error::ModelError;
use crate::plan::Plan;
use crate::rates::{Sender, relay_rate_unequal};
use crate::ratio::Ratio;
use crate::units::{BitsPerSec, Bytes, LinkCount, Seconds};

/// What a relay counted over some time: the growth of its counters, in wire bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Measured {
    /// Links that carried traffic.
    pub relayed_links: LinkCount,
    /// Received by the relay (`relay_wire_bytes_total{direction="rx"}`).
    pub wire_rx: Bytes,
    /// Sent by the relay (`relay_wire_bytes_total{direction="tx"}`).
    pub wire_tx: Bytes,
}

/// The two streams of one relayed link, as measured at its ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelayedLink {
    /// Wire rate of one end's stream.
    pub forth: BitsPerSec,
    /// Wire rate of the other end's stream.
    pub back: BitsPerSec,
}

/// What the model expects a relay to count: every stream once in and once out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expected {
    /// K.
    pub relayed_links: LinkCount,
    /// Received, and equally sent, by the relay.
    pub wire_each_way: Bytes,
}

impl Expected {
    /// From a plan that was made beforehand.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn from_plan(plan: &Plan, time: Seconds) -> Result<Self, ModelError> {
        let wire_each_way = plan.relay.egress.bps.lasting(time)?;
        Ok(Self { relayed_links: plan.links.relayed, wire_each_way })
    }

    /// From what people sent, each at the same rate to everybody else.
    ///
    /// # Errors
    /// Too many senders, or [`ModelError::TooLarge`].
    pub fn from_senders(senders: &[Sender], time: Seconds) -> Result<Self, ModelError> {
        let blocked = senders.iter().filter(|sender| sender.blocked).count() as u64;
        let room = crate::Room::new(senders.len() as u64, blocked)?;
        let wire_each_way = relay_rate_unequal(senders)?.lasting(time)?;
        Ok(Self { relayed_links: room.relayed(), wire_each_way })
    }

    /// From the two rates of every relayed link.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn from_links(links: &[RelayedLink], time: Seconds) -> Result<Self, ModelError> {
        let rate = links
            .iter()
            .try_fold(BitsPerSec::ZERO, |sum, link| sum.plus(link.forth)?.plus(link.back))?;
        let relayed_links = LinkCount::new(links.len() as u64);
        Ok(Self { relayed_links, wire_each_way: rate.lasting(time)? })
    }
}

/// How far a relay's counters are from the model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Difference {
    /// Links measured − links expected.
    pub links: i128,
    /// Received / expected − 1; `None` if nothing was expected and something came.
    pub rx: Option<Ratio>,
    /// Sent / expected − 1; `None` if nothing was expected and something was sent.
    pub tx: Option<Ratio>,
}

impl Difference {
    /// Of counters from the model.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn between(measured: &Measured, expected: &Expected) -> Result<Self, ModelError> {
        let links =
            i128::from(measured.relayed_links.count()) - i128::from(expected.relayed_links.count());
        Ok(Self {
            links,
            rx: relative(measured.wire_rx, expected.wire_each_way)?,
            tx: relative(measured.wire_tx, expected.wire_each_way)?,
        })
    }

    /// Whether the links agree exactly and both directions within `tolerance`, such as 1/100.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn is_within(&self, tolerance: Ratio) -> Result<bool, ModelError> {
        let mut within = self.links == 0;
        for direction in [self.rx, self.tx] {
            within &= match direction {
                Some(difference) => !tolerance.minus(difference.abs()?)?.is_negative(),
                None => false,
            };
        }
        Ok(within)
    }
}

fn relative(measured: Bytes, expected: Bytes) -> Result<Option<Ratio>, ModelError> {
    if expected == Bytes::ZERO {
        return Ok((measured == Bytes::ZERO).then_some(Ratio::ZERO));
    }
    let difference = measured.exact()?.minus(expected.exact()?)?;
    difference.over(expected.exact()?).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        let sender = |blocked| Sender { blocked, rate: BitsPerSec::new(1000) };
        let senders = [sender(true), sender(false), sender(false)];
        Expected::from_senders(&senders, Seconds::new(10)).unwrap()
    }

    fn measured(links: u64, rx: u64, tx: u64) -> Measured {
        Measured {
            relayed_links: LinkCount::new(links),
            wire_rx: Bytes::new(rx),
            wire_tx: Bytes::new(tx),
        }
    }

    fn is_within(measured: Measured, expected: Expected) -> bool {
        let tolerance = Ratio::new(1, 100).unwrap();
        Difference::between(&measured, &expected).unwrap().is_within(tolerance).unwrap()
    }

    #[test]
    fn two_links_of_two_streams_each_are_expected() {
        let links = [RelayedLink { forth: BitsPerSec::new(1000), back: BitsPerSec::new(1000) }; 2];
        assert_eq!(Expected::from_links(&links, Seconds::new(10)), Ok(expected()));
        assert_eq!(expected().wire_each_way, Bytes::new(5000));
    }

    #[test]
    fn tolerance_holds_at_its_edge_and_not_beyond() {
        assert!(is_within(measured(2, 5050, 4950), expected()));
        assert!(!is_within(measured(2, 5051, 5000), expected()));
        assert!(!is_within(measured(2, 5000, 4949), expected()));
        assert!(!is_within(measured(3, 5000, 5000), expected()), "a link too many");
    }

    #[test]
    fn half_the_bytes_are_not_the_model() {
        // The mistake of counting one stream per link.
        let difference = Difference::between(&measured(2, 2500, 2500), &expected()).unwrap();
        assert_eq!(difference.rx, Some(Ratio::new(-1, 2).unwrap()));
    }

    #[test]
    fn traffic_where_none_is_expected_is_never_within() {
        let silent = Expected::from_links(&[], Seconds::new(10)).unwrap();
        assert!(is_within(measured(0, 0, 0), silent));
        assert!(!is_within(measured(0, 1, 0), silent));
    }
}
