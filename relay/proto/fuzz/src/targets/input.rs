//! Takes an input apart: bytes first to last, so that a small change stays a small change.

use relay_proto::stun::{HEADER_LEN, MAGIC_COOKIE};

/// Type and length (RFC 8489 §14.7).
const FINGERPRINT_HEADER: [u8; 4] = [0x80, 0x28, 0, 4];
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// What is left of an input; at its end all is zero.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte, or `None` at the end.
    pub fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// As many bytes as the next word says, or as there are.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.word() % 2048).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// A datagram: as it comes, or made STUN, which chance finds late or never.
    pub fn datagram(&mut self) -> Vec<u8> {
        let kind = self.byte();
        mended(self.bytes(), kind)
    }
}

/// Bytes as they are, or with the cookie and the right length, or with FINGERPRINT too.
pub fn mended(bytes: &[u8], kind: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let has_fingerprint = match kind % 4 {
        0 => return bytes,
        other => other == 3,
    };
    bytes.resize(bytes.len().max(HEADER_LEN).next_multiple_of(4), 0);
    bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    let fingerprint_len = if has_fingerprint { 8 } else { 0 };
    let length = u16::try_from(bytes.len() - HEADER_LEN + fingerprint_len).unwrap_or(u16::MAX);
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    if has_fingerprint {
        let crc = crc32fast::hash(&bytes) ^ FINGERPRINT_XOR;
        bytes.extend(FINGERPRINT_HEADER);
        bytes.extend(crc.to_be_bytes());
    }
    bytes
}
