//! Pages of a list, and the cursors between them.

use actix_web::HttpResponse;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::problem::Problem;
use utoipa::ToSchema;

/// Items of a page without a `limit`.
const LIMIT: usize = 100;
/// Most items of a page.
const LIMIT_MAX: usize = 1000;

/// The page that a request asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    /// Name of the list. A cursor is valid for its own list only.
    list: &'static str,
    limit: usize,
    after: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List<T> {
    items: Vec<T>,
    /// Where the next page begins; `null` when this is the last one.
    next_cursor: Option<String>,
    /// Nodes that were asked and did not answer: what only they know is missing. Left out where no other node is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered_nodes: Option<Vec<u64>>,
}

impl<T> List<T> {
    /// A list that is always one page.
    pub(super) const fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None, unanswered_nodes: None }
    }

    /// Adds the nodes that did not answer.
    pub(super) fn without(self, unanswered_nodes: Vec<u64>) -> Self {
        Self { unanswered_nodes: Some(unanswered_nodes), ..self }
    }
}

/// Answers with a page.
pub(super) fn list<T: Serialize>(items: Vec<T>, next_cursor: Option<String>) -> HttpResponse {
    HttpResponse::Ok().json(List { next_cursor, ..List::whole(items) })
}

/// Answers with a list that is always one page.
pub(super) fn whole<T: Serialize>(items: Vec<T>) -> HttpResponse {
    HttpResponse::Ok().json(List::whole(items))
}

/// The cursor after the item of that key.
fn encode(list: &str, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{key}"))
}

fn decode(list: &str, cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    Some(text.strip_prefix(list)?.strip_prefix(':')?.to_owned())
}

impl Page {
    /// Reads the query of that list. `cursor` is the `next_cursor` of the page before.
    pub(super) fn new(list: &'static str, limit: Option<usize>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::bad(format!("limit={limit}: 1 to {LIMIT_MAX}")));
        }
        let behind = |cursor: &str| {
            let invalid = || Problem::bad(format!("cursor={cursor}: the next_cursor of a page of this list"));
            decode(list, cursor).ok_or_else(invalid)
        };
        Ok(Self { list, limit, after: cursor.map(behind).transpose()? })
    }

    /// Most items of the page.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// The key of the last item of the page before.
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The cursor of the page behind the item of that key, for a list that its store has cut already.
    pub(super) fn cursor(&self, key: &str) -> String {
        encode(self.list, key)
    }

    /// Whether the item of that key is on this page or after it.
    pub(super) fn begins_before(&self, key: &str) -> bool {
        self.after.as_ref().is_none_or(|after| key > after.as_str())
    }

    /// Takes the page from a list that is sorted by `key`, with the cursor of the next page.
    pub(super) fn cut<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let behind = |item: &T| self.begins_before(&key(item));
        let mut items: Vec<T> = items.into_iter().filter(behind).take(self.limit.saturating_add(1)).collect();
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next_cursor = items.last().filter(|_| more).map(|last| encode(self.list, &key(last)));
        (items, next_cursor)
    }

    /// Takes the page as a list.
    pub(super) fn of<T>(&self, items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> String) -> List<T> {
        let (items, next_cursor) = self.cut(items, key);
        List { next_cursor, ..List::whole(items) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let names = ["a", "b-1", "b/ü", "c", "d"];
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = Page::new("names", Some(2), cursor.as_deref()).unwrap();
            let (items, next) = page.cut(names, |name| (*name).to_owned());
            seen.extend(items);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, names);
    }

    #[test]
    fn only_a_cursor_of_the_same_list_is_taken() {
        let own = encode("names", "b");
        assert!(Page::new("names", None, Some(&own)).is_ok());
        for (list, cursor) in
            [("others", own.as_str()), ("names", "abc"), ("names", "b"), ("names", ""), ("names", "ü")]
        {
            assert!(Page::new(list, None, Some(cursor)).is_err(), "{list} {cursor}");
        }
        for limit in [0, LIMIT_MAX + 1] {
            assert!(Page::new("names", Some(limit), None).is_err(), "{limit}");
        }
    }
}
