//! What a client says of itself: the JSON of `CONNECT`.

use serde::Deserialize;

use crate::bus::security::credentials::secret::Secret;

use super::error::ProtocolError;

/// Most bytes of the texts that describe a client, and are shown to operators. Ours: nats-server bounds the line alone.
/// Credentials are bounded by the line too.
pub const TEXT_BYTES_MAX: usize = 256;

/// The highest number of the client protocol.
const PROTOCOL_MAX: i64 = 1;

/// What a client said in its CONNECTs, with the defaults of nats-server for what it did not say.
#[derive(Debug, Clone)]
pub struct Connect {
    /// Whether operations are answered with `+OK`.
    pub verbose: bool,
    /// Whether publish subjects are checked. rollbook checks them always.
    pub pedantic: bool,
    /// Whether own messages are delivered to own subscriptions.
    pub echo: bool,
    /// Whether the client wants TLS. nats-server 2.15 does not look at this.
    pub tls_required: bool,
    /// Whether the client understands headers.
    pub headers: bool,
    /// Whether the client wants to know of requests that nobody got. Needs `headers`.
    pub no_responders: bool,
    /// 0, or 1 for a client that takes `INFO` at any time. Not checked yet, see [`Connect::check`].
    pub protocol: i64,
    /// The name of the client, which carries the version of Xbus that the client speaks.
    pub name: Option<String>,
    /// The language of the client.
    pub lang: Option<String>,
    /// The version of the client library.
    pub version: Option<String>,
    /// The name of a user.
    pub user: Option<String>,
    /// The password of the user.
    pub pass: Option<Secret>,
    /// A token.
    pub auth_token: Option<Secret>,
    /// A token in the form of a JWT.
    pub jwt: Option<Secret>,
    /// The public key of a user.
    pub nkey: Option<String>,
    /// The signature of the nonce with that key.
    pub sig: Option<Secret>,
}

/// The fields as they are in the JSON. Null counts as absent.
#[derive(Deserialize)]
struct Fields {
    verbose: Option<bool>,
    pedantic: Option<bool>,
    echo: Option<bool>,
    tls_required: Option<bool>,
    headers: Option<bool>,
    no_responders: Option<bool>,
    protocol: Option<i64>,
    name: Option<String>,
    lang: Option<String>,
    version: Option<String>,
    user: Option<String>,
    pass: Option<String>,
    auth_token: Option<String>,
    jwt: Option<String>,
    nkey: Option<String>,
    sig: Option<String>,
}

impl Default for Connect {
    /// What nats-server takes for said before there is a CONNECT.
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            tls_required: false,
            headers: false,
            no_responders: false,
            protocol: 0,
            name: None,
            lang: None,
            version: None,
            user: None,
            pass: None,
            auth_token: None,
            jwt: None,
            nkey: None,
            sig: None,
        }
    }
}

impl Connect {
    /// Reads the JSON of the first CONNECT of a connection.
    ///
    /// # Errors
    /// Those of [`Self::update`].
    pub fn parse(json: &[u8]) -> Result<Self, ProtocolError> {
        let mut connect = Self::default();
        connect.update(json)?;
        Ok(connect)
    }

