//! Turns what a client shows into an [`Identity`], and keeps all identities up to date with the replicated state.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::limits::CREDENTIALS_USED_MAX;
use rollbook_core::machine::security::state::Security;
use rollbook_core::security::actor::Actor;
use rollbook_core::security::model::{Credential, Proof};
use rollbook_core::security::principal::Principal;
use tokio::sync::watch;

use super::accounts::credential as account_credential;
use super::compile::RightsSource;
use super::credentials::account_ca::AccountCa;
use super::credentials::basic::Basic;
use super::credentials::bearer::Presented;
use super::credentials::certificate;
use super::credentials::delay::{Attempt, LoginDelays};
use super::credentials::jwt::error::JwtError;
use super::credentials::jwt::jwks::JwksSettings;
use super::credentials::jwt::verifier::Verifier;
use super::credentials::nkey::NkeyProof;
use super::credentials::password::{self, Passwords};
use super::credentials::seal::SealKey;
use super::credentials::ticket::Tickets;
use super::credentials::token::SecretHash;
use super::denials::Denials;
use super::grant::Grant;
use super::identity::{Identity, Shown};
use super::origin::Origin;
use super::ticket_peers::TicketPeers;
use super::usage::Counts;
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::base::metrics::Metrics;
use crate::bus::error::Fault;

/// Most grants that are kept although nobody uses them now.
const GRANTS_IDLE_MAX: usize = 10_000;
/// A use of a credential is noted when the last note is older than this.
const USED_NOTE_MS: u64 = 60_000;

/// The settings of the authority.
#[derive(Debug, Default)]
pub struct SecurityConfig {
    /// Whether local clients need a credential too.
    pub enabled: bool,
    /// Whether nobody needs a credential, because the operator asked for that.
    pub insecure: bool,
    /// How keys of issuers are fetched.
    pub jwks: JwksSettings,
    /// Opens and seals secrets in the replicated state.
    pub seal_key: Option<SealKey>,
    /// Signs certificates of accounts of Xbus.
    pub account_ca: Option<AccountCa>,
}

/// Who a client was found to be, and how long that counts.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) grant: Arc<Grant>,
    pub(super) shown: Shown,
    /// When the credential ends to count, milliseconds since 1970; 0: never.
    pub(super) expires: u64,
}

impl Admitted {
    /// The same, at most until a point in time.
    fn until(self, expires: u64) -> Self {
        let earlier = if self.expires == 0 { expires } else { self.expires.min(expires) };
        Self { expires: earlier, ..self }
    }
}

/// The shared state of all clones of [`Authority`].
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) node: Node,
    config: SecurityConfig,
    /// The grants of principals, by principal and claimed roles.
    pub(super) grants: Mutex<HashMap<String, Arc<Grant>>>,
    /// What principals use, by name: grants of one principal differ by the roles that their JWTs claim.
    counts: Mutex<HashMap<String, Arc<Counts>>>,
    everything: Arc<Grant>,
    pub(super) verifier: Verifier,
    passwords: Passwords,
    delays: LoginDelays,
    /// The tickets that this node has given.
    pub(super) tickets: Tickets<Admitted>,
    /// Asks other nodes for the tickets that they have given.
    pub(super) ticket_peers: OnceLock<Arc<dyn TicketPeers>>,
    denials: Denials,
    /// Ids of credentials whose use is to be noted.
    used: Mutex<HashSet<String>>,
    /// Whether the node has caught up with the cluster since its start: before, a revoked credential could be let in.
    pub(super) caught_up: AtomicBool,
    /// The revision that all grants follow.
    pub(super) revision: watch::Sender<u64>,
    /// When the next credential of a client expires, milliseconds since 1970.
    next_expiry: AtomicU64,
}

/// The authority of a node. Clones share one state.
#[derive(Debug, Clone)]
pub struct Authority {
    pub(super) inner: Arc<Inner>,
}

