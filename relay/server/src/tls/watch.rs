//! Looks at the certificate's files every second, on a thread of its own: reading may wait for a
//! disk, and packets may not.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Certificates, Files};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Most commands that wait; one is as good as many.
const COMMANDS_MAX: usize = 1;

/// A thread that follows the files until it is dropped.
pub struct Watch {
    commands: Option<SyncSender<ReadNow>>,
    thread: Option<JoinHandle<()>>,
}

struct ReadNow;

impl Watch {
    /// Starts to follow the files.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(certificates: Arc<Certificates>) -> io::Result<Self> {
        let (commands, orders) = sync_channel(COMMANDS_MAX);
        let mut watcher = Watcher::new(certificates);
        let watch = move || {
            loop {
                match orders.recv_timeout(LOOK) {
                    Ok(ReadNow) => watcher.read(),
                    Err(RecvTimeoutError::Timeout) => watcher.look(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("relay-tls".into()).spawn(watch)?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Has the files read now, whether or not they seem to have changed.
    pub fn read_now(&self) {
        if let Some(commands) = &self.commands {
            // A full queue holds the same command.
            let _ = commands.try_send(ReadNow);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What tells two states of a file apart: device, inode, length, and time of change in seconds
/// and nanoseconds.
pub type Print = Option<(u64, u64, u64, i64, i64)>;

struct Watcher {
    certificates: Arc<Certificates>,
    seen: [Print; 2],
    /// The files as last seen could not be used, which nobody has been told yet.
    in_doubt: bool,
}

impl Watcher {
    fn new(certificates: Arc<Certificates>) -> Self {
        Self { seen: certificates.loaded, certificates, in_doubt: false }
    }

    /// Reads the files if they have changed. New ones that cannot be used are read once more
    /// before anybody is told: of two that are replaced one after the other, the first does not
    /// fit the second for a moment.
    fn look(&mut self) {
        // Before they are read, so that no change between the two goes unnoticed.
        let now = prints(&self.certificates.files);
        let has_changed = now != self.seen;
        if has_changed || self.in_doubt {
            self.seen = now;
            self.try_files(has_changed);
        }
    }

    fn read(&mut self) {
        self.seen = prints(&self.certificates.files);
        self.try_files(false);
    }

    fn try_files(&mut self, may_be_half_done: bool) {
        match self.certificates.reload() {
            Ok(()) => {
                self.in_doubt = false;
                tracing::info!("TLS certificate read again");
            }
            Err(_) if may_be_half_done => self.in_doubt = true,
            Err(error) => {
                self.in_doubt = false;
                self.certificates.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("{error}; the TLS certificate stays what it was");
            }
        }
    }
}

/// Both files as they are now.
pub fn prints(files: &Files) -> [Print; 2] {
    [print(&files.certificate), print(&files.key)]
}

fn print(path: &Path) -> Print {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]);
        let made = made.expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn pair_is_followed_and_a_broken_one_is_reported_once() {
        let folder = tempfile::tempdir().expect("folder");
        let files = Files {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        let (first, first_key) = made();
        fs::write(&files.certificate, &first).expect("written");
        fs::write(&files.key, &first_key).expect("written");
        let certificates = Arc::new(Certificates::load(files.clone()).expect("a pair"));
        let mut watcher = Watcher::new(certificates.clone());
        let served = || certificates.current.pair().certificate().clone();
        let (old, failures) = (served(), || certificates.reload_failures());

        watcher.look();
        assert_eq!(served(), old, "nothing has changed");
        // One file after the other, as a careless script does it.
        let (second, second_key) = made();
        fs::write(&files.certificate, &second).expect("written");
        watcher.look();
        assert_eq!((served(), failures()), (old.clone(), 0), "half done");
        fs::write(&files.key, &second_key).expect("written");
        watcher.look();
        let new = served();
        assert_ne!(new, old);

        fs::write(&files.certificate, "-----BEGIN NONSENSE-----\n").expect("written");
        for looks in 0..5 {
            watcher.look();
            assert_eq!((served(), failures()), (new.clone(), u64::from(looks > 0)));
        }
        fs::remove_file(&files.key).expect("removed");
        (0..3).for_each(|_| watcher.look());
        assert_eq!((served(), failures()), (new.clone(), 2));
        watcher.read();
        assert_eq!((served(), failures()), (new.clone(), 3), "who asks is told");
        // Renamed into place, as a careful script does it.
        for (file, text) in [(&files.certificate, &first), (&files.key, &first_key)] {
            let aside = file.with_extension("new");
            fs::write(&aside, text).expect("written");
            fs::rename(aside, file).expect("renamed");
        }
        watcher.look();
        assert_eq!((served(), failures()), (old, 3));
    }
}
