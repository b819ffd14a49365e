//! The section `[hms]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use rollbook_core::subjects::subject::Namespace;
use serde::{Deserialize, Serialize};

use crate::base::archive::limits::Limits;
use crate::base::checks::Checks;
use crate::base::{bytes, duration};
use crate::bus::docks::builds::folders::BuildLimits;
use crate::bus::docks::record::RecordConfig;
use crate::doors::door::{ConnectionBound, DoorSettings, OwnListener, check_socket_bounds};
use crate::net::listen::Listen;
use crate::net::listener::networks::Networks;
use crate::net::tls::settings::{ListenerTls, OwnClientCertificates, TlsMode};

/// Name of the door.
pub(super) const NAME: &str = "hms";
/// Longest archive that can be configured: what the rules keep of one build.
const ARCHIVE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// `[hms]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the listener. `off`, which is the default: the door is closed. Clients expect port 10002.
    pub listen: Listen,
    /// Largest frame of a client or dock, in bytes.
    #[serde(with = "bytes")]
    pub message_bytes_max: usize,
    /// Most bytes that wait for a client. Output of processes beyond that is dropped, and the client is told how much.
    #[serde(with = "bytes")]
    pub queue_bytes_max: usize,
    /// Most clients and docks at a time.
    pub connections_max: usize,
    /// Time between an answered ping and the next one.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// How long the other end may take to answer a ping.
    #[serde(with = "duration")]
    pub ping_timeout: Duration,
    /// Longest time from the connection to the handshake, where a credential is needed.
    #[serde(with = "duration")]
    pub auth_timeout: Duration,
    /// Largest archive that is uploaded, in bytes.
    #[serde(with = "bytes")]
    pub archive_bytes_max: usize,
    /// Most bytes of all files in an archive, in bytes.
    #[serde(with = "bytes")]
    pub files_bytes_max: usize,
    /// Most files in an archive.
    pub files_max: usize,
    /// Longest time an upload may take to arrive.
    #[serde(with = "duration")]
    pub upload_timeout: Duration,
    /// Most uploads at a time.
    pub uploads_max: usize,
    /// Whether definitions may have a command that builds their archives on this node.
    pub builds: bool,
    /// How long a build may take.
    #[serde(with = "duration")]
    pub build_timeout: Duration,
    /// Most bytes that a build may write to its output.
    #[serde(with = "bytes")]
    pub build_output_bytes_max: usize,
    /// Most processes of a build at a time.
    pub build_processes_max: usize,
    /// Namespace in which the lines of all processes on docks of this node are recorded. Empty: none.
    pub record: String,
    /// How long that namespace keeps its events, when the node makes the namespace.
    #[serde(with = "duration")]
    pub record_age: Duration,
    /// Where archives are kept on their way. Empty: the folder of the system for such files.
    pub folder: PathBuf,
    /// Load balancers whose connections begin with a PROXY header, as IP addresses or networks (`10.0.0.0/8`)
    /// separated by commas. Empty means none.
    pub proxy_protocol_from: Networks,
    /// Whether the listener speaks TLS: `auto` (when `tls.certificate` is set), `on` or `off`. Stock clients speak none.
    pub tls: TlsMode,
    /// Whether clients show a certificate: `auto` (as `tls.client_certificates`), `off`, `optional` or `required`.
    pub client_certificates: OwnClientCertificates,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::Off,
            message_bytes_max: 4 * 1024 * 1024,
            queue_bytes_max: 8 * 1024 * 1024,
            connections_max: 10_000,
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(5),
            auth_timeout: Duration::from_secs(10),
            archive_bytes_max: 256 * 1024 * 1024,
            files_bytes_max: 1024 * 1024 * 1024,
            files_max: 100_000,
            upload_timeout: Duration::from_secs(15 * 60),
            uploads_max: 4,
            builds: true,
            build_timeout: Duration::from_secs(10 * 60),
            build_output_bytes_max: 64 * 1024 * 1024,
            build_processes_max: 256,
            record: String::new(),
            record_age: Duration::from_secs(7 * 24 * 60 * 60),
            folder: PathBuf::new(),
            proxy_protocol_from: Networks::default(),
            tls: TlsMode::Auto,
            client_certificates: OwnClientCertificates::Auto,
        }
    }
}

