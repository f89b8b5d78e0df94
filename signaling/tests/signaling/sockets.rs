//! People in rooms, over real WebSockets.

use std::time::Duration;

use castling_signaling::protocol::{
    ClientMessage, ErrorCode, Ice, LeftReason, LinkBody, Media, ServerMessage,
};
use castling_signaling::room::PEOPLE_MAX;
use castling_signaling::socket::{DEPTH_MAX, FRAME_BYTES_MAX, FRAMES, Timing};
use tokio_tungstenite::tungstenite::Message;

use crate::school::{MEDIA, School, answer, hello, link, offer};

const POLICY: u16 = 1008;
const TOO_LARGE: u16 = 1009;
const RESTART: u16 = 1012;
const TRY_AGAIN: u16 = 1013;

#[tokio::test]
async fn two_people_meet_and_agree() {
    let school = School::open(&[]).await;
    let (mut ana, first) = school.enter("4821-7739", " Ana ").await;
    assert!(first.peers.is_empty());
    let (mut ben, second) = school.enter("4821 7739", "Ben").await;
    assert_eq!((first.room.as_str(), second.room.as_str()), ("48217739", "48217739"));
    assert_eq!((second.peers[0].id.as_str(), second.peers[0].name.as_str()), (&*first.you, "Ana"));
    match ana.hear().await {
        ServerMessage::Joined { peer } => {
            assert_eq!((peer.id, peer.name, peer.media), (second.you.clone(), "Ben".into(), MEDIA));
            assert!(peer.join_no > second.peers[0].join_no);
        }
        other => panic!("{other:?}"),
    }

    ben.say(&link(&first.you, offer())).await;
    let news = ServerMessage::Link { from: second.you.clone(), epoch: 1, body: offer() };
    assert_eq!(ana.hear().await, news);
    ana.say(&link(&second.you, answer())).await;
    let news = ServerMessage::Link { from: first.you.clone(), epoch: 1, body: answer() };
    assert_eq!(ben.hear().await, news);

    let media = Media { mic: false, cam: true };
    ana.say(&ClientMessage::Media { media }).await;
    assert_eq!(ben.hear().await, ServerMessage::Media { from: first.you.clone(), media });
    ben.say(&ClientMessage::Ping).await;
    assert_eq!(ben.hear().await, ServerMessage::Pong);
    school.server.stop().await;
}

#[tokio::test]
async fn the_earlier_one_of_a_pair_does_not_offer() {
    let school = School::open(&[]).await;
    let (mut ana, first) = school.enter("7b", "Ana").await;
    let (mut ben, second) = school.enter("7B", "Ben").await;
    ana.hear().await;
    ana.say(&link(&second.you, offer())).await;
    assert_eq!(ana.refusal().await.0, ErrorCode::NotAllowed);
    ben.say(&link(&first.you, answer())).await;
    assert_eq!(ben.refusal().await.0, ErrorCode::NotAllowed);
    ben.say(&link(&first.you, LinkBody::Reset)).await;
    assert!(matches!(ana.hear().await, ServerMessage::Link { from, .. } if from == second.you));
}

#[tokio::test]
async fn nothing_reaches_another_room() {
    let school = School::open(&[]).await;
    let (mut ana, first) = school.enter("one", "Ana").await;
    let (mut ben, _) = school.enter("two", "Ben").await;
    for body in [offer(), answer(), LinkBody::Cand(vec![None]), LinkBody::Reset] {
        ben.say(&link(&first.you, body)).await;
        assert_eq!(ben.refusal().await.0, ErrorCode::NoSuchPeer);
    }
    ben.say(&ClientMessage::Media { media: MEDIA }).await;
    ana.say(&ClientMessage::Ping).await;
    assert_eq!(ana.hear().await, ServerMessage::Pong, "the first that Ana hears is her own pong");
}

