//! Tickets of the authority: given by one node, used up at any.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::authority::{Admitted, Authority, unauthenticated};
use super::credentials::secret::Secret;
use super::credentials::ticket::{TicketError, node_of};
use super::identity::{Identity, Shown};
use super::origin::Origin;
use super::ticket_peers::TicketPeers;
use crate::base::clock;
use crate::bus::error::Fault;

/// Who has a ticket, as one node tells another.
#[derive(Clone, PartialEq, Eq, Message)]
struct TicketHolder {
    /// The principal as text.
    #[prost(string, tag = "1")]
    principal: String,
    /// Roles that its JWT claims.
    #[prost(string, repeated, tag = "2")]
    claimed: Vec<String>,
    /// When the credential ends to count, milliseconds since 1970; 0: never.
    #[prost(uint64, tag = "3")]
    expires: u64,
    /// Which credential the holder had shown: see [`shown_of`].
    #[prost(string, repeated, tag = "4")]
    shown: Vec<String>,
}

/// A credential as texts: its form, and what it is known by.
fn shown_texts(shown: &Shown) -> Vec<String> {
    let texts: &[&str] = match shown {
        Shown::Nothing => &[],
        Shown::Token(id) => &["token", id],
        Shown::Password(id) => &["password", id],
        Shown::Nkey(id) => &["nkey", id],
        Shown::Certificate(print, None) => &["certificate", print],
        Shown::Certificate(print, Some(id)) => &["certificate", print, id],
        Shown::Jwt(issuer, id) => &["jwt", issuer, id],
    };
    texts.iter().map(ToString::to_string).collect()
}

/// Reads [`shown_texts`] back.
fn shown_of(texts: Vec<String>) -> Option<Shown> {
    let mut texts = texts.into_iter();
    let (Some(form), first, second) = (texts.next(), texts.next(), texts.next()) else { return Some(Shown::Nothing) };
    match (form.as_str(), first, second) {
        ("token", Some(id), None) => Some(Shown::Token(id)),
        ("password", Some(id), None) => Some(Shown::Password(id)),
        ("nkey", Some(id), None) => Some(Shown::Nkey(id)),
        ("certificate", Some(print), id) => Some(Shown::Certificate(print, id)),
        ("jwt", Some(issuer), Some(id)) => Some(Shown::Jwt(issuer, id)),
        _ => None,
    }
}

impl Authority {
    /// Sets how other nodes are asked for their tickets. Only the first call counts.
    pub fn set_ticket_peers(&self, peers: Arc<dyn TicketPeers>) {
        if self.inner.ticket_peers.set(peers).is_err() {
            tracing::error!("the authority asks other nodes for tickets already");
        }
    }

    /// A ticket for a client that cannot show a credential itself: one use within half a minute, at any node.
    ///
    /// # Errors
    /// Too many tickets wait for their use, or there is no randomness.
    pub fn issue_ticket(&self, identity: &Identity) -> Result<Secret, Fault> {
        let (grant, shown) = (Arc::clone(identity.grant()), identity.shown().clone());
        let holder = Admitted { grant, shown, expires: identity.expires() };
        let issued = self.inner.tickets.issue(self.inner.node.id(), holder, clock::now());
        issued.map_err(|error| match error {
            TicketError::Full => Fault::overloaded(error.to_string()),
            TicketError::Random(error) => Fault::internal(error.to_string()),
        })
    }

    /// Who presents a ticket of this node or of another.
    ///
    /// # Errors
    /// [`FaultKind::Unauthenticated`](crate::base::fault::FaultKind::Unauthenticated), or
    /// [`FaultKind::Unavailable`](crate::base::fault::FaultKind::Unavailable) when the other node does not answer.
    pub async fn redeem_ticket(&self, ticket: &str, origin: Origin) -> Result<Arc<Identity>, Fault> {
        let holder = match node_of(ticket) {
            Some(node) if node != self.inner.node.id() => self.redeem_elsewhere(node, ticket).await,
            _ => self.inner.tickets.redeem(ticket, clock::now()).ok_or_else(used),
        };
        let holder = holder.inspect_err(|fault| self.note_failure(&origin, fault))?;
        if holder.shown == Shown::Nothing {
            return self.anonymous(origin);
        }
        let identity = self.identity(holder, origin);
        match self.lost(&identity) {
            Some(why) => Err(unauthenticated(why)),
            None => Ok(identity),
        }
    }

    async fn redeem_elsewhere(&self, node: u64, ticket: &str) -> Result<Admitted, Fault> {
        self.caught_up()?;
        // A number that no node has costs nobody a message.
        let known = self.inner.node.state().others_up().contains(&node);
        let peers = self.inner.ticket_peers.get().filter(|_| known).ok_or_else(used)?;
        let answer = peers.redeem(node, ticket.to_owned()).await;
        let answer = answer.ok_or_else(|| {
            Fault::unavailable(format!("node {node}, which gave the ticket, does not answer; ask for another ticket"))
        })?;
        if answer.is_empty() {
            return Err(used());
        }
        let strange = || Fault::internal("the holder of a ticket cannot be read");
        let TicketHolder { principal, claimed, expires, shown } =
            TicketHolder::decode(answer).map_err(|_| strange())?;
        let principal = principal.parse().map_err(|_| strange())?;
        let shown = shown_of(shown).ok_or_else(strange)?;
        Ok(Admitted { grant: self.grant(principal, claimed), shown, expires })
    }

    /// Who has a ticket of this node, which another node asks. No bytes: nobody.
    #[must_use]
    pub fn redeem_for_peer(&self, ticket: &[u8]) -> Bytes {
        let holder = std::str::from_utf8(ticket).ok().and_then(|text| self.inner.tickets.redeem(text, clock::now()));
        let Some(Admitted { grant, shown, expires }) = holder else { return Bytes::new() };
        let (principal, claimed) = (grant.name().to_owned(), grant.claimed().to_vec());
        TicketHolder { principal, claimed, expires, shown: shown_texts(&shown) }.encode_to_vec().into()
    }
}

fn used() -> Fault {
    unauthenticated("the ticket was used or is older than 30 s; ask for another one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has_shown_reads_back_at_another_node() {
        let text = || "x:y".to_owned();
        for shown in [
            Shown::Nothing,
            Shown::Token(text()),
            Shown::Password(text()),
            Shown::Nkey(text()),
            Shown::Certificate(text(), None),
            Shown::Certificate(text(), Some(text())),
            Shown::Jwt(text(), String::new()),
        ] {
            assert_eq!(shown_of(shown_texts(&shown)), Some(shown));
        }
        for strange in [&["token"][..], &["jwt", "a"], &["key", "a"], &["token", "a", "b"]] {
            assert_eq!(shown_of(strange.iter().map(ToString::to_string).collect()), None, "{strange:?}");
        }
    }
}