/// Why a client is not who it was any more.
pub type Lost = &'static str;

impl Authority {
    /// The authority of this node.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new(node: Node, config: SecurityConfig, metrics: &Metrics) -> Result<Self, Fault> {
        let verifier = Verifier::new(config.jwks.clone());
        let inner = Inner {
            node,
            config,
            grants: Mutex::default(),
            counts: Mutex::default(),
            everything: Arc::new(Grant::everything()),
            verifier,
            passwords: Passwords::new()?,
            delays: LoginDelays::default(),
            tickets: Tickets::default(),
            ticket_peers: OnceLock::new(),
            denials: Denials::new(metrics.denied.clone()),
            used: Mutex::default(),
            caught_up: AtomicBool::new(false),
            revision: watch::channel(0).0,
            next_expiry: AtomicU64::new(u64::MAX),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether the node has caught up with the cluster since its start, so that credentials are accepted.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.inner.caught_up.load(Ordering::Relaxed)
    }

    /// What was refused since it was last taken.
    #[must_use]
    pub fn denials(&self) -> &Denials {
        &self.inner.denials
    }

    /// Hashes passwords for the replicated state.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.inner.passwords
    }

    /// The key of secrets in the replicated state, if there is one.
    #[must_use]
    pub fn seal_key(&self) -> Option<&SealKey> {
        self.inner.config.seal_key.as_ref()
    }

    /// Signs certificates of accounts of Xbus, if the settings name a CA.
    #[must_use]
    pub fn account_ca(&self) -> Option<&AccountCa> {
        self.inner.config.account_ca.as_ref()
    }

    /// Follows the revision of the security state that all identities follow.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    /// Whether a client needs no credential, from this machine or from another one.
    #[must_use]
    pub fn is_open_to(&self, local: bool) -> bool {
        let config = &self.inner.config;
        config.insecure || local && !config.enabled
    }

    /// Who a client is. The first thing that it shows counts: a credential, then its certificate, then nothing.
    ///
    /// # Errors
    /// [`FaultKind::Unauthenticated`], [`FaultKind::Overloaded`] when somebody fails too often, or
    /// [`FaultKind::Unavailable`] while the node has not caught up with the cluster.
    pub async fn admit(&self, presented: Option<Presented<'_>>, origin: Origin) -> Result<Arc<Identity>, Fault> {
        if presented.is_none() && origin.certificate.is_none() {
            return self.anonymous(origin);
        }
        self.caught_up()?;
        let admitted = match presented {
            Some(Presented::Token { id, secret }) => self.token(id, secret),
            Some(Presented::Jwt(token)) => self.jwt(token).await,
            Some(Presented::Basic(basic)) => self.password(basic, &origin).await,
            Some(Presented::Nkey(proof)) => self.nkey(&proof),
            Some(Presented::Unknown) => Err(unauthenticated("the credential is neither a token nor a JWT")),
            None => self.certificate(&origin),
        };
        admitted.inspect_err(|fault| self.note_failure(&origin, fault)).map(|holder| self.identity(holder, origin))
    }

    /// Refuses credentials until the node has caught up with the cluster.
    pub(super) fn caught_up(&self) -> Result<(), Fault> {
        if self.is_caught_up() {
            return Ok(());
        }
        Err(Fault::unavailable("this node has not caught up with the cluster yet, so credentials are not accepted"))
    }

    pub(super) fn note_failure(&self, origin: &Origin, fault: &Fault) {
        if fault.kind != FaultKind::Unauthenticated {
            return;
        }
        let address = origin.address.map_or_else(String::new, |address| address.to_string());
        let (principal, door) = ("anonymous".to_owned(), origin.door.to_owned());
        let actor = Actor { principal, address, door, ..Default::default() };
        self.inner.denials.note(actor, "authenticate", &fault.text);
    }

    /// A client that shows nothing.
    pub(super) fn anonymous(&self, origin: Origin) -> Result<Arc<Identity>, Fault> {
        self.without_credential(origin, Vec::new())
    }

    pub(super) fn without_credential(&self, origin: Origin, claimed: Vec<String>) -> Result<Arc<Identity>, Fault> {
        let grant = match self.is_open_to(origin.local) {
            true => Arc::clone(&self.inner.everything),
            false => {
                self.caught_up()?;
                self.grant(Principal::ANONYMOUS, claimed)
            }
        };
        if grant.rights().is_empty() {
            return Err(unauthenticated("a credential is needed; present a token, see docs/security.md"));
        }
        Ok(self.identity(Admitted { grant, shown: Shown::Nothing, expires: 0 }, origin))
    }

    pub(super) fn identity(&self, holder: Admitted, origin: Origin) -> Arc<Identity> {
        let Admitted { grant, shown, expires } = holder;
        if expires != 0 {
            self.inner.next_expiry.fetch_min(expires, Ordering::Relaxed);
        }
        // The certificate has told what there is to tell, and a connection may stay for months.
        let origin = Origin { certificate: None, ..origin };
        Arc::new(Identity::new(grant, shown, origin, expires, self.inner.denials.clone()))
    }

    /// Reads the replicated state that rights come from.
    pub fn with_rights<T>(&self, look: impl FnOnce(RightsSource<'_>) -> T) -> T {
        self.inner.node.state().with_machine(|machine| look(RightsSource::of(machine)))
    }

    /// Reads the replicated security state.
    pub fn with_security<T>(&self, look: impl FnOnce(&Security) -> T) -> T {
        self.inner.node.state().with_machine(|machine| look(machine.security()))
    }

    /// The grant of a principal, shared with its other clients.
    pub(super) fn grant(&self, principal: Principal, claimed: Vec<String>) -> Arc<Grant> {
        let mut key = principal.to_string();
        claimed.iter().for_each(|role| {
            key.push(' ');
            key.push_str(role);
        });
        let mut grants = lock(&self.inner.grants);
        if let Some(grant) = grants.get(&key) {
            return Arc::clone(grant);
        }
        if grants.len() >= GRANTS_IDLE_MAX {
            grants.retain(|_, grant| Arc::strong_count(grant) > 1);
            lock(&self.inner.counts).retain(|_, counts| Arc::strong_count(counts) > 1);
        }
        let counts = Arc::clone(lock(&self.inner.counts).entry(principal.to_string()).or_default());
        // The state is read under the lock: a refresh that has begun goes over this grant too, or its state is seen here.
        let grant = Arc::new(self.with_rights(|from| Grant::new(from, principal, claimed, counts)));
        grants.insert(key, Arc::clone(&grant));
        grant
    }

    fn token(&self, id: &str, secret: &str) -> Result<Admitted, Fault> {
        let wrong = || unauthenticated("the token is not valid; it was revoked, or never made here");
        self.with_security(|security| {
            let credential = security.credential(id).ok_or_else(wrong)?;
            let Some(Proof::Token(hash)) = &credential.proof else { return Err(wrong()) };
            let hash: [u8; 32] = hash.as_slice().try_into().map_err(|_| wrong())?;
            if !SecretHash::from_bytes(hash).is_of(secret) {
                return Err(wrong());
            }
            self.of_credential(security, credential, Shown::Token(id.to_owned()))
        })
    }

    /// A client that has signed with a key of NATS. Signatures cannot be guessed and keys are public, so a failure delays
    /// nobody: a stranger could keep the owner of a key out.
    fn nkey(&self, proof: &NkeyProof<'_>) -> Result<Admitted, Fault> {
        let wrong =
            || unauthenticated("the nkey or its signature is not valid; the key was revoked, or never added here");
        // The signature first: whoever has no key learns nothing of those that there are.
        if !proof.is_signed() {
            return Err(wrong());
        }
        let id = Credential::nkey_id(proof.key);
        self.with_security(|security| {
            let credential = security.credential(&id).ok_or_else(wrong)?;
            if credential.proof != Some(Proof::Nkey(proof.key.to_owned())) {
                return Err(wrong());
            }
            self.of_credential(security, credential, Shown::Nkey(id.clone()))
        })
    }

    /// Whether some principal has a key of NATS, so that clients need something to sign.
    #[must_use]
    pub fn takes_nkeys(&self) -> bool {
        self.with_security(Security::has_nkeys)
    }

    /// The holder of a credential that was shown to be right.
    fn of_credential(&self, security: &Security, row: &Credential, shown: Shown) -> Result<Admitted, Fault> {
        let now = clock::millis();
        if !row.counts_at(now) {
            return Err(unauthenticated("the credential has expired; ask for a new one"));
        }
        let principal = self.present(security, &row.principal)?;
        if row.used.saturating_add(USED_NOTE_MS) < now {
            let mut used = lock(&self.inner.used);
            if used.len() < CREDENTIALS_USED_MAX {
                used.insert(row.id.clone());
            }
        }
        Ok(Admitted { grant: self.grant(principal, Vec::new()), shown, expires: row.expires })
    }

    /// A principal of the replicated state that is not shut out.
    pub(super) fn present(&self, security: &Security, principal: &str) -> Result<Principal, Fault> {
        let row = security.principal(principal).filter(|row| !row.disabled);
        let row = row.ok_or_else(|| unauthenticated("the principal of the credential is gone, or shut out"))?;
        row.principal.parse().map_err(|_| Fault::internal("a stored principal cannot be read"))
    }

    /// Lets an attempt to log in begin, unless too many failed before.
    pub(super) fn attempt(&self, principal: &str, origin: &Origin) -> Result<Attempt, Fault> {
        let address = origin.address.map_or_else(|| std::net::Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        self.inner.delays.attempt(principal, address, clock::now()).map_err(|wait| {
            let seconds = wait.as_secs().saturating_add(1);
            let fault = Fault::overloaded(format!("too many failed logins; try again in {seconds} s"));
            Fault { retry_after: Some(seconds), ..fault }
        })
    }

    async fn password(&self, basic: Basic, origin: &Origin) -> Result<Admitted, Fault> {
        let Basic { user, password } = basic;
        let principal = user.to_string();
        let attempt = self.attempt(&principal, origin)?;
        let id = password::credential_id(&principal);
        let hash = self.with_security(|security| match security.credential(&id)?.proof.as_ref()? {
            Proof::Password(hash) => Some(hash.clone()),
            _ => None,
        });
        if !self.inner.passwords.verify(password, hash).await? {
            attempt.failed(clock::now());
            return Err(unauthenticated("user or password is wrong"));
        }
        attempt.succeeded();
        self.with_security(|security| {
            let row = security.credential(&id).ok_or_else(|| unauthenticated("user or password is wrong"))?;
            self.of_credential(security, row, Shown::Password(id.clone()))
        })
    }

    async fn jwt(&self, token: &str) -> Result<Admitted, Fault> {
        let verified = self.inner.verifier.verify(token, SystemTime::now()).await.map_err(|error| {
            if error.is_temporary() && error != JwtError::NotYetValid {
                Fault::unavailable(error.to_string())
            } else {
                unauthenticated(error.to_string())
            }
        })?;
        let principal = &verified.principal;
        let shown = Shown::Jwt(verified.issuer.clone(), verified.token_id.clone());
        let expires = millis(verified.expires_at);
        self.with_security(|security| {
            if security.principal(&principal.to_string()).is_some_and(|row| row.disabled) {
                return Err(unauthenticated("the principal of the credential is shut out"));
            }
            let grant = self.grant(principal.clone(), verified.roles.clone());
            Ok(Admitted { grant, shown, expires })
        })
    }

    /// A client that shows its certificate alone.
    fn certificate(&self, origin: &Origin) -> Result<Admitted, Fault> {
        let der = origin.certificate.as_deref().unwrap_or_default();
        let names = certificate::names(der).map_err(|error| unauthenticated(error.to_string()))?;
        let expires = millis(names.not_after);
        let print = format!("sha256:{}", names.fingerprint);
        self.with_security(|security| {
            if let Some(account) = &names.account {
                let row = account_credential::of(security, account, &print);
                let row =
                    row.ok_or_else(|| unauthenticated("the certificate is not the present one of its account"))?;
                let shown = Shown::Certificate(print.clone(), Some(row.id.clone()));
                let holder = self.of_credential(security, row, shown)?;
                return Ok(holder.until(expires));
            }
            // The most exact of the credentials that name the certificate counts.
            let cn = names.common_name.as_ref().map(|name| format!("cn:{name}"));
            let uri = names.principal.as_ref().map(|principal| format!("uri:rollbook:{principal}"));
            let known =
                [Some(print.clone()), uri, cn].into_iter().flatten().find_map(|name| security.credential(&name));
            if let Some(row) = known {
                let shown = Shown::Certificate(print.clone(), Some(row.id.clone()));
                let holder = self.of_credential(security, row, shown)?;
                return Ok(holder.until(expires));
            }
            let Some(principal) = &names.principal else {
                return Err(unauthenticated("the client certificate names no principal, and no credential names it"));
            };
            let principal = self.present(security, &principal.to_string())?;
            let grant = self.grant(principal, Vec::new());
            Ok(Admitted { grant, shown: Shown::Certificate(print.clone(), None), expires })
        })
    }

    /// Why a client is not who it was any more; `None` while it is.
    #[must_use]
    pub fn lost(&self, identity: &Identity) -> Option<Lost> {
        if identity.is_open() {
            return None;
        }
        if identity.expires() != 0 && clock::millis() >= identity.expires() {
            return Some("the credential has expired");
        }
        self.with_security(|security| {
            let (row, gone) = (security.principal(identity.name()), Some("the credential was revoked"));
            if row.is_some_and(|row| row.disabled) {
                return Some("the principal is shut out");
            }
            match identity.shown() {
                Shown::Nothing if identity.may_nothing() => Some("a credential is needed"),
                Shown::Nothing => None,
                Shown::Certificate(print, Some(id)) if account_credential::is_one(id) => {
                    if account_credential::is_present(security, id, print) {
                        None
                    } else {
                        gone
                    }
                }
                Shown::Token(id) | Shown::Password(id) | Shown::Nkey(id) | Shown::Certificate(_, Some(id)) => {
                    let present = security.credential(id).is_some_and(|present| present.principal == identity.name());
                    if present { None } else { gone }
                }
                Shown::Certificate(_, None) => row.is_none().then_some("the principal is gone"),
                Shown::Jwt(issuer, _) => {
                    security.issuer(issuer).is_none().then_some("the issuer is not trusted any more")
                }
            }
        })
    }

    /// Whether the credential of some client has expired since this was last asked.
    #[must_use]
    pub fn takes_expiry(&self) -> bool {
        let due = self.inner.next_expiry.load(Ordering::Relaxed) <= clock::millis();
        if due {
            self.inner.next_expiry.store(u64::MAX, Ordering::Relaxed);
        }
        due
    }

    /// The clients that stay tell when their credentials expire, after [`Authority::takes_expiry`].
    pub fn expires_later(&self, identity: &Identity) {
        if identity.expires() != 0 {
            self.inner.next_expiry.fetch_min(identity.expires(), Ordering::Relaxed);
        }
    }

    /// Ids of credentials that were used and not noted yet.
    #[must_use]
    pub fn take_used(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.inner.used)).into_iter().collect()
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn unauthenticated(text: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(FaultKind::Unauthenticated, text)
}
