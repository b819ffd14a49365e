//! The layers, their precedence and origins, and the text of each refusal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::layers::{self, Loaded, Origin};
use super::settings::Config;
use super::values::{Namespaces, RESERVED_NAMESPACES};

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, Value)]) -> Result<Loaded, String> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    layers::lay(Some((Path::new("r.toml"), file)), env, flags).map_err(|error| error.to_string())
}

fn refusal(file: &str) -> String {
    load(file, &[], &[]).expect_err("must be refused")
}

fn refusal_env(name: &str, value: &str) -> String {
    load("", &[(name, value)], &[]).expect_err("must be refused")
}

#[test]
fn defaults_are_those_of_the_readme() {
    let loaded = Config::load(None, std::iter::empty(), &[]).unwrap();
    let config = loaded.config.clone();
    assert_eq!(config, Config::default());
    assert_eq!((config.node.id, config.node.data, config.node.insecure), (1, PathBuf::from("./data"), false));
    assert_eq!(config.web.listen.to_string(), "127.0.0.1:7440");
    assert_eq!(config.doors.sse.listen.to_string(), "127.0.0.1:2021");
    assert_eq!(config.book.namespaces, Namespaces::Any);
    assert!(loaded.settings().iter().all(|(_, _, origin)| *origin == Origin::Default));
}

#[test]
fn each_layer_beats_the_one_below_and_is_remembered() {
    let file = "[sse]\nlisten = \"127.0.0.1:1\"\nkeep_alive = \"1m\"\n\n[web]\nlisten = \"127.0.0.1:2\"\n";
    let env =
        [("ROLLBOOK_SSE__LISTEN", "127.0.0.1:3"), ("ROLLBOOK_NODE__ID", "7"), ("ROLLBOOK_NODE__INSECURE", "true")];
    let loaded = load(file, &env, &[("node.id", Value::Integer(9))]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.doors.sse.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.doors.sse.keep_alive, Duration::from_secs(60));
    assert_eq!(config.web.listen.to_string(), "127.0.0.1:2");
    assert_eq!((config.node.id, config.node.insecure), (9, true));
    let origin = |key: &str| loaded.origins.get(key).map(Origin::to_string);
    assert_eq!(origin("sse.listen").as_deref(), Some("env ROLLBOOK_SSE__LISTEN"));
    assert_eq!(origin("sse.keep_alive").as_deref(), Some("file r.toml:3"));
    assert_eq!(origin("web.listen").as_deref(), Some("file r.toml:6"));
    assert_eq!(origin("node.id").as_deref(), Some("flag --node"));
    assert_eq!(origin("node.data"), None);
    let dump = loaded.dump(true);
    assert!(dump.contains("keep_alive = \"1m\"                        # file r.toml:3\n"), "{dump}");
    assert!(dump.contains("# default\n"), "{dump}");
}

#[test]
fn a_dump_is_a_file_that_reads_back() {
    let file =
        "[book]\nnamespaces = [\"a\", \"b-2\"]\nreserve_bytes = 1\n[web]\nlisten = \"off\"\n[log]\nformat = \"json\"\n";
    let loaded = load(file, &[], &[]).unwrap();
    for origins in [false, true] {
        assert_eq!(load(&loaded.dump(origins), &[], &[]).unwrap().config, loaded.config);
    }
}

#[test]
fn a_typo_is_an_error_with_line_and_column() {
    assert_eq!(
        refusal("[sse]\nlisten = \"off\"\n  lisen = 1\n"),
        "r.toml:3:3: unknown key `lisen` in [sse]; keys are body_bytes_max, body_timeout, client_certificates, connections_max, idle_timeout, keep_alive, listen, origins, proxy_protocol_from, streams_max, tls"
    );
    assert!(
        refusal("[see]\nlisten = 1\n")
            .starts_with("r.toml:2:1: unknown section [see]; sections are book, calls, cluster, ")
    );
    assert!(refusal("\n[see]\n").starts_with("r.toml:2:2: unknown section [see]"));
    assert!(refusal("listen = 1\n").starts_with("r.toml:1:1: `listen` stands outside a section"));
    assert!(refusal("sse = 1\n").starts_with("r.toml:1:1: `sse` stands outside a section"));
    assert!(refusal("[sse.nested]\ncert = 1\n").starts_with("r.toml:1:6: unknown key `nested` in [sse]"));
    assert!(refusal("[sse]\nlisten = \n").starts_with("r.toml:2:10: "));
    assert!(refusal("[sse]\nlisten = \"off\"\nlisten = \"off\"\n").starts_with("r.toml:3:1: "));
    assert!(
        refusal("[node]\nid = \"1\"\n").starts_with("r.toml:2:6: node.id: invalid type: string \"1\", expected u64")
    );
    assert!(refusal("[node]\nid = -1\n").starts_with("r.toml:2:6: node.id: "));
    assert!(
        refusal("# \u{fc}\u{fc}\n[log]\nfilter=\"\u{fc}\"\nformat = \"xml\"\n")
            .starts_with("r.toml:4:10: log.format: ")
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let text = refusal("[node]\nid = \"x\"\nname = 1\n[sse]\nkeep_alive = \"2d\"\n");
    let places: Vec<&str> = text.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["r.toml:2:6", "r.toml:3:1", "r.toml:5:14"], "{text}");
    assert!(text.contains("sse.keep_alive: `2d` is not a duration"), "{text}");
}

