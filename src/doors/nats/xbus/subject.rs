//! The subjects by which clients of Xbus call the server.

use rollbook_core::xbus::id::Id;

use super::proto::ids::of_token;
use super::proto::nrpc::JSON_TOKEN;

/// How all subjects of Xbus begin, those of the JSON profile for deliveries left out.
pub const PREFIX: &str = "xbus.default.";

/// How the subjects of deliveries in JSON begin.
const LETTERS: &str = "xbus.msgbox.";

/// A call, with the dialect of its payload and of its replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The call.
    pub call: Call,
    /// Whether payloads are JSON, in the dialect of the specification page, and not protobuf.
    pub json: bool,
}

/// What a client asks of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Registers an account, or asks what became of it.
    Register,
    /// An account registers another key or other actors.
    Update {
        /// The account.
        account: Id,
    },
    /// Asks for the account of a name or an API key.
    WhoAmI {
        /// The name or the key.
        identifier: String,
    },
    /// Asks for the actors of an account.
    GetActors {
        /// The account.
        account: Id,
    },
    /// An actor sends a fragment of an envelope.
    Output {
        /// The actor.
        actor: Id,
    },
    /// An actor ends a job that it had detached.
    ProcessingEnd {
        /// The actor.
        actor: Id,
    },
    /// An actor logs something.
    Log {
        /// The actor.
        actor: Id,
    },
    /// An actor asks for an envelope.
    Retrieve {
        /// The actor.
        actor: Id,
    },
    /// An actor takes jobs from now on.
    ActorReady {
        /// The actor.
        actor: Id,
    },
    /// An actor takes no more jobs.
    ActorLeaving {
        /// The actor.
        actor: Id,
    },
    /// A control tool asks for all actors.
    ListActors,
    /// A control tool calls a method of a service, which may not exist.
    Control {
        /// The service: `account`, `actor`, `pipeline`, `process`, `pm`, `envelope` or `logs`.
        service: String,
        /// The method, in lower case.
        method: String,
    },
}

/// The call that a subject means, if this is one.
#[must_use]
pub fn parse(subject: &str) -> Option<Called> {
    let rest = subject.strip_prefix(PREFIX)?;
    // A last token may be a name: that of an account may be `json`.
    if let Some(call) = call(rest) {
        return Some(Called { call, json: false });
    }
    let rest = rest.strip_suffix(JSON_TOKEN)?.strip_suffix('.')?;
    Some(Called { call: call(rest)?, json: true })
}

fn call(rest: &str) -> Option<Call> {
    let mut tokens = rest.split('.');
    let mut next = || tokens.next();
    let call = match (next()?, next(), next(), next(), next()) {
        ("registration", Some("register"), None, ..) => Call::Register,
        ("registration", Some("update"), Some(account), None, _) => Call::Update { account: of_token(account)? },
        ("client", Some("whoami"), Some(identifier), None, _) => Call::WhoAmI { identifier: identifier.to_owned() },
        ("client", Some(account), Some("getactors"), None, _) => Call::GetActors { account: of_token(account)? },
        ("broker", Some(actor), Some("output"), None, _) => Call::Output { actor: of_token(actor)? },
        ("director", Some("processingend"), Some(actor), None, _) => Call::ProcessingEnd { actor: of_token(actor)? },
        ("director", Some("log"), Some(actor), None, _) => Call::Log { actor: of_token(actor)? },
        ("envelopestorage", Some("retrieve"), Some("actor"), Some(actor), None) => {
            Call::Retrieve { actor: of_token(actor)? }
        }
        ("sentinel", Some("actorready"), Some(actor), None, _) => Call::ActorReady { actor: of_token(actor)? },
        ("sentinel", Some("actorleaving"), Some(actor), None, _) => Call::ActorLeaving { actor: of_token(actor)? },
        ("sentinel", Some("listactors"), None, ..) => Call::ListActors,
        ("control", Some(service), Some(method), None, _) => {
            Call::Control { service: service.to_owned(), method: method.to_owned() }
        }
        _ => return None,
    };
    Some(call)
}

