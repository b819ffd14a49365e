//! Secrets of all kinds are used at all doors, right and wrong. Afterwards they are looked for everywhere.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::jwt::{self, Key};
use super::secured::{Secured, connect, log, options, publish, rest, secret_of, subscribe};
use crate::harness::http::Http;
use crate::harness::node::{rollbook, run_command};
use crate::harness::socket::Socket;
use crate::harness::{SOON, wait_for};

const PASSWORD: &str = "canary-password-7Hq2";
const HMAC: &str = "canary-hmac-secret-0123456789-0123456789";
const SECRET: &str = "canary-of-the-configuration";

/// Names of secrets and what must not be found.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let within = |needle: &str| memchr::memmem::find(bytes, needle.as_bytes()).is_some();
        self.0.iter().filter(|(_, secret)| within(secret)).map(|(name, _)| format!("{name} in {place}")).collect()
    }
}

fn files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Uses a credential at every door.
fn use_everywhere(secured: &Secured, credential: &str) {
    rest(secured.web, Some(credential), ("GET", "/api/security/self", ""));
    rest(secured.web, Some(credential), ("GET", "/api/namespaces", ""));
    publish(secured, Some(credential), "app.x");
    log(secured.log, Some(credential), ("POST", "/", "no JSON"));
    subscribe(secured, Some(credential), &[("subject", "app.>")]);
    if let Ok(client) = Socket::try_with(secured.web, Some(credential)) {
        client.send_text("no JSON");
    }
    drop(
        connect(secured.web, Some(credential))
            .map(|client| client.ask("book:publish", &json!({ "subject": "_audit.x" }))),
    );
}

fn basic(secured: &Secured, password: &str) -> u16 {
    let value = format!("Basic {}", STANDARD.encode(format!("ann:{password}")));
    let headers = [("Authorization", value.as_str())];
    Http::connect(secured.web).request("POST", "/api/security/login", &headers, b"").status
}

#[test]
fn no_secret_is_found_anywhere_but_where_it_belongs() {
    let folder = tempfile::tempdir().expect("a directory");
    let (key_file, seal_key) = (folder.path().join("seal.key"), STANDARD.encode([0xC4; 32]));
    std::fs::write(&key_file, format!("{seal_key}\n")).expect("write the key");
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let options = options().env("ROLLBOOK_LOG__FILTER", "trace");
    let options = options.env("ROLLBOOK_SECURITY__KEY_FILE", &key_file.display().to_string());
    let mut secured = Secured::start_with(&options);
    let root = &secured.root;
    let (token, _) = root.principal("user:ann", &["publish app.>", "subscribe app.>"]);
    let (viewer, _) = {
        root.done("PUT", "/api/security/principals/user:viewer", &json!({ "roles": ["viewer"] }));
        root.token("user:viewer", "never")
    };
    root.done("PUT", "/api/security/principals/user:ann/password", &json!({ "password": PASSWORD }));
    let mut issuer = jwt::issuer(&["HS256"], &[], "viewer");
    issuer["keys"] = json!("");
    issuer["secret"] = json!(HMAC);
    root.done("PUT", "/api/security/issuers/corp", &issuer);
    root.done("POST", "/api/config", &json!({ "plain": 1, "$secret": { "key": SECRET } }));
    let bearer = Key::Secret(HMAC.as_bytes().to_vec()).sign("k", &jwt::claims());
    wait_for("the issuer", SOON, || {
        (rest(secured.web, Some(&bearer), ("GET", "/api/security/self", "")).status == 200).then_some(())
    });
    let wrong = token.replace(secret_of(&token), &"canaryWRONGx".repeat(4).chars().take(43).collect::<String>());
    for credential in [&token, &viewer, &bearer, &wrong, &root.token] {
        use_everywhere(&secured, credential);
    }
    assert_eq!((basic(&secured, PASSWORD), basic(&secured, "canary-wrong-password")), (201, 401));
    let ticket = rest(secured.web, Some(&token), ("POST", "/api/security/tickets", "")).json();
    let ticket = ticket["ticket"].as_str().expect("a ticket").to_owned();
    for _ in 0..2 {
        log(secured.log, None, ("PUT", &format!("/?consumer_id=c_x&event_id=e_x&ticket={ticket}"), ""));
    }
    let secrets = Secrets(vec![
        ("a token", secret_of(&token).to_owned()),
        ("the token of a viewer", secret_of(&viewer).to_owned()),
        ("the root token", secret_of(&root.token).to_owned()),
        ("a wrong token", secret_of(&wrong).to_owned()),
        ("a JWT", bearer.rsplit('.').next().unwrap_or_default().to_owned()),
        ("a password", PASSWORD.to_owned()),
        ("a password in base64", STANDARD.encode(format!("ann:{PASSWORD}"))),
        ("a wrong password", "canary-wrong-password".to_owned()),
        ("the secret of an issuer", HMAC.to_owned()),
        ("the seal key", seal_key),
        ("a ticket", secret_of(&ticket).to_owned()),
        ("$secret", SECRET.to_owned()),
    ]);
    let mut found = shown(&secured, &secrets, &viewer);
    let mut dump = rollbook();
    dump.args(["config", "dump"]).env("ROLLBOOK_SECURITY__KEY_FILE", &key_file);
    let dumped = run_command(dump, b"", SOON);
    found.extend(secrets.found_in("config dump", dumped.stdout.as_bytes()));
    secured.node.terminate();
    found.extend(secrets.found_in("standard output", secured.node.stdout().as_bytes()));
    let said = secured.node.stderr();
    assert!(said.contains("TRACE"), "the log is at level trace");
    found.extend(secrets.found_in("the log", said.as_bytes()));
    let mut stored = Vec::new();
    files(&secured.node.data, &mut stored);
    assert!(stored.len() > 5, "{stored:?}");
    for path in stored {
        let bytes = std::fs::read(&path).expect("a file");
        let place = path.display().to_string();
        // The configuration is stored as it is.
        let here = secrets.found_in(&place, &bytes).into_iter().filter(|one| !one.starts_with("$secret in"));
        found.extend(here.filter(|one| {
            !(one.starts_with("the root token in") && path.file_name().is_some_and(|name| name == "root.token"))
        }));
    }
    found.sort_unstable();
    found.dedup();
    crate::harness::report("secrets", &found);
}

