//! What a check found: whether it is what the row expects, and the answer in a few words.

use std::fmt;

use super::message::Class;
use super::reply::Reply;

/// The end of a check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether the server did what the row expects.
    pub passed: bool,
    /// What it did.
    pub said: String,
}

impl Verdict {
    /// `said` is good if `passed`.
    #[must_use]
    pub fn of(passed: bool, said: impl fmt::Display) -> Self {
        Self { passed, said: said.to_string() }
    }

    /// Both must have passed; what both said.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(self.passed && other.passed, format_args!("{}; {}", self.said, other.said))
    }

    /// Every part must have passed; equal words in a row are said once.
    #[must_use]
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self { passed: true, said: String::new() };
        let mut last: Option<(String, usize)> = None;
        let mut said = Vec::new();
        for part in parts {
            all.passed &= part.passed;
            match &mut last {
                Some((words, count)) if *words == part.said => *count += 1,
                _ => said.extend(last.replace((part.said, 1))),
            }
        }
        said.extend(last);
        let times = |(words, count): (String, usize)| match count {
            1 => words,
            _ => format!("{words} ({count} times)"),
        };
        all.said = said.into_iter().map(times).collect::<Vec<_>>().join("; ");
        all
    }
}

/// How a server answered one message.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Not at all, although it answered the next request.
    Silent,
    /// With a message.
    Reply(Box<Reply>),
    /// With something else.
    Strange(Vec<u8>),
    /// By closing the stream.
    Closed,
}

impl Answer {
    /// The message, if there is one.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    /// The error code, if there is one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.reply()?.code()
    }

    /// Passes if there was no answer.
    #[must_use]
    pub fn silent(&self) -> Verdict {
        self.is(matches!(self, Self::Silent))
    }

    /// Passes for one of these codes.
    #[must_use]
    pub fn error(&self, codes: &[u16]) -> Verdict {
        self.is(self.code().is_some_and(|code| codes.contains(&code)))
    }

    /// Passes for silence or one of these codes.
    #[must_use]
    pub fn silent_or(&self, codes: &[u16]) -> Verdict {
        let passed = match self {
            Self::Silent | Self::Closed => true,
            _ => self.code().is_some_and(|code| codes.contains(&code)),
        };
        self.is(passed)
    }

    /// Passes for success.
    #[must_use]
    pub fn success(&self) -> Verdict {
        self.success_if(|_| true)
    }

    /// Passes for a success of which `holds` is true.
    #[must_use]
    pub fn success_if(&self, holds: impl FnOnce(&Reply) -> bool) -> Verdict {
        let good = |reply: &&Reply| reply.class == Class::Success;
        self.is(self.reply().filter(good).is_some_and(holds))
    }

    /// The success itself.
    ///
    /// # Errors
    /// Any other answer, in words after `what`.
    pub fn succeeded(self, what: &str) -> crate::Outcome<Reply> {
        match self {
            Self::Reply(reply) if reply.class == Class::Success => Ok(*reply),
            other => Err(crate::Failure::new(format!("{what}: {other}"))),
        }
    }

    /// An answer that breaks a rule of all messages passes nothing.
    fn is(&self, expected: bool) -> Verdict {
        let clean = self.reply().is_none_or(|reply| reply.faults.is_empty());
        Verdict::of(expected && clean, self)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("silent"),
            Self::Reply(reply) => reply.fmt(f),
            Self::Strange(bytes) => write!(f, "{} bytes that are not STUN", bytes.len()),
            Self::Closed => f.write_str("closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_words_are_said_once() {
        let part = |passed, said: &str| Verdict::of(passed, said);
        let all = Verdict::all([part(true, "403"), part(true, "403"), part(true, "silent")]);
        assert_eq!(all, part(true, "403 (2 times); silent"));
        let mixed = Verdict::all([part(true, "403"), part(false, "success"), part(true, "403")]);
        assert_eq!(mixed, part(false, "403; success; 403"));
    }
}
