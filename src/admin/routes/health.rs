//! `/livez`: the process is alive. `/readyz`: the node takes requests.

use std::sync::atomic::Ordering;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpResponse, web};

use crate::admin::Admin;
use crate::admin::operation::{Need, get_for};
use crate::admin::resource::resource;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/livez", [get_for(Need::Nothing)]).route(web::get().to(livez)));
    // Load balancers and monitors try the other two paths first.
    for path in ["/readyz", "/health", "/healthz"] {
        services.service(resource(path, [get_for(Need::Nothing)]).route(web::get().to(readyz)));
    }
}

async fn livez() -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body("ok\n")
}

async fn readyz(admin: web::Data<Admin>) -> HttpResponse {
    let reason = if admin.draining.load(Ordering::Relaxed) {
        Some("node is stopping".to_owned())
    } else {
        admin.bus.node().consensus().ready().err().map(|refusal| refusal.to_string())
    };
    let (mut builder, text) = match reason {
        None => match admin.bus.proposer().lacks() {
            None => (HttpResponse::Ok(), "ready\n".to_owned()),
            // The node still reads, delivers and acknowledges, so clients stay.
            Some(lacks) => (HttpResponse::Ok(), format!("ready\npublishes are refused: {lacks}\n")),
        },
        Some(reason) => (HttpResponse::ServiceUnavailable(), format!("not ready: {reason}\n")),
    };
    builder.insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body(text)
}