    /// Reads the JSON of a CONNECT over what earlier ones of the same connection said: absent and null fields stay as
    /// they were. Unknown fields are ignored.
    ///
    /// Ours: names of fields must be written exactly, no field may come twice, and the text must be UTF-8; nats-server
    /// 2.15 is more generous, and no known client needs that.
    ///
    /// # Errors
    /// [`ProtocolError::UnknownOperation`] for what is no JSON object, a field of the wrong type, or a description of
    /// more than [`TEXT_BYTES_MAX`] bytes. Nothing of the text is in the error: the text has passwords.
    pub fn update(&mut self, json: &[u8]) -> Result<(), ProtocolError> {
        // Without this an array would be taken for a list of the fields.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(ProtocolError::UnknownOperation);
        }
        let fields: Fields = serde_json::from_slice(json).map_err(|_| ProtocolError::UnknownOperation)?;
        let texts = [&fields.name, &fields.lang, &fields.version, &fields.user, &fields.nkey];
        if texts.into_iter().flatten().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(ProtocolError::UnknownOperation);
        }
        let before = std::mem::take(self);
        *self = Self {
            verbose: fields.verbose.unwrap_or(before.verbose),
            pedantic: fields.pedantic.unwrap_or(before.pedantic),
            echo: fields.echo.unwrap_or(before.echo),
            tls_required: fields.tls_required.unwrap_or(before.tls_required),
            headers: fields.headers.unwrap_or(before.headers),
            no_responders: fields.no_responders.unwrap_or(before.no_responders),
            protocol: fields.protocol.unwrap_or(before.protocol),
            name: fields.name.or(before.name),
            lang: fields.lang.or(before.lang),
            version: fields.version.or(before.version),
            user: fields.user.or(before.user),
            pass: fields.pass.map(Secret::new).or(before.pass),
            auth_token: fields.auth_token.map(Secret::new).or(before.auth_token),
            jwt: fields.jwt.map(Secret::new).or(before.jwt),
            nkey: fields.nkey.or(before.nkey),
            sig: fields.sig.map(Secret::new).or(before.sig),
        };
        Ok(())
    }

    /// Whether the client shows anything to be somebody.
    #[must_use]
    pub const fn shows_credentials(&self) -> bool {
        self.user.is_some()
            || self.pass.is_some()
            || self.auth_token.is_some()
            || self.jwt.is_some()
            || self.nkey.is_some()
            || self.sig.is_some()
    }

    /// Drops what the client has shown to be who it is.
    pub fn forget_credentials(&mut self) {
        (self.user, self.nkey) = (None, None);
        (self.pass, self.auth_token, self.jwt, self.sig) = (None, None, None, None);
    }

    /// Whether a server may serve this client. nats-server checks who the client is before it checks this.
    ///
    /// # Errors
    /// [`ProtocolError::InvalidClientProtocol`] or [`ProtocolError::NoRespondersWithoutHeaders`].
    pub fn check(&self) -> Result<(), ProtocolError> {
        if !(0..=PROTOCOL_MAX).contains(&self.protocol) {
            return Err(ProtocolError::InvalidClientProtocol);
        }
        if self.no_responders && !self.headers {
            return Err(ProtocolError::NoRespondersWithoutHeaders);
        }
        Ok(())
    }

    /// What operators see: the name of the client, or else its language and the version of its library.
    #[must_use]
    pub fn display_name(&self) -> String {
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty()) {
            return name.clone();
        }
        let texts = [self.lang.as_deref(), self.version.as_deref()];
        texts.into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Whether the client takes `INFO` at any time after its first PONG.
    #[must_use]
    pub fn takes_async_info(&self) -> bool {
        self.protocol >= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_null_fields_have_the_defaults_of_nats() {
        for json in ["{}", " {\"verbose\":null,\"echo\":null,\"name\":null,\"protocol\":null} "] {
            let connect = Connect::parse(json.as_bytes()).unwrap();
            assert!(connect.verbose && connect.pedantic && connect.echo, "{json}");
            assert!(!connect.headers && !connect.no_responders && !connect.tls_required, "{json}");
            assert_eq!((connect.protocol, connect.name.as_deref(), connect.takes_async_info()), (0, None, false));
            assert_eq!(connect.check(), Ok(()));
        }
    }

    #[test]
    fn a_client_is_read_with_all_it_says() {
        let json = br#"{"verbose":false,"pedantic":false,"user":"u","pass":"p","auth_token":"t","jwt":"j","nkey":"n",
            "sig":"s","lang":"python3","version":"2.16.0","name":"@3.0","protocol":1,"echo":false,"headers":true,
            "no_responders":true,"tls_required":true,"something":[{"new":1}]}"#;
        let connect = Connect::parse(json).unwrap();
        assert!(!connect.verbose && !connect.pedantic && !connect.echo && connect.tls_required);
        assert!(connect.headers && connect.no_responders && connect.takes_async_info());
        let texts = [&connect.name, &connect.lang, &connect.version, &connect.user, &connect.nkey];
        assert_eq!(texts.map(|text| text.as_deref().unwrap()), ["@3.0", "python3", "2.16.0", "u", "n"]);
        let secrets = [&connect.pass, &connect.auth_token, &connect.jwt, &connect.sig];
        assert_eq!(secrets.map(|secret| secret.as_ref().unwrap().expose().as_str()), ["p", "t", "j", "s"]);
        assert_eq!((connect.check(), &*connect.display_name()), (Ok(()), "@3.0"));
        let nameless = Connect::parse(br#"{"lang":"rust","version":"0.51","name":""}"#).unwrap();
        assert_eq!(nameless.display_name(), "rust 0.51");
    }

    #[test]
    fn a_later_connect_changes_only_what_it_says() {
        let mut connect = Connect::parse(br#"{"headers":true,"verbose":false,"name":"a","pass":"p"}"#).unwrap();
        connect.update(br#"{"name":"b","echo":false,"verbose":null}"#).unwrap();
        assert!(connect.headers && !connect.verbose && !connect.echo);
        assert_eq!((connect.name.as_deref(), connect.pass.unwrap().expose().as_str()), (Some("b"), "p"));
    }

    #[test]
    fn secrets_do_not_show_in_debug_texts() {
        let json = br#"{"pass":"hunter2","auth_token":"hunter2","jwt":"hunter2","sig":"hunter2"}"#;
        let text = format!("{:?}", Connect::parse(json).unwrap());
        assert!(text.contains("hidden") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn what_is_no_object_of_the_right_types_is_refused() {
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
        let bad = ["", " ", "null", "[]", "[true,true]", "{", "{bad", r#"{"verbose":"yes"}"#, r#"{"name":5}"#];
        let more = [r#"{"protocol":"1"}"#, r#"{"protocol":1.0}"#, r#"{"echo":true,"echo":false}"#, "{} x", &long];
        for json in bad.into_iter().chain(more) {
            assert_eq!(Connect::parse(json.as_bytes()).unwrap_err(), ProtocolError::UnknownOperation, "{json}");
        }
        assert!(Connect::parse(b"{\"name\":\"\xff\"}").is_err());
    }

    #[test]
    fn unknown_fields_are_skipped_however_deep_they_are() {
        let deep = format!(r#"{{"x":{}1{},"name":"n"}}"#, "[".repeat(2000), "]".repeat(2000));
        assert_eq!(Connect::parse(deep.as_bytes()).unwrap().name.as_deref(), Some("n"));
    }

    #[test]
    fn clients_that_cannot_be_served_are_refused() {
        let check = |json: &[u8]| Connect::parse(json).unwrap().check();
        assert_eq!(check(br#"{"protocol":2}"#), Err(ProtocolError::InvalidClientProtocol));
        assert_eq!(check(br#"{"protocol":-1}"#), Err(ProtocolError::InvalidClientProtocol));
        assert_eq!(check(br#"{"no_responders":true}"#), Err(ProtocolError::NoRespondersWithoutHeaders));
        assert_eq!(check(br#"{"no_responders":true,"headers":true}"#), Ok(()));
    }
}
