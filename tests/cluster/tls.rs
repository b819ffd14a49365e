//! Calls between nodes with certificates.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options, rollbook, run_command};
use crate::harness::{SOON, wait_for};

#[test]
fn nodes_with_certificates_form_a_cluster_and_one_without_stays_outside() {
    let mut cluster = Cluster::prepare(Options::new());
    let certificates = cluster.directory.path().join("certs");
    let mut make = rollbook();
    make.args(["cert", "dev", "--nodes", "1,2,3", "--dir"]).arg(&certificates);
    let made = run_command(make, b"", SOON);
    assert_eq!(made.code, Some(0), "{made:?}");
    let with = |options: Options, id: usize, owner: usize| {
        let path = |name: &str| certificates.join(name).to_string_lossy().into_owned();
        let _number = id;
        options
            .env("ROLLBOOK_PEER__CA", &path("ca.pem"))
            .env("ROLLBOOK_PEER__CERTIFICATE", &path(&format!("node-{owner}.pem")))
            .env("ROLLBOOK_PEER__KEY", &path(&format!("node-{owner}.key")))
    };
    cluster.up_with(&[1, 2, 3], |id, options| with(options, id, id));
    cluster.publish_anywhere("app.x", "1");
    assert_eq!(cluster.payloads(3, "app.x", 1), ["1"]);
    // Live messages change the thread after the handshake.
    let provider = BusClient::connect(cluster.node(2).web);
    provider.register("svc", &["work"]);
    wait_for("node 1 to know", SOON, || {
        (cluster.node(1).web("GET", "/api/services/svc", "").status == 200).then_some(())
    });
    let caller = BusClient::connect(cluster.node(1).web);
    let big = json!("x".repeat(500_000));
    for payload in [json!(1), big] {
        let id = caller.begin("bus:request", &json!({ "capability": "work", "payload": payload }));
        provider.serve_one(Value::clone);
        assert_eq!(caller.acked(id)["data"], payload);
    }
    cluster.kill(3);
    let (options, data) = (cluster.options_of(3), cluster.data(3));
    assert!(Node::not_ready(&options, &data, Duration::from_secs(3)), "without a certificate nobody talks to it");
    let stolen = with(cluster.options_of(3), 3, 1);
    let exit = Node::launch(&stolen, &data).err().expect("the certificate of another node");
    assert_ne!(exit.code, Some(0), "{exit:?}");
    cluster.up_with(&[3], |id, options| with(options, id, id));
    cluster.publish_anywhere("app.x", "2");
    assert_eq!(cluster.payloads(3, "app.x", 2), ["1", "2"]);
}
