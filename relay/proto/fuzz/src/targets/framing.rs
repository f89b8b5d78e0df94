//! I-19: a stream's messages are the same however it is cut, and a bad one is found at once.

use relay_proto::framing::{
    Broken, CHANNEL_DATA_LEN_MAX, STRANGER_LEN_MAX, STUN_LEN_MAX, Trust, split_first,
};

use super::input::Input;

/// Most zeros behind a stream, so that long messages need no long input.
const FILLING_MAX: usize = 20_000;

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let trust = if flags & 1 == 0 { Trust::Stranger } else { Trust::Client };
    let cuts: Vec<usize> = (0..4).map(|_| 1 + usize::from(input.byte())).collect();
    let filling = if flags & 2 == 0 { 0 } else { usize::from(input.word()) % FILLING_MAX };
    let stream = [input.0, &vec![0; filling]].concat();
    let whole = read(&stream, std::iter::once(stream.len()), trust);
    assert_eq!(read(&stream, cuts.into_iter().cycle(), trust), whole, "cut otherwise");
    assert_eq!(read(&stream, std::iter::repeat(1), trust), whole, "a byte at a time");
    // An allocation widens limits and never narrows them.
    if trust == Trust::Stranger && whole.1.is_ok() {
        assert_eq!(read(&stream, std::iter::once(stream.len()), Trust::Client), whole);
    }
}

/// The messages of a stream that arrives in pieces of these lengths, and what is left of it.
fn read(
    stream: &[u8],
    pieces: impl Iterator<Item = usize>,
    trust: Trust,
) -> (Vec<&[u8]>, Result<&[u8], Broken>) {
    let (mut messages, mut arrived, mut rest) = (Vec::new(), 0, stream);
    for piece in pieces {
        arrived = stream.len().min(arrived + piece);
        loop {
            let held = &rest[..rest.len() - (stream.len() - arrived)];
            match split_first(held, trust) {
                Ok(Some((message, after))) => {
                    assert_eq!(message.len() + after.len(), held.len(), "nothing is lost");
                    assert!(
                        message.len().is_multiple_of(4) && message.len() <= longest(message, trust)
                    );
                    messages.push(message);
                    rest = &rest[message.len()..];
                }
                Ok(None) => {
                    // What waits for its end stays within what one message may be.
                    assert!(held.is_empty() || held.len() < longest(held, trust), "{}", held.len());
                    break;
                }
                Err(broken) => return (messages, Err(broken)),
            }
        }
        if arrived == stream.len() {
            break;
        }
    }
    (messages, Ok(rest))
}

fn longest(message: &[u8], trust: Trust) -> usize {
    match (trust, message[0] >> 6) {
        (Trust::Stranger, _) => STRANGER_LEN_MAX,
        (Trust::Client, 0) => STUN_LEN_MAX,
        (Trust::Client, _) => CHANNEL_DATA_LEN_MAX,
    }
}
