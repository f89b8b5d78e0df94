//! What the operator may order over HTTP: kick, drain, reload. Answers are JSON.

use hyper::{Method, StatusCode};
use relay_proto::Who;
use serde_json::{Value, json};

use crate::control::{Control, REVOKED_S};

/// Where all of it is.
pub const PREFIX: &str = "/api/v1/";
/// Longest name of a user or room in bytes: what fits a USERNAME (RFC 8489 §14.3).
const NAME_LEN_MAX: usize = relay_proto::attribute::USERNAME_LEN_MAX;

/// Does what a request asks for; `path` is what follows [`PREFIX`].
pub fn answer(
    control: &Control,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> (StatusCode, Value) {
    let (collection, name) = path.split_once('/').unwrap_or((path, ""));
    match (collection, name) {
        ("users", name) if !name.is_empty() => {
            only(method, &Method::DELETE, || kick(control, Who::User, name, query))
        }
        ("rooms", name) if !name.is_empty() => {
            only(method, &Method::DELETE, || kick(control, Who::Room, name, query))
        }
        ("drain", "") => only(method, &Method::POST, || {
            control.drain();
            (StatusCode::OK, json!({ "draining": true, "allocations": control.allocations() }))
        }),
        ("reload", "") => only(method, &Method::POST, || match control.reload() {
            Ok(kept) => (StatusCode::OK, json!({ "reloaded": true, "restart_needed": kept })),
            Err(error) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
        }),
        _ => {
            refuse(StatusCode::NOT_FOUND, "there are users/{user}, rooms/{room}, drain and reload")
        }
    }
}

fn only(
    method: &Method,
    wanted: &Method,
    act: impl FnOnce() -> (StatusCode, Value),
) -> (StatusCode, Value) {
    if method == wanted {
        return act();
    }
    refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("the method here is {wanted}"))
}

fn refuse(status: StatusCode, why: &str) -> (StatusCode, Value) {
    (status, json!({ "error": why }))
}

fn kick(
    control: &Control,
    who: fn(String) -> Who,
    name: &str,
    query: Option<&str>,
) -> (StatusCode, Value) {
    let Some(name) = percent_decoded(name).filter(|name| name.len() <= NAME_LEN_MAX) else {
        return refuse(StatusCode::BAD_REQUEST, "the name is no percent-encoded UTF-8");
    };
    let for_s = match query.map(|query| query.strip_prefix("for=").map(str::parse)) {
        None => REVOKED_S,
        Some(Some(Ok(seconds))) => seconds,
        Some(_) => return refuse(StatusCode::BAD_REQUEST, "the only parameter is for=SECONDS"),
    };
    let kicked = control.kick(&who(name), for_s);
    let answer = json!({ "allocations": kicked.allocations, "revoked_until": kicked.until });
    (StatusCode::OK, answer)
}

/// The text behind percent-encoding (RFC 3986 §2.1); `None` if it is not whole or not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(match byte {
            b'%' => u8::try_from(digit()? * 16 + digit()?).ok()?,
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_percent_decoded_or_refused() {
        for (text, wanted) in [
            ("maths.ana", Some("maths.ana")),
            ("school%2Fmaths.ana", Some("school/maths.ana")),
            ("school/maths.ana", Some("school/maths.ana")),
            ("%C3%A4", Some("ä")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%+1", None),
            ("%FF", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), wanted, "{text}");
        }
    }
}