#[test]
fn variables_are_typed_by_their_default_and_checked() {
    let good = [
        ("ROLLBOOK_BOOK__NAMESPACES", "a, b"),
        ("ROLLBOOK_BOOK__RESERVE_BYTES", "5"),
        ("PATH", "/bin"),
        ("ROLLBOOK_LOG_URL", "x"),
    ];
    let config = load("", &good, &[]).unwrap().config;
    assert_eq!(config.book.namespaces, Namespaces::Listed(vec!["a".into(), "b".into()]));
    assert_eq!(config.book.reserve_bytes, 5);
    let units =
        load("[sse]\nbody_bytes_max = \"8MB\"\n", &[("ROLLBOOK_BOOK__RESERVE_BYTES", "1GiB")], &[]).unwrap().config;
    assert_eq!((units.doors.sse.body_bytes_max, units.book.reserve_bytes), (8_000_000, 1 << 30));
    let calls = load("[calls]\nin_flight_bytes_max = \"64MiB\"\n", &[], &[]).unwrap().config.calls;
    assert_eq!(calls.in_flight_bytes_max, 64 << 20);
    assert!(
        refusal("[sse]\nbody_bytes_max = \"8 buckets\"\n")
            .contains("sse.body_bytes_max: `8 buckets` is no number of bytes")
    );
    assert!(refusal("[sse]\nbody_bytes_max = -1\n").contains("expected a number of bytes, as in 8388608 or \"8MiB\""));
    assert!(refusal_env("ROLLBOOK_NODE__ID", "8MB").contains("node.id: invalid type: string \"8MB\", expected u64"));
    assert_eq!(refusal_env("ROLLBOOK_NODE__ID", "x"), "ROLLBOOK_NODE__ID: node.id: `x` is not a whole number");
    assert!(refusal_env("ROLLBOOK_NODE__INSECURE", "yes").contains("neither true nor false"));
    assert!(refusal_env("ROLLBOOK_NODE__NAME", "x").starts_with("ROLLBOOK_NODE__NAME: unknown key `name` in [node]"));
    assert!(refusal_env("ROLLBOOK_X__Y", "x").starts_with("ROLLBOOK_X__Y: unknown section [x]"));
    assert_eq!(
        refusal_env("ROLLBOOK_SSE_LISTEN", "off"),
        "ROLLBOOK_SSE_LISTEN: is not a setting; write ROLLBOOK_SSE__LISTEN"
    );
    assert!(load("", &[("ROLLBOOK_SERVICE_HOST", "10.0.0.1"), ("ROLLBOOK_PORT_2021_TCP", "x")], &[]).is_ok());
}

#[test]
fn namespaces_refuse_nothing_reserved_ones_and_bad_names() {
    let namespaces = |value: &str| {
        load(&format!("[book]\nnamespaces = {value}\n"), &[], &[]).map(|loaded| loaded.config.book.namespaces)
    };
    let refused = |value: &str| namespaces(value).expect_err("must be refused");
    for any in ["\"*\"", "[\"*\"]"] {
        assert_eq!(namespaces(any), Ok(Namespaces::Any));
    }
    for nothing in ["[]", "\"\"", "\" \""] {
        assert_eq!(refused(nothing), "r.toml:2:14: book.namespaces: no namespaces provided");
    }
    for name in RESERVED_NAMESPACES {
        assert!(refused(&format!("[\"app\", \"{name}\"]")).ends_with(&format!("namespace {name} is reserved")));
    }
    assert!(refused("[\"a\", \"*\"]").contains("stands alone"));
    assert!(refused("\"a,,b\"").contains("is not a namespace"));
    assert!(refused("[\"a.b\"]").contains("is not a namespace"));
    assert!(refused("[\"a\", \"a\"]").contains("listed twice"));
    assert!(refused(&format!("[\"{}\"]", "x".repeat(65))).contains("is not a namespace"));
    assert!(refused("[\"a\", 1]").contains("expected \"*\", a comma list or a list of namespaces"));
    let flag = load("", &[], &[("book.namespaces", Value::String(String::new()))]);
    assert_eq!(flag.unwrap_err(), "--namespaces: book.namespaces: no namespaces provided");
}

