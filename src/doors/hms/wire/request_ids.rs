//! The ids of the requests that wait for an answer.

use super::texts::TOO_MANY_REQUESTS;

/// Most requests that wait at a time: ids have 16 bits.
pub const REQUESTS_MAX: usize = 65536;

/// What waits for the answer to each request and each ping of one connection.
///
/// The id that was freed last is used first, else the next new id, from 0 up. An id is freed by its answer alone: a
/// caller that no longer waits must leave its id in use, or a late answer would reach another caller.
#[derive(Debug)]
pub struct RequestIds<T> {
    /// By id. `None` at free ids.
    waiting: Vec<Option<T>>,
    /// Exactly the free ids below the length of `waiting`; the last one was freed last.
    free: Vec<u16>,
}

/// As many requests wait as there are ids. Gives back what would have waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", TOO_MANY_REQUESTS)]
pub struct TooManyRequests<T>(pub T);

impl<T> Default for RequestIds<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), free: Vec::new() }
    }
}

impl<T> RequestIds<T> {
    /// Takes an id for a request.
    ///
    /// # Errors
    ///
    /// 65536 requests wait already.
    pub fn insert(&mut self, waiter: T) -> Result<u16, TooManyRequests<T>> {
        if let Some(id) = self.free.pop() {
            if let Some(slot) = self.waiting.get_mut(usize::from(id)) {
                *slot = Some(waiter);
            }
            return Ok(id);
        }
        let Ok(id) = u16::try_from(self.waiting.len()) else { return Err(TooManyRequests(waiter)) };
        self.waiting.push(Some(waiter));
        Ok(id)
    }

    /// Frees the id of an answer, and gives what waits for the answer. An answer that nobody waits for, such as a
    /// second one, is `None` and changes nothing: the original would use its id for two requests.
    pub fn remove(&mut self, id: u16) -> Option<T> {
        let waiter = self.waiting.get_mut(usize::from(id))?.take()?;
        self.free.push(id);
        Some(waiter)
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len().saturating_sub(self.free.len())
    }

    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_that_was_freed_last_is_used_first() {
        let mut ids = RequestIds::default();
        assert_eq!(["a", "b", "c", "d"].map(|name| ids.insert(name).unwrap()), [0, 1, 2, 3]);
        assert_eq!((ids.remove(1), ids.remove(3), ids.remove(0)), (Some("b"), Some("d"), Some("a")));
        assert_eq!(ids.len(), 1);
        assert_eq!(["e", "f", "g", "h"].map(|name| ids.insert(name).unwrap()), [0, 3, 1, 4]);
    }

    #[test]
    fn a_second_answer_and_an_unknown_one_free_nothing() {
        let mut ids = RequestIds::default();
        assert_eq!((ids.insert("a"), ids.insert("b")), (Ok(0), Ok(1)));
        assert_eq!((ids.remove(0), ids.remove(0), ids.remove(77)), (Some("a"), None, None));
        assert_eq!((ids.insert("c"), ids.insert("d"), ids.len()), (Ok(0), Ok(2), 3));
    }

    #[test]
    fn at_most_65536_requests_wait() {
        let mut ids = RequestIds::default();
        for id in 0..=u16::MAX {
            assert_eq!(ids.insert(u32::from(id)), Ok(id));
        }
        let error = ids.insert(7).unwrap_err();
        assert_eq!((error.0, error.to_string().as_str(), ids.len()), (7, "stack overflow", REQUESTS_MAX));
        assert_eq!((ids.remove(512), ids.insert(8)), (Some(512), Ok(512)));
    }
}
