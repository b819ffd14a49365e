//! Admits programs behind a gateway by the API key of their Xbus account.

use std::sync::Arc;

use rollbook_core::xbus::account::row::{AccountRow, AccountStatus};

use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::security::accounts::credential as account_credential;
use crate::bus::security::authority::{Admitted, Authority, unauthenticated};
use crate::bus::security::credentials::token::sha256;
use crate::bus::security::identity::{Identity, Shown};
use crate::bus::security::origin::Origin;

/// Longest API key, in bytes.
const KEY_BYTES_MAX: usize = 128;

impl Authority {
    /// The account that has this API key, and who its programs are. Wrong keys are delayed as wrong passwords are.
    ///
    /// # Errors
    /// [`Unauthenticated`](crate::base::fault::FaultKind::Unauthenticated) when no enabled account has the key,
    /// [`Overloaded`](crate::base::fault::FaultKind::Overloaded) when somebody fails too often, or
    /// [`Unavailable`](crate::base::fault::FaultKind::Unavailable) while the node has not caught up with the cluster.
    pub fn admit_account_key(&self, key: &str, origin: Origin) -> Result<(Arc<Identity>, AccountRow), Fault> {
        let found = self.of_key(key, &origin).inspect_err(|fault| self.note_failure(&origin, fault));
        let (holder, account) = found?;
        Ok((self.identity(holder, origin), account))
    }

    fn of_key(&self, key: &str, origin: &Origin) -> Result<(Admitted, AccountRow), Fault> {
        self.caught_up()?;
        let hash = sha256(key.as_bytes());
        let hex = hash.iter().take(16).fold("api-key:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
        let attempt = self.attempt(&hex, origin)?;
        let is_it = |row: &&AccountRow| row.status() == AccountStatus::Enabled && row.api_key == hash;
        let bounded = (1..=KEY_BYTES_MAX).contains(&key.len());
        let found = self.inner.node.state().with_machine(|machine| machine.xbus().accounts().find(is_it).cloned());
        let Some(account) = found.filter(|_| bounded) else {
            attempt.failed(clock::now());
            return Err(unauthenticated("no enabled account has this API key; see `rollbook account api-key`"));
        };
        attempt.succeeded();
        let shown = Shown::Token(account_credential::id(&account.name));
        let principal = self.with_security(|security| self.present(security, &format!("actor:{}", account.name)))?;
        Ok((Admitted { grant: self.grant(principal, Vec::new()), shown, expires: 0 }, account))
    }
}
