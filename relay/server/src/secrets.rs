//! The file of shared secrets: made at first start, read again when it changes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config;
use crate::settings::SettingError;

/// Where the shared secrets are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SecretFile {
    /// The file.
    pub path: PathBuf,
    /// It is the one in the state directory, which the relay has made itself.
    pub is_own: bool,
}

/// What tells one state of a file from another: device, inode, length, and both times of change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signature([i64; 7]);

impl SecretFile {
    /// Reads the secrets; the first mints, all verify.
    ///
    /// # Errors
    /// The file cannot be read, is open to everybody, or holds no usable secret.
    pub fn read(&self) -> Result<Vec<Vec<u8>>, SettingError> {
        if self.is_own {
            config::load_own_secrets(&self.path)
        } else {
            config::load_secrets(&self.path)
        }
    }

    /// The state of the file; `None` if there is none that can be seen.
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        Signature::of(&self.path)
    }
}

impl Signature {
    /// The state of a file; `None` if there is none that can be seen.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let of = |it: Metadata| {
            let [device, inode, length] = [it.dev(), it.ino(), it.len()].map(u64::cast_signed);
            Self([device, inode, length, it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()])
        };
        std::fs::metadata(path).ok().map(of)
    }
}

/// Notices that a file, or several that belong together, have changed and that whoever writes
/// them is done: they have looked the same twice in a row.
#[derive(Debug)]
pub struct Watched<S = Option<Signature>> {
    applied: S,
    pending: Option<S>,
}

impl<S: Copy + PartialEq> Watched<S> {
    /// The file as it was read.
    #[must_use]
    pub fn new(applied: S) -> Self {
        Self { applied, pending: None }
    }

    /// Whether it is to be read again, now that it looks like this; asked at every look.
    pub fn is_due(&mut self, seen: S) -> bool {
        if seen == self.applied {
            self.pending = None;
            return false;
        }
        let is_settled = self.pending == Some(seen);
        self.pending = Some(seen);
        if is_settled {
            *self = Self::new(seen);
        }
        is_settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: i64) -> Option<Signature> {
        Some(Signature([number; 7]))
    }

    #[test]
    fn file_is_read_once_for_each_change_and_not_while_it_is_written() {
        let mut watched = Watched::new(state(1));
        let seen = [1, 2, 3, 3, 3, 4, 3, 3, 5, 5].map(|number| watched.is_due(state(number)));
        let due = [false, false, false, true, false, false, false, false, false, true];
        assert_eq!(seen, due);
        assert!(!watched.is_due(None));
        assert!(watched.is_due(None), "gone: whoever reads it says so, once");
        assert!(!watched.is_due(None));
    }
}
