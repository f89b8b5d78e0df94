//! Messages in a byte stream: where one ends and the next begins (RFC 8489 §6.2.2,
//! RFC 8656 §12.4).
//!
//! A STUN message says its length; ChannelData says its payload's, which is padded to a multiple
//! of 4. Whatever cannot be the beginning of either is an error as soon as it is seen: a stream
//! that has lost its framing never finds it again.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

use crate::channel_data;
use crate::stun;

/// Longest message of a client without an allocation, in bytes.
pub const STRANGER_LEN_MAX: usize = 1_500;
/// Longest STUN message at all, in bytes.
pub const STUN_LEN_MAX: usize = 4_096;
/// Longest ChannelData message at all, in bytes with its header and padding.
pub const CHANNEL_DATA_LEN_MAX: usize = 16_384;

/// Whose stream it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Somebody without an allocation, who gets little room.
    Stranger,
    /// A client with an allocation.
    Client,
}

/// The stream holds something else than STUN and ChannelData, or too long a message: the client's
/// fault. It is to be closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Broken;

/// A message with its padding, and what follows it; `None` if it is not whole yet.
pub type Split<'b> = Option<(&'b [u8], &'b [u8])>;

/// Splits a stream behind its first message.
///
/// # Errors
/// [`Broken`]: these bytes begin no message, however many more follow.
pub fn split_first(bytes: &[u8], trust: Trust) -> Result<Split<'_>, Broken> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let (expected, longest) = match first >> 6 {
        0b00 => (stun_len(bytes)?, STUN_LEN_MAX),
        0b01 => (channel_data_len(bytes), CHANNEL_DATA_LEN_MAX),
        _ => return Err(Broken),
    };
    let longest = match trust {
        Trust::Stranger => STRANGER_LEN_MAX,
        Trust::Client => longest,
    };
    match expected {
        Some(length) if length > longest => Err(Broken),
        Some(length) => Ok(bytes.split_at_checked(length)),
        None => Ok(None),
    }
}

/// Length of a STUN message, once enough of it is there to say so.
fn stun_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let cookie = bytes.iter().skip(4);
    if cookie.zip(stun::MAGIC_COOKIE.to_be_bytes()).any(|(is, wanted)| *is != wanted) {
        return Err(Broken);
    }
    match length_field(bytes) {
        // All attributes are padded (RFC 8489 §5).
        Some(length) if length % 4 != 0 => Err(Broken),
        Some(length) => Ok(length.checked_add(stun::HEADER_LEN)),
        None => Ok(None),
    }
}

/// Length of a ChannelData message with its padding (RFC 8656 §12.5), once it can be said.
fn channel_data_len(bytes: &[u8]) -> Option<usize> {
    length_field(bytes)?.checked_add(channel_data::HEADER_LEN)?.checked_next_multiple_of(4)
}

/// Bytes 2 and 3, which hold the length in both forms.
fn length_field(bytes: &[u8]) -> Option<usize> {
    let field = bytes.get(2..4)?;
    Some(field.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(attributes_len: u16) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(attributes_len.to_be_bytes());
        bytes.extend(stun::MAGIC_COOKIE.to_be_bytes());
        bytes.resize(stun::HEADER_LEN + usize::from(attributes_len), 7);
        bytes
    }

    #[test]
    fn padding_belongs_to_its_message() {
        let bytes = [0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0x40];
        let split = split_first(&bytes, Trust::Stranger).expect("framed");
        assert_eq!(split, Some((&bytes[..12], &bytes[12..])));
        assert_eq!(split_first(&bytes[..11], Trust::Client), Ok(None), "padding is awaited");
        assert_eq!(split_first(&[], Trust::Client), Ok(None));
    }

    #[test]
    fn lengths_have_limits_which_an_allocation_widens() {
        let is_broken = |bytes: &[u8], trust| split_first(bytes, trust).is_err();
        // The length is judged as soon as it is there, not when the message is whole.
        assert!(!is_broken(&stun(1_480)[..4], Trust::Stranger));
        assert!(is_broken(&stun(1_484)[..4], Trust::Stranger));
        assert!(!is_broken(&stun(4_076)[..4], Trust::Client));
        assert!(is_broken(&stun(4_080)[..4], Trust::Client));
        assert!(!is_broken(&[0x40, 0, 0x3F, 0xFC], Trust::Client));
        assert!(is_broken(&[0x40, 0, 0x3F, 0xFD], Trust::Client));
        assert!(is_broken(&[0x40, 0, 0x3F, 0xFC], Trust::Stranger));
    }

    #[test]
    fn what_speaks_another_protocol_is_broken_within_its_first_line() {
        for garbage in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST / HTTP/1.1\r\n",
            b"HEAD / HTTP/1.1\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
            b"CONNECT a:1 HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x05\x01\x00\x00\x00\x00",
            b"\x80\x00\x00\x00",
            b"\xff",
        ] {
            assert_eq!(split_first(garbage, Trust::Client), Err(Broken), "{garbage:?}");
        }
        let mut cookie = stun(0);
        cookie[5] ^= 1;
        assert_eq!(split_first(&cookie[..6], Trust::Client), Err(Broken), "cookie");
        assert_eq!(split_first(&[0, 1, 0, 2], Trust::Client), Err(Broken), "unpadded attributes");
    }
}
