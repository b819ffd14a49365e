//! What a responder of the services API of NATS says of itself, and the subject on which it is asked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytestring::ByteString;
use rollbook_core::limits::{ACTIONS_MAX, METADATA_BYTES_MAX};
use rollbook_core::service::{Capability, Instance, InstanceRegister, Service};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bus::error::Fault;
use crate::bus::live::filter::LiveSubject;
use crate::doors::nats::settings::NAME;

/// How the subject begins on which one responder is asked what it is. Others ask with fewer tokens.
const INFO: &str = "$SRV.INFO.";
/// The kind of message that answers.
const INFO_RESPONSE: &str = "io.nats.micro.v1.info_response";
/// The kind of program that operators see.
const KIND: &str = "nats";
/// Largest description of a responder.
pub(super) const INFO_BYTES_MAX: usize = 256 * 1024;

/// A responder, by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors::nats) struct Name {
    /// The name of the service.
    pub(in crate::doors::nats) service: String,
    /// The id of the responder.
    pub(in crate::doors::nats) instance: String,
}

impl Name {
    /// The responder that listens to this filter; `None` when only others do.
    pub(in crate::doors::nats) fn of(filter: &str) -> Option<Self> {
        let (service, instance) = filter.strip_prefix(INFO)?.split_once('.')?;
        let plain = |token: &str| !token.is_empty() && !token.contains(['.', '*', '>']);
        let named = plain(service) && plain(instance);
        named.then(|| Self { service: service.to_owned(), instance: instance.to_owned() })
    }

    /// The subject on which the responder is asked what it is.
    pub(super) fn subject(&self) -> ByteString {
        format!("{INFO}{}.{}", self.service, self.instance).into()
    }
}

/// What a responder says of itself.
#[derive(Debug, Deserialize)]
struct InfoJson<'a> {
    r#type: String,
    name: String,
    id: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(default)]
    endpoints: Option<Vec<EndpointJson>>,
}

#[derive(Debug, Deserialize)]
struct EndpointJson {
    name: String,
    subject: String,
}

/// A responder as the roll knows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Service and instance; the name of the service is its capability, those of its endpoints are the actions.
    pub(super) register: InstanceRegister,
    /// The subjects of the actions.
    pub(super) endpoints: HashMap<String, LiveSubject>,
}

/// Reads what a responder says of itself. Endpoints whose subject has wildcards, and further ones of the same name, cannot
/// be called. `None`: there is nothing to call yet.
///
/// # Errors
/// The text is no description of that responder, or a name does not fit the roll.
pub(super) fn described(name: &Name, json: &[u8]) -> Result<Option<Described>, Fault> {
    let info: InfoJson<'_> =
        serde_json::from_slice(json).map_err(|error| Fault::bad(format!("the description is none: {error}")))?;
    if info.r#type != INFO_RESPONSE || info.name != name.service || info.id != name.instance {
        return Err(Fault::bad("the description is that of something else"));
    }
    let mut endpoints = HashMap::new();
    let mut actions = Vec::new();
    for EndpointJson { name, subject } in info.endpoints.unwrap_or_default().into_iter().take(ACTIONS_MAX) {
        let Ok(subject) = LiveSubject::parse(subject.into()) else { continue };
        if let Entry::Vacant(free) = endpoints.entry(name) {
            actions.push(free.key().clone());
            free.insert(subject);
        }
    }
    if actions.is_empty() {
        return Ok(None);
    }
    let Name { service: id, instance } = name.clone();
    let metadata = info.metadata.map(RawValue::get).filter(|text| text.starts_with('{'));
    let description = info.description.unwrap_or_default();
    let instance = Instance {
        id: instance,
        service: id.clone(),
        door: NAME.to_owned(),
        version: info.version.clone(),
        capabilities: vec![Capability { name: id.clone(), description, actions }],
        metadata: metadata.filter(|text| text.len() <= METADATA_BYTES_MAX).unwrap_or_default().to_owned(),
        ..Instance::default()
    };
    let (kind, version) = (KIND.to_owned(), info.version);
    let service = Service { name: id.clone(), id, version, kind, ..Service::default() };
    // The rules check again; this spares a round through the cluster.
    service.check().and_then(|()| instance.check()).map_err(|refusal| Fault::of_service(&refusal))?;
    Ok(Some(Described { register: InstanceRegister { service, instance }, endpoints }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name() -> Name {
        Name { service: "math".to_owned(), instance: "I1".to_owned() }
    }

    #[test]
    fn only_a_responder_listens_where_it_is_asked_by_its_id() {
        assert_eq!(Name::of("$SRV.INFO.math.I1"), Some(name()));
        assert_eq!(&*name().subject(), "$SRV.INFO.math.I1");
        for other in
            ["$SRV.INFO", "$SRV.INFO.math", "$SRV.INFO.math.*", "$SRV.INFO.>", "$SRV.PING.math.I1", "$SRV.INFO.a.b.c"]
        {
            assert_eq!(Name::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_description_is_a_service_with_its_endpoints_as_actions() {
        let json = json!({
            "type": INFO_RESPONSE, "name": "math", "id": "I1", "version": "1.0.0", "description": "adds",
            "metadata": { "zone": "a" },
            "endpoints": [
                { "name": "add", "subject": "math.add", "queue_group": "q", "metadata": null },
                { "name": "add", "subject": "other.add", "queue_group": "q" },
                { "name": "any", "subject": "math.*" },
                { "name": "sub", "subject": "math.sub" },
            ],
        });
        let Described { register, endpoints } = described(&name(), json.to_string().as_bytes()).unwrap().unwrap();
        let Capability { name, description, actions } = register.instance.capabilities[0].clone();
        assert_eq!((&*name, &*description), ("math", "adds"));
        assert_eq!(actions, ["add", "sub"], "what has a wildcard cannot be called, and the first of a name counts");
        assert_eq!(endpoints["add"].as_str(), "math.add");
        assert_eq!((&*register.service.id, &*register.service.kind), ("math", "nats"));
        assert_eq!((&*register.instance.metadata, &*register.instance.version), (r#"{"zone":"a"}"#, "1.0.0"));
    }

    #[test]
    fn nothing_to_call_is_no_service_yet_and_what_does_not_fit_is_refused() {
        let info = |change: &dyn Fn(&mut serde_json::Value)| {
            let endpoints = json!([{ "name": "add", "subject": "math.add" }]);
            let mut json = json!({ "type": INFO_RESPONSE, "name": "math", "id": "I1", "endpoints": endpoints });
            change(&mut json);
            described(&name(), json.to_string().as_bytes())
        };
        assert!(info(&|_| ()).unwrap().is_some());
        for none in [json!([]), json!(null), json!([{ "name": "any", "subject": ">" }])] {
            assert_eq!(info(&|json| json["endpoints"] = none.clone()), Ok(None), "{none}");
        }
        for (member, wrong) in [
            ("type", json!("io.nats.micro.v1.ping_response")),
            ("name", json!("other")),
            ("id", json!("I2")),
            ("endpoints", json!(7)),
            ("endpoints", json!([{ "name": "x".repeat(500), "subject": "a" }])),
            ("version", json!("1".repeat(500))),
        ] {
            assert!(info(&|json| json[member] = wrong.clone()).is_err(), "{member}: {wrong}");
        }
        assert!(described(&name(), b"").is_err());
    }
}
