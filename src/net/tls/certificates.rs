//! The certificate of the listeners, read from its files into the configuration of each listener.
//!
//! Each listener has keys of its own for its session tickets, so that a session of a listener without client
//! certificates cannot be resumed at one that requires them. A reload makes new keys too: after it, each client proves
//! itself anew.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rollbook_cluster::tls::{TlsError, certified_key, roots};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::settings::{ClientCertificates, TlsSettings};
use super::validity::Validity;
use crate::base::clock;

/// Sessions that a listener remembers for clients of TLS 1.2 that know no tickets.
const SESSIONS_MAX: usize = 4096;
/// The only protocol over TLS that an HTTP listener speaks.
const HTTP_1_1: &[u8] = b"http/1.1";

/// What a listener does with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What clients are asked for.
    pub client_certificates: ClientCertificates,
    /// Certificates of CAs of clients beside those of `tls.client_ca`, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether the listener speaks HTTP, which is then negotiated.
    pub http: bool,
}

/// The present configuration of one listener. A reload replaces the configuration for new handshakes.
pub struct ServerTls {
    /// Name of the listener, in metrics.
    pub(super) name: &'static str,
    policy: Policy,
    config: ArcSwap<ServerConfig>,
}

/// Leaves out keys.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("name", &self.name).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// The configuration for the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

/// What the files hold.
struct Loaded {
    own: Arc<CertifiedKey>,
    client_roots: Option<Arc<RootCertStore>>,
    validity: Validity,
}

/// The state that a reload replaces.
struct State {
    loaded: Loaded,
    listeners: Vec<Arc<ServerTls>>,
}

/// The certificate of the listeners, with the listeners that use it.
pub struct Certificates {
    pub(super) settings: TlsSettings,
    state: Mutex<State>,
}

/// Leaves out keys.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used, the key is that of another certificate, or the certificate is out of its time.
    pub fn load(settings: &TlsSettings) -> Result<Arc<Self>, TlsError> {
        let state = State { loaded: load(settings, clock::timestamp().seconds)?, listeners: Vec::new() };
        Ok(Arc::new(Self { settings: settings.clone(), state: Mutex::new(state) }))
    }

    /// The settings that name the files.
    #[must_use]
    pub const fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// The files of CAs of clients that listeners know beside those of the settings.
    pub(super) fn more_client_cas(&self) -> Vec<PathBuf> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.listeners.iter().filter_map(|listener| listener.policy.client_ca.clone()).collect()
    }

    /// The configuration of a listener, which follows each reload.
    ///
    /// # Errors
    /// The CA of the clients cannot be used.
    pub fn listener(&self, name: &'static str, policy: Policy) -> Result<Arc<ServerTls>, TlsError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let config = configure(&self.settings, &state.loaded, &policy)?;
        let listener = Arc::new(ServerTls { name, policy, config: ArcSwap::from(config) });
        state.listeners.push(Arc::clone(&listener));
        Ok(listener)
    }

    /// Reads the files again. On an error, everything stays as it was.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = load(&self.settings, clock::timestamp().seconds)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let configs = state.listeners.iter().map(|listener| configure(&self.settings, &loaded, &listener.policy));
        let configs: Vec<_> = configs.collect::<Result<_, _>>()?;
        for (listener, config) in state.listeners.iter().zip(configs) {
            listener.config.store(config);
        }
        state.loaded = loaded;
        Ok(())
    }

    /// Days until the certificate in use expires, below 0 when it has expired, and the listeners that use it.
    #[must_use]
    pub fn days_left(&self) -> (f64, Vec<&'static str>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let days = state.loaded.validity.days_left(clock::timestamp().seconds);
        (days, state.listeners.iter().map(|listener| listener.name).collect())
    }
}

fn load(settings: &TlsSettings, now: i64) -> Result<Loaded, TlsError> {
    let provider = aws_lc_rs::default_provider();
    let path = &settings.certificate;
    let own = certified_key(path, &settings.key, &provider)?;
    let end = own.cert.first().ok_or_else(|| TlsError::Empty { path: path.clone(), item: "certificate" })?;
    let validity = Validity::of(end, path)?;
    validity.check(now, path)?;
    let client_roots = settings.client_ca().map(roots).transpose()?.map(Arc::new);
    Ok(Loaded { own: Arc::new(own), client_roots, validity })
}

/// The CAs of the clients of a listener.
fn client_roots(loaded: &Loaded, policy: &Policy) -> Result<Option<Arc<RootCertStore>>, TlsError> {
    let Some(path) = &policy.client_ca else { return Ok(loaded.client_roots.clone()) };
    let mut all = roots(path)?;
    if let Some(more) = &loaded.client_roots {
        all.extend(more.roots.iter().cloned());
    }
    Ok(Some(Arc::new(all)))
}

fn configure(settings: &TlsSettings, loaded: &Loaded, policy: &Policy) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |path: &std::path::Path, reason: String| TlsError::Unusable { path: path.to_path_buf(), reason };
    let of_own = |error: rustls::Error| unusable(&settings.certificate, error.to_string());
    // An explicit provider, because the program around this library may have set another one for the process.
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(of_own)?;
    let builder = match policy.client_certificates {
        ClientCertificates::Off => builder.with_no_client_auth(),
        asked => {
            let roots = client_roots(loaded, policy)?.ok_or_else(|| {
                unusable(&settings.client_ca, "tls.client_ca is needed to check certificates of clients".to_owned())
            })?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier =
                if asked == ClientCertificates::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|error| unusable(&settings.client_ca, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&loaded.own))));
    // The ticketer changes its keys every six hours by itself.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(of_own)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    if policy.http {
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    }
    Ok(Arc::new(config))
}