#[tokio::test]
async fn a_sender_cannot_be_claimed() {
    let school = School::open(&[]).await;
    let (mut ana, first) = school.enter("7b", "Ana").await;
    let (mut ben, second) = school.enter("7b", "Ben").await;
    ana.hear().await;
    let forged = format!(
        r#"{{"t":"link","to":"{}","from":"{}","epoch":1,"kind":"reset"}}"#,
        first.you, first.you
    );
    ben.send(&forged).await;
    assert!(matches!(ana.hear().await, ServerMessage::Link { from, .. } if from == second.you));
}

#[tokio::test]
async fn a_second_person_of_one_name_is_told_a_way_out() {
    let school = School::open(&[]).await;
    let (_ana, _) = school.enter("7b", "Ana").await;
    let mut other = school.connect().await;
    other.say(&hello("7b", "aNA")).await;
    let (code, text) = other.refusal().await;
    assert_eq!(code, ErrorCode::NameTaken);
    assert!(text.contains("for example aNA B"), "{text}");
    assert_eq!(other.close_code().await, POLICY);
    school.enter("7b", "Ana B").await;
    school.enter("another room", "Ana").await;
}

#[tokio::test]
async fn names_that_nobody_can_read_or_find_are_refused() {
    let school = School::open(&[]).await;
    let too_long = "x".repeat(41);
    for (room, name, wanted) in [
        ("", "Ana", ErrorCode::BadRoom),
        ("a/b", "Ana", ErrorCode::BadRoom),
        ("7b", " \u{202e} ", ErrorCode::BadName),
        ("7b", &too_long, ErrorCode::BadName),
    ] {
        let mut person = school.connect().await;
        person.say(&hello(room, name)).await;
        assert_eq!(person.refusal().await.0, wanted, "{room:?} {name:?}");
        assert_eq!(person.close_code().await, POLICY);
    }
}

#[tokio::test]
async fn a_full_room_takes_nobody_until_somebody_leaves() {
    let school = School::open(&[]).await;
    let mut people = Vec::new();
    for n in 0..PEOPLE_MAX {
        people.push(school.enter("7b", &format!("Pupil {n}")).await.0);
    }
    let mut late = school.connect().await;
    late.say(&hello("7b", "Late")).await;
    let (code, text) = late.refusal().await;
    assert_eq!(code, ErrorCode::RoomFull);
    assert!(text.contains("12 people"), "{text}");
    let mut first = people.remove(0);
    for _ in &people {
        assert!(matches!(first.hear().await, ServerMessage::Joined { .. }));
    }
    people.remove(0).leave(1000).await;
    assert!(matches!(first.hear().await, ServerMessage::Left { .. }));
    school.enter("7b", "Late").await;
}

#[tokio::test]
async fn the_others_hear_whether_somebody_left_or_was_lost() {
    let school = School::open(&[]).await;
    let (mut ana, _) = school.enter("7b", "Ana").await;
    for (code, reason) in
        [(1000, LeftReason::Left), (1001, LeftReason::Left), (1011, LeftReason::Lost)]
    {
        let (ben, welcome) = school.enter("7b", "Ben").await;
        ana.hear().await;
        ben.leave(code).await;
        assert_eq!(ana.hear().await, ServerMessage::Left { id: welcome.you, reason }, "{code}");
    }
    let (ben, welcome) = school.enter("7b", "Ben").await;
    ana.hear().await;
    drop(ben);
    let reason = LeftReason::Lost;
    assert_eq!(ana.hear().await, ServerMessage::Left { id: welcome.you, reason });
}

