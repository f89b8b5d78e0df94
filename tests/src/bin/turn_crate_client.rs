//! Two clients of the `turn` crate, one of which echoes what the other sends through the relay.
//!
//! Argument: JSON with `server`, `port`, `username` and `password`. Tells in one line of JSON what
//! was exchanged, and stays until its standard input ends. The crate leaves streams to its caller,
//! so there is UDP only.

use std::error::Error;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::conn::Conn;

/// Payloads to send and to have echoed.
const MESSAGES: usize = 100;
/// A payload needs microseconds; what is lost is not sent again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Room for the longest payload.
const PAYLOAD_MAX: usize = 1500;
/// Opens the way back. It arrives nowhere, unless the other end has opened its own way by then.
const PERMIT: &[u8] = b"permit";

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", json!({ "event": "failed", "text": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let task: Value = serde_json::from_str(&std::env::args().nth(1).unwrap_or_default())?;
    let (one, two) = (connect(&task).await?, connect(&task).await?);
    let (from, to) = (one.allocate().await?, two.allocate().await?);
    let (at, goal) = (from.local_addr()?, to.local_addr()?);
    // The crate makes a permission when it first sends.
    to.send_to(PERMIT, at).await?;
    let echo = tokio::spawn(async move {
        let echoed = echo(&to).await;
        echoed.map(|()| to).map_err(|error| error.to_string())
    });
    for nth in 0..MESSAGES {
        let payload = vec![u8::try_from(nth)? + 1; 1 + nth * 37 % 900];
        from.send_to(&payload, goal).await?;
        if receive(&from).await? != (payload, goal) {
            return Err(format!("payload {nth} differs").into());
        }
    }
    let to = echo.await??;
    // Both ends send to the other's relayed address and to nothing else.
    let candidates = ["relay"; 2];
    println!(
        "{}",
        json!({
            "event": "exchanged",
            "version": "0.17.2",
            "payloads": MESSAGES,
            "candidates": candidates,
        })
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for end in [from, to] {
        end.close().await?;
    }
    for client in [one, two] {
        client.close().await?;
    }
    Ok(())
}

async fn connect(task: &Value) -> Outcome<Client> {
    let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
    let server = format!("{}:{}", text("server"), task["port"]);
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.clone(),
        turn_serv_addr: server,
        username: text("username"),
        password: text("password"),
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(UdpSocket::bind("0.0.0.0:0").await?),
        vnet: None,
    })
    .await?;
    client.listen().await?;
    Ok(client)
}

async fn echo(end: &impl Conn) -> Outcome<()> {
    for _ in 0..MESSAGES {
        let (payload, from) = receive(end).await?;
        end.send_to(&payload, from).await?;
    }
    Ok(())
}

async fn receive(end: &impl Conn) -> Outcome<(Vec<u8>, SocketAddr)> {
    let mut room = [0; PAYLOAD_MAX];
    loop {
        let (length, from) = timeout(PATIENCE, end.recv_from(&mut room)).await??;
        if room[..length] != *PERMIT {
            return Ok((room[..length].to_vec(), from));
        }
    }
}