/// What REST and the streams show, to root and to a viewer.
fn shown(secured: &Secured, secrets: &Secrets, viewer: &str) -> Vec<String> {
    let mut found = Vec::new();
    let description = rest(secured.web, None, ("GET", "/openapi.json", "")).json();
    let paths = description["paths"].as_object().cloned().unwrap_or_default();
    let mut paths: Vec<String> =
        paths.into_iter().filter(|(_, of)| of.get("get").is_some()).map(|(path, _)| path).collect();
    // What processes say has no end.
    paths.retain(|path| path != "/api/processes/logs");
    paths.extend(["/metrics", "/", "/livez", "/readyz", "/docs/"].map(str::to_owned));
    for (who, token) in [("root", secured.root.token.as_str()), ("a viewer", viewer)] {
        for path in &paths {
            let path = path.replace("{principal}", "user:ann").replace("{name}", "corp").replace("{id}", "1");
            let path = path.replace("{namespace}", "app");
            let answer = rest(secured.web, Some(token), ("GET", &path, ""));
            let here = secrets.found_in(&format!("{path} for {who}"), &answer.body);
            let headers = format!("{:?}", answer.headers);
            found.extend(secrets.found_in(&format!("headers of {path} for {who}"), headers.as_bytes()));
            found.extend(here.into_iter().filter(|one| !(who == "root" && one.starts_with("$secret in /api/config"))));
        }
    }
    for pattern in ["_audit.>", "roll.>", "app.>"] {
        let mut stream = subscribe(secured, Some(&secured.root.token), &[("subject", pattern), ("start", "oldest")]);
        while stream.try_event(crate::harness::ms(300)).is_some() {}
        found.extend(secrets.found_in(pattern, stream.raw().as_bytes()));
    }
    let own: Value = rest(secured.web, Some(&secured.root.token), ("GET", "/api/config", "")).json();
    assert!(own.to_string().contains(SECRET), "root sees $secret: {own}");
    found
}
