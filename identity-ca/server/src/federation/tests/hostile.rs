//! An endpoint that says whatever a test wants, over TLS that is whatever a test wants.

use super::super::book::Federation;
use super::super::error::FederationError;
use super::super::fetch;
use super::pki::{NOW, OVER};
use super::*;
use mesh_issuance::federation::{EndpointUrl, News, Profile as Proof, Relation};
use mesh_trust::Denials;
use mesh_trust::tls::web_endpoint_config;
use miette::Diagnostic;
use rustls::ServerConfig;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What it does once it has read a request.
#[derive(Clone)]
enum Answer {
    /// Sends this and closes.
    Say(Vec<u8>),
    /// Sends this for ever.
    Repeat(Vec<u8>),
    /// Sends this and stays silent.
    Hang(Vec<u8>),
}

struct Hostile {
    listen: SocketAddr,
    now: Arc<Mutex<(Arc<ServerConfig>, Answer)>>,
    task: JoinHandle<()>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn shows(pki: &Pki, names: &[&str], years: pki::Years) -> Arc<ServerConfig> {
    let (certificate, key) = pki.certificate(names, years);
    web_endpoint_config(vec![certificate], key).unwrap()
}

fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Hostile {
    async fn start(server: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let now = Arc::new(Mutex::new((server, Answer::Say(Vec::new()))));
        let held = now.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, answer) = held.lock().unwrap().clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = TlsAcceptor::from(server).accept(stream).await else {
                        return;
                    };
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let (first, again) = match answer {
                        Answer::Say(bytes) => (bytes, None),
                        Answer::Repeat(bytes) => (ok_head(), Some(bytes)),
                        Answer::Hang(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            let _ = stream.flush().await;
                            return std::future::pending().await;
                        }
                    };
                    let _ = stream.write_all(&first).await;
                    while let Some(bytes) = &again
                        && stream.write_all(bytes).await.is_ok()
                    {}
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { listen, now, task }
    }

    fn says(&self, answer: Answer) {
        self.now.lock().unwrap().1 = answer;
    }

    fn serves(&self, document: &str) {
        self.says(Answer::Say(ok(document)));
    }

    fn shows(&self, server: Arc<ServerConfig>) {
        self.now.lock().unwrap().0 = server;
    }
}

fn ok_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\n\r\n".to_vec()
}

/// A book of West that federates with `partner.example`, and the endpoint of that.
struct Stage {
    dir: tempfile::TempDir,
    pki: Pki,
    endpoint: Hostile,
    book: Federation,
    partner: TrustDomain,
}

impl Stage {
    /// Holds sequence 7 with one root.
    async fn set(good: &WholeBundle) -> Self {
        let pki = Pki::new("roots of the Web");
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Hostile::start(shows(&pki, &["localhost"], NOW)).await;
        let own = domain("west.example");
        let book = Federation::open(dir.path(), &own, System::new()).unwrap();
        let url = format!("https://localhost:{}/bundle", endpoint.listen.port());
        let roots = pki.roots_in(dir.path());
        let relation = Relation::new(
            &own,
            domain("partner.example"),
            EndpointUrl::parse(&url).unwrap(),
            Proof::HttpsWeb {
                roots: roots.into(),
            },
        );
        book.add(relation.unwrap(), None).await.unwrap();
        let stage = Self {
            dir,
            pki,
            endpoint,
            book,
            partner: domain("partner.example"),
        };
        stage.endpoint.serves(&good.to_json());
        assert_eq!(stage.fetch().await.unwrap(), News::Newer);
        stage
    }

    async fn fetch(&self) -> Result<News, FederationError> {
        let number = self.book.number_of(&self.partner).unwrap();
        let errand = self.book.errand(number).unwrap();
        let held = errand.held.as_ref();
        let limit = Duration::from_millis(1_500);
        let fetched = fetch::fetch(&errand.relation, held, Arc::new(Denials::default()), limit);
        self.book.note(number, fetched.await).await
    }

