//! Every operation of REST, as `/openapi.json` lists them: a path that is added without a row here fails.

use super::{Cell, Need, Outcome};
use crate::security::secured::{Secured, rest};

/// Operations with what they need: method and path of the description | path that is called, if that is another one |
/// right, or nothing for any credential | body. They are about things that are not there, so that a caller who is let
/// through does no harm.
const OPERATIONS: &str = r#"
get /api/audit |  | admin:read audit |
post /api/call/{service}/{method} | /api/call/none/do | call none:do | {}
get /api/cluster |  | admin:read cluster |
post /api/cluster/nodes |  | admin:cluster nodes | {}
delete /api/cluster/nodes/{id} | /api/cluster/nodes/99 | admin:cluster nodes/99 |
post /api/cluster/nodes/{id}/promote | /api/cluster/nodes/99/promote | admin:cluster nodes/99 |
post /api/cluster/transfer |  | admin:cluster transfer | []
get /api/config |  | config:read public |
post /api/config |  | config:write config | []
patch /api/config |  | config:write config | []
get /api/config/diff |  | config:read public |
get /api/config/history |  | config:read public |
post /api/config/rollback |  | config:write config | {}
get /api/connections |  | admin:read connections |
get /api/connections/{id} | /api/connections/none | admin:read connections/none |
delete /api/connections/{id} | /api/connections/none | admin:write connections/none |
get /api/consumers |  | admin:read consumers |
get /api/consumers/{namespace}/{name} | /api/consumers/o/none | admin:read consumers/o/none |
delete /api/consumers/{namespace}/{name} | /api/consumers/o/none | admin:write consumers/o/none |
post /api/consumers/{namespace}/{name}/reset | /api/consumers/o/none/reset | admin:write consumers/o/none | {}
post /api/consumers/{namespace}/{name}/pause | /api/consumers/o/none/pause | admin:write consumers/o/none |
post /api/consumers/{namespace}/{name}/resume | /api/consumers/o/none/resume | admin:write consumers/o/none |
get /api/dead-letters |  | subscribe _dead_.> |
get /api/dead-letters/{id} | /api/dead-letters/none | subscribe _dead_.> |
post /api/dead-letters/{id}/retry | /api/dead-letters/none/retry | subscribe _dead_.> | {}
post /api/dead-letters/{id}/discard | /api/dead-letters/none/discard | admin:write dead-letters |
get /api/dead-letter-jobs |  | admin:read dead-letters |
post /api/dead-letter-jobs |  | admin:write dead-letters | {}
get /api/dead-letter-jobs/{id} | /api/dead-letter-jobs/53131466-4e2e-11e7-916e-af2b1e6d242d | admin:read dead-letters |
delete /api/dead-letter-jobs/{id} | /api/dead-letter-jobs/53131466-4e2e-11e7-916e-af2b1e6d242d | admin:write dead-letters |
get /api/delayed |  | admin:read delayed |
delete /api/delayed/{id} | /api/delayed/d_1_1_1 |  |
get /api/definitions |  |  |
get /api/definitions/{id} | /api/definitions/none | process all/none |
put /api/definitions/{id} | /api/definitions/none | process all/none | {}
patch /api/definitions/{id} | /api/definitions/none | process all/none | {}
delete /api/definitions/{id} | /api/definitions/none | process all/none |
post /api/definitions/{id}/builds | /api/definitions/none/builds | process all/none |
post /api/definitions/{id}/start | /api/definitions/none/start | process all/none |
post /api/definitions/{id}/stop | /api/definitions/none/stop | process all/none |
post /api/definitions/{id}/restart | /api/definitions/none/restart | process all/none |
post /api/definitions/{id}/sync | /api/definitions/none/sync | process all/none |
get /api/definitions/{id}/logs | /api/definitions/nobody/logs | process all/nobody |
get /api/docks |  | admin:read docks |
get /api/processes |  |  |
get /api/schedules |  | admin:read schedules |
get /api/schedules/{name} | /api/schedules/none | admin:read schedules/none |
put /api/schedules/{name} | /api/schedules/none | admin:write schedules/none | {}
patch /api/schedules/{name} | /api/schedules/none | admin:write schedules/none | {}
delete /api/schedules/{name} | /api/schedules/none | admin:write schedules/none |
post /api/schedules/{name}/run | /api/schedules/none/run | admin:write schedules/none |
get /api/namespaces |  | admin:read namespaces |
post /api/namespaces |  | admin:write namespaces/made | {"name":"made"}
get /api/namespaces/{name} | /api/namespaces/none | admin:read namespaces/none |
patch /api/namespaces/{name} | /api/namespaces/none | admin:write namespaces/none | {}
get /api/namespaces/{namespace}/events | /api/namespaces/none/events | subscribe none.> |
get /api/namespaces/{namespace}/events/{event} | /api/namespaces/none/events/1 | subscribe none.> |
delete /api/namespaces/{name} | /api/namespaces/none | admin:write namespaces/none |
get /api/security/explain | /api/security/explain?verb=publish&target=a.b |  |
get /api/security/who | /api/security/who?verb=publish&target=a.b | admin:read security/principals |
get /api/security/self |  |  |
post /api/security/tickets |  |  |
get /api/security/issuers |  | admin:read security/issuers |
get /api/security/issuers/{name} | /api/security/issuers/none | admin:read security/issuers/none |
put /api/security/issuers/{name} | /api/security/issuers/none | admin:security security/issuers/none | {}
delete /api/security/issuers/{name} | /api/security/issuers/none | admin:security security/issuers/none |
get /api/security/principals |  | admin:read security/principals |
get /api/security/principals/{principal} | /api/security/principals/user:x | admin:read security/principals/user:x |
put /api/security/principals/{principal} | /api/security/principals/user:x | admin:security security/principals/user:x | []
delete /api/security/principals/{principal} | /api/security/principals/user:x | admin:security security/principals/user:x |
get /api/security/principals/{principal}/credentials | /api/security/principals/user:x/credentials | admin:read security/principals/user:x |
post /api/security/principals/{principal}/tokens | /api/security/principals/user:x/tokens | admin:security security/principals/user:x |
put /api/security/principals/{principal}/password | /api/security/principals/user:x/password | admin:security security/principals/user:x | {}
post /api/security/principals/{principal}/nkeys | /api/security/principals/user:x/nkeys | admin:security security/principals/user:x | {}
post /api/security/principals/{principal}/certificates | /api/security/principals/user:x/certificates | admin:security security/principals/user:x | {}
delete /api/security/credentials/{id} | /api/security/credentials/none | admin:security security/credentials/none |
get /api/security/roles |  | admin:read security/roles |
get /api/security/roles/{name} | /api/security/roles/none | admin:read security/roles/none |
put /api/security/roles/{name} | /api/security/roles/none | admin:security security/roles/none | []
delete /api/security/roles/{name} | /api/security/roles/none | admin:security security/roles/none |
get /api/services |  | admin:read services |
post /api/services/restart-all |  | command * | []
get /api/services/{id} | /api/services/none | admin:read services/none |
put /api/services/{id} | /api/services/none | admin:write services/none | {}
delete /api/services/{id} | /api/services/none | admin:write services/none |
post /api/services/{id}/drain | /api/services/none/drain | command none |
post /api/services/{id}/undrain | /api/services/none/undrain | command none |
get /api/services/{id}/history | /api/services/none/history | admin:read services/none |
get /api/services/{id}/instances | /api/services/none/instances | admin:read services/none |
post /api/services/{id}/ping | /api/services/none/ping | command none | {}
post /api/services/{id}/restart | /api/services/none/restart | command none | {}
post /api/services/{id}/shutdown | /api/services/none/shutdown | command none | {}
get /api/stats |  | admin:read stats |
get /api/xbus/accounts |  | admin:read xbus/accounts |
post /api/xbus/accounts |  | admin:write xbus/accounts | {}
get /api/xbus/accounts/{account} | /api/xbus/accounts/none | admin:read xbus/accounts/none |
delete /api/xbus/accounts/{account} | /api/xbus/accounts/none | admin:write xbus/accounts/none |
post /api/xbus/accounts/{account}/accept | /api/xbus/accounts/none/accept | admin:write xbus/accounts/none |
post /api/xbus/accounts/{account}/reject | /api/xbus/accounts/none/reject | admin:write xbus/accounts/none |
post /api/xbus/accounts/{account}/disable | /api/xbus/accounts/none/disable | admin:write xbus/accounts/none |
post /api/xbus/accounts/{account}/enable | /api/xbus/accounts/none/enable | admin:write xbus/accounts/none |
post /api/xbus/accounts/{account}/reset-certificate | /api/xbus/accounts/none/reset-certificate | admin:write xbus/accounts/none |
post /api/xbus/accounts/{account}/api-key | /api/xbus/accounts/none/api-key | admin:write xbus/accounts/none |
delete /api/xbus/accounts/{account}/api-key | /api/xbus/accounts/none/api-key | admin:write xbus/accounts/none |
get /api/xbus/actors |  | admin:read xbus/actors |
get /api/xbus/actors/{actor} | /api/xbus/actors/none | admin:read xbus/actors/none |
put /api/xbus/actors/{actor} | /api/xbus/actors/none | admin:write xbus/actors/none | {}
delete /api/xbus/actors/{actor} | /api/xbus/actors/none | admin:write xbus/actors/none |
post /api/xbus/actors/{actor}/accept | /api/xbus/actors/none/accept | admin:write xbus/actors/none |
post /api/xbus/actors/{actor}/reject | /api/xbus/actors/none/reject | admin:write xbus/actors/none |
post /api/xbus/actors/{actor}/output | /api/xbus/actors/none/output | admin:write xbus/actors/none/output | {}
post /api/xbus/actors/{actor}/disable | /api/xbus/actors/none/disable | admin:write xbus/actors/none |
get /api/xbus/attention |  | admin:read xbus/processes |
get /api/xbus/envelopes/{id} | /api/xbus/envelopes/53131466-4e2e-11e7-916e-af2b1e6d242d | admin:read xbus/envelopes/53131466-4e2e-11e7-916e-af2b1e6d242d |
post /api/xbus/envelopes/purge |  | admin:write xbus/envelopes | {}
get /api/xbus/logs/{id} | /api/xbus/logs/53131466-4e2e-11e7-916e-af2b1e6d242d | admin:read xbus/logs/53131466-4e2e-11e7-916e-af2b1e6d242d |
post /api/xbus/logs/purge |  | admin:write xbus/logs | {}
get /api/xbus/pipelines |  | admin:read xbus/pipelines |
get /api/xbus/pipelines/{name} | /api/xbus/pipelines/none | admin:read xbus/pipelines/none |
get /api/xbus/pipelines/{name}/{version} | /api/xbus/pipelines/none/1 | admin:read xbus/pipelines/none |
put /api/xbus/pipelines/{name}/{version} | /api/xbus/pipelines/none/1 | pipeline none | [
delete /api/xbus/pipelines/{name}/{version} | /api/xbus/pipelines/none/1 | pipeline none |
post /api/xbus/pipelines/{name}/{version}/status | /api/xbus/pipelines/none/1/status | pipeline none | {}
get /api/xbus/replays |  | admin:read xbus/replays |
post /api/xbus/replays |  | admin:write xbus/replays | {}
get /api/xbus/replays/{id} | /api/xbus/replays/53131466-4e2e-11e7-916e-af2b1e6d242d | admin:read xbus/replays |
delete /api/xbus/replays/{id} | /api/xbus/replays/53131466-4e2e-11e7-916e-af2b1e6d242d | admin:write xbus/replays |
get /api/xbus/schemas |  | admin:read xbus/schemas |
get /api/xbus/schemas/{type} | /api/xbus/schemas/none | admin:read xbus/schemas/none |
put /api/xbus/schemas/{type} | /api/xbus/schemas/none | admin:write xbus/schemas/none | {}
delete /api/xbus/schemas/{type} | /api/xbus/schemas/none | admin:write xbus/schemas/none |
get /api/xbus/processes |  | admin:read xbus/processes |
post /api/xbus/processes/purge |  | admin:write xbus/processes | {}
get /api/xbus/processes/{id} | /api/xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d | admin:read xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d |
post /api/xbus/processes/{id}/pause | /api/xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d/pause | admin:write xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d |
post /api/xbus/processes/{id}/resume | /api/xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d/resume | admin:write xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d |
post /api/xbus/processes/{id}/cancel | /api/xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d/cancel | admin:write xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d |
put /api/xbus/processes/{id}/attention | /api/xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d/attention | admin:write xbus/processes/53131466-4e2e-11e7-916e-af2b1e6d242d | {}
"#;

/// Paths that are not part of the API.
const PAGES: &[(&str, Need)] = &[
    ("/", Need::Nothing),
    ("/livez", Need::Nothing),
    ("/readyz", Need::Nothing),
    ("/openapi.json", Need::Nothing),
    ("/docs/", Need::Nothing),
    ("/metrics", Need::Right("admin:read metrics")),
];

/// A login is for callers with a password, whatever their rights are.
const LOGIN: &str = "post /api/security/login";

/// Whoever follows all processes gets those that may be seen; the answer has no end.
const FOLLOW: &str = "get /api/processes/logs";

/// A row of the table.
struct Row {
    name: &'static str,
    path: &'static str,
    need: Need,
    body: &'static str,
}

fn rows() -> Vec<Row> {
    let row = |line: &'static str| {
        let mut columns = line.split('|').map(str::trim);
        let mut next = || columns.next().unwrap_or_default();
        let (name, path, right, body) = (next(), next(), next(), next());
        let own = name.split(' ').next_back().unwrap_or_default();
        let need = if right.is_empty() { Need::Credential } else { Need::Right(right) };
        Row { name, path: if path.is_empty() { own } else { path }, need, body }
    };
    OPERATIONS.trim().lines().map(row).collect()
}

