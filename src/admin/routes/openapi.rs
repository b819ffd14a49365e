//! `/openapi.json`, generated from the handlers, and `/docs/`, a page to read and try the operations without the
//! internet.

use std::sync::LazyLock;

use actix_web::http::header::{ContentType, LOCATION};
use actix_web::{HttpResponse, web};
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use super::reference;
use super::{
    book, cluster, commands, config, connections, consumers, dead_letters, namespaces, processes, schedules, security,
    services, xbus,
};
use crate::admin::operation::{Need, get_for};
use crate::admin::resource::resource;

/// The path of the description.
const PATH: &str = "/openapi.json";
/// The path of the page and its files.
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
        book::events::list,
        book::events::show,
        schedules::operations::list,
        schedules::operations::show,
        schedules::operations::set,
        schedules::operations::change,
        schedules::operations::delete,
        schedules::operations::run,
        consumers::list,
        consumers::show,
        consumers::delete,
        consumers::reset,
        consumers::pause,
        consumers::resume,
        dead_letters::letters::list,
        dead_letters::letters::show,
        dead_letters::letters::retry_one,
        dead_letters::letters::discard_one,
        dead_letters::jobs::begin,
        dead_letters::jobs::list,
        dead_letters::jobs::show,
        dead_letters::jobs::cancel,
        book::delayed::list,
        book::delayed::cancel,
        cluster::cluster,
        cluster::join,
        cluster::promote,
        cluster::remove,
        cluster::transfer,
        security::own::own,
        security::own::login,
        security::own::ticket,
        security::principals::list,
        security::principals::show,
        security::principals::set,
        security::principals::delete,
        security::credentials::list,
        security::credentials::create_token,
        security::credentials::set_password,
        security::credentials::add_certificate,
        security::credentials::add_nkey,
        security::credentials::revoke,
        security::roles::list,
        security::roles::show,
        security::roles::set,
        security::roles::delete,
        security::issuers::list,
        security::issuers::show,
        security::issuers::set,
        security::issuers::delete,
        security::explain::explain,
        security::explain::who,
        security::audit::list,
        processes::docks::list,
        processes::docks::processes,
        processes::definitions::list,
        processes::definitions::show,
        processes::definitions::add,
        processes::definitions::update,
        processes::definitions::remove,
        processes::control::start,
        processes::control::stop,
        processes::control::restart,
        processes::control::sync,
        processes::logs::one,
        processes::logs::all,
        processes::builds::deploy,
        xbus::accounts::list,
        xbus::accounts::register,
        xbus::accounts::show,
        xbus::account_changes::accept_account,
        xbus::account_changes::reject,
        xbus::account_changes::disable,
        xbus::account_changes::enable,
        xbus::account_changes::reset_certificate,
        xbus::account_changes::make_key,
        xbus::account_changes::remove_key,
        xbus::account_changes::delete,
        xbus::actors::list,
        xbus::actors::show,
        xbus::actors::set,
        xbus::actors::accept,
        xbus::actors::reject,
        xbus::actors::disable,
        xbus::actors::delete,
        xbus::output::output,
        xbus::pipelines::list,
        xbus::pipelines::versions,
        xbus::pipelines::show,
        xbus::pipeline_changes::save,
        xbus::pipeline_changes::set_status,
        xbus::pipeline_changes::delete,
        xbus::processes::list,
        xbus::processes::show,
        xbus::process_changes::pause,
        xbus::process_changes::resume,
        xbus::process_changes::cancel,
        xbus::process_changes::note,
        xbus::process_changes::purge,
        xbus::processes::attentions,
        xbus::replays::begin,
        xbus::replays::list,
        xbus::replays::show,
        xbus::replays::cancel,
        xbus::schemas::list,
        xbus::schemas::show,
        xbus::schemas::set,
        xbus::schemas::delete,
        xbus::envelopes::show,
        xbus::envelopes::purge,
        xbus::logs::list,
        xbus::logs::purge,
    )
)]
struct Description;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource(PATH, [get_for(Need::Nothing)]).route(web::get().to(describe)))
        .service(resource("/docs/service.html", [get_for(Need::Nothing)]).route(web::get().to(service_page)))
        .service(SwaggerUi::new(PAGES).config(utoipa_swagger_ui::Config::from(PATH)))
        // The page itself answers only GET.
        .service(resource(PAGES, [get_for(Need::Nothing)]))
        .service(resource("/docs", [get_for(Need::Nothing)]).route(web::get().to(slash)));
}

/// The page names its files relative to its address, so the address must end with a slash.
async fn slash() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// A page that registers as a service while it is open.
async fn service_page() -> HttpResponse {
    let policy =
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self' ws: wss:";
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header(("Content-Security-Policy", policy))
        .body(include_str!("../pages/service.html"))
}

/// The description: the handlers' part, completed by [`reference`].
static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let described = serde_json::to_value(Description::openapi()).unwrap_or_default();
    reference::complete(described).to_string()
});

async fn describe() -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::json()).body(DESCRIPTION.as_str())
}

/// The description, for tests.
#[cfg(test)]
pub(in crate::admin) fn description() -> serde_json::Value {
    serde_json::from_str(&DESCRIPTION).unwrap()
}