#[test]
fn an_exposed_listener_needs_insecure() {
    let flags = |listen: &str| vec![("sse.listen", Value::String(listen.to_owned()))];
    let insecure = ("node.insecure", Value::Boolean(true));
    for exposed in ["0.0.0.0:2021", "[::]:2021", "10.1.2.3:0", "[::ffff:10.0.0.1]:1"] {
        let text = load("", &[], &flags(exposed)).unwrap_err();
        assert!(text.starts_with("sse.listen (flag --log): ") && text.contains("pass --insecure"), "{text}");
        assert!(load("", &[], &[flags(exposed), vec![insecure.clone()]].concat()).is_ok());
        let pair = "[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
        assert!(load(pair, &[], &flags(exposed)).is_ok(), "TLS is as good");
        let text = load(&format!("{pair}[sse]\ntls = \"off\"\n"), &[], &flags(exposed)).unwrap_err();
        assert!(text.contains("there is no TLS"), "{text}");
    }
    for safe in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:2021", "[::ffff:127.0.0.1]:1", "off"] {
        assert!(load("", &[], &flags(safe)).is_ok(), "{safe}");
    }
    let local = load("", &[], &flags("localhost:2022")).unwrap().config.doors.sse.listen;
    assert_eq!(local.to_string(), "127.0.0.1:2022");
    for bad in ["", "2021", ":2021", "localhost", "localhost:", "localhost:x", "OFF", "127.0.0.1", "127.0.0.1:70000"] {
        assert!(load("", &[], &flags(bad)).unwrap_err().contains("is not a listen address; write IP:PORT"), "{bad}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (file, says) in [
        ("[web]\nlisten = \"127.0.0.1:2021\"", "sse.listen: 127.0.0.1:2021 is already the address of web.listen"),
        ("[node]\nid = 0", "node.id (file r.toml:2): node numbers start at 1"),
        ("[node]\ndata = \"\"", "node.data (file r.toml:2): name a directory"),
        (
            "[book]\npending_bytes_max = 1",
            "book.pending_bytes_max (file r.toml:2): must be at least sse.body_bytes_max",
        ),
        ("[sse]\nbody_bytes_max = 0", "sse.body_bytes_max (file r.toml:2): must be more than 0"),
        ("[sse]\nkeep_alive = \"0s\"", "sse.keep_alive (file r.toml:2): must be more than 0s"),
        ("[cluster]\nheartbeat = \"10ms\"", "cluster.heartbeat (file r.toml:2): must be 20ms to 1s"),
        ("[cluster]\nheartbeat = \"2s\"", "cluster.heartbeat (file r.toml:2): must be 20ms to 1s"),
        ("[cluster]\nheartbeat = \"600ms\"", "cluster.node_timeout: must be at least 10 times cluster.heartbeat"),
        ("[threads]\nworkers = 5000", "threads.workers (file r.toml:2): at most 1024"),
        ("[log]\nfilter = \"rollbook=loud\"", "log.filter (file r.toml:2): "),
        ("[log]\nfilter = \"debgu\"", "log.filter (file r.toml:2): `debgu` is not a level; write a level (off, "),
        ("[log]\nfilter = \"info,rollbook\"", "log.filter (file r.toml:2): `rollbook` is not a level"),
        ("[log]\nfilter = \" \"", "log.filter (file r.toml:2): an empty filter writes nothing"),
    ] {
        let text = refusal(file);
        assert!(text.starts_with(says), "{text}");
    }
    for good in ["off", "INFO", "warn, rollbook=debug", "info,[request]=debug,hyper=off"] {
        assert!(load(&format!("[log]\nfilter = \"{good}\""), &[], &[]).is_ok(), "{good}");
    }
    let both_free = "[web]\nlisten = \"127.0.0.1:0\"\n[sse]\nlisten = \"127.0.0.1:0\"";
    assert!(load(both_free, &[], &[]).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nonexistent/r.toml")), std::iter::empty(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/r.toml: cannot be read: "));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.toml");
    std::fs::write(&path, b"[log]\n\xff").unwrap();
    let error = Config::load(Some(&path), std::iter::empty(), &[]).unwrap_err();
    assert!(error.to_string().ends_with("is not UTF-8 after byte 6"), "{error}");
}
