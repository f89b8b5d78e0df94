//! Inputs that fuzzing found worth keeping: those that together reach all that was ever reached,
//! and those that once showed a fault. `relay/proto/fuzz/run` adds to them.

use base64ct::{Base64, Encoding as _};

use super::targets;

/// Tries every kept input of a target; a failure names the line.
fn try_all(target: &str, kept: &str, found: &str) {
    let (_, check) = targets::ALL.iter().find(|(name, _)| *name == target).expect("a target");
    assert!(kept.lines().count() > 1, "nothing is kept for {target}");
    for (list, lines) in [("kept", kept), ("found", found)] {
        for (index, line) in lines.lines().enumerate() {
            let input = Base64::decode_vec(line).expect("Base64");
            let tried = std::panic::catch_unwind(|| check(&input));
            assert!(tried.is_ok(), "corpus/{target}/{list}.b64, line {}", index + 1);
        }
    }
}

macro_rules! corpora {
    ($($target:ident: $sentence:ident,)+) => {$(
        #[test]
        fn $sentence() {
            let kept = include_str!(concat!("../../fuzz/corpus/", stringify!($target), "/kept.b64"));
            let found = include_str!(concat!("../../fuzz/corpus/", stringify!($target), "/found.b64"));
            try_all(stringify!($target), kept, found);
        }
    )+};
}

corpora! {
    codec: stun_is_read_and_written_as_by_others,
    channel_data: channel_data_is_what_its_length_says,
    framing: streams_give_the_same_messages_at_any_split,
    stranger: strangers_change_nothing_and_get_little,
    member: members_do_only_what_they_were_granted,
}

#[test]
fn every_target_has_its_corpus() {
    let names: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["codec", "channel_data", "framing", "stranger", "member"]);
}
