//! Reads the certificate of the listeners again, when a file changes or the operator asks for it with SIGHUP.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rollbook_cluster::tls::TlsError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::certificates::Certificates;
use super::settings::TlsSettings;
use crate::base::metrics::Metrics;

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Days before the end of the certificate from which on each start and each reload warns.
const DAYS_LEFT_MIN: f64 = 14.0;

/// What tells one state of the files from another. A symbolic link is followed, so that a swapped link shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint(Vec<Option<[i64; 4]>>);

impl Fingerprint {
    fn of(settings: &TlsSettings, more: &[PathBuf]) -> Self {
        let of = |path: &Path| {
            let file = fs::metadata(path).ok()?;
            let number = |unsigned: u64| i64::from_ne_bytes(unsigned.to_ne_bytes());
            let changed = file.ctime().wrapping_mul(1_000_000_000).wrapping_add(file.ctime_nsec());
            Some([changed, file.mtime_nsec(), number(file.size()), number(file.ino())])
        };
        let own = [settings.certificate.as_path(), settings.key.as_path()];
        let more = more.iter().map(PathBuf::as_path);
        Self(own.into_iter().chain(settings.client_ca()).chain(more).map(of).collect())
    }
}

/// Decides when the files are read: when they have changed and then stayed the same for one look, because certificate
/// and key are not written in one moment.
#[derive(Debug)]
struct Changes {
    /// The state of the files that was read last, whether they could be used or not.
    read: Fingerprint,
    /// The state at the last look.
    seen: Fingerprint,
}

impl Changes {
    fn new(now: Fingerprint) -> Self {
        Self { read: now.clone(), seen: now }
    }

    /// Whether the files are to be read now.
    fn look(&mut self, now: Fingerprint) -> bool {
        let settled = now == self.seen && now != self.read;
        if settled {
            self.read = now.clone();
        }
        self.seen = now;
        settled
    }
}

/// Reloads until `stop`. Each change of `hangups` is a request to read the files at once.
pub async fn watch(
    certificates: Arc<Certificates>,
    mut hangups: watch::Receiver<u32>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut changes = Changes::new(Fingerprint::of(&certificates.settings, &certificates.more_client_cas()));
    report(&certificates, &metrics);
    let mut listens = true;
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = hangups.changed(), if listens => {
                listens = asked.is_ok();
                listens
            }
            () = tokio::time::sleep(POLL_INTERVAL) => false,
        };
        let files = Arc::clone(&certificates);
        // A file system that hangs must not hold up the thread that runs the node.
        let look = move || {
            let now = Fingerprint::of(&files.settings, &files.more_client_cas());
            let changed = changes.look(now.clone());
            if asked {
                changes.read = now;
            }
            let outcome = (asked || changed).then(|| files.reload());
            (changes, outcome)
        };
        let Ok((looked, outcome)) = tokio::task::spawn_blocking(look).await else { return };
        changes = looked;
        if let Some(outcome) = outcome {
            tell(&certificates, &outcome, &metrics);
        }
        report(&certificates, &metrics);
    }
}

/// Counts and logs a reload.
fn tell(certificates: &Certificates, outcome: &Result<(), TlsError>, metrics: &Metrics) {
    let file = certificates.settings.certificate.display();
    let label = match outcome {
        Ok(()) => {
            let (days, _) = certificates.days_left();
            tracing::info!(certificate = %file, days_left = format!("{days:.1}"), "the certificate was read again");
            warn_of_end(certificates);
            "loaded"
        }
        Err(error) => {
            tracing::error!(%error, "the certificate cannot be used; the one before stays in use");
            "failed"
        }
    };
    metrics.tls_reloads.get_or_create(&[("outcome", label)]).inc();
}

/// Warns when the certificate in use ends soon.
pub fn warn_of_end(certificates: &Certificates) {
    let (days, _) = certificates.days_left();
    if days < DAYS_LEFT_MIN {
        let file = certificates.settings.certificate.display();
        tracing::warn!(certificate = %file, days_left = format!("{days:.1}"), "the certificate ends soon; renew it");
    }
}

fn report(certificates: &Certificates, metrics: &Metrics) {
    let (days, listeners) = certificates.days_left();
    for listener in listeners {
        metrics.tls_days_left.get_or_create(&[("listener", listener)]).set(days);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_once_when_they_have_stopped_changing() {
        let state = |number: i64| Fingerprint(vec![Some([number, 0, 0, 0])]);
        let mut changes = Changes::new(state(1));
        assert!(!changes.look(state(1)), "nothing has changed");
        assert!(!changes.look(state(2)), "the key may follow");
        assert!(!changes.look(state(3)), "the key has followed");
        assert!(changes.look(state(3)));
        assert!(!changes.look(state(3)), "bad files are not tried again and again");
        assert!(!changes.look(state(4)) && changes.look(state(4)));
    }

    #[test]
    fn a_swapped_link_and_a_file_that_is_gone_show() {
        let here = tempfile::tempdir().unwrap();
        let path = |name: &str| here.path().join(name);
        fs::write(path("one"), "same").unwrap();
        fs::write(path("two"), "same").unwrap();
        std::os::unix::fs::symlink(path("one"), path("link")).unwrap();
        let settings = TlsSettings { certificate: path("link"), key: path("one"), ..TlsSettings::default() };
        let first = Fingerprint::of(&settings, &[]);
        assert_eq!(Fingerprint::of(&settings, &[]), first);
        std::os::unix::fs::symlink(path("two"), path("next")).unwrap();
        fs::rename(path("next"), path("link")).unwrap();
        let second = Fingerprint::of(&settings, &[]);
        assert_ne!(second, first);
        fs::remove_file(path("two")).unwrap();
        assert_ne!(Fingerprint::of(&settings, &[]), second);
    }
}
