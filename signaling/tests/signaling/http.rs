//! Pages, credentials and metrics over plain HTTP.

use castling_signaling::protocol::Ice;
use castling_signaling::socket::Timing;
use relay_proto::credential;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::school::{Answer, SECRET, School, request};

fn ice(answer: &Answer) -> Ice {
    serde_json::from_str(&answer.body).expect("credentials")
}

/// A class with an app of one page and one asset, and a file next to its folder.
async fn with_app() -> School {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("web");
    std::fs::create_dir_all(root.join("assets")).expect("folders");
    std::fs::write(root.join("index.html"), "<title>App</title>").expect("page");
    std::fs::write(root.join("assets/app-1a2b.js"), "app()").expect("script");
    std::fs::write(root.join(".hidden"), "hidden").expect("hidden");
    std::fs::write(folder.path().join("secret"), SECRET).expect("secret");
    let args = [
        "--web-root".to_owned(),
        root.display().to_string(),
        "--relay=turn:relay.example".to_owned(),
        "--secret-file".to_owned(),
        folder.path().join("secret").display().to_string(),
    ];
    School::with(folder, &args, Timing::default()).await
}

#[tokio::test]
async fn members_get_credentials_and_nobody_else() {
    let school = School::open(&[]).await;
    for header in ["", "Authorization: Bearer x\r\n", "Authorization: Basic x\r\n"] {
        let refused = school.get("/api/ice", header).await;
        assert_eq!(refused.status, 403, "{header:?}");
        assert!(!refused.body.contains("credential\""), "{}", refused.body);
    }
    let (ana, welcome) = school.enter("Physics", "Ana").await;
    let key = format!("Authorization: Bearer {}\r\n", welcome.key);
    let answer = school.get("/api/ice", &key).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "no-store");
    for ice in [ice(&answer), welcome.ice] {
        assert_eq!(ice.servers[0].urls, ["stun:relay.example:3478"]);
        let turn = &ice.servers[1];
        assert_eq!(turn.urls, ["turn:relay.example:3478?transport=udp"]);
        let username = turn.username.as_deref().expect("user name");
        let password = credential::password(SECRET.as_bytes(), username);
        assert_eq!(turn.credential.as_deref(), Some(password.as_str()));
        let told = ["ana", "physics"].iter().any(|name| username.to_lowercase().contains(name));
        assert!(!told, "{username}");
    }
    ana.leave(1000).await;
    assert_eq!(school.get("/api/ice", &key).await.status, 403, "the key ends with the socket");
}

#[tokio::test]
async fn credentials_are_given_six_times_a_minute() {
    let school = School::open(&[]).await;
    let (_ana, welcome) = school.enter("7b", "Ana").await;
    let key = format!("Authorization: Bearer {}\r\n", welcome.key);
    for _ in 0..6 {
        assert_eq!(school.get("/api/ice", &key).await.status, 200);
    }
    let refused = school.get("/api/ice", &key).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "10"));
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let school = with_app().await;
    let paths = [
        "/",
        "/r/7b",
        "/c/4821-7739",
        "/assets/app-1a2b.js",
        "/nothing",
        "/ws",
        "/api/ice",
        "/healthz",
        "/../secret",
        "/r/a/b",
    ];
    let mut answers = Vec::new();
    for path in paths {
        answers.push((path, school.get(path, "").await));
    }
    answers.push(("POST /", request(school.server.address(), "POST", "/", "").await));
    for path in ["/metrics", "/healthz", "/nothing"] {
        answers.push((path, request(school.server.admin(), "GET", path, "").await));
    }
    for (path, answer) in answers {
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self';", "require-trusted-types-for"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        for (name, wanted) in [
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), wanted, "{path}");
        }
        assert!(answer.header("permissions-policy").contains("camera=(self)"), "{path}");
    }
}

#[tokio::test]
async fn the_policy_names_only_a_host_that_is_one() {
    let school = School::open(&[]).await;
    let of = |host: &'static str| {
        let school = &school;
        async move {
            let answer = school.get("/", &format!("Host: {host}\r\n")).await;
            answer.header("content-security-policy").to_owned()
        }
    };
    let policy = of("class.example:8080").await;
    assert!(policy.contains("connect-src 'self' ws://class.example:8080 wss://"), "{policy}");
    let policy = of("x; script-src *").await;
    assert!(policy.contains("connect-src 'self';") && !policy.contains('*'), "{policy}");
}

