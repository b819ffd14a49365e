//! May somebody do something, and which rule says so; and who may.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_core::security::principal::Principal;
use rollbook_core::security::right::Verb;
use rollbook_core::security::rights::{Decision, Rights};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::common::{look, principal};
use crate::admin::Admin;
use crate::admin::caller::{check, identity};
use crate::admin::common::Answer;
use crate::admin::operation::{Need, get, get_for};
use crate::admin::page::{self, List};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::Query;
use crate::admin::resource::resource;
use crate::bus::security::compile::compile;

/// Most principals that are named.
const NAMED_MAX: usize = 1000;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/security/explain", [get_for(Need::Caller)]).route(web::get().to(explain)))
        .service(resource("/api/security/who", [get("security/principals")]).route(web::get().to(who)));
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ExplainQuery {
    /// The principal; the caller by default.
    principal: Option<String>,
    /// The verb, as in `publish` or `admin:read`.
    verb: Option<String>,
    /// A subject or a pattern of subjects, `capability:action`, or a name, as the verb wants it.
    target: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The answer, and the rule that decides.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Explanation {
    principal: String,
    verb: &'static str,
    target: String,
    allowed: bool,
    /// The right that decides; left out when none says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// The role that has it; empty for a right of the principal's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// The answer as a sentence.
    reason: String,
}

fn verb(text: Option<String>) -> Result<Verb, Problem> {
    let text = text.ok_or_else(|| Problem::bad("verb: missing; publish, subscribe, call and so on"))?;
    text.parse().map_err(|error| Problem::bad(format!("verb: {error}")))
}

fn target(text: Option<String>) -> Result<String, Problem> {
    let text = text.filter(|text| (1..=1024).contains(&text.len()));
    text.ok_or_else(|| Problem::bad("target: missing; a subject, capability:action or a name"))
}

/// Decides as the bus does: a target with wildcards stands for all that it matches.
fn decide<'r>(rights: &'r Rights, verb: Verb, target: &str) -> Decision<'r> {
    if target.contains(['*', '>']) { rights.decide_pattern(verb, target) } else { rights.decide(verb, target) }
}

fn explained(name: &str, verb: Verb, target: String, decision: Decision<'_>) -> Explanation {
    let from = |role: &str| if role.is_empty() { "its own right".to_owned() } else { format!("the role {role}, by") };
    let (rule, reason) = match decision {
        Decision::Allowed(rule) => {
            let right = &rule.right;
            (Some(rule), format!("{name} may {verb} {target}: {} `{right}` allows it", from(&rule.role)))
        }
        Decision::Denied(rule) => {
            let right = &rule.right;
            (Some(rule), format!("{name} may not {verb} {target}: {} `{right}` denies it", from(&rule.role)))
        }
        Decision::NoRule => (None, format!("{name} may not {verb} {target}: no right of it says so")),
    };
    Explanation {
        principal: name.to_owned(),
        verb: verb.as_str(),
        target,
        allowed: decision.is_allowed(),
        rule: rule.map(|rule| rule.right.to_string()),
        role: rule.map(|rule| rule.role.clone()),
        reason,
    }
}

/// Whether a principal may do something, and which rule decides. Everybody may ask about itself.
#[utoipa::path(get, path = "/api/security/explain", operation_id = "security_explain", tag = "security", params(ExplainQuery), responses((status = 200, description = "the answer", body = Explanation), Problems))]
pub(in crate::admin) async fn explain(admin: web::Data<Admin>, Query(query): Query<ExplainQuery>) -> Answer {
    let (own, verb, target) = (identity(), verb(query.verb)?, target(query.target)?);
    let of = match &query.principal {
        Some(text) => principal(text)?,
        None => own.principal().clone(),
    };
    let is_own = of == *own.principal();
    if !is_own {
        check(Verb::AdminRead, "security/principals")?;
    }
    if is_own && own.is_open() {
        let reason = format!("{of} may {verb} {target}: there is no authentication where the caller comes from");
        let (principal, verb) = (of.to_string(), verb.as_str());
        let answer = Explanation { principal, verb, target, allowed: true, rule: None, role: None, reason };
        return Ok(HttpResponse::Ok().json(answer));
    }
    let row = look(&admin, |security| security.principal(&of.to_string()).map(|row| row.disabled));
    let claimed = if is_own { own.grant().claimed().to_vec() } else { Vec::new() };
    let rights = admin.bus.authority().with_rights(|from| compile(from, &of, &claimed)).rights;
    let mut answer = explained(&of.to_string(), verb, target.clone(), decide(&rights, verb, &target));
    match row {
        Some(true) => answer.reason = format!("{of} may not {verb} {target}: the principal is shut out"),
        None if !answer.allowed => answer.reason = format!("{}; there is no principal of that name", answer.reason),
        Some(false) | None => {}
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// A principal that may do it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct WhoView {
    principal: String,
    /// `all` of the target, or a `part` of it.
    allowed: &'static str,
    /// A right that allows it.
    rule: String,
    /// The role that has the right; empty for a right of the principal's own.
    role: String,
}

/// Who may do something, those first who may do all of it. At most 1000 are named.
#[utoipa::path(get, path = "/api/security/who", operation_id = "security_who", tag = "security", params(ExplainQuery), responses((status = 200, description = "the principals", body = List<WhoView>), Problems))]
pub(in crate::admin) async fn who(admin: web::Data<Admin>, Query(query): Query<ExplainQuery>) -> Answer {
    let (verb, target) = (verb(query.verb)?, target(query.target)?);
    let mut found = admin.bus.authority().with_rights(|from| {
        let one = |name: &str| {
            let principal: Principal = name.parse().ok()?;
            let rights = compile(from, &principal, &[]).rights;
            let (allowed, rule) = match decide(&rights, verb, &target) {
                Decision::Allowed(rule) => ("all", rule),
                _ if target.contains(['*', '>']) => ("part", rights.first_overlap(verb, &target)?),
                _ => return None,
            };
            let (rule, role) = (rule.right.to_string(), rule.role.clone());
            Some(WhoView { principal: name.to_owned(), allowed, rule, role })
        };
        from.security.principals().filter_map(|row| one(&row.principal)).take(NAMED_MAX).collect::<Vec<_>>()
    });
    found.sort_by_key(|view| view.allowed);
    Ok(page::whole(found))
}
