//! Passwords of people: argon2id with 19 MiB, 2 passes and 1 lane, stored as a PHC string.
//!
//! One check costs about 20 ms of a core and 19 MiB, so checks run beside the web threads, as many at a time as there are
//! cores, and no more than a bounded number wait. A check of a user that does not exist costs the same as one of a user
//! that does, so the time does not say who exists.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::secret::Secret;
use crate::bus::error::Fault;

/// Shortest password that can be set.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// Longest password.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Longest stored hash that is looked at.
const HASH_BYTES_MAX: usize = 512;
/// Checks that wait for a core, for each core. Their wait is then below a second.
const WAITING_PER_CORE: usize = 32;
/// Most memory that a stored hash may ask for, in KiB: a hash from elsewhere must not take the node down.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Most passes that a stored hash may ask for.
const PASSES_MAX: u32 = 8;
/// Most lanes that a stored hash may ask for.
const LANES_MAX: u32 = 4;

/// Hashes and checks passwords, a bounded number at a time.
#[derive(Debug, Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    /// Those that run and those that wait.
    admitted: Arc<Semaphore>,
    /// The hash that stands in for a user that does not exist or has no password.
    nobody: Arc<str>,
}

impl Passwords {
    /// As many checks at a time as there are cores, and 32 for each core that wait.
    ///
    /// # Errors
    /// There are no random bytes.
    pub fn new() -> Result<Self, Fault> {
        Self::with(available_parallelism().map_or(1, NonZero::get), WAITING_PER_CORE)
    }

    fn with(cores: usize, waiting_per_core: usize) -> Result<Self, Fault> {
        let admitted = cores.saturating_add(cores.saturating_mul(waiting_per_core));
        Ok(Self {
            running: Arc::new(Semaphore::new(cores)),
            admitted: Arc::new(Semaphore::new(admitted)),
            nobody: hash_now("the password of nobody")?.into(),
        })
    }

    /// The hash to store for a new password, as a PHC string.
    ///
    /// # Errors
    /// The password is too short or too long, or too many checks wait.
    pub async fn hash(&self, password: Secret) -> Result<String, Fault> {
        let length = password.expose().len();
        if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&length) {
            return Err(Fault::bad(format!(
                "a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes, and this one has {length}"
            )));
        }
        self.run(move || hash_now(password.expose())).await?
    }

    /// Whether this is the password of that hash. Without a hash the answer is no, at the same cost.
    ///
    /// # Errors
    /// Too many checks wait: the client should try again in a second.
    pub async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool, Fault> {
        let nobody = Arc::clone(&self.nobody);
        self.run(move || match hash {
            Some(hash) => verify_now(password.expose(), &hash),
            None => {
                verify_now(password.expose(), &nobody);
                false
            }
        })
        .await
    }

    /// Runs work beside the web threads. The work keeps its place until it has ended, even if nobody waits any more.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned();
        let admitted = admitted.map_err(|_| Fault::overloaded("too many logins at once; try again in a second"))?;
        let stopped = || Fault::internal("the check of a password was stopped");
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| stopped())?;
        let done = spawn_blocking(move || {
            let done = work();
            drop((running, admitted));
            done
        });
        done.await.map_err(|_| stopped())
    }
}

/// argon2id with the parameters that OWASP recommends.
fn argon() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

fn hash_now(password: &str) -> Result<String, Fault> {
    let hash = argon().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Fault::internal(format!("cannot hash a password: {error}")))
}

fn verify_now(password: &str, hash: &str) -> bool {
    if password.len() > PASSWORD_BYTES_MAX || hash.len() > HASH_BYTES_MAX {
        return false;
    }
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    let modest = |params: Params| {
        params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX && params.p_cost() <= LANES_MAX
    };
    Params::try_from(&hash).is_ok_and(modest) && argon().verify_password(password.as_bytes(), &hash).is_ok()
}

/// The id of the credential that is the password of a principal.
#[must_use]
pub fn credential_id(principal: &str) -> String {
    format!("password:{principal}")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::base::fault::FaultKind;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn the_right_password_is_accepted_and_others_are_not() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify(secret("correct horse"), Some(hash.clone())).await.unwrap());
        for wrong in ["correct hors", "Correct horse", "", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            assert!(!passwords.verify(secret(wrong), Some(hash.clone())).await.unwrap(), "{wrong}");
        }
        assert!(!passwords.verify(secret("the password of nobody"), None).await.unwrap());
        assert_ne!(hash, passwords.hash(secret("correct horse")).await.unwrap(), "the salt is random");
    }

    #[tokio::test]
    async fn a_password_that_is_too_short_or_too_long_cannot_be_set() {
        let passwords = Passwords::new().unwrap();
        for password in ["", "1234567", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            let fault = passwords.hash(secret(password)).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::BadRequest, "{fault}");
            assert!(password.is_empty() || !fault.text.contains(password), "{fault}");
        }
    }

    #[tokio::test]
    async fn a_user_that_does_not_exist_costs_as_much_as_one_that_does() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        let mut fastest = [f64::MAX; 2];
        for _ in 0..5 {
            for (fastest, hash) in fastest.iter_mut().zip([Some(hash.clone()), None]) {
                let begin = Instant::now();
                assert!(!passwords.verify(secret("wrong horse"), hash).await.unwrap());
                *fastest = fastest.min(begin.elapsed().as_secs_f64());
            }
        }
        let [known, unknown] = fastest;
        assert!((0.3..3.0).contains(&(unknown / known)), "known {known} s, unknown {unknown} s");
    }

    #[tokio::test]
    async fn checks_beyond_the_bound_are_refused_as_overloaded() {
        let passwords = Passwords::with(1, 2).unwrap();
        let checks = (0..10).map(|_| passwords.verify(secret("some password"), None));
        let answers = futures_util::future::join_all(checks).await;
        let refused: Vec<FaultKind> = answers.iter().filter_map(|answer| Some(answer.as_ref().err()?.kind)).collect();
        assert_eq!(refused, [FaultKind::Overloaded; 7], "{answers:?}");
        assert!(!passwords.verify(secret("some password"), None).await.unwrap(), "there is room again");
    }

    #[test]
    fn a_hash_that_asks_for_too_much_or_is_none_is_no_match() {
        let salt_and_hash = "c29tZXNhbHQAAAAAAAAAAA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for hash in [
            String::new(),
            "plain".to_owned(),
            format!("$argon2id$v=19$m=4194304,t=2,p=1${salt_and_hash}"),
            format!("$argon2id$v=19$m=19456,t=4000000,p=1${salt_and_hash}"),
            format!("$argon2id$v=19$m=19456,t=2,p=99${salt_and_hash}"),
            format!("$argon2id$v=19$m=19456,t=2,p=1$AAAA{}", "A".repeat(1_000_000)),
        ] {
            assert!(!verify_now("password", &hash), "{hash:.80}");
        }
    }

    proptest! {
        #[test]
        fn hostile_hashes_do_not_panic(text in any::<String>(), near in "\\$argon2id(\\$v=19)?\\$[a-z0-9=,$]{0,40}") {
            prop_assert!(!verify_now("password", &text) && !verify_now("password", &near));
        }
    }
}
