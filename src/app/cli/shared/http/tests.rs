//! Tests of the client of HTTP.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::app::cli::access::test_ca::TestCa;
use crate::app::cli::shared::testing::{self, Fake};

#[tokio::test]
async fn a_refused_connection_says_what_to_do() {
    let global = testing::global("http://127.0.0.1:1", "http://127.0.0.1:1");
    let client = Client::log(&global).unwrap();
    let error = client.send(Method::GET, client.url(&[], &[]), None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("no node answers at http://127.0.0.1:1/ (Connection refused"), "{text}");
    assert!(text.ends_with("start one with `rollbook serve` or pass --log-url"), "{text}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn refusals_keep_the_text_of_the_node_and_add_a_hint() {
    let cases = [
        (
            "400 Bad Request",
            "namespace not found: nope\n",
            "namespace not found: nope (HTTP 400); create it with `rollbook namespaces create nope`",
        ),
        (
            "404 Not Found",
            r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"namespace not found: nope","code":"x"}"#,
            "namespace not found: nope (HTTP 404); `rollbook namespaces list` shows what there is",
        ),
        (
            "404 Not Found",
            r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"consumer not found: c","code":"x"}"#,
            "consumer not found: c (HTTP 404); `rollbook consumers list` shows what there is",
        ),
        (
            "409 Conflict",
            r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"namespace app exists","code":"x"}"#,
            "namespace app exists (HTTP 409)",
        ),
        (
            "503 Service Unavailable",
            "unavailable: no leader\n",
            "unavailable: no leader (HTTP 503); try again, and see `rollbook health`",
        ),
        ("500 Internal Server Error", "", "the node refused without saying why (HTTP 500)"),
    ];
    for (status, body, says) in cases {
        let fake = Fake::start(vec![testing::answer(status, "", body)]).await;
        let client = Client::web(&fake.global()).unwrap();
        let error = client.send(Method::GET, client.url(&["api"], &[]), None).await.unwrap_err();
        assert_eq!(error.to_string(), says);
    }
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let fake = Fake::start(vec![
        testing::answer("200 OK", "", r#"{"items":[1,2],"next_cursor":"x y"}"#),
        testing::answer("200 OK", "", r#"{"items":[3],"next_cursor":null}"#),
    ])
    .await;
    let client = Client::web(&fake.global()).unwrap();
    let items = client.list(&["api", "consumers"], &[("namespace", "app")]).await.unwrap();
    assert_eq!(items.len(), 3);
    let requests = fake.requests();
    assert!(requests[0].starts_with("GET /api/consumers?namespace=app HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[1].starts_with("GET /api/consumers?namespace=app&cursor=x+y HTTP/1.1\r\n"), "{requests:?}");
}

#[test]
fn segments_of_a_path_are_escaped() {
    let base = Url::parse("http://h:1/base/").unwrap();
    let client = Client::new(base, "--log-url", &Access::default()).unwrap();
    assert_eq!(client.url(&["api", "a/b"], &[("q", "ü&=")]).as_str(), "http://h:1/base/api/a%2Fb?q=%C3%BC%26%3D");
    assert_eq!(client.url(&[], &[]).as_str(), "http://h:1/base/");
}

async fn get(global: &Global) -> Result<Response, CallError> {
    let client = Client::web(global).unwrap();
    client.send(Method::GET, client.url(&["readyz"], &[]), None).await
}

#[tokio::test]
async fn requests_go_over_tls_with_the_token_and_the_certificate_that_the_node_wants() {
    let here = tempfile::tempdir().unwrap();
    let ca = TestCa::new(here.path());
    let (ann, token) = (ca.leaf("ann"), here.path().join("token"));
    std::fs::write(&token, "rb1_k7_s3cr3t\n").unwrap();
    let fake = Fake::start_tls(vec![testing::answer("200 OK", "", "ready")], ca.server(true)).await;
    let global = Global { ca: Some(ca.file.clone()), token_file: Some(token), ..fake.global() };
    let refused = get(&global).await.unwrap_err();
    assert!(refused.to_string().ends_with("wants a client certificate: pass --certificate"), "{refused}");
    let global = Global { certificate: Some(ann.certificate), certificate_key: Some(ann.key), ..global };
    get(&global).await.unwrap();
    let requests = fake.requests();
    assert!(requests.concat().contains("authorization: Bearer rb1_k7_s3cr3t\r\n"), "{requests:?}");
}

#[tokio::test]
async fn a_node_that_is_not_trusted_gets_no_request_and_the_error_says_what_to_do() {
    let here = tempfile::tempdir().unwrap();
    let (ours, theirs) = (here.path().join("ours"), here.path().join("theirs"));
    let [ours, theirs] = [ours, theirs].map(|folder| {
        std::fs::create_dir(&folder).unwrap();
        TestCa::new(&folder)
    });
    let fake = Fake::start_tls(vec![testing::answer("200 OK", "", "ready")], theirs.server(false)).await;
    let global = Global { ca: Some(ours.file), ..fake.global() };
    let error = get(&global).await.unwrap_err();
    assert!(error.to_string().contains("pass the CA of the node with --ca"), "{error}");
    assert!(!error.is_transient());
    let by_name = fake.url().replace("127.0.0.1", "localhost");
    let global = Global { ca: Some(theirs.file), web_url: Some(by_name), ..global };
    let error = get(&global).await.unwrap_err();
    assert!(error.to_string().contains("the name or address that the certificate"), "{error}");
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn a_listener_that_speaks_the_other_protocol_is_told_apart() {
    let here = tempfile::tempdir().unwrap();
    let ca = TestCa::new(here.path());
    let tls = Fake::start_tls(vec![testing::answer("200 OK", "", "ready")], ca.server(false)).await;
    let global = |url: String| Global { ca: Some(ca.file.clone()), ..testing::global(&url, &url) };
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let global = global(format!("https://{}", listener.local_addr().unwrap()));
        let answers = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 64 * 1024]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (error, ()) = tokio::join!(get(&global), answers);
        let told = error.unwrap_err().to_string();
        assert!(told.ends_with("may not speak TLS: write http://"), "{answer:?}: {told}");
    }
    let error = get(&global(tls.url().replace("https:", "http:"))).await.unwrap_err();
    assert!(error.to_string().ends_with("may speak TLS: write https://"), "{error}");
}

#[tokio::test]
async fn refusals_for_identity_say_how_to_go_on() {
    for (status, headers, body, says) in [
        ("401 Unauthorized", "", "no token\n", "rollbook login"),
        ("403 Forbidden", "", r#"{"detail":"no right","code":"forbidden"}"#, "rollbook can PRINCIPAL VERB TARGET"),
        ("429 Too Many Requests", "Retry-After: 3\r\n", "too fast\n", "try again in 3s"),
    ] {
        let fake = Fake::start(vec![testing::answer(status, headers, body)]).await;
        let told = get(&fake.global()).await.unwrap_err().to_string();
        assert!(told.contains(says), "{told}");
    }
}
