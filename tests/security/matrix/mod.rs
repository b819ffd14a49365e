//! Every operation of every door x every kind of caller: who shows nothing, a wrong token, a token of somebody who may
//! do all but that, of somebody who may do that alone, and a token that was revoked.

/// One operation with its outcome.
mod doors;
/// What a credential of one node is at the others.
mod nodes;
/// Every operation of `/openapi.json`.
mod rest;

use std::fmt;

use serde_json::Value;

use super::secured::{Operator, Secured, forged, rest as rest_of};

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Unauthenticated,
    Forbidden,
    /// The caller was let through, whatever the operation then said.
    Done,
    Odd(String),
}

impl Outcome {
    fn of_status(status: u16, text: impl FnOnce() -> String) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            100..500 => Self::Done,
            _ => Self::Odd(format!("{status} {}", text())),
        }
    }

    fn of_code(code: &Value) -> Self {
        match code.as_str() {
            None => Self::Done,
            Some("unauthenticated") => Self::Unauthenticated,
            Some("forbidden") => Self::Forbidden,
            Some(code) => Self::Odd(code.to_owned()),
        }
    }
}

/// What an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Credential,
    /// The right in question, and others that come before it.
    Right(&'static str),
}

/// Who has an operation done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Nobody,
    Wrong,
    Without,
    With,
    Revoked,
}

impl Caller {
    const ALL: [Self; 5] = [Self::Nobody, Self::Wrong, Self::Without, Self::With, Self::Revoked];

    fn expected(self, need: Need) -> Outcome {
        match (need, self) {
            (Need::Nothing, _) | (_, Self::With) | (Need::Credential, Self::Without) => Outcome::Done,
            (Need::Right(_), Self::Without) => Outcome::Forbidden,
            (_, Self::Nobody | Self::Wrong | Self::Revoked) => Outcome::Unauthenticated,
        }
    }
}

const VERBS: [&str; 13] = [
    "publish",
    "subscribe",
    "offer",
    "call",
    "command",
    "config:read",
    "config:write",
    "process",
    "pipeline",
    "admin:read",
    "admin:write",
    "admin:security",
    "admin:cluster",
];

/// The tokens of callers.
struct Callers {
    forged: String,
    revoked: String,
    next: std::cell::Cell<usize>,
}

impl Callers {
    fn new(root: &Operator) -> Self {
        let every: Vec<String> = VERBS.iter().map(|verb| format!("{verb} >")).collect();
        let every: Vec<&str> = every.iter().map(String::as_str).collect();
        let (revoked, id) = root.principal("user:revoked", &every);
        root.revoke(&id);
        Self { forged: forged(), revoked, next: std::cell::Cell::new(0) }
    }

    /// Principals of their own for one operation: one with all verbs but its own, and one with its right alone.
    fn of(&self, root: &Operator, need: Need) -> [String; 2] {
        let number = self.next.replace(self.next.get() + 1);
        let rights = if let Need::Right(rights) = need { rights } else { "call nothing:nothing" };
        let verb = if matches!(need, Need::Right(_)) { rights.split(' ').next().unwrap_or_default() } else { "" };
        let others: Vec<String> = VERBS.iter().filter(|of| **of != verb).map(|verb| format!("{verb} >")).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let make = |name: &str, rights: &[&str]| root.principal(&format!("service:{name}{number}"), rights).0;
        [make("without", &others), make("with", &rights.split("; ").collect::<Vec<_>>())]
    }
}

/// Has an operation done with a token, or without one.
type Run<'a> = Box<dyn Fn(Option<&str>) -> Outcome + 'a>;

/// An operation that is tried by all callers.
struct Cell<'a> {
    name: String,
    need: Need,
    run: Run<'a>,
}

impl fmt::Debug for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.name, self.need)
    }
}

/// Has every operation done by every caller, and says which cells differ.
fn differing(root: &Operator, cells: &[Cell<'_>]) -> Vec<String> {
    let (callers, mut differing) = (Callers::new(root), Vec::new());
    for cell in cells {
        let [without, with] = callers.of(root, cell.need);
        for caller in Caller::ALL {
            let token = match caller {
                Caller::Nobody => None,
                Caller::Wrong => Some(callers.forged.as_str()),
                Caller::Without => Some(without.as_str()),
                Caller::With => Some(with.as_str()),
                Caller::Revoked => Some(callers.revoked.as_str()),
            };
            let (outcome, expected) = ((cell.run)(token), caller.expected(cell.need));
            if outcome != expected {
                differing.push(format!("{cell:?} x {caller:?}: {outcome:?}, expected {expected:?}"));
            }
        }
    }
    differing
}

#[test]
fn every_operation_of_every_door_asks_for_exactly_its_right() {
    let secured = Secured::start();
    let world = doors::World::new(&secured);
    let mut cells = doors::cells(&world);
    let doors = cells.len();
    cells.extend(rest::cells(&secured));
    eprintln!("matrix: {doors} operations of doors, {} of REST, 5 callers each", cells.len() - doors);
    crate::harness::report("auth matrix", &differing(&secured.root, &cells));
}

#[test]
fn an_encoded_part_of_a_path_is_checked_as_what_it_stands_for() {
    let secured = Secured::start();
    secured.root.allow("user:a+b", &[]);
    let rights = ["admin:security >", "deny admin:security security/principals/user:a+b"];
    let (token, _) = secured.root.principal("user:most", &rights);
    for name in ["user:a+b", "user:a%2Bb", "user:a%2bb", "user%3Aa%2Bb", "%75ser:a%2Bb"] {
        let path = format!("/api/security/principals/{name}");
        let answer = rest_of(secured.web, Some(&token), ("DELETE", &path, ""));
        assert_eq!(answer.status, 403, "{name}: {}", answer.text());
    }
    assert_eq!(rest_of(secured.web, Some(&token), ("PUT", "/api/security/principals/user:c+d", "{}")).status, 200);
}
