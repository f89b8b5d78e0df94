//! From when until when a certificate is valid: the two dates of its DER form (RFC 5280 §4.1).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// A certificate's dates in Unix seconds; those before 1970 are 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// It is not valid before.
    pub start_s: u64,
    /// It is not valid after.
    pub expiry_s: u64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;

impl Validity {
    /// The dates of a certificate; `None` if it is not of the form.
    ///
    /// ```text
    /// Certificate ::= SEQUENCE { TBSCertificate, ... }
    /// TBSCertificate ::= SEQUENCE { [0] version OPTIONAL, INTEGER serialNumber,
    ///     SEQUENCE signature, SEQUENCE issuer, SEQUENCE validity { notBefore, notAfter }, ... }
    /// ```
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(SEQUENCE, certificate)?;
        let (fields, _) = expect(SEQUENCE, certificate)?;
        let fields = expect(VERSION, fields).map_or(fields, |(_, rest)| rest);
        let (_, fields) = expect(INTEGER, fields)?;
        let (_, fields) = expect(SEQUENCE, fields)?;
        let (_, fields) = expect(SEQUENCE, fields)?;
        let (dates, _) = expect(SEQUENCE, fields)?;
        let (start_s, dates) = time(dates)?;
        let (expiry_s, _) = time(dates)?;
        Some(Self { start_s, expiry_s })
    }
}

/// The content of an element of this kind, and what follows it.
fn expect(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == kind).then_some((content, rest))
}

/// Tag, content and what follows (X.690 §8.1): a length below 0x80 is one byte, else that byte
/// says how many bytes of length follow.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ ..=0x7F => (short, rest),
        // Four bytes are more than any certificate needs.
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(long & 0x7F)?;
            (digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// A date in Unix seconds: `YYMMDDHHMMSSZ` with years from 1950 to 2049, or with four digits of
/// the year (RFC 5280 §4.1.2.5).
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (kind, text, rest) = element(bytes)?;
    let (year, text) = match kind {
        UTC_TIME => {
            let (year, text) = number(text, 2)?;
            (if year < 50 { year.checked_add(2000)? } else { year.checked_add(1900)? }, text)
        }
        GENERALIZED_TIME => number(text, 4)?,
        _ => return None,
    };
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    if text != b"Z" || !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let of_day = hour.checked_mul(60)?.checked_add(minute)?.checked_mul(60)?.checked_add(second)?;
    let unix_s = match days(year, month, day)? {
        None => 0,
        Some(days) => days.checked_mul(86_400)?.checked_add(of_day)?,
    };
    Some((unix_s, rest))
}

fn number(text: &[u8], digits: usize) -> Option<(u64, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// Days from 1970-01-01 in the Gregorian calendar; `Some(None)` before it. Years are counted from
/// March, so that the leap day is the last of one: 153 days are any five months from then on.
fn days(year: u64, month: u64, day: u64) -> Option<Option<u64>> {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    let is_early = month <= 2;
    let year = if is_early { year.checked_sub(1)? } else { year };
    let month = if is_early { month.checked_add(9)? } else { month.checked_sub(3)? };
    let leap_days = (year / 4).checked_sub(year / 100)?.checked_add(year / 400)?;
    let before = year.checked_mul(365)?.checked_add(leap_days)?;
    let in_year = month.checked_mul(153)?.checked_add(2)?.checked_div(5)?.checked_add(day)?;
    Some(before.checked_add(in_year)?.checked_sub(1)?.checked_sub(EPOCH))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> Option<u64> {
        let tag = if text.len() == 13 { UTC_TIME } else { GENERALIZED_TIME };
        let length = u8::try_from(text.len()).expect("short");
        time(&[&[tag, length], text.as_bytes()].concat()).map(|(unix_s, _)| unix_s)
    }

    /// Each compared with `date -u -d … +%s`.
    #[test]
    fn dates_are_unix_seconds() {
        assert_eq!(utc("19700101000000Z"), Some(0));
        assert_eq!(utc("000229235959Z"), Some(951_868_799));
        assert_eq!(utc("20240301000000Z"), Some(1_709_251_200));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999));
        assert_eq!(utc("500101000000Z"), Some(0), "1950");
        assert_eq!(utc("99991231235959Z"), Some(253_402_300_799));
        for bad in ["20241301000000Z", "240230000000", "2402300000000", "24x230000000Z", ""] {
            assert_eq!(utc(bad), None, "{bad}");
        }
    }

    #[test]
    fn certificate_says_its_dates() {
        let mut wanted = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a name");
        wanted.not_before = rcgen::date_time_ymd(2026, 11, 20);
        wanted.not_after = rcgen::date_time_ymd(2051, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = wanted.self_signed(&key).expect("a certificate");
        let validity = Validity { start_s: 1_795_132_800, expiry_s: 2_556_144_000 };
        assert_eq!(Validity::of(made.der()), Some(validity));
        let (_, cut) = made.der().split_last().expect("bytes");
        assert_eq!(Validity::of(cut), None, "not whole");
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_answer(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Validity::of(&bytes);
            let _ = Validity::of(&[&[SEQUENCE, 80, SEQUENCE, 78], &bytes[..]].concat());
        }
    }
}
