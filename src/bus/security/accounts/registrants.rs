//! Clients that have no account of Xbus yet, and register one.

use std::sync::Arc;

use crate::bus::error::Fault;
use crate::bus::security::accounts::rights::REGISTRANT;
use crate::bus::security::authority::Authority;
use crate::bus::security::identity::Identity;
use crate::bus::security::origin::Origin;

impl Authority {
    /// A client that shows nothing, at a door where programs register accounts of Xbus: it may do what anybody may
    /// without a credential, and register.
    ///
    /// # Errors
    /// As [`Authority::admit`]: when there is neither a CA nor an account, nobody can register.
    pub fn admit_registrant(&self, origin: Origin) -> Result<Arc<Identity>, Fault> {
        let has_accounts = || self.with_rights(|from| from.xbus.accounts().next().is_some());
        let registers = self.account_ca().is_some() || has_accounts();
        self.without_credential(origin, registers.then(|| REGISTRANT.to_owned()).into_iter().collect())
    }
}
