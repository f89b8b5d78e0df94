//! Whether payload passes a relay: it is followed by other payload that must, so that nothing
//! has to be waited for that does not come.

use std::time::Duration;

use crate::Outcome;
use crate::conformance::client::{Client, Incoming};
use crate::conformance::trial::Peer;
use crate::conformance::verdict::Verdict;

/// What is sent behind a stimulus.
const WITNESS: &[u8] = b"and this passes";
/// What passed before the witness is there already, or nearly.
const THERE: Duration = Duration::from_millis(20);

/// Sends bytes of the client; what of them reaches `peer`. The witness needs a permission.
pub fn outward(
    client: &Client,
    stimulus: &[u8],
    peer: &Peer,
    witness: &Peer,
) -> Outcome<Option<Vec<u8>>> {
    client.send(stimulus)?;
    client.send_to(witness.address, WITNESS)?;
    witness.hear()?;
    Ok(peer.next(THERE)?.map(|(payload, _)| payload))
}

/// Sends payload of `peer` to the client; what of it arrives. The witness needs a permission.
pub fn homeward(
    client: &Client,
    peer: &Peer,
    payload: &[u8],
    witness: &Peer,
) -> Outcome<Option<Incoming>> {
    let relayed = client.relayed()?;
    peer.send(relayed, payload)?;
    witness.send(relayed, WITNESS)?;
    let first = client.hear()?;
    let (Incoming::Channel(_, text) | Incoming::Data(_, text)) = &first;
    if text == WITNESS {
        // On a busy machine the kernel may change their order.
        return client.next(THERE);
    }
    client.hear()?;
    Ok(Some(first))
}

/// Passes if exactly `wanted` arrived.
pub fn arrived(got: Option<Vec<u8>>, wanted: &[u8]) -> Verdict {
    match got {
        None => Verdict::of(false, "dropped"),
        Some(payload) if payload == wanted => Verdict::of(true, "arrives"),
        Some(payload) => Verdict::of(false, format_args!("{} other bytes arrive", payload.len())),
    }
}

/// Passes if nothing arrived.
pub fn dropped<T>(got: &Option<T>) -> Verdict {
    Verdict::of(got.is_none(), if got.is_none() { "dropped" } else { "arrives" })
}

/// Passes if the payload came to the client in this form.
pub fn came(got: Option<Incoming>, wanted: &Incoming) -> Verdict {
    let said = match &got {
        None => "dropped",
        Some(Incoming::Channel(..)) => "ChannelData",
        Some(Incoming::Data(..)) => "Data indication",
    };
    let passed = got.as_ref() == Some(wanted);
    Verdict::of(passed, if passed || got.is_none() { said.into() } else { format!("wrong {said}") })
}
