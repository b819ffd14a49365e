//! Results of verified JWTs, until they expire: a signature costs up to 0.1 ms, and clients present the same token with
//! each request.
//!
//! Two generations of a bounded size make a cache of what was used last: a full young generation becomes the old one,
//! and the old one is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::verified::Verified;

/// Most results in one of the two generations.
const GENERATION_MAX: usize = 5_000;

/// Results by the SHA-256 of the token.
#[derive(Default)]
pub struct VerifiedCache {
    young: HashMap<[u8; 32], Entry>,
    old: HashMap<[u8; 32], Entry>,
}

#[derive(Clone)]
struct Entry {
    verified: Arc<Verified>,
    /// The document that the key came from: a result ends with its key.
    keys: [u8; 32],
}

impl VerifiedCache {
    /// The result for a token, if the keys of its issuer are still those and the token has not expired.
    pub fn find(
        &mut self,
        token: &[u8; 32],
        now: SystemTime,
        keys: impl FnOnce(&Verified) -> Option<[u8; 32]>,
    ) -> Option<Arc<Verified>> {
        let entry = self.young.get(token).or_else(|| self.old.get(token))?.clone();
        let good = now < entry.verified.expires_at && keys(&entry.verified) == Some(entry.keys);
        let verified = Arc::clone(&entry.verified);
        let was_old = self.old.remove(token).is_some();
        if !good {
            self.young.remove(token);
            return None;
        }
        if was_old {
            self.insert_entry(*token, entry);
        }
        Some(verified)
    }

    /// Keeps a result.
    pub fn insert(&mut self, token: [u8; 32], verified: Arc<Verified>, keys: [u8; 32]) {
        self.insert_entry(token, Entry { verified, keys });
    }

    fn insert_entry(&mut self, token: [u8; 32], entry: Entry) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, entry);
    }

    /// Forgets all results.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use rollbook_core::security::principal::Principal;

    fn verified(end: u64) -> Arc<Verified> {
        Arc::new(Verified {
            principal: "user:ann".parse::<Principal>().unwrap(),
            roles: Vec::new(),
            expires_at: UNIX_EPOCH + Duration::from_secs(end),
            issuer: "i".to_owned(),
            token_id: "t".to_owned(),
        })
    }

    fn key(number: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn a_result_ends_with_its_expiry_and_with_its_keys() {
        let (mut cache, now) = (VerifiedCache::default(), |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        cache.insert(key(1), verified(100), [7; 32]);
        assert!(cache.find(&key(1), now(99), |_| Some([7; 32])).is_some());
        assert!(cache.find(&key(2), now(99), |_| Some([7; 32])).is_none());
        assert!(cache.find(&key(1), now(100), |_| Some([7; 32])).is_none());
        for keys in [None, Some([8; 32])] {
            cache.insert(key(1), verified(100), [7; 32]);
            assert!(cache.find(&key(1), now(99), |_| keys).is_none());
            assert!(cache.find(&key(1), now(99), |_| Some([7; 32])).is_none(), "a wrong result is not kept");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = VerifiedCache::default();
        cache.insert(key(0), verified(100), [7; 32]);
        for number in 0..GENERATION_MAX * 5 {
            cache.insert(key(number + 1), verified(100), [7; 32]);
            assert!(cache.find(&key(0), UNIX_EPOCH, |_| Some([7; 32])).is_some(), "{number}");
        }
        let kept = cache.young.len() + cache.old.len();
        assert!(kept <= GENERATION_MAX * 2 && kept > GENERATION_MAX / 2, "{kept}");
        cache.clear();
        assert!(cache.find(&key(0), UNIX_EPOCH, |_| Some([7; 32])).is_none());
    }
}
