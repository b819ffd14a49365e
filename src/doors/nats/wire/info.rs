//! What a server says of itself: the JSON of `INFO`.

use serde::{Serialize, Serializer};

/// Most addresses of other nodes that are sent. nats-py reads the first `INFO` with a buffer of 32 KiB.
pub const CONNECT_URLS_MAX: usize = 64;

/// The first line of a connection, and the notice of changes to clients with `protocol` 1. Fields that say nothing are
/// left out, as in nats-server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Info {
    /// Identifies the process.
    pub server_id: String,
    /// The name of the node.
    pub server_name: String,
    /// The version that clients compare to know what a server can do: three numbers with dots.
    pub version: String,
    /// The language of the server. Clients expect the field, and ignore what it says.
    pub go: String,
    /// The host that the node listens on.
    pub host: String,
    /// The port that the node listens on.
    pub port: u16,
    /// 1: the server may send `INFO` again at any time.
    pub proto: u8,
    /// Whether HPUB and HMSG are understood.
    pub headers: bool,
    /// Most bytes of headers and payload of a message.
    pub max_payload: usize,
    /// The number of this connection on the node.
    pub client_id: u64,
    /// The address that the client comes from.
    pub client_ip: String,
    /// Whether a CONNECT must have credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Whether the client must start a TLS handshake at once.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// Whether the client must show a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// Whether the client may start a TLS handshake.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_available: bool,
    /// Addresses of the nodes, `host:port`. The first [`CONNECT_URLS_MAX`] are sent.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "first_urls")]
    pub connect_urls: Vec<String>,
    /// Lame duck: the node is stopping, and the client should connect to another one.
    #[serde(rename = "ldm", skip_serializing_if = "is_false")]
    pub lame_duck: bool,
    /// What a client with an nkey must sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Whether JetStream is there.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
}

impl Info {
    /// The JSON for [`super::encode::info`], on one line.
    ///
    /// # Errors
    /// None in practice: a struct of texts and numbers is always JSON.
    pub fn json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn first_urls<S: Serializer>(urls: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(urls.iter().take(CONNECT_URLS_MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info() -> Info {
        Info {
            server_id: "N1".to_owned(),
            server_name: "node-1".to_owned(),
            version: "2.10.0".to_owned(),
            go: "rust".to_owned(),
            host: "0.0.0.0".to_owned(),
            port: 4222,
            proto: 1,
            headers: true,
            max_payload: 1_048_576,
            client_id: 7,
            client_ip: "127.0.0.1".to_owned(),
            ..Info::default()
        }
    }

    #[test]
    fn fields_that_say_nothing_are_left_out() {
        let json: serde_json::Value = serde_json::from_slice(&info().json().unwrap()).unwrap();
        let expected = json!({
            "server_id": "N1", "server_name": "node-1", "version": "2.10.0", "go": "rust", "host": "0.0.0.0",
            "port": 4222, "proto": 1, "headers": true, "max_payload": 1_048_576, "client_id": 7,
            "client_ip": "127.0.0.1",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_stopping_node_names_the_others() {
        let urls = vec!["10.0.0.2:4222".to_owned()];
        let info = Info { lame_duck: true, connect_urls: urls, nonce: Some("n".to_owned()), ..info() };
        let json: serde_json::Value = serde_json::from_slice(&info.json().unwrap()).unwrap();
        assert_eq!((&json["ldm"], &json["nonce"]), (&json!(true), &json!("n")));
        assert_eq!(json["connect_urls"], json!(["10.0.0.2:4222"]));
    }

    #[test]
    fn the_line_stays_short_enough_for_clients() {
        let urls = vec!["h".repeat(255) + ":65535"; 1000];
        let json = Info { connect_urls: urls, ..info() }.json().unwrap();
        assert!(json.len() < 32 * 1024, "{} bytes", json.len());
        assert!(!json.contains(&b'\n'));
    }
}
