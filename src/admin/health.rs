//! Is the process alive, is the node ready, and what does it count.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpResponse, web};

use super::Admin;
use super::problem::resource;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/livez", "GET").route(web::get().to(livez)))
        .service(resource("/readyz", "GET").route(web::get().to(readyz)))
        .service(resource("/metrics", "GET").route(web::get().to(metrics)));
}

async fn livez() -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body("ok\n")
}

async fn readyz(admin: web::Data<Admin>) -> HttpResponse {
    let reason = if admin.draining.load(Ordering::Relaxed) {
        Some("node is stopping".to_owned())
    } else {
        admin.bus.node().ready().err().map(|refusal| refusal.to_string())
    };
    let (mut builder, text) = match reason {
        None => match admin.bus.proposer().lacks() {
            None => (HttpResponse::Ok(), "ready\n".to_owned()),
            // It reads, delivers and acknowledges: that is no reason to send clients elsewhere.
            Some(lacks) => (HttpResponse::Ok(), format!("ready\npublishes are refused: {lacks}\n")),
        },
        Some(reason) => (HttpResponse::ServiceUnavailable(), format!("not ready: {reason}\n")),
    };
    builder.insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body(text)
}

async fn metrics(admin: web::Data<Admin>) -> HttpResponse {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode_registry(&mut text, &admin.metrics).is_err() {
        return HttpResponse::InternalServerError().finish();
    }
    gauges(&admin, &mut text);
    // Every write into a string succeeds.
    text.write_str("# EOF\n").unwrap_or_default();
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8"))
        .body(text)
}

/// What is looked up when asked, rather than counted.
fn gauges(admin: &Admin, text: &mut String) {
    let mut gauge = |name: &str, help: &str, value: f64| {
        write!(text, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}\n").unwrap_or_default();
    };
    let status = admin.bus.node().status();
    gauge("rollbook_is_leader", "1 on the leader", f64::from(u8::from(status.role == "leader")));
    gauge("rollbook_raft_term", "Raft term", float(status.term));
    gauge("rollbook_raft_first_index", "First entry still in the log of this node", float(status.first_index));
    gauge("rollbook_raft_last_index", "Last entry in the log of this node", float(status.last_index));
    gauge("rollbook_raft_applied_index", "Last entry applied on this node", float(status.applied_index));
    gauge("rollbook_disk_free_bytes", "Free bytes of the data directory", float(admin.bus.proposer().free_bytes()));
    let inodes = float(admin.bus.proposer().free_inodes());
    gauge("rollbook_disk_free_inodes", "Files that can still be created in the data directory", inodes);
    let level = admin.bus.node().with_machine(|machine| machine.level().get());
    gauge("rollbook_feature_level", "Which version of the rules the cluster follows", f64::from(level));
    let skew = admin.bus.node().clock_skew();
    let sign = if skew < 0 { -1.0 } else { 1.0 };
    let help = "Seconds that the clocks are ahead of the time of the log while that is in doubt, else 0";
    gauge("rollbook_clock_skew_seconds", help, sign * float(skew.unsigned_abs()) / 1000.0);
    let low = f64::from(u8::from(admin.bus.proposer().is_disk_low()));
    gauge("rollbook_disk_low", "1 while publishes are refused for lack of disk", low);
    for head in admin.bus.node().namespaces() {
        let label = format!("{{namespace=\"{}\"}}", head.name);
        let remembered = head.remembered.unwrap_or_default();
        let values = [
            ("rollbook_namespace_events", head.events()),
            ("rollbook_namespace_last_index", head.last()),
            ("rollbook_namespace_bytes", head.bytes()),
            ("rollbook_namespace_dedupe_keys", remembered.keys()),
            ("rollbook_namespace_dedupe_keys_evicted", remembered.keys_evicted),
        ];
        for (name, value) in values {
            writeln!(text, "{name}{label} {value}").unwrap_or_default();
        }
    }
    if let Some((cpu_seconds, resident_bytes)) = process() {
        writeln!(text, "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total {cpu_seconds}")
            .unwrap_or_default();
        writeln!(text, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {resident_bytes}")
            .unwrap_or_default();
    }
}

/// As Prometheus counts: everything is a float.
fn float(value: u64) -> f64 {
    let high = u32::try_from(value >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// CPU seconds and resident bytes of this process, as Linux tells them.
fn process() -> Option<(f64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold blanks; what follows its bracket does not. User and system time are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()?.saturating_add(fields.next()?.parse().ok()?);
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    // USER_HZ is 100 on every Linux that Rust runs on.
    Some((float(ticks) / 100.0, pages.saturating_mul(4096)))
}
