//! A protocol of its own in one file: lines over TCP, for `nc`.
//!
//! ```text
//! ROLLBOOK_NODE__DATA=./data/line cargo run --release --example line -- 127.0.0.1:7450
//! printf 'SUB app.>\nPUB app.greeting {"hello":"world"}\n' | nc -q 1 127.0.0.1 7450
//! ```

use std::net::TcpListener;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _, stream};
use rollbook::app::config::{layers::environment, settings::Config};
use rollbook::app::node::run::{ExtraDoors, serve};
use rollbook::app::node::start_options::StartOptions;
use rollbook::base::clock;
use rollbook::bus::access::Access;
use rollbook::bus::error::Fault;
use rollbook::bus::read::pieces::{self, Piece};
use rollbook::bus::security::origin::Origin;
use rollbook::bus::subscribe::request::{Start, Subscribe};
use rollbook::bus::write::draft::Draft;
use rollbook::doors::door::{Build, Description, Door};
use rollbook::net::byte_queue::Body;
use rollbook::net::listener::{listeners::Listeners, settings::ListenerSettings, tcp::Connection};
use rollbook_core::subjects::pattern::Pattern;
use tokio_util::codec::{Framed, FramedParts, LinesCodec};

#[derive(Debug)]
struct LineDoor(Access);

impl Door for LineDoor {
    fn name(&self) -> &'static str {
        "line"
    }

    fn describe(&self) -> Description {
        Description { protocol: "lines over TCP", path: None, purpose: "PUB subject json, SUB pattern" }
    }

    fn listen(self: Arc<Self>, listeners: &mut Listeners) -> anyhow::Result<()> {
        // No load balancer, and TLS when the node has a certificate.
        let (proxy_protocol_from, tls) = Default::default();
        let settings = ListenerSettings {
            name: "line",
            connections_max: 100,
            proxy_protocol_from,
            tls,
            client_ca: None,
            greeting: None,
        };
        Ok(listeners.tcp(settings, b"-ERR too many connections\n", move |conn| converse(self.0.clone(), conn))?)
    }
}

async fn publish(access: &Access, line: &str) -> Result<String, Fault> {
    let (subject, json) = line.split_once(' ').ok_or_else(|| Fault::bad("write PUB subject json"))?;
    let payload = Some(serde_json::from_str(json).map_err(|error| Fault::bad(error.to_string()))?);
    let draft = Draft { subject: subject.into(), payload, ..Draft::default() };
    let parsed = draft.publish(clock::timestamp(), &|name| access.is_writable(name))?;
    Ok(format!("+OK {}", access.publish(parsed).await?.map_or_else(String::new, |published| published.id)))
}

async fn subscribe(access: &Access, pattern: &str, stream: &mut Option<Body>) -> Result<String, Fault> {
    let pattern = Pattern::parse(pattern).map_err(|error| Fault::bad(error.to_string()))?;
    let wanted = Subscribe::new(pattern, Start::Newest);
    *stream = Some(access.follow(wanted).await?.1);
    Ok("+OK".to_owned())
}

/// Returns the next lines of the subscription. Without a subscription the future never resolves.
async fn delivered(stream: &mut Option<Body>) -> Vec<String> {
    let Some(body) = stream else { return std::future::pending().await };
    let Some(chunk) = body.next().await else { return stream.take().map(|_| Vec::new()).unwrap_or_default() };
    let line = |piece| match piece {
        Piece::Event(json) => format!("MSG {}", String::from_utf8_lossy(&json)),
        Piece::End(end, _) => format!("-ERR {}", end.text()),
    };
    pieces::split(chunk).map(line).collect()
}

async fn converse(access: Access, mut connection: Connection) {
    // The protocol has no credential: who the client is, its address and its certificate say.
    let origin = Origin::new("line", Some(connection.peer.clone()));
    let Ok(access) = access.admit(None, origin).await else { return };
    let mut parts = FramedParts::new::<String>(connection.socket, LinesCodec::new_with_max_length(1 << 16));
    std::mem::swap(&mut parts.read_buf, &mut connection.read);
    let (mut lines, mut subscription) = (Framed::from_parts(parts), None);
    loop {
        let answers = tokio::select! {
            () = connection.stopping.cancelled() => return,
            delivered = delivered(&mut subscription) => delivered,
            line = lines.next() => {
                let Some(Ok(line)) = line else { return };
                let answer = match line.split_once(' ') {
                    Some(("PUB", line)) => publish(&access, line).await,
                    Some(("SUB", pattern)) => subscribe(&access, pattern, &mut subscription).await,
                    _ => Err(Fault::bad("write PUB subject json, or SUB pattern")),
                };
                vec![answer.unwrap_or_else(|error| format!("-ERR {}", error.text))]
            }
        };
        if lines.send_all(&mut stream::iter(answers.into_iter().map(Ok))).await.is_err() {
            return;
        }
    }
}

fn main() -> anyhow::Result<()> {
    let sockets = vec![("line", TcpListener::bind(std::env::args().nth(1).unwrap_or_default())?)];
    let open: Build = |context| Arc::new(LineDoor(context.access.clone()));
    serve(&Config::load(None, environment(), &[])?, StartOptions::default(), ExtraDoors { sockets, build: vec![open] })
}