    /// Fetches, is refused with `wanted`, and still holds `good`, on disk too.
    async fn refused(&self, why: &str, wanted: &str, good: &WholeBundle) {
        let error = self.fetch().await.expect_err(why);
        assert_eq!(error.code().unwrap().to_string(), wanted, "{why}: {error}");
        let own = domain("west.example");
        let read_again = Federation::open(self.dir.path(), &own, System::new()).unwrap();
        for book in [&self.book, &read_again] {
            let foreign = book.foreign().borrow().clone();
            let held = foreign.x509.iter().map(TrustBundle::anchors);
            assert_eq!(held.collect::<Vec<_>>(), [good.x509().anchors()], "{why}");
        }
        let status = self.book.status().remove(0);
        assert_eq!(status.held.unwrap().sequence, good.sequence(), "{why}");
        assert_eq!(status.error.unwrap().code, wanted, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_that_do_not_count_leave_the_last_one_in_force() {
    let (root, other) = (
        Pki::root_of("partner.example"),
        Pki::root_of("partner.example"),
    );
    let third = Pki::root_of("third.example");
    let good = whole("partner.example", vec![root.clone()], 7);
    let stage = Stage::set(&good).await;
    let partner = |anchors: &[&CertificateDer<'static>], sequence| {
        let anchors = anchors.iter().map(|anchor| (*anchor).clone()).collect();
        whole("partner.example", anchors, sequence).to_json()
    };
    let good_json = good.to_json();
    let two = partner(&[&root, &other], 8);
    let x5c = |document: &str, at: usize| {
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        document["keys"][at]["x5c"][0].to_string()
    };
    let (first, second) = (x5c(&two, 0), x5c(&two, 1));
    for (why, document, wanted) in [
        ("a rollback", partner(&[&other], 6), "MESH-0973"),
        ("a rollback of the same", partner(&[&root], 6), "MESH-0973"),
        (
            "the same number again",
            partner(&[&root, &other], 7),
            "MESH-0974",
        ),
        (
            "no number",
            good_json.replacen("\"spiffe_sequence\":7,", "", 1),
            "MESH-0975",
        ),
        (
            "a key twice",
            two.replacen("\"keys\"", "\"keys\":[],\"keys\"", 1),
            "MESH-0151",
        ),
        (
            "a number twice",
            two.replacen('{', "{\"spiffe_sequence\":9,", 1),
            "MESH-0151",
        ),
        (
            "a third domain's root",
            whole("third.example", vec![third], 8).to_json(),
            "MESH-0155",
        ),
        (
            "two certificates in one entry",
            two.replacen(&format!("[{first}]"), &format!("[{first},{second}]"), 1),
            "MESH-0154",
        ),
        (
            "another certificate than its key",
            two.replacen(&format!("[{first}]"), &format!("[{second}]"), 1),
            "MESH-0156",
        ),
        (
            "no list of keys",
            "{\"spiffe_sequence\":8}".to_owned(),
            "MESH-0152",
        ),
        ("no JSON", "<html>".to_owned(), "MESH-0151"),
        ("nothing", String::new(), "MESH-0151"),
        (
            "a map of bundles",
            format!("{{\"trust_domains\":{{\"partner.example\":{two}}}}}"),
            "MESH-0152",
        ),
    ] {
        stage.endpoint.serves(&document);
        stage.refused(why, wanted, &good).await;
    }
    assert_eq!(stage.book.status()[0].failures, 13);

    // What is newer counts, and ends the row of failures.
    stage.endpoint.serves(&two);
    assert_eq!(stage.fetch().await.unwrap(), News::Newer);
    assert_eq!(stage.fetch().await.unwrap(), News::Same);
    let status = stage.book.status().remove(0);
    assert_eq!((status.failures, status.error), (0, None));
    assert_eq!(status.held.unwrap().anchors.len(), 2);

    // A domain may take everything back: then nothing of it is trusted.
    stage.endpoint.serves("{\"spiffe_sequence\":9,\"keys\":[]}");
    assert_eq!(stage.fetch().await.unwrap(), News::Newer);
    assert!(stage.book.foreign().borrow().x509.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_break_the_rules_leave_the_last_bundle_in_force() {
    let good = whole("partner.example", vec![Pki::root_of("partner.example")], 7);
    let newer = whole("partner.example", vec![Pki::root_of("partner.example")], 8).to_json();
    let stage = Stage::set(&good).await;
    let answer = |status: &str, more: &str| {
        let length = newer.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n{newer}").into_bytes()
    };
    let there = format!(
        "Location: https://localhost:{}/x\r\n",
        stage.endpoint.listen.port()
    );
    let half = {
        let mut half = ok(&newer);
        half.truncate(half.len() - 10);
        half
    };
    let endless_head = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'y'; 200_000]].concat();
    let padded = format!("{}{newer}", " ".repeat(70_000));
    for (why, says, wanted) in [
        (
            "a redirect",
            Answer::Say(answer("301 Moved", &there)),
            "MESH-0969",
        ),
        (
            "another redirect",
            Answer::Say(answer("307 Elsewhere", &there)),
            "MESH-0969",
        ),
        (
            "an error",
            Answer::Say(answer("503 Later", "")),
            "MESH-0969",
        ),
        (
            "no content",
            Answer::Say(answer("206 Part", "")),
            "MESH-0969",
        ),
        ("too much", Answer::Say(ok(&padded)), "MESH-0970"),
        (
            "without end",
            Answer::Repeat(b"[[[[[[[[".repeat(512)),
            "MESH-0970",
        ),
        ("half", Answer::Say(half.clone()), "MESH-0972"),
        (
            "no HTTP",
            Answer::Say(b"SSH-2.0-x\r\n".to_vec()),
            "MESH-0972",
        ),
        ("nothing at all", Answer::Say(Vec::new()), "MESH-0972"),
        ("a head without end", Answer::Say(endless_head), "MESH-0972"),
        ("silence", Answer::Hang(Vec::new()), "MESH-0971"),
        ("silence in the middle", Answer::Hang(half), "MESH-0971"),
    ] {
        stage.endpoint.says(says);
        stage.refused(why, wanted, &good).await;
    }

    stage.endpoint.serves(&newer);
    let others = Pki::new("roots of somebody else");
    for (why, server) in [
        (
            "a certificate that is over",
            shows(&stage.pki, &["localhost"], OVER),
        ),
        (
            "a certificate of another host",
            shows(&stage.pki, &["partner.example"], NOW),
        ),
        (
            "a certificate of nobody",
            shows(&others, &["localhost"], NOW),
        ),
    ] {
        stage.endpoint.shows(server);
        stage.refused(why, "MESH-0968", &good).await;
    }
    std::fs::remove_file(stage.dir.path().join("roots.pem")).unwrap();
    stage
        .refused("roots that are gone", "MESH-0976", &good)
        .await;
    stage.pki.roots_in(stage.dir.path());
    stage.endpoint.shows(shows(&stage.pki, &["localhost"], NOW));
    assert_eq!(
        stage.fetch().await.unwrap(),
        News::Newer,
        "all was well otherwise"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_https_spiffe_is_who_was_named_under_the_bundle_held() {
    let east = House::start("east.example").await;
    let west = House::start("west.example").await;
    let held = WholeBundle::from_json(
        east.domain.clone(),
        east.status().await.unwrap().bundle_json.as_bytes(),
    );
    let held = held.unwrap();
    let limit = Duration::from_secs(5);
    let fetch = async |of: &House, id: &str, held: Option<&WholeBundle>, denials: Denials| {
        let endpoint_id = SpiffeId::parse(id).unwrap();
        let url = EndpointUrl::parse(&of.url()).unwrap();
        let proof = Proof::HttpsSpiffe { endpoint_id };
        let relation = Relation::new(&west.domain, east.domain.clone(), url, proof).unwrap();
        let fetched = fetch::fetch(&relation, held, Arc::new(denials), limit).await;
        fetched.map_err(|error| (error.code().unwrap().to_string(), error.to_string()))
    };
    let ca = ca_id(&east.domain);
    assert!(
        fetch(&east, ca.as_str(), Some(&held), Denials::default())
            .await
            .is_ok()
    );
    let (code, why) = fetch(
        &east,
        "spiffe://east.example/other",
        Some(&held),
        Denials::default(),
    )
    .await
    .unwrap_err();
    assert!(code == "MESH-0968" && why.contains("expected was"), "{why}");
    let (code, why) = fetch(&west, ca.as_str(), Some(&held), Denials::default())
        .await
        .unwrap_err();
    assert!(
        code == "MESH-0968" && why.contains("west.example"),
        "another domain's CA: {why}"
    );
    let foreign = whole("east.example", vec![Pki::root_of("east.example")], 1);
    let refused = fetch(&east, ca.as_str(), Some(&foreign), Denials::default()).await;
    assert_eq!(
        refused.unwrap_err().0,
        "MESH-0968",
        "roots that it is not under"
    );
    let empty = whole("east.example", Vec::new(), 1);
    for nothing in [None, Some(&empty)] {
        let refused = fetch(&east, ca.as_str(), nothing, Denials::default()).await;
        assert_eq!(refused.unwrap_err().0, "MESH-0966");
    }
    let named = mesh_trust::Denied::Identity(ca.clone());
    let denied = Denials::default().deny(named, now(), "gone").unwrap();
    let refused = fetch(&east, ca.as_str(), Some(&held), denied).await;
    assert_eq!(refused.unwrap_err().0, "MESH-0968", "one that is denied");
    east.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_for_a_relation_that_ended_meanwhile_changes_nothing() {
    let good = whole("partner.example", vec![Pki::root_of("partner.example")], 7);
    let stage = Stage::set(&good).await;
    let number = stage.book.number_of(&stage.partner).unwrap();
    let relation = stage.book.errand(number).unwrap().relation;
    stage.book.remove(&stage.partner).await.unwrap();
    let newer = whole("partner.example", vec![Pki::root_of("partner.example")], 8);
    assert_eq!(
        stage.book.note(number, Ok(newer)).await.unwrap(),
        News::Same
    );
    assert!(stage.book.status().is_empty());
    assert!(stage.book.foreign().borrow().x509.is_empty());

    // Made anew it is another relation, which an older bundle may begin: the override of a refused rollback.
    stage.book.add(relation, None).await.unwrap();
    assert_ne!(stage.book.number_of(&stage.partner), Some(number));
    let older = whole("partner.example", vec![Pki::root_of("partner.example")], 3);
    stage.endpoint.serves(&older.to_json());
    assert_eq!(stage.fetch().await.unwrap(), News::Newer);
}