#[tokio::test]
async fn pages_are_asked_for_again_and_hashed_files_are_kept() {
    let school = with_app().await;
    for path in ["/", "/r/7b", "/c/4821-7739"] {
        let page = school.get(path, "").await;
        assert_eq!((page.status, page.body.as_str()), (200, "<title>App</title>"), "{path}");
        assert_eq!(page.header("cache-control"), "no-cache");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        let known = format!("If-None-Match: {}\r\n", page.header("etag"));
        let again = school.get(path, &known).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assert_eq!(school.get(path, "If-None-Match: \"other\"\r\n").await.status, 200);
    }
    let script = school.get("/assets/app-1a2b.js", "").await;
    assert_eq!((script.status, script.body.as_str()), (200, "app()"));
    assert!(script.header("cache-control").contains("immutable"));
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
}

#[tokio::test]
async fn no_path_leads_out_of_the_app() {
    let school = with_app().await;
    for path in [
        "/../secret",
        "/assets/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/assets/..%5c..%5csecret",
        "//etc/passwd",
        "/etc/passwd",
        "/.hidden",
        "/assets/",
        "/assets",
        "/assets/%00",
    ] {
        let answer = school.get(path, "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains(SECRET), "{path}");
    }
}

#[tokio::test]
async fn a_plan_is_the_models_and_a_bad_question_gets_a_sentence() {
    let school = School::open(&[]).await;
    let answer = school.get("/api/plan?people=5&relayed=1&video=1Mbit", "").await;
    let class = bandwidth_model::Class::from_pairs([("people", "5"), ("relayed", "1")]);
    let plan = bandwidth_model::Plan::of(&class.expect("a question"));
    assert_eq!((answer.status, answer.body), (200, plan.to_json()));
    let refused = school.get("/api/plan?people=none", "").await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.starts_with("{\"error\":\"people: "), "{}", refused.body);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let school = School::open(&[]).await;
    let long = format!("X-Long: {}\r\n", "x".repeat(9000));
    assert_eq!(school.get("/", &long).await.status, 431);
}

#[tokio::test]
async fn a_request_that_does_not_come_is_not_waited_for() {
    let school = School::open(&[]).await;
    let mut stream = TcpStream::connect(school.server.address()).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("closed by the server");
}

#[tokio::test]
async fn metrics_count_rooms_people_and_refusals() {
    let school = School::open(&[]).await;
    let (_ana, _) = school.enter("7b", "Ana").await;
    let (_ben, _) = school.enter("7b", "Ben").await;
    let (_eve, _) = school.enter("8c", "Eve").await;
    let mut other = school.connect().await;
    other.say(&crate::school::hello("7b", "Ana")).await;
    other.refusal().await;
    let text = request(school.server.admin(), "GET", "/metrics", "").await.body;
    for line in [
        "signaling_rooms 2",
        "signaling_participants 3",
        "signaling_ws_connections{realm=\"class\"} 4",
        "signaling_joins_total{result=\"ok\"} 3",
        "signaling_joins_total{result=\"name_taken\"} 1",
        "signaling_messages_total{type=\"hello\"} 4",
        "signaling_credentials_issued_total 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    for secret in ["7b", "8c", "Ana", "Ben", "Eve"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn metrics_are_not_public_and_may_need_a_token() {
    let folder = tempfile::tempdir().expect("folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "a token of some length\n").expect("token");
    let path = token.display().to_string();
    let school = School::open(&["--admin-token-file", &path]).await;
    assert_eq!(school.get("/metrics", "").await.status, 404);
    let at = school.server.admin();
    assert_eq!(request(at, "GET", "/metrics", "").await.status, 401);
    let wrong = "Authorization: Bearer another\r\n";
    assert_eq!(request(at, "GET", "/metrics", wrong).await.status, 401);
    let right = "Authorization: Bearer a token of some length\r\n";
    assert_eq!(request(at, "GET", "/metrics", right).await.status, 200);
    let rebound = format!("Host: evil.example\r\n{right}");
    assert_eq!(request(at, "GET", "/metrics", &rebound).await.status, 403);
    assert_eq!(request(at, "GET", "/healthz", "").await.body, "ok\n");
    assert_eq!(school.get("/healthz", "").await.body, "ok\n");
}
