//! Calls between nodes with certificates.

use std::time::Duration;

use crate::harness::SOON;
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options, rollbook, run_command};

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
