//! Lists: one page of them, and where the next begins.

use actix_web::HttpResponse;
use serde::Serialize;

use super::problem::Problem;
use utoipa::ToSchema;

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

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List<T> {
    items: Vec<T>,
    /// Where the next page begins; `null` when this is the last one.
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A list that is always whole.
    pub(super) const fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }
}

/// A page that was cut before.
pub(super) fn list<T: Serialize>(items: Vec<T>, next_cursor: Option<String>) -> HttpResponse {
    HttpResponse::Ok().json(List { items, next_cursor })
}

/// A list that is always whole.
pub(super) fn whole<T: Serialize>(items: Vec<T>) -> HttpResponse {
    HttpResponse::Ok().json(List::whole(items))
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

    /// The page of a list that is sorted by `key`, and where the next begins.
    pub(super) fn cut<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let behind = |item: &T| self.after.as_ref().is_none_or(|after| key(item) > *after);
        let mut items: Vec<T> = items.into_iter().filter(behind).take(self.limit.saturating_add(1)).collect();
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next_cursor = items.last().filter(|_| more).map(key);
        (items, next_cursor)
    }

    /// That page as an answer.
    pub(super) fn of<T: Serialize>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> HttpResponse {
        let (items, next_cursor) = self.cut(items, key);
        list(items, next_cursor)
    }
}
