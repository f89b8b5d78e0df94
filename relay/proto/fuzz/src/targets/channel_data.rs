//! ChannelData against RFC 8656 §12.4, read once more and naively.

use relay_proto::address::ChannelNumber;
use relay_proto::channel_data::{self, HEADER_LEN};
use relay_proto::framing::{self, Trust};

pub fn check(bytes: &[u8]) {
    let naive = bytes.len() >= HEADER_LEN && {
        let length = usize::from(bytes[2]) * 256 + usize::from(bytes[3]);
        (0x40..0x80).contains(&bytes[0]) && bytes.len() >= HEADER_LEN + length
    };
    let parsed = channel_data::parse(bytes);
    assert_eq!(parsed.is_some(), naive);
    let Some((number, payload)) = parsed else { return };
    let length = u16::try_from(payload.len()).expect("a length of 16 bits");
    assert_eq!(channel_data::header(number, length), bytes[..HEADER_LEN]);
    assert_eq!(payload, &bytes[HEADER_LEN..HEADER_LEN + payload.len()]);
    let [high, low] = [bytes[0], bytes[1]];
    assert_eq!(number.value(), u16::from(high) * 256 + u16::from(low));
    assert_eq!(ChannelNumber::new(number.value()).is_some(), high < 0x50);
    // What a datagram holds is what a stream holds, when its padding is there.
    let padded = (HEADER_LEN + payload.len()).next_multiple_of(4);
    match framing::split_first(bytes, Trust::Client) {
        Ok(Some((message, rest))) => {
            assert_eq!((message.len(), rest.len()), (padded, bytes.len() - padded));
            assert_eq!(channel_data::parse(message), Some((number, payload)));
        }
        Ok(None) => assert!(bytes.len() < padded),
        Err(_) => assert!(padded > framing::CHANNEL_DATA_LEN_MAX),
    }
}