/// The actor whose jobs come by a subscription, and whether they come by letters, in JSON; `None` for other filters.
#[must_use]
pub fn deliveries(filter: &str) -> Option<(Id, bool)> {
    if let Some(rest) = filter.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix("actoragent.")) {
        let (actor, rest) = rest.split_once('.')?;
        return matches!(rest, "process" | "*" | ">").then_some((of_token(actor)?, false));
    }
    let (actor, rest) = filter.strip_prefix(LETTERS)?.split_once('.')?;
    let input = rest.strip_prefix("input.").is_some_and(|input| !input.contains('.'));
    (input || rest == ">").then_some((of_token(actor)?, true))
}

/// The subject on which a client hears who it is, whose call named no other one.
#[must_use]
pub fn whoami_reply(identifier: &str) -> String {
    format!("{PREFIX}client.whoami.{identifier}.reply")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "53131466-4e2e-11e7-916e-af2b1e6d242d";

    fn id() -> Id {
        ID.parse().unwrap()
    }

    #[test]
    fn each_call_has_a_subject_and_the_same_for_json() {
        let control =
            |service: &str, method: &str| Call::Control { service: service.to_owned(), method: method.to_owned() };
        for (subject, wanted) in [
            ("registration.register".to_owned(), Call::Register),
            (format!("registration.update.{ID}"), Call::Update { account: id() }),
            ("client.whoami.shop".to_owned(), Call::WhoAmI { identifier: "shop".to_owned() }),
            (format!("client.{ID}.getactors"), Call::GetActors { account: id() }),
            (format!("broker.{ID}.output"), Call::Output { actor: id() }),
            (format!("director.processingend.{ID}"), Call::ProcessingEnd { actor: id() }),
            (format!("director.log.{ID}"), Call::Log { actor: id() }),
            (format!("envelopestorage.retrieve.actor.{ID}"), Call::Retrieve { actor: id() }),
            (format!("sentinel.actorready.{ID}"), Call::ActorReady { actor: id() }),
            (format!("sentinel.actorleaving.{ID}"), Call::ActorLeaving { actor: id() }),
            ("sentinel.listactors".to_owned(), Call::ListActors),
            ("control.account.list".to_owned(), control("account", "list")),
        ] {
            let subject = format!("{PREFIX}{subject}");
            assert_eq!(parse(&subject), Some(Called { call: wanted.clone(), json: false }), "{subject}");
            let json = format!("{subject}.json");
            assert_eq!(parse(&json), Some(Called { call: wanted, json: true }), "{json}");
        }
    }

    #[test]
    fn an_account_may_be_named_json() {
        let whoami = Call::WhoAmI { identifier: "json".to_owned() };
        assert_eq!(parse("xbus.default.client.whoami.json"), Some(Called { call: whoami.clone(), json: false }));
        assert_eq!(parse("xbus.default.client.whoami.json.json"), Some(Called { call: whoami, json: true }));
    }

    #[test]
    fn what_clients_only_hear_is_no_call() {
        for subject in [
            "xbus.default",
            "xbus.default.",
            "xbus.default.client.whoami",
            "xbus.default.client.whoami.shop.reply",
            "xbus.default.broker.shop.output",
            "xbus.default.core.events.actor",
            "xbus.default.sentinel.survey",
            "xbus.default.control.account",
            "xbus.default.registration.register.json.json",
            "xbus.other.registration.register",
            "xbus.msgbox.53131466-4e2e-11e7-916e-af2b1e6d242d.input.default",
            "xbus.default.actoragent.53131466-4e2e-11e7-916e-af2b1e6d242d.process",
            "xbus.default.processstate.53131466-4e2e-11e7-916e-af2b1e6d242d.envelope.x",
            "xbus.default.envelopestorage.retrieve.user.53131466-4e2e-11e7-916e-af2b1e6d242d",
        ] {
            assert_eq!(parse(subject), None, "{subject}");
        }
        assert!(parse(&whoami_reply("shop")).is_none());
    }
}
