//! `/`: what is where, for a person with a browser or curl, until the console comes.

use actix_web::http::header::{ACCEPT, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::admin::problem::resource;

/// Paths that a reader may want, and what is there.
const PLACES: [(&str, &str); 10] = [
    ("/docs/", "reference of /api, to read and try"),
    ("/openapi.json", "the same for programs"),
    ("/docs/service.html", "a page that is a service while it is open"),
    ("/api/cluster", "the nodes of the cluster"),
    ("/api/services", "the services on the roll"),
    ("/api/namespaces", "the namespaces of the event log"),
    ("/api/consumers", "the durable consumers and groups of the event log"),
    ("/readyz", "whether the node takes requests"),
    ("/livez", "whether the process is alive"),
    ("/metrics", "for Prometheus"),
];
/// Paths for programs that keep a connection.
const DOORS: [(&str, &str); 2] =
    [("/ws", "WebSocket for services with plain JSON"), ("/socket.io/", "for socket.io-client")];
/// Where everything else is.
const ELSEWHERE: &str = "The event log (publish with POST, subscribe with GET) has a listener of its own: port 2021, or \
                         what sse.listen says. On the command line, `rollbook help`.";
/// Nothing foreign, no script, in no frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/", "GET").route(web::get().to(root)));
}

/// HTML for browsers, JSON for whoever asks for it, else lines of text.
async fn root(request: HttpRequest) -> HttpResponse {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut answer = HttpResponse::Ok();
    answer.insert_header((VARY, "Accept"));
    if accepts.contains("text/html") {
        answer.content_type("text/html; charset=utf-8").insert_header(("Content-Security-Policy", POLICY)).body(page())
    } else if accepts.contains("json") {
        let places: serde_json::Map<_, _> =
            PLACES.iter().chain(&DOORS).map(|(path, what)| ((*path).to_owned(), json!(what))).collect();
        answer.json(json!({ "name": "rollbook", "version": env!("CARGO_PKG_VERSION"), "paths": places }))
    } else {
        answer.content_type("text/plain; charset=utf-8").body(text())
    }
}

fn text() -> String {
    let lines: String = PLACES.iter().chain(&DOORS).map(|(path, what)| format!("{path:<20} {what}\n")).collect();
    format!("rollbook {}\n\n{lines}\n{ELSEWHERE}\n", env!("CARGO_PKG_VERSION"))
}

fn page() -> String {
    let linked =
        PLACES.iter().map(|(path, what)| format!("<tr><td><a href=\"{path}\">{path}</a></td><td>{what}</td></tr>"));
    let named = DOORS.iter().map(|(path, what)| format!("<tr><td>{path}</td><td>{what}</td></tr>"));
    let rows: String = linked.chain(named).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>rollbook</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>:root{{color-scheme:light dark}}\
         body{{font:1rem/1.6 sans-serif;margin:3rem;max-width:50rem}}td{{padding-right:2rem}}</style></head>\
         <body><h1>rollbook {}</h1><table>{rows}</table><p>{ELSEWHERE}</p></body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}
