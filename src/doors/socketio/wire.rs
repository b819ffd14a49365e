//! How this door writes events of the book: encoded once, shared by all its clients.

use rollbook_core::event::Event;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::codec;
use super::says::is_ours;
use crate::bus::announcer::{NOTIFY, Notification};
use crate::bus::wire::Wire;

/// The one value of it.
pub(super) static FRAMES: Frames = Frames;

/// How this door writes events.
#[derive(Debug)]
pub(super) struct Frames;

#[derive(Deserialize)]
struct OfService {
    service: Named,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct OfConfig<'a> {
    #[serde(borrow)]
    config: &'a RawValue,
}

/// The packet for an event; `None` when it means nothing to the clients of this door.
fn packet(index: i64, event: &Event<'_>) -> Option<bytestring::ByteString> {
    let payload = event.payload?;
    let emit = |name: &str, args: &[&str]| codec::event("/", None, name, args, 0);
    match event.subject {
        "roll.service.online" | "roll.service.offline" => {
            let OfService { service: Named { id, name } } = serde_json::from_slice(payload).ok()?;
            let word = event.subject.strip_prefix("roll.service.")?;
            Some(emit(&format!("service:{word}"), &[&json!({ "id": id, "name": name }).to_string()]))
        }
        "roll.config.updated" => {
            let OfConfig { config } = serde_json::from_slice(payload).ok()?;
            Some(emit("config:updated", &[config.get()]))
        }
        subject if subject.strip_prefix(NOTIFY).is_some_and(|rest| rest.starts_with('.')) => {
            // Any client may write into this namespace; what it wrote must not pass for the bus.
            let Notification { event: name, data, from } = serde_json::from_slice(payload).ok()?;
            if is_ours(&name) {
                return None;
            }
            let mut id = Vec::new();
            event.write_id(u64::try_from(index).unwrap_or_default(), &mut id);
            let about = json!({ "from": from, "id": String::from_utf8_lossy(&id), "index": index });
            Some(emit(&name, &[data.map_or("null", RawValue::get), &about.to_string()]))
        }
        _ => None,
    }
}

impl Wire for Frames {
    fn slot(&self) -> usize {
        1
    }

    fn event(&self, index: i64, event: &Event<'_>, out: &mut Vec<u8>) {
        if let Some(packet) = packet(index, event) {
            out.extend_from_slice(packet.as_bytes());
        }
    }

    // Engine.IO has its own way for each of these.
    fn keep_alive(&self, _: &mut Vec<u8>) {}

    fn failure(&self, _: &str, _: &mut Vec<u8>) {}

    fn farewell(&self, _: u64, _: &mut Vec<u8>) {}
}
