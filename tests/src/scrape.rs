//! HTTP GET inside a namespace, and the Prometheus text format.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::{Failure, Outcome};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The body of `GET path` at `server`, asked from inside `namespace`.
///
/// # Errors
/// No connection, or a status that is not 200 to 299.
pub fn get(namespace: &Namespace, server: SocketAddr, path: &str) -> Outcome<String> {
    ask(namespace, server, "GET", path)
}

/// The body of an empty `POST path` at `server`, asked from inside `namespace`.
///
/// # Errors
/// No connection, or a status that is not 200 to 299.
pub fn post(namespace: &Namespace, server: SocketAddr, path: &str) -> Outcome<String> {
    ask(namespace, server, "POST", path)
}

fn ask(namespace: &Namespace, server: SocketAddr, verb: &str, path: &str) -> Outcome<String> {
    let answer = namespace.within(|| {
        let mut stream = TcpStream::connect_timeout(&server, ANSWER_WAIT)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        // HTTP/1.0 answers are never chunked and end with the connection.
        write!(stream, "{verb} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: 0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| Failure::new(format!("{server}{path}: no HTTP answer: {answer:?}")))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(Failure::new(format!("{server}{path}: status {status}: {body}")));
    }
    Ok(body.to_owned())
}

/// The metrics of a program, asked from inside `namespace`.
///
/// # Errors
/// As [`get`], or a line that is not the text format.
pub fn metrics(namespace: &Namespace, admin: SocketAddr) -> Outcome<Metrics> {
    Metrics::parse(&get(namespace, admin, "/metrics")?)
}

/// Names and values, in order.
type Labels = Vec<(String, String)>;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: BTreeMap<(String, Labels), f64>,
}

impl Metrics {
    /// Reads the text format.
    ///
    /// # Errors
    /// A line that is no sample, or two samples of the same name and labels.
    pub fn parse(text: &str) -> Outcome<Self> {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let bad = || Failure::new(format!("not a sample: {line}"));
            let (name, labels, value) = sample(line).ok_or_else(bad)?;
            if samples.insert((name, labels), value).is_some() {
                return Err(Failure::new(format!("given twice: {line}")));
            }
        }
        Ok(Self { samples })
    }

    /// Sum over all samples of `name` that carry all of `labels`; `None` if there is no such.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted = |given: &[(String, String)]| {
            labels.iter().all(|(key, value)| given.iter().any(|(k, v)| k == key && v == value))
        };
        let matching = self.samples.iter().filter(|((n, given), _)| n == name && wanted(given));
        matching.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }

    /// All samples of `name` that carry all of `labels` and are not 0, by their label `key`.
    #[must_use]
    pub fn values(&self, name: &str, key: &str, labels: &[(&str, &str)]) -> Vec<(String, f64)> {
        let has = |given: &[(String, String)], key: &str, value: &str| {
            given.iter().any(|(k, v)| k == key && v == value)
        };
        let matching = self.samples.iter().filter(|((n, given), value)| {
            n == name && **value != 0.0 && labels.iter().all(|(k, v)| has(given, k, v))
        });
        let keyed = matching.filter_map(|((_, given), value)| {
            let (_, label) = given.iter().find(|(k, _)| k == key)?;
            Some((label.clone(), *value))
        });
        keyed.collect()
    }

    /// As [`Metrics::sum`], for values that count things. Exact up to 2^53.
    ///
    /// # Errors
    /// There is no such sample.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Outcome<u64> {
        let none = || Failure::new(format!("no metric {name} with {labels:?}"));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        self.sum(name, labels).map(|sum| sum as u64).ok_or_else(none)
    }
}

/// Splits `name{key="value",…} number`.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key.to_owned(), value));
            rest = after;
        }
    }
    labels.sort();
    let number = rest.split_whitespace().next()?;
    Some((name.to_owned(), labels, number.parse().ok()?))
}

/// A label value up to its closing quotation mark, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_any_of_their_labels() {
        let text = "# HELP a b\na_total{leg=\"client\",direction=\"rx\"} 7\n\
                    a_total{direction=\"rx\",leg=\"peer\"} 5\nb 1e3\nc{x=\"a\\\"},b\\\\\"} 2\n";
        let metrics = Metrics::parse(text).expect("well formed");
        assert_eq!(metrics.sum("a_total", &[("leg", "client")]), Some(7.0));
        assert_eq!(metrics.sum("a_total", &[("direction", "rx")]), Some(12.0));
        assert_eq!(metrics.sum("a_total", &[("direction", "tx")]), None);
        let legs = metrics.values("a_total", "leg", &[("direction", "rx")]);
        assert_eq!(legs, [("client".to_owned(), 7.0), ("peer".to_owned(), 5.0)]);
        assert_eq!(metrics.values("a_total", "leg", &[("leg", "peer")]).len(), 1);
        assert_eq!(metrics.count("b", &[]).expect("given"), 1000);
        assert_eq!(metrics.sum("c", &[("x", "a\"},b\\")]), Some(2.0));
    }

    #[test]
    fn doubled_and_broken_samples_are_refused() {
        assert!(Metrics::parse("a{x=\"1\"} 1\na{x=\"1\"} 2\n").is_err());
        assert!(Metrics::parse("a{x=\"1} 1\n").is_err());
        assert!(Metrics::parse("a one\n").is_err());
    }
}