impl Settings {
    /// Whether the door is open.
    #[must_use]
    pub(super) fn is_open(&self) -> bool {
        self.listen.addr().is_some()
    }

    /// What the listener says about TLS.
    #[must_use]
    pub(super) fn listener_tls(&self) -> ListenerTls {
        ListenerTls { mode: self.tls, client_certificates: self.client_certificates, own_client_ca: false }
    }

    /// Where lines of processes are recorded.
    #[must_use]
    pub fn record_config(&self) -> Option<RecordConfig> {
        let namespace = Namespace::parse(&self.record).ok()?;
        Some(RecordConfig { namespace, age_max: self.record_age })
    }

    /// How much archives and builds may take.
    #[must_use]
    pub fn build_limits(&self) -> BuildLimits {
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        BuildLimits {
            folder: self.folder.clone(),
            archive_bytes_max: bytes(self.archive_bytes_max),
            files_bytes_max: bytes(self.files_bytes_max),
            files_max: self.files_max,
            // Whoever may deploy runs commands where builds are; a closed door opens no way to that.
            builds: self.builds && self.is_open(),
            upload_timeout: self.upload_timeout,
            time_max: self.build_timeout,
            output_bytes_max: bytes(self.build_output_bytes_max),
            processes_max: self.build_processes_max,
            uploads_max: self.uploads_max,
        }
    }
}

impl DoorSettings for Settings {
    fn check(&self, checks: &mut Checks) {
        let bounds = [
            ("hms.message_bytes_max", self.message_bytes_max),
            ("hms.queue_bytes_max", self.queue_bytes_max),
            ("hms.connections_max", self.connections_max),
        ];
        check_socket_bounds(checks, bounds);
        checks.require(
            (1..=ARCHIVE_BYTES_MAX).contains(&self.archive_bytes_max),
            "hms.archive_bytes_max",
            format!("1 to {ARCHIVE_BYTES_MAX}"),
        );
        let files = u64::try_from(self.files_bytes_max).is_ok_and(|bytes| (1..=Limits::MOST.bytes).contains(&bytes));
        checks.require(files, "hms.files_bytes_max", format!("1 to {}", Limits::MOST.bytes));
        let count = u64::try_from(self.files_max).is_ok_and(|count| (1..=Limits::MOST.entries).contains(&count));
        checks.require(count, "hms.files_max", format!("1 to {}", Limits::MOST.entries));
        let records = self.record.is_empty() || Namespace::parse(&self.record).is_ok() && !self.record.starts_with('_');
        checks.require(records, "hms.record", "the name of a namespace, or nothing");
        for (key, count) in [
            ("hms.uploads_max", self.uploads_max),
            ("hms.build_output_bytes_max", self.build_output_bytes_max),
            ("hms.build_processes_max", self.build_processes_max),
        ] {
            checks.require(count > 0, key, "must be more than 0");
        }
        for (key, time) in [
            ("hms.ping_interval", self.ping_interval),
            ("hms.ping_timeout", self.ping_timeout),
            ("hms.auth_timeout", self.auth_timeout),
            ("hms.upload_timeout", self.upload_timeout),
            ("hms.build_timeout", self.build_timeout),
        ] {
            checks.require(!time.is_zero(), key, "must be more than 0s");
        }
    }

    fn listener(&self) -> Option<OwnListener> {
        let tls = self.listener_tls();
        Some(OwnListener { key: "hms.listen", flag: Some("--hms"), listen: self.listen, tls_key: "hms.tls", tls })
    }

    fn message_bytes_max(&self) -> (&'static str, usize) {
        ("hms.message_bytes_max", self.message_bytes_max)
    }

    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>> {
        if !self.is_open() {
            // A closed door takes no files from the others.
            return Vec::new();
        }
        vec![ConnectionBound { key: "hms.connections_max", max: &mut self.connections_max, files: 1, counted: 1 }]
    }
}
