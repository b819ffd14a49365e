//! Publishes events as JSON, one at a time or in arrays. An array that is too large for the node is split.

use reqwest::{Method, Response};

use super::http::{CallError, Client};

/// Most events of one array.
pub(in crate::app::cli) const BATCH_EVENTS: usize = 1000;
/// Most bytes of one array, well below the usual limit of a node.
pub(in crate::app::cli) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The query of a publish.
pub(in crate::app::cli) type Query = &'static [(&'static str, &'static str)];
/// New events. A used key is refused.
pub(in crate::app::cli) const NEW: Query = &[];
/// Copies of events. A used key is allowed.
pub(in crate::app::cli) const COPIES: Query = &[("restore", "true")];

/// Publishes one event.
pub(in crate::app::cli) async fn one(client: &Client, query: Query, json: &str) -> Result<Response, CallError> {
    client.send(Method::POST, client.url(&[], query), Some(json.as_bytes().to_vec())).await
}

/// Publishes the events as one array: the node stores all of them or none.
pub(in crate::app::cli) async fn array(
    client: &Client,
    query: Query,
    items: &[impl AsRef<str>],
) -> Result<(), CallError> {
    let bytes: usize = items.iter().map(|item| item.as_ref().len().saturating_add(1)).sum();
    let mut body = Vec::with_capacity(bytes.saturating_add(1));
    for (at, item) in items.iter().enumerate() {
        body.push(if at == 0 { b'[' } else { b',' });
        body.extend_from_slice(item.as_ref().as_bytes());
    }
    body.push(b']');
    client.send(Method::POST, client.url(&[], query), Some(body)).await?;
    Ok(())
}

/// Publishes the events in order, in as few arrays as the node accepts. A failure comes with the number of stored
/// events.
pub(in crate::app::cli) async fn arrays(
    client: &Client,
    query: Query,
    items: &[impl AsRef<str>],
) -> Result<(), (usize, CallError)> {
    let mut waiting = vec![items];
    let mut stored: usize = 0;
    while let Some(items) = waiting.pop() {
        match array(client, query, items).await {
            Ok(()) => stored = stored.saturating_add(items.len()),
            Err(error) if error.status() == Some(413) && items.len() > 1 => {
                let (first, second) = items.split_at_checked(items.len() / 2).unwrap_or((items, &[]));
                waiting.extend([second, first]);
            }
            Err(error) => return Err((stored, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn a_batch_too_large_is_halved_and_stays_in_order() {
        let too_large = || answer("413 Payload Too Large", "", "request body too large\n");
        let stored = || answer("202 Accepted", "", "");
        let fake = Fake::start(vec![too_large(), stored(), too_large(), stored(), too_large()]).await;
        let client = Client::log(&fake.global()).unwrap();
        let (count, error) = arrays(&client, NEW, &["1", "2", "3", "4"]).await.unwrap_err();
        assert_eq!(fake.bodies(), ["[1,2,3,4]", "[1,2]", "[3,4]", "[3]", "[4]"]);
        assert_eq!(count, 3);
        assert!(error.to_string().contains("raise sse.body_bytes_max"), "{error}");
    }
}
