//! How many more bytes a TLS stream carries than the messages inside it: its handshake, and what
//! each record adds.

/// The overhead of both directions, as far as it is certain.
#[derive(Default)]
pub struct Overhead {
    records: Records,
    received: i64,
    sent: i64,
}

impl Overhead {
    /// The socket has brought `sealed`, which opened `length` bytes. Of a record that is not
    /// whole yet nobody knows how much of it is overhead.
    pub fn opened(&mut self, sealed: &[u8], length: usize) {
        self.received += signed(self.records.pass(sealed)) - signed(length);
    }

    /// As many bytes of messages were sealed; none that are sealed already wait to be written.
    pub fn sealed(&mut self, length: usize) {
        self.sent -= signed(length);
    }

    /// As many bytes were written to the socket.
    pub fn wrote(&mut self, length: usize) {
        self.sent += signed(length);
    }

    /// Bytes received and sent that belong to no message, since this was last asked.
    pub fn take(&mut self) -> (usize, usize) {
        (take(&mut self.received), take(&mut self.sent))
    }
}

/// What is owed; nothing while messages are sealed that are not written yet.
fn take(owed: &mut i64) -> usize {
    let certain = usize::try_from(*owed).unwrap_or(0);
    *owed = (*owed).min(0);
    certain
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).expect("no buffer is that long")
}

/// Where records end (RFC 8446 §5.1): a type, two bytes of version, two of length, and as many
/// bytes as they say.
#[derive(Default)]
struct Records {
    header: [u8; Self::HEADER_LEN],
    /// Bytes of the record that have passed, its header included.
    passed: usize,
}

impl Records {
    const HEADER_LEN: usize = 5;

    /// Follows the stream; returns the length of all records that end in `bytes`.
    fn pass(&mut self, mut bytes: &[u8]) -> usize {
        let mut ended = 0;
        while !bytes.is_empty() {
            let in_header = Self::HEADER_LEN.saturating_sub(self.passed).min(bytes.len());
            let (header, rest) = bytes.split_at(in_header);
            let until = self.passed + in_header;
            // Nothing is copied once the header is there.
            if let Some(room) = self.header.get_mut(self.passed..until) {
                room.copy_from_slice(header);
            }
            self.passed = until;
            bytes = rest;
            if self.passed < Self::HEADER_LEN {
                break;
            }
            let [.., high, low] = self.header;
            let length = Self::HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
            let in_body = (length - self.passed).min(bytes.len());
            bytes = &bytes[in_body..];
            self.passed += in_body;
            if self.passed == length {
                ended += length;
                self.passed = 0;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn record(length: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(length).expect("a record").to_be_bytes();
        let mut bytes = vec![0x17, 3, 3, high, low];
        bytes.resize(5 + length, 0xFF);
        bytes
    }

    #[test]
    fn what_is_not_certain_yet_is_not_counted() {
        let mut overhead = Overhead::default();
        let record = record(100);
        overhead.opened(&record[..60], 0);
        assert_eq!(overhead.take(), (0, 0), "half a record");
        overhead.opened(&record[60..], 83);
        assert_eq!(overhead.take(), (22, 0));
        overhead.sealed(100);
        overhead.wrote(60);
        assert_eq!(overhead.take(), (0, 0), "half of it is written");
        overhead.wrote(62);
        assert_eq!(overhead.take(), (0, 22));
    }

    proptest! {
        /// Any split counts each record once, at its end.
        #[test]
        fn records_end_where_they_end(
            lengths in vec(0usize..300, 0..8),
            pieces in vec(1usize..200, 0..40),
        ) {
            let stream: Vec<u8> = lengths.iter().flat_map(|length| record(*length)).collect();
            let mut records = Records::default();
            let (mut rest, mut ended) = (&stream[..], 0);
            for piece in pieces {
                let (now, after) = rest.split_at(piece.min(rest.len()));
                ended += records.pass(now);
                prop_assert_eq!(ended + records.passed + after.len(), stream.len());
                rest = after;
            }
            prop_assert_eq!(ended + records.pass(rest), stream.len());
        }
    }
}