/// Methods and paths of the description.
fn described(secured: &Secured) -> Vec<String> {
    let description = rest(secured.web, None, ("GET", "/openapi.json", "")).json();
    let paths = description["paths"].as_object().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for (path, methods) in paths {
        let methods = methods.as_object().cloned().unwrap_or_default();
        let known = |name: &&String| ["get", "put", "post", "patch", "delete"].contains(&name.as_str());
        names.extend(methods.keys().filter(known).map(|method| format!("{method} {path}")));
    }
    names.retain(|name| name != LOGIN && name != FOLLOW);
    names
}

/// All operations of REST, and the pages beside it.
pub(super) fn cells(secured: &Secured) -> Vec<Cell<'_>> {
    let (described, rows, mut unknown) = (described(secured), rows(), Vec::new());
    assert!(described.len() > 40, "/openapi.json describes {} operations", described.len());
    for name in &described {
        if !rows.iter().any(|row| row.name == name) && !PAGES.iter().any(|page| name.ends_with(page.0)) {
            unknown.push(format!("{name} has no row in OPERATIONS"));
        }
    }
    for row in rows.iter().filter(|row| !described.iter().any(|name| row.name == name)) {
        unknown.push(format!("{} is not in /openapi.json", row.name));
    }
    crate::harness::report("operations", &unknown);
    let call = |method: String, path: &'static str, body: &'static str| {
        move |token: Option<&str>| {
            let answer = rest(secured.web, token, (&method, path, body));
            // A cluster of one node cannot do all that it lets somebody do.
            match answer.status {
                503 => Outcome::Done,
                status => Outcome::of_status(status, || answer.text()),
            }
        }
    };
    let operation = |row: &Row| {
        let method = row.name.split(' ').next().unwrap_or_default().to_uppercase();
        let (name, need) = (format!("rest {}", row.name), row.need);
        Cell { name, need, run: Box::new(call(method, row.path, row.body)) }
    };
    let page = |one: &(&'static str, Need)| Cell {
        name: format!("page {}", one.0),
        need: one.1,
        run: Box::new(call("GET".to_owned(), one.0, "")),
    };
    rows.iter().map(operation).chain(PAGES.iter().map(page)).collect()
}
