//! The operator's hand on a running relay: reload, kick, drain.
//!
//! Everything here is rare. Workers learn of it between two batches; media never waits.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use relay_proto::Who;
use tokio::sync::watch;

use crate::config::{Config, RELOADED};
use crate::host;
use crate::order::Order;
use crate::secrets::Watched;
use crate::settings::SettingError;
use crate::shared::Shared;

/// How long a kicked name stays revoked at least, unless the operator says otherwise, in seconds:
/// the longest life that credentials are commonly given.
pub const REVOKED_S: u64 = 24 * 3600;
/// How often a draining relay looks whether it is empty.
const EMPTY_LOOK: Duration = Duration::from_millis(100);

/// What a kick came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kicked {
    /// Allocations that were ended.
    pub allocations: usize,
    /// The Unix second until which the name is revoked.
    pub until: u64,
}

/// How reloads went since the start.
#[derive(Debug, Default)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_success_unix_s: AtomicU64,
}

impl Reloads {
    /// Reloads that were applied, those that were refused, and the Unix second of the last that
    /// was applied; the start counts as one.
    #[must_use]
    pub fn figures(&self) -> (u64, u64, u64) {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        (read(&self.succeeded), read(&self.failed), read(&self.last_success_unix_s))
    }
}

/// The operator's hand. Shared by the handle, the admin address and whoever watches files.
pub struct Control {
    shared: Arc<Shared>,
    state: Mutex<State>,
    reloads: Reloads,
    /// When a draining relay gives up waiting; `None` before it drains.
    draining: watch::Sender<Option<Instant>>,
}

/// What the workers go by.
struct State {
    config: Config,
    listening: Vec<SocketAddr>,
    own_ips: Vec<IpAddr>,
    secrets: Watched,
}

impl Control {
    /// The hand on a relay that starts with `config` and listens there.
    #[must_use]
    pub fn new(shared: Arc<Shared>, config: Config, listening: Vec<SocketAddr>) -> Self {
        let reloads = Reloads::default();
        reloads.last_success_unix_s.store(shared.clock.now().unix_s, Ordering::Relaxed);
        let secrets = Watched::new(config.secret_file_seen);
        let state = State { config, listening, own_ips: own_ips(), secrets };
        Self { shared, state: Mutex::new(state), reloads, draining: watch::Sender::new(None) }
    }

    /// The settings that the workers start with.
    #[must_use]
    pub fn relay_settings(&self) -> relay_proto::Settings {
        self.state().relay_settings()
    }

    /// Reads all settings again and applies those that can change while calls go on: all of them
    /// or none. Returns the keys that changed but need a restart.
    ///
    /// # Errors
    /// The first setting that cannot be used; everything stays as it was.
    pub fn reload(&self) -> Result<Vec<String>, SettingError> {
        let mut state = self.state();
        let read = match &state.config.source {
            Some(source) => source.read(),
            None => {
                Err(SettingError::new("reload", "this program does not read its settings again"))
            }
        };
        let result = read.map(|new| {
            state.secrets = Watched::new(new.secret_file_seen);
            let kept = state.config.replace_reloadable(new);
            self.apply(&state);
            kept
        });
        match &result {
            Ok(kept) if kept.is_empty() => tracing::info!("settings reloaded"),
            Ok(kept) => {
                let keys = kept.join(", ");
                tracing::warn!(keys, "settings reloaded, but these keys need a restart");
            }
            Err(error) => tracing::warn!(%error, "settings not reloaded; the old ones stay"),
        }
        self.count(result.is_ok());
        result
    }

