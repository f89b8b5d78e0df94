//! `GET /api/plan`: what a class would need, from the bandwidth model.

use axum::body::Body;
use axum::extract::{Query, RawQuery};
use axum::http::{Response, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use bandwidth_model::{Class, Plan};

use crate::server::refuse;

/// Longest question, in bytes.
const QUERY_BYTES_MAX: usize = 1024;

/// Answers a question such as `?people=5&relayed=1` with the bytes of `castling-plan --json`.
pub async fn plan(RawQuery(query): RawQuery) -> Response<Body> {
    match answer(query.as_deref().unwrap_or_default()) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(text) => refuse(StatusCode::BAD_REQUEST, &text),
    }
}

fn answer(query: &str) -> Result<String, String> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(format!("A question has at most {QUERY_BYTES_MAX} bytes."));
    }
    let uri = Uri::try_from(format!("/?{query}")).map_err(|error| error.to_string())?;
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&uri).map_err(|e| e.to_string())?;
    let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let class = Class::from_pairs(pairs).map_err(|error| error.to_string())?;
    Ok(Plan::of(&class).to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_gets_the_bytes_of_the_command_line_program() {
        let class = Class::from_pairs([("people", "5"), ("relayed", "1"), ("video", "1Mbit")]);
        let wanted = Plan::of(&class.expect("a question")).to_json();
        assert_eq!(answer("people=5&relayed=1&video=1Mbit"), Ok(wanted));
    }

    #[test]
    fn a_bad_question_gets_a_sentence() {
        for bad in ["", "people=", "people=x", "people=-1", "people=5&relayed=9", "pupils=5"] {
            let text = answer(bad).expect_err(bad);
            assert!(text.len() > 10 && !text.contains('\n'), "{bad:?}: {text}");
        }
        let long = format!("people={}", "9".repeat(QUERY_BYTES_MAX));
        assert!(answer(&long).is_err());
    }
}