#[tokio::test]
async fn what_is_no_message_ends_the_connection_with_a_sentence() {
    let school = School::open(&[]).await;
    let deep = format!("{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
    for text in ["{bad", "null", "7", "{}", r#"{"t":"dance"}"#, r#"{"t":"media"}"#, &deep] {
        let (mut person, _) = school.enter("7b", "Ana").await;
        person.send(text).await;
        assert_eq!(person.refusal().await.0, ErrorCode::BadMessage, "{text}");
        assert_eq!(person.close_code().await, POLICY, "{text}");
    }
    let (mut person, _) = school.enter("7b", "Ana").await;
    person.say(&hello("7b", "Ana again")).await;
    assert_eq!(person.refusal().await.0, ErrorCode::BadMessage, "a second hello");
    let (mut person, _) = school.enter("7b", "Ben").await;
    assert!(person.send_frame(Message::binary(b"{}".to_vec())).await);
    assert_eq!(person.refusal().await.0, ErrorCode::BadMessage, "a binary frame");
}

#[tokio::test]
async fn the_first_message_is_a_hello_of_this_version() {
    let school = School::open(&[]).await;
    let mut person = school.connect().await;
    person.say(&ClientMessage::Ping).await;
    assert_eq!(person.refusal().await.0, ErrorCode::BadMessage);
    let mut person = school.connect().await;
    person.send(r#"{"t":"hello","v":99,"ticket":"x"}"#).await;
    let (code, text) = person.refusal().await;
    assert_eq!(code, ErrorCode::UnsupportedVersion);
    assert!(text.contains("reload"), "{text}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let hello_within = Duration::from_millis(50);
    let school = School::timed(Timing { hello_within, ..Timing::default() }).await;
    let mut person = school.connect().await;
    assert_eq!(person.refusal().await.0, ErrorCode::BadMessage);
    assert_eq!(person.close_code().await, POLICY);
}

#[tokio::test]
async fn who_does_not_answer_pings_is_lost_and_who_does_stays() {
    let (ping_every, dead_after) = (Duration::from_millis(500), Duration::from_secs(3));
    let school = School::timed(Timing { ping_every, dead_after, ..Timing::default() }).await;
    let (mut ana, _) = school.enter("7b", "Ana").await;
    // Nobody reads this socket from now on, so nobody answers.
    let (_silent, welcome) = school.enter("7b", "Silent").await;
    assert!(matches!(ana.hear().await, ServerMessage::Joined { .. }));
    let lost = ServerMessage::Left { id: welcome.you, reason: LeftReason::Lost };
    assert_eq!(ana.hear().await, lost);
    ana.say(&ClientMessage::Ping).await;
    assert_eq!(ana.hear().await, ServerMessage::Pong, "she said nothing either, but answered");
}

#[tokio::test]
async fn members_are_given_fresh_credentials_in_time() {
    let reissue_every = Duration::from_millis(50);
    let school = School::timed(Timing { reissue_every, ..Timing::default() }).await;
    let (mut ana, welcome) = school.enter("7b", "Ana").await;
    match ana.hear().await {
        ServerMessage::Ice { ice } => {
            assert_eq!(ice.ttl, welcome.ice.ttl);
            let user = |ice: &Ice| {
                let name = ice.servers[1].username.clone().expect("user name");
                name.split_once(':').map(|(_, user)| user.to_owned())
            };
            assert_eq!(user(&ice), user(&welcome.ice), "the same person to the relay");
        }
        other => panic!("{other:?}"),
    }
    let usual = Timing::default().reissue_every;
    assert_eq!(usual.as_secs() * 2, u64::from(welcome.ice.ttl), "at half of their life");
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_not_read() {
    let school = School::open(&[]).await;
    let (mut ana, first) = school.enter("7b", "Ana").await;
    let (mut ben, _) = school.enter("7b", "Ben").await;
    ana.hear().await;
    let body = |bytes: usize| LinkBody::Offer { sdp: "x".repeat(bytes) };
    ben.say(&link(&first.you, body(FRAME_BYTES_MAX - 200))).await;
    assert!(matches!(ana.hear().await, ServerMessage::Link { .. }));
    ben.say(&link(&first.you, body(FRAME_BYTES_MAX))).await;
    assert_eq!(ben.close_code().await, TOO_LARGE);
    assert!(matches!(ana.hear().await, ServerMessage::Left { reason: LeftReason::Lost, .. }));
}

#[tokio::test]
async fn too_many_messages_end_the_connection() {
    let school = School::open(&[]).await;
    let (mut ana, _) = school.enter("7b", "Ana").await;
    let many = FRAMES.fresh_burst * 2.0;
    for _ in 0..many as usize {
        let ping = serde_json::to_string(&ClientMessage::Ping).expect("message");
        if !ana.send_frame(Message::text(ping)).await {
            break;
        }
    }
    let code = loop {
        match ana.hear().await {
            ServerMessage::Pong => {}
            ServerMessage::Error { code, .. } => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, ErrorCode::RateLimited);
    assert_eq!(ana.close_code().await, POLICY);
}

#[tokio::test]
async fn a_whole_class_behind_one_address_meets_no_limit() {
    let school = School::open(&[]).await;
    let mut people = Vec::new();
    for n in 0..8 {
        people.push(school.enter("7b", &format!("Pupil {n}")).await);
    }
    for index in 1..people.len() {
        let earlier: Vec<_> = people[..index].iter().map(|(_, w)| w.you.clone()).collect();
        for to in earlier {
            people[index].0.say(&link(&to, offer())).await;
            for _ in 0..19 {
                people[index].0.say(&link(&to, LinkBody::Cand(vec![None]))).await;
            }
        }
    }
    let (person, _) = people.last_mut().expect("eight");
    person.say(&ClientMessage::Ping).await;
    assert_eq!(person.hear().await, ServerMessage::Pong);
}

#[tokio::test]
async fn who_does_not_read_is_let_go_and_disturbs_nobody() {
    let school = School::open(&[]).await;
    let mut deaf = school.connect_with_buffer(4096).await;
    deaf.say(&hello("7b", "Deaf")).await;
    let first = deaf.welcome().await;
    let (mut ben, _) = school.enter("7b", "Ben").await;
    let body = LinkBody::Offer { sdp: "x".repeat(60_000) };
    // The kernel's buffers take some; the rest waits in the server until its queue is over.
    let news = loop {
        ben.say(&link(&first.you, body.clone())).await;
        ben.say(&ClientMessage::Ping).await;
        match ben.hear().await {
            ServerMessage::Pong => {}
            other => break other,
        }
    };
    let gone = ServerMessage::Left { id: first.you, reason: LeftReason::Lost };
    assert_eq!(news, gone);
    assert_eq!(deaf.close_code().await, TRY_AGAIN);
}

#[tokio::test]
async fn only_pages_that_may_connect_do() {
    let school = School::open(&["--origin", "lms.example"]).await;
    for origin in [None, Some("null"), Some("http://evil.example"), Some("http://127.0.0.1:1")] {
        assert_eq!(school.try_connect(origin).await.err(), Some(403), "{origin:?}");
    }
    assert!(school.try_connect(Some("https://lms.example")).await.is_ok());
    let school = School::open(&["--allow-no-origin"]).await;
    assert!(school.try_connect(None).await.is_ok());
    assert_eq!(school.try_connect(Some("http://evil.example")).await.err(), Some(403));
}

#[tokio::test]
async fn a_socket_above_the_limit_is_told_so() {
    let school = School::open(&["--max-sockets", "1"]).await;
    let (ana, _) = school.enter("7b", "Ana").await;
    let mut late = school.connect().await;
    assert_eq!(late.refusal().await.0, ErrorCode::Overloaded);
    assert_eq!(late.close_code().await, TRY_AGAIN);
    ana.leave(1000).await;
    school.enter("7b", "Late").await;
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let flags = ["--max-sockets-per-ip", "64", "--trusted-proxy", "127.0.0.1"];
    let hello_within = Duration::from_secs(60);
    let school = School::stand_alone(&flags, Timing { hello_within, ..Timing::default() }).await;
    let mut people = Vec::new();
    for _ in 0..64 {
        people.push(school.connect_from("203.0.113.7").await);
    }
    let mut next = school.connect_from("203.0.113.7").await;
    assert_eq!(next.refusal().await.0, ErrorCode::Overloaded);
    let mut other = school.connect_from("203.0.113.8").await;
    other.say(&hello("7b", "Ana")).await;
    other.welcome().await;
}

#[tokio::test]
async fn a_server_that_ends_says_so() {
    let school = School::open(&[]).await;
    let (mut ana, _) = school.enter("7b", "Ana").await;
    let ends = tokio::spawn(school.server.stop());
    assert_eq!(ana.close_code().await, RESTART);
    drop(ana);
    ends.await.expect("ended");
}
