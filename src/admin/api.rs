//! `/api/...`: namespaces, durable consumers, the cluster.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use rollbook_core::command::{Command, ConsumerDelete, Done, NamespaceCreate, NamespaceDelete, NamespaceRetain};
use rollbook_core::error::Refusal;
use rollbook_core::namespace::{Head, Retention};
use rollbook_core::subject::Namespace;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Admin, page, problem};
use crate::bus::duration;
use crate::bus::registry::{Forget, Who};
use crate::bus::relay::{ForgetEverywhere, WhoAnywhere};
use problem::Problem;

pub(super) type Answer = Result<HttpResponse, Problem>;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let resource = |path: &str| web::resource(path).default_service(web::to(problem::method_not_allowed));
    services
        .service(resource("/api/namespaces").route(web::get().to(namespaces)).route(web::post().to(create_namespace)))
        .service(
            resource("/api/namespaces/{name}")
                .route(web::get().to(namespace))
                .route(web::patch().to(retain_namespace))
                .route(web::delete().to(delete_namespace)),
        )
        .service(resource("/api/consumers").route(web::get().to(consumers)))
        .service(resource("/api/consumers/{namespace}/{name}").route(web::delete().to(delete_consumer)));
}

/// Retention as clients see it: durations as text, `null` for no bound.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetentionJson {
    max_age: Option<String>,
    max_bytes: Option<u64>,
    max_events: Option<u64>,
}

impl RetentionJson {
    fn from_rules(retention: Retention) -> Self {
        let bound = |value: u64| Some(value).filter(|value| *value != 0);
        Self {
            max_age: bound(retention.age_ms_max).map(|ms| duration::format(Duration::from_millis(ms))),
            max_bytes: bound(retention.bytes_max),
            max_events: bound(retention.events_max),
        }
    }

