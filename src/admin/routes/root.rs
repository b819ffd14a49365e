//! `/`: what is where, for a person with a browser or curl.

use actix_web::http::header::{ACCEPT, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::admin::problem::resource;

/// Paths that a reader may want, and what is there.
const PLACES: [(&str, &str); 8] = [
    ("/docs/", "reference of /api, to read and try"),
    ("/openapi.json", "the same for programs"),
    ("/docs/service.html", "a page that is a service while it is open"),
    ("/api/cluster", "the nodes of the cluster"),
    ("/api/services", "the services on the roll"),
    ("/api/namespaces", "the namespaces of the event log"),
    ("/readyz", "whether the node takes requests; /livez: whether the process is alive"),
    ("/metrics", "for Prometheus"),
];
/// Paths for programs that keep a connection.
const DOORS: [(&str, &str); 2] =
    [("/ws", "WebSocket for services with plain JSON"), ("/socket.io/", "for socket.io-client")];

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/", "GET").route(web::get().to(root)));
}

async fn root(request: HttpRequest) -> HttpResponse {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut answer = HttpResponse::Ok();
    answer.insert_header((VARY, "Accept"));
    if accepts.contains("text/html") {
        return answer
            .content_type("text/html; charset=utf-8")
            .insert_header(("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"))
            .body(page());
    }
    let places: serde_json::Map<_, _> =
        PLACES.iter().chain(&DOORS).map(|(path, what)| ((*path).to_owned(), json!(what))).collect();
    answer.json(json!({ "name": "rollbook", "version": env!("CARGO_PKG_VERSION"), "paths": places }))
}

fn page() -> String {
    let linked = PLACES.iter().map(|(path, what)| format!("<li><a href=\"{path}\">{path}</a> {what}</li>"));
    let named = DOORS.iter().map(|(path, what)| format!("<li>{path} {what}</li>"));
    let items: String = linked.chain(named).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>rollbook</title>\
         <style>body{{font:1rem/1.6 sans-serif;margin:3rem}}</style></head>\
         <body><h1>rollbook {}</h1><ul>{items}</ul></body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}
