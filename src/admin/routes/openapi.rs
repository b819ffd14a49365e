//! `/openapi.json`, generated from the handlers, and `/docs`, a page to read and try it that needs no network.

use std::sync::LazyLock;

use actix_web::http::header::{ContentType, LOCATION};
use actix_web::{HttpResponse, web};
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use super::reference;
use super::{cluster, commands, config, connections, consumers, namespaces, services};
use crate::admin::problem::resource;

/// Where the description is.
const PATH: &str = "/openapi.json";
/// The page that shows the description, and its files.
const PAGES: &str = "/docs/{_:.*}";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rollbook",
        description = "Administration of a rollbook cluster: any node answers for all of it. Errors are problem+json (RFC 9457) with a stable `code`.",
    ),
    paths(
        services::list,
        services::show,
        services::change,
        services::remove,
        services::instances,
        services::drain,
        services::undrain,
        services::history,
        commands::restart,
        commands::shutdown,
        commands::ping,
        commands::restart_all,
        commands::call,
        connections::list,
        connections::show,
        connections::kick,
        connections::stats,
        config::show,
        config::replace,
        config::change,
        config::history,
        config::diff,
        config::roll_back,
        namespaces::namespaces,
        namespaces::namespace,
        namespaces::create_namespace,
        namespaces::retain_namespace,
        namespaces::delete_namespace,
        consumers::list,
        consumers::show,
        consumers::delete,
        consumers::reset,
        consumers::pause,
        consumers::resume,
        cluster::cluster,
        cluster::join,
        cluster::promote,
        cluster::remove,
        cluster::transfer,
    )
)]
struct Description;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource(PATH, "GET").route(web::get().to(describe)))
        .service(resource("/docs/service.html", "GET").route(web::get().to(service_page)))
        .service(SwaggerUi::new(PAGES).config(utoipa_swagger_ui::Config::from(PATH)))
        // What the page itself does not answer: methods other than GET.
        .service(resource(PAGES, "GET"))
        .service(resource("/docs", "GET").route(web::get().to(slash)));
}

/// The files of the page are named relative to its address, which ends with a slash.
async fn slash() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// A page that is a service of the bus while it is open.
async fn service_page() -> HttpResponse {
    let policy =
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self' ws: wss:";
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header(("Content-Security-Policy", policy))
        .body(include_str!("../pages/service.html"))
}

/// The description as it is sent: what the handlers say, and what [`reference`] adds.
static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let described = serde_json::to_value(Description::openapi()).unwrap_or_default();
    reference::complete(described).to_string()
});

async fn describe() -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::json()).body(DESCRIPTION.as_str())
}

/// The description, for tests of what it says.
#[cfg(test)]
pub(in crate::admin) fn description() -> serde_json::Value {
    serde_json::from_str(&DESCRIPTION).unwrap()
}