    fn into_rules(self) -> Result<Retention, Problem> {
        let wrong = |detail: String| Problem::new(400, "bad_request", detail);
        let age_ms_max = match self.max_age {
            None => 0,
            Some(text) => {
                let age = duration::parse(&text).map_err(|error| wrong(format!("max_age: {error}")))?;
                let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                if millis == 0 {
                    return Err(wrong("max_age: must be at least 1ms; null means no bound".to_owned()));
                }
                millis
            }
        };
        if self.max_bytes == Some(0) || self.max_events == Some(0) {
            return Err(wrong("a bound must be at least 1; null means no bound".to_owned()));
        }
        Ok(Retention { age_ms_max, bytes_max: self.max_bytes.unwrap_or(0), events_max: self.max_events.unwrap_or(0) })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateJson {
    name: String,
    #[serde(default)]
    retention: RetentionJson,
}

async fn show(admin: &Admin, head: &Head) -> Result<Value, Problem> {
    let (book, copy) = (admin.bus.node().book(), head.clone());
    let read = move || Ok((book.settled(&copy), book.settled_bytes(&copy)?));
    let (settled, disk_bytes) = admin.bus.read(read).await?;
    Ok(json!({
        "name": head.name,
        "first_index": head.first,
        "next_index": head.next,
        "events": head.events(),
        "bytes": head.bytes(),
        "retention": RetentionJson::from_rules(head.retention),
        "settled_index": settled.saturating_sub(1),
        "disk_bytes": disk_bytes,
    }))
}

fn find(admin: &Admin, name: &str) -> Result<Head, Problem> {
    let missing = || Problem::new(404, "namespace_not_found", format!("namespace not found: {name}"));
    admin.bus.node().namespace(name).ok_or_else(missing)
}

pub(super) async fn propose(admin: &Admin, command: Command) -> Result<Done, Problem> {
    let frame = command.frame().map_err(Problem::from)?;
    admin.bus.proposer().propose(frame.into()).await.map_err(Problem::from)
}

async fn namespaces(admin: web::Data<Admin>) -> Answer {
    let mut items = Vec::new();
    for head in admin.bus.node().namespaces() {
        items.push(show(&admin, &head).await?);
    }
    Ok(page::whole(items))
}

async fn namespace(admin: web::Data<Admin>, name: web::Path<String>) -> Answer {
    let head = find(&admin, &name)?;
    Ok(HttpResponse::Ok().json(show(&admin, &head).await?))
}

async fn create_namespace(admin: web::Data<Admin>, body: web::Json<CreateJson>) -> Answer {
    let CreateJson { name, retention } = body.into_inner();
    if Namespace::parse(&name).is_err() {
        let detail = "a namespace name has 1 to 64 characters of A-Z a-z 0-9 _ -";
        return Err(Problem::new(400, "bad_request", detail));
    }
    if Namespace::is_reserved(&name) {
        return Err(Refusal::NamespaceReserved(name).into());
    }
    let create = NamespaceCreate { name: name.clone(), retention: retention.into_rules()? };
    propose(&admin, Command::NamespaceCreate(create)).await?;
    let head = find(&admin, &name)?;
    Ok(HttpResponse::Created().json(show(&admin, &head).await?))
}

/// Merges the given members into the present retention, as RFC 7396 says.
async fn retain_namespace(admin: web::Data<Admin>, name: web::Path<String>, body: web::Json<Value>) -> Answer {
    let wrong = |detail: String| Problem::new(400, "bad_request", detail);
    let head = find(&admin, &name)?;
    let mut merged =
        serde_json::to_value(RetentionJson::from_rules(head.retention)).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(patch) = body.into_inner() else { return Err(wrong("expected an object".to_owned())) };
    for (key, value) in patch {
        match (key.as_str(), value) {
            ("retention", Value::Null) => merged = json!({}),
            ("retention", Value::Object(members)) => {
                let Value::Object(present) = &mut merged else { continue };
                present.extend(members);
            }
            ("retention", _) => return Err(wrong("retention: expected an object".to_owned())),
            (other, _) => return Err(wrong(format!("unknown field {other}; only retention can be changed"))),
        }
    }
    let retention: RetentionJson =
        serde_json::from_value(merged).map_err(|error| wrong(format!("retention: {error}")))?;
    let retain = NamespaceRetain { name: name.into_inner(), retention: retention.into_rules()? };
    match propose(&admin, Command::NamespaceRetain(retain)).await? {
        Done::Namespace(head) => Ok(HttpResponse::Ok().json(show(&admin, &head).await?)),
        _ => Err(Problem::storage("no answer")),
    }
}

async fn delete_namespace(admin: web::Data<Admin>, name: web::Path<String>) -> Answer {
    let name = name.into_inner();
    propose(&admin, Command::NamespaceDelete(NamespaceDelete { name: name.clone() })).await?;
    forget(&admin, name, None).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends the streams of what was deleted.
async fn forget(admin: &Admin, namespace: String, consumer: Option<String>) {
    if admin.relay.send(ForgetEverywhere(Forget { namespace, consumer })).await.is_err() {
        tracing::debug!("the relay is stopping");
    }
}

#[derive(Debug, Deserialize)]
struct ConsumersQuery {
    namespace: Option<String>,
}

async fn consumers(admin: web::Data<Admin>, query: web::Query<ConsumersQuery>) -> Answer {
    let node = admin.bus.node();
    let heads = match &query.namespace {
        Some(name) => vec![find(&admin, name)?],
        None => node.namespaces(),
    };
    let mut items = Vec::new();
    for head in heads {
        for consumer in node.consumers(&head) {
            let who = Who { namespace: head.name.clone(), consumer: consumer.name.clone() };
            let members = admin.relay.send(WhoAnywhere(who)).await.unwrap_or_default();
            let member = |state: crate::bus::message::MemberState| json!({ "consumer_id": state.consumer_id, "in_flight": state.in_flight.into_iter().collect::<Vec<_>>() });
            items.push(json!({
                "namespace": head.name,
                "name": consumer.name,
                "group": consumer.group,
                "subject": consumer.subject,
                "ack_floor": consumer.ack_floor,
                "lag": head.last().saturating_sub(consumer.ack_floor.max(head.first.saturating_sub(1))),
                "members": members.into_iter().map(member).collect::<Vec<_>>(),
                "paused": false,
            }));
        }
    }
    Ok(page::whole(items))
}

async fn delete_consumer(admin: web::Data<Admin>, path: web::Path<(String, String)>) -> Answer {
    let (namespace, name) = path.into_inner();
    let delete = ConsumerDelete { namespace: namespace.clone(), name: name.clone() };
    propose(&admin, Command::ConsumerDelete(delete)).await?;
    forget(&admin, namespace, Some(name)).await;
    Ok(HttpResponse::NoContent().finish())
}
