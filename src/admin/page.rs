//! Lists: one page of them, and where the next begins.

use actix_web::HttpResponse;
use serde::Serialize;

use super::problem::Problem;

/// Items of a page that does not say.
const LIMIT: usize = 100;
/// Most items of a page.
const LIMIT_MAX: usize = 1000;

/// Which page of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    limit: usize,
    after: Option<String>,
}

#[derive(Debug, Serialize)]
struct List<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

/// A list that is always whole.
pub(super) fn whole<T: Serialize>(items: Vec<T>) -> HttpResponse {
    HttpResponse::Ok().json(List { items, next_cursor: None })
}

impl Page {
    /// From the query: `cursor` is what the page before ended with.
    pub(super) fn new(limit: Option<usize>, cursor: Option<String>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::new(400, "bad_request", format!("limit: 1 to {LIMIT_MAX}")));
        }
        Ok(Self { limit, after: cursor })
    }

    /// Most items of it.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// The page of a list that is sorted by `key`.
    pub(super) fn of<T: Serialize>(&self, items: impl Iterator<Item = T>, key: impl Fn(&T) -> &str) -> HttpResponse {
        let behind = |item: &T| self.after.as_deref().is_none_or(|after| key(item) > after);
        let mut items: Vec<T> = items.filter(behind).take(self.limit.saturating_add(1)).collect();
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next_cursor = items.last().filter(|_| more).map(|last| key(last).to_owned());
        HttpResponse::Ok().json(List { items, next_cursor })
    }
}
