//! Bounded rings that carry payloads from one worker's allocations to another's.
//!
//! ```text
//! | source | target | class | length |  payload ...
//! |  18    |   18   |   1   |   4    |  bytes
//! ```
//! An address is 16 bytes of IP (IPv4 in its mapped form) and 2 of port.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use relay_proto::RelayAddr;
use rtrb::{Consumer, Producer, RingBuffer};

/// Room of one ring in bytes: some 200 video packets.
pub const RING_LEN: usize = 256 << 10;
const ADDRESS_LEN: usize = 18;
const HEADER_LEN: usize = 2 * ADDRESS_LEN + 1 + 4;

/// A worker's ends of its rings, by the other worker's number.
pub struct Rings {
    /// To the others; `None` to itself.
    pub to: Vec<Option<Outlet>>,
    /// From the others; `None` from itself.
    pub from: Vec<Option<Inlet>>,
}

/// The end that is written to.
pub struct Outlet(Producer<u8>);

/// The end that is read from.
pub struct Inlet(Consumer<u8>);

/// One ring for every ordered pair of workers.
#[must_use]
pub fn connect(workers: usize) -> Vec<Rings> {
    let none = || Rings {
        to: std::iter::repeat_with(|| None).take(workers).collect(),
        from: std::iter::repeat_with(|| None).take(workers).collect(),
    };
    let mut rings: Vec<_> = std::iter::repeat_with(none).take(workers).collect();
    for source in 0..workers {
        for target in (0..workers).filter(|target| *target != source) {
            let (producer, consumer) = RingBuffer::new(RING_LEN);
            rings[source].to[target] = Some(Outlet(producer));
            rings[target].from[source] = Some(Inlet(consumer));
        }
    }
    rings
}

impl Outlet {
    /// Copies a payload in; `false` if there is no room.
    pub fn push(&mut self, from: RelayAddr, to: RelayAddr, class: u8, payload: &[u8]) -> bool {
        let Ok(mut chunk) = self.0.write_chunk(HEADER_LEN + payload.len()) else { return false };
        let Ok(length) = u32::try_from(payload.len()) else { return false };
        let mut header = [0; HEADER_LEN];
        let (addresses, rest) = header.split_at_mut(2 * ADDRESS_LEN);
        let (source, target) = addresses.split_at_mut(ADDRESS_LEN);
        write_address(source, from);
        write_address(target, to);
        let [l0, l1, l2, l3] = length.to_be_bytes();
        rest.copy_from_slice(&[class, l0, l1, l2, l3]);
        let (first, second) = chunk.as_mut_slices();
        copy_across(first, second, 0, &header);
        copy_across(first, second, HEADER_LEN, payload);
        chunk.commit_all();
        true
    }
}

impl Inlet {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands the oldest payload, in one or two pieces, to `take`; `None` if nothing waits.
    pub fn pop<T>(
        &mut self,
        take: impl FnOnce(RelayAddr, RelayAddr, u8, [&[u8]; 2]) -> T,
    ) -> Option<T> {
        let header = self.0.read_chunk(HEADER_LEN).ok()?;
        let mut bytes = [0; HEADER_LEN];
        let (first, second) = header.as_slices();
        let (head, tail) = bytes.split_at_mut(first.len());
        head.copy_from_slice(first);
        tail.copy_from_slice(second);
        header.commit_all();
        let (addresses, rest) = bytes.split_at(2 * ADDRESS_LEN);
        let (source, target) = addresses.split_at(ADDRESS_LEN);
        let [class, length @ ..] = <[u8; 5]>::try_from(rest).expect("five bytes");
        let length = u32::from_be_bytes(length) as usize;
        let payload = self.0.read_chunk(length).expect("committed together with its header");
        let (first, second) = payload.as_slices();
        let taken = take(read_address(source), read_address(target), class, [first, second]);
        payload.commit_all();
        Some(taken)
    }
}

fn copy_across(first: &mut [u8], second: &mut [u8], at: usize, bytes: &[u8]) {
    let split = first.len().saturating_sub(at).min(bytes.len());
    let (head, tail) = bytes.split_at(split);
    if !head.is_empty() {
        first[at..at + split].copy_from_slice(head);
    }
    if !tail.is_empty() {
        let start = (at + split) - first.len();
        second[start..start + tail.len()].copy_from_slice(tail);
    }
}

fn write_address(out: &mut [u8], RelayAddr(address): RelayAddr) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let (to_ip, to_port) = out.split_at_mut(16);
    to_ip.copy_from_slice(&ip.octets());
    to_port.copy_from_slice(&address.port().to_be_bytes());
}

fn read_address(bytes: &[u8]) -> RelayAddr {
    let (ip, port) = bytes.split_at(16);
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(ip).expect("sixteen bytes"));
    let port = u16::from_be_bytes(port.try_into().expect("two bytes"));
    RelayAddr(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relayed(text: &str) -> RelayAddr {
        RelayAddr(text.parse().expect("address"))
    }

    #[test]
    fn payloads_come_out_in_order_across_the_ring_end() {
        let mut rings = connect(2);
        let (mut out, mut inlet) =
            (rings[0].to[1].take().unwrap(), rings[1].from[0].take().unwrap());
        let (v4, v6) = (relayed("192.0.2.1:50000"), relayed("[2001:db8::1]:50001"));
        let payload: Vec<u8> = (0..=255).cycle().take(1100).collect();
        for round in 0..2_000u32 {
            let length = (round as usize * 7) % payload.len();
            let class = round.to_le_bytes()[0];
            assert!(out.push(v4, v6, class, &payload[..length]));
            let whole = inlet.pop(|from, to, with, parts| {
                assert_eq!((from, to, with), (v4, v6, class));
                parts.concat()
            });
            assert_eq!(whole.as_deref(), Some(&payload[..length]));
        }
        assert!(inlet.is_empty());
        assert!(inlet.pop(|_, _, _, _| ()).is_none());
    }

    #[test]
    fn full_ring_takes_nothing_and_loses_nothing() {
        let mut rings = connect(2);
        let (mut out, mut inlet) =
            (rings[0].to[1].take().unwrap(), rings[1].from[0].take().unwrap());
        let at = relayed("192.0.2.1:50000");
        let mut pushed = 0;
        while out.push(at, at, 0, &[7; 1000]) {
            pushed += 1;
        }
        assert_eq!(pushed, RING_LEN / (HEADER_LEN + 1000));
        let mut popped = 0;
        while inlet.pop(|_, _, _, parts| assert_eq!(parts.concat(), [7; 1000])).is_some() {
            popped += 1;
        }
        assert_eq!(popped, pushed);
    }
}
