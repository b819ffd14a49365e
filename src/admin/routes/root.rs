//! `/`: the paths of the node, for a person with a browser or curl, until the console comes.

use actix_web::http::header::{ACCEPT, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::admin::operation::{Need, get_for};
use crate::admin::resource::resource;
use crate::admin::{Admin, DoorView};

/// Paths for readers, with their purpose.
const PLACES: [(&str, &str); 11] = [
    ("/docs/", "reference of /api, to read and try"),
    ("/openapi.json", "the same for programs"),
    ("/docs/service.html", "a page that is a service while it is open"),
    ("/api/cluster", "the nodes of the cluster"),
    ("/api/services", "the services on the roll"),
    ("/api/namespaces", "the namespaces of the event log"),
    ("/api/consumers", "the durable consumers and groups of the event log"),
    ("/api/dead-letters", "the events that were given up"),
    ("/readyz", "whether the node takes requests"),
    ("/livez", "whether the process is alive"),
    ("/metrics", "for Prometheus"),
];
/// Where everything else is.
const ELSEWHERE: &str = "A door without a path has a listener of its own; the node names it when it starts. On the \
                         command line, `rollbook help`.";
/// The page loads nothing foreign, runs no script and cannot be framed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/", [get_for(Need::Nothing)]).route(web::get().to(root)));
}

/// Answers with HTML for browsers, JSON for clients that accept it, else text.
async fn root(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut answer = HttpResponse::Ok();
    answer.insert_header((VARY, "Accept"));
    let doors = &admin.config.doors;
    if accepts.contains("text/html") {
        let html = answer.content_type("text/html; charset=utf-8");
        html.insert_header(("Content-Security-Policy", POLICY)).body(page(doors))
    } else if accepts.contains("json") {
        let places: serde_json::Map<_, _> =
            PLACES.iter().map(|(path, what)| ((*path).to_owned(), json!(what))).collect();
        let version = env!("CARGO_PKG_VERSION");
        answer.json(json!({ "name": "rollbook", "version": version, "paths": places, "doors": doors }))
    } else {
        answer.content_type("text/plain; charset=utf-8").body(text(doors))
    }
}

/// The address and the purpose of a door.
fn row(door: &DoorView) -> (String, String) {
    (door.path.unwrap_or(door.name).to_owned(), format!("{}: {}", door.protocol, door.purpose))
}

fn text(doors: &[DoorView]) -> String {
    let places = PLACES.iter().map(|(path, what)| format!("{path:<20} {what}\n"));
    let doors = doors.iter().map(row).map(|(path, what)| format!("{path:<20} {what}\n"));
    let (places, doors): (String, String) = (places.collect(), doors.collect());
    format!("rollbook {}\n\n{places}\nDoors:\n{doors}\n{ELSEWHERE}\n", env!("CARGO_PKG_VERSION"))
}

fn page(doors: &[DoorView]) -> String {
    let places =
        PLACES.iter().map(|(path, what)| format!("<tr><td><a href=\"{path}\">{path}</a></td><td>{what}</td></tr>"));
    let doors = doors.iter().map(row).map(|(path, what)| format!("<tr><td>{path}</td><td>{what}</td></tr>"));
    let (places, doors): (String, String) = (places.collect(), doors.collect());
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>rollbook</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>:root{{color-scheme:light dark}}\
         body{{font:1rem/1.6 sans-serif;margin:3rem;max-width:50rem}}td{{padding-right:2rem}}</style></head>\
         <body><h1>rollbook {}</h1><table>{places}</table><h2>Doors</h2><table>{doors}</table><p>{ELSEWHERE}</p></body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}
