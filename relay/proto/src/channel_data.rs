//! ChannelData: the short form of a datagram (RFC 8656 §12.4).
//!
//! ```text
//! +-------------------------------+-------------------------------+
//! |  channel number 0x4000-0x7FFF |  length of the payload        |
//! +-------------------------------+-------------------------------+
//! |  payload; over streams padded to a multiple of 4              |
//! ```
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

use crate::address::ChannelNumber;

/// Length of the header.
pub const HEADER_LEN: usize = 4;

/// Splits a datagram into channel and payload; `None` if it is too short or the number is no
/// channel's. What follows the payload is padding and is not relayed (RFC 8656 §12.5).
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<(ChannelNumber, &[u8])> {
    let (&[n0, n1, l0, l1], rest) = bytes.split_first_chunk()?;
    let number = ChannelNumber::new_rfc5766(u16::from_be_bytes([n0, n1]))?;
    Some((number, rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?))
}

/// The header for a payload of `length` bytes.
#[must_use]
pub fn header(number: ChannelNumber, length: u16) -> [u8; HEADER_LEN] {
    let ([n0, n1], [l0, l1]) = (number.value().to_be_bytes(), length.to_be_bytes());
    [n0, n1, l0, l1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_what_the_length_says() {
        let number = ChannelNumber::new(0x4001).expect("channel");
        let mut bytes = header(number, 3).to_vec();
        bytes.extend_from_slice(b"abc\0");
        assert_eq!(parse(&bytes), Some((number, &b"abc"[..])));
        assert_eq!(parse(&bytes[..6]), None, "shorter than it says");
        assert_eq!(parse(&[0x40, 1, 0, 0]), Some((number, &b""[..])), "empty is a datagram too");
        assert_eq!(parse(&[0x80, 0, 0, 0]), None, "no channel has this number");
        assert_eq!(parse(&[0x40, 1, 0]), None, "no header");
    }
}