    /// Follows the secret file, the certificate and the host's addresses; called twice a second.
    pub fn look(&self) {
        let state = &mut *self.state();
        state.config.certificates.iter().for_each(|certificates| certificates.look());
        let own_ips = own_ips();
        // None at all is no news of them: loopback alone is one.
        let has_moved = !own_ips.is_empty() && own_ips != state.own_ips;
        if has_moved {
            tracing::info!("addresses of this host have changed");
            state.own_ips = own_ips;
        }
        let file = &state.config.secret_file;
        let is_due = state.config.source.is_some() && state.secrets.is_due(file.signature());
        let secrets = is_due.then(|| file.read());
        match secrets {
            Some(Ok(secrets)) => {
                tracing::info!(count = secrets.len(), "secrets reloaded");
                state.config.secrets = secrets;
                self.count(true);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "secrets not reloaded; the old ones stay");
                self.count(false);
                if !has_moved {
                    return;
                }
            }
            None if !has_moved => return,
            None => {}
        }
        self.apply(state);
    }

    /// Ends all allocations of a user or a room and revokes the name for `for_s` seconds, or
    /// until the last of the credentials in use has expired. When this returns, no byte of theirs
    /// goes either way.
    pub fn kick(&self, who: &Who, for_s: u64) -> Kicked {
        let _one_at_a_time = self.state();
        let until = self.shared.clock.now().unix_s.saturating_add(for_s);
        let obeyed = self.shared.order(&Order::Kick(who.clone(), until));
        let allocations = obeyed.iter().map(|it| it.kicked.len()).sum();
        let until = obeyed.iter().map(|it| it.until).fold(until, u64::max);
        // All workers revoke until the same second. By the time they answer this too, each has
        // delivered what another had put into its ring before its kick.
        self.shared.order(&Order::Revoke(who.clone(), until));
        tracing::info!(allocations, "a user or a room was kicked");
        Kicked { allocations, until }
    }

    /// Lets nobody open a new allocation from now on; those that live go on.
    pub fn drain(&self) {
        let state = self.state();
        if self.is_draining() {
            return;
        }
        self.shared.order(&Order::Drain(state.config.alternates));
        // Only now is an empty relay one that stays empty.
        self.draining.send_replace(Some(Instant::now() + state.config.drain_limit));
        tracing::info!(allocations = self.allocations(), "draining: no new allocations");
    }

    /// Whether [`Control::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.borrow().is_some()
    }

    /// Waits until the relay drains and is empty, or has drained for as long as it may.
    pub async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        let deadline = draining.wait_for(Option::is_some).await.ok().and_then(|it| *it);
        let is_over = || deadline.is_none_or(|deadline| Instant::now() >= deadline);
        while self.allocations() > 0 && !is_over() {
            tokio::time::sleep(EMPTY_LOOK).await;
        }
    }

    /// Live allocations, those included whose port is just being opened or closed.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.shared.allocations()
    }

    /// How reloads went.
    #[must_use]
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    fn apply(&self, state: &State) {
        self.shared.set_limits(state.config.limits);
        self.shared.caps.set(state.config.rate_max, state.config.credential_bytes_max);
        self.shared.order(&Order::Configure(Arc::new(state.relay_settings())));
        if self.is_draining() {
            self.shared.order(&Order::Drain(state.config.alternates));
        }
    }

    fn count(&self, is_success: bool) {
        if is_success {
            let now_s = self.shared.clock.now().unix_s;
            self.reloads.last_success_unix_s.store(now_s, Ordering::Relaxed);
            self.reloads.succeeded.fetch_add(1, Ordering::Relaxed);
        } else {
            self.reloads.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever panicked under it left whole settings behind: each is replaced at once.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In an order of their own, so that the same addresses are always the same list.
fn own_ips() -> Vec<IpAddr> {
    let mut own_ips = host::own_ips();
    own_ips.sort_unstable();
    own_ips.dedup();
    own_ips
}

impl State {
    fn relay_settings(&self) -> relay_proto::Settings {
        crate::relay_settings(&self.config, &self.listening, self.own_ips.clone())
    }
}

impl Config {
    /// Takes over what can change while calls go on; returns the keys of what else was changed.
    fn replace_reloadable(&mut self, new: Self) -> Vec<String> {
        let mut kept = self.given.changed_keys(&new.given);
        kept.retain(|key| !RELOADED.contains(&key.as_str()));
        if let Some((served, read)) = self.certificates.as_ref().zip(new.certificates.as_ref()) {
            served.take_over(read);
        }
        *self = Self {
            secrets: new.secrets,
            secret_file: new.secret_file,
            users: new.users,
            allow_peers: new.allow_peers,
            deny_peers: new.deny_peers,
            limits: new.limits,
            session_s_max: new.session_s_max,
            expiry_mode: new.expiry_mode,
            rfc5766_channels: new.rfc5766_channels,
            strict_channels: new.strict_channels,
            allocation_rate_max: new.allocation_rate_max,
            rate_max: new.rate_max,
            credential_bytes_max: new.credential_bytes_max,
            alternates: new.alternates,
            drain_limit: new.drain_limit,
            ..self.clone()
        };
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FLAGS;

    #[test]
    fn what_a_reload_applies_are_settings() {
        for key in RELOADED {
            assert!(FLAGS.iter().any(|flag| flag.name == *key), "{key}");
        }
    }
}
