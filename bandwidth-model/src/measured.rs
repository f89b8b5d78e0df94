//! A relay's counters against the model: did it carry what was predicted?

use crate::error::ModelError;
use crate::links::Room;
use crate::plan::Plan;
use crate::rates::{Sender, relay_rate_unequal};
use crate::ratio::Ratio;
use crate::units::{Bytes, LinkCount, Seconds};
use crate::wire::UDP_BYTES;

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

/// What the model expects a relay to count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expected {
    /// K.
    pub relayed_links: LinkCount,
    /// Received by the relay.
    pub wire_rx: Bytes,
    /// Sent by the relay.
    pub wire_tx: Bytes,
}

/// One direction of a relayed link, as its sender counted it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelayedStream {
    /// UDP datagrams.
    pub datagrams: u64,
    /// What they carried in all, without TURN's framing.
    pub payload: Bytes,
    /// TURN framing of each datagram from the sender to the relay; 0 if the sender is a peer.
    pub framing_in_bytes: u64,
    /// TURN framing of each datagram from the relay to the receiver; 0 if that is a peer.
    pub framing_out_bytes: u64,
}

/// Equal datagrams on every stream of a room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EqualTraffic {
    /// Datagrams of each one-way stream.
    pub datagrams: u64,
    /// Bytes that each carries.
    pub payload_bytes: u64,
    /// TURN framing on client legs, such as [`crate::wire::CHANNEL_DATA_BYTES`].
    pub framing_bytes: u64,
    /// IP header, such as [`crate::wire::IPV4_BYTES`].
    pub ip_bytes: u64,
}

impl Expected {
    /// From a plan that was made beforehand.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn from_plan(plan: &Plan, time: Seconds) -> Result<Self, ModelError> {
        Ok(Self {
            relayed_links: plan.links.relayed,
            wire_rx: plan.relay.ingress.bps.lasting(time)?,
            wire_tx: plan.relay.egress.bps.lasting(time)?,
        })
    }

    /// From the wire rate of each person, the same towards everybody else.
    ///
    /// # Errors
    /// Too many senders, or [`ModelError::TooLarge`].
    pub fn from_senders(senders: &[Sender], time: Seconds) -> Result<Self, ModelError> {
        let blocked = senders.iter().filter(|sender| sender.blocked).count() as u64;
        let room = Room::new(senders.len() as u64, blocked)?;
        let each_way = relay_rate_unequal(senders)?.lasting(time)?;
        Ok(Self { relayed_links: room.relayed(), wire_rx: each_way, wire_tx: each_way })
    }

    /// From the streams of `relayed_links` links, counted at their ends, both of each link.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn from_streams(
        relayed_links: LinkCount,
        streams: &[RelayedStream],
        ip_bytes: u64,
    ) -> Result<Self, ModelError> {
        let (mut wire_rx, mut wire_tx) = (Bytes::ZERO, Bytes::ZERO);
        for stream in streams {
            let headers = |framing| -> Result<Bytes, ModelError> {
                let each = Bytes::new(ip_bytes).plus(Bytes::new(UDP_BYTES))?;
                each.plus(Bytes::new(framing))?.times(u128::from(stream.datagrams))
            };
            wire_rx = wire_rx.plus(stream.payload)?.plus(headers(stream.framing_in_bytes)?)?;
            wire_tx = wire_tx.plus(stream.payload)?.plus(headers(stream.framing_out_bytes)?)?;
        }
        Ok(Self { relayed_links, wire_rx, wire_tx })
    }

    /// From known traffic: N·(2·K·(payload + headers) + (K1 + 2·K2)·framing) each way, since each
    /// client leg carries one framed stream in either direction.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn from_equal_traffic(room: Room, traffic: &EqualTraffic) -> Result<Self, ModelError> {
        let client_legs = room.one_sided().count() + 2 * room.two_sided().count();
        let datagram = Bytes::new(traffic.payload_bytes)
            .plus(Bytes::new(traffic.ip_bytes))?
            .plus(Bytes::new(UDP_BYTES))?;
        let each_way = datagram
            .times(2 * u128::from(room.relayed().count()))?
            .plus(Bytes::new(traffic.framing_bytes).times(u128::from(client_legs))?)?
            .times(u128::from(traffic.datagrams))?;
        Ok(Self { relayed_links: room.relayed(), wire_rx: each_way, wire_tx: each_way })
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
            rx: relative(measured.wire_rx, expected.wire_rx)?,
            tx: relative(measured.wire_tx, expected.wire_tx)?,
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
    use crate::units::BitsPerSec;

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
        assert_eq!(
            expected(),
            Expected {
                relayed_links: LinkCount::new(2),
                wire_rx: Bytes::new(5000),
                wire_tx: Bytes::new(5000),
            }
        );
    }

    #[test]
    fn equal_traffic_equals_the_sum_of_its_streams() {
        let traffic =
            EqualTraffic { datagrams: 7, payload_bytes: 100, framing_bytes: 4, ip_bytes: 20 };
        let framing = |blocked| if blocked { 4 } else { 0 };
        for (people, blocked) in [(2, 1), (2, 2), (3, 1), (5, 3), (6, 0)] {
            let room = Room::new(people, blocked).unwrap();
            let mut streams = Vec::new();
            for from in 0..people {
                for to in (0..people).filter(|&to| to != from && from.min(to) < blocked) {
                    streams.push(RelayedStream {
                        datagrams: 7,
                        payload: Bytes::new(700),
                        framing_in_bytes: framing(from < blocked),
                        framing_out_bytes: framing(to < blocked),
                    });
                }
            }
            assert_eq!(
                Expected::from_equal_traffic(room, &traffic),
                Expected::from_streams(room.relayed(), &streams, 20),
                "P={people} T={blocked}"
            );
        }
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
        let silent = Expected::from_senders(&[], Seconds::new(10)).unwrap();
        assert!(is_within(measured(0, 0, 0), silent));
        assert!(!is_within(measured(0, 1, 0), silent));
    }
}
