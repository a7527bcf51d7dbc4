//! Requests that stand in objects, from the object to the answer in its status, before an API server that is played.

mod api_server;

use super::ClusterWork;
use crate::issuing::Issuing;
use crate::record::LOG_FILE;
use crate::testing::{NOW, World, domain, open};
use api_server::TestApi;
use mesh_issuance::adoption::request::guard::{EXPRESSIONS, POLICY};
use mesh_issuance::adoption::request::object::whole_secs;
use mesh_issuance::attestation::pod_certificate::SIGNER;
use mesh_trust::{Denials, Denied, SpiffeId, Svid, TrustBundle, TrustBundles};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const DEFINITIONS: &str = "apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const REQUESTS: &str = "apis/cert-manager.io/v1/certificaterequests";
const ISSUERS: &str = "apis/mesh.internal/v1alpha1/meshissuers";
const CLUSTER_ISSUERS: &str = "apis/mesh.internal/v1alpha1/meshclusterissuers";
const POLICIES: &str = "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const ACCOUNTS: &str = "api/v1/serviceaccounts";
const PODS: &str = "api/v1/pods";
const POD_REQUESTS: &str = "apis/certificates.k8s.io/v1/podcertificaterequests";
const BUNDLES: &str = "apis/certificates.k8s.io/v1/clustertrustbundles";
const BUNDLE: &str = "mesh.internal:identity:bundle";

/// A CA that works for a cluster.
struct Cluster {
    api: TestApi,
    dir: TempDir,
    bundle: TrustBundles,
    denials: watch::Sender<Arc<Denials>>,
    work: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Cluster {
    async fn start(api: TestApi) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = World::flowing(NOW);
        let desk = open(dir.path(), &world).unwrap();
        let root = desk.root().certificate().clone();
        let bundle = TrustBundles::from(TrustBundle::new(domain(), vec![root]).unwrap());
        let denials = watch::Sender::new(Arc::new(Denials::default()));
        let issuing = Issuing::new(desk).with_denials(denials.subscribe());
        let work = ClusterWork {
            client: api.serve().await,
            namespace: "mesh-system".to_owned(),
            external_issuer: true,
        };
        let work = tokio::spawn(async move {
            let never = work.run(issuing, world, (domain(), 86_400)).await;
            match never {}
        });
        Self {
            api,
            dir,
            bundle,
            denials,
            work,
        }
    }

    /// Waits for the answer to a request: reason and message of `Ready`.
    async fn answer(&self, name: &str) -> (String, String) {
        let object = self.api.until((REQUESTS, Some("shop"), name), |object| {
            ready(object).is_some()
        });
        ready(&object.await).unwrap()
    }

    async fn ends(&self, name: &str, reason: &str) -> Value {
        let is = |object: &Value| ready(object).is_some_and(|(found, _)| found == reason);
        self.api.until((REQUESTS, Some("shop"), name), is).await
    }

    fn verify(&self, pem: &str) -> SpiffeId {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let svid = Svid::parse(chain).unwrap();
        self.bundle.verify(&svid, NOW.plus_secs(1)).unwrap();
        svid.id().clone()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(LOG_FILE)).unwrap()
    }

    /// Waits until all issuers say that they are ready.
    async fn issuers_are_ready(&self) {
        let is_ready = |object: &Value| ready(object).is_some_and(|(reason, _)| reason == "Ready");
        let of_all = (CLUSTER_ISSUERS, None, "any");
        self.api.until(of_all, is_ready).await;
        let of_shop = (ISSUERS, Some("shop"), "mesh");
        self.api.until(of_shop, is_ready).await;
    }

    /// A request that was signed, and whose status cannot be written.
    async fn signed_and_not_written(&self, name: &str) -> Value {
        self.issuers_are_ready().await;
        self.api.failing.store(usize::MAX, Ordering::SeqCst);
        self.api.put(REQUESTS, request(name, true));
        for _ in 0..500 {
            if self.log().contains(&format!("shop/{name} uid")) {
                return self.api.get(REQUESTS, Some("shop"), name).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it was not signed");
    }

    fn certificates_of(&self, name: &str) -> usize {
        let log = self.log();
        let of = |line: &&str| line.contains(r#""kind":"intent""#) && line.contains(name);
        log.lines().filter(of).count()
    }
}

fn ready(object: &Value) -> Option<(String, String)> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let ready = all.iter().find(|one| one["type"] == "Ready")?;
    let text = |field: &str| ready[field].as_str().unwrap().to_owned();
    Some((text("reason"), text("message")))
}

fn ago(secs: i64) -> String {
    whole_secs(NOW.plus_secs(-secs))
}

/// An API server with cert-manager, our definitions, an issuer, a service account, and the guard of user names.
fn api() -> TestApi {
    let api = TestApi::new();
    for name in [
        "certificaterequests.cert-manager.io",
        "meshissuers.mesh.internal",
        "meshclusterissuers.mesh.internal",
    ] {
        api.put(DEFINITIONS, json!({ "metadata": { "name": name } }));
    }
    let named = |name: &str| json!({ "namespace": "shop", "name": name, "uid": format!("uid-{name}"), "generation": 1 });
    api.put(REQUESTS, json!({ "metadata": named("none"), "spec": {} }));
    api.put(
        CLUSTER_ISSUERS,
        json!({ "metadata": { "name": "any", "generation": 1 }, "spec": {} }),
    );
    api.put(ISSUERS, json!({ "metadata": named("mesh"), "spec": {} }));
    api.put(ACCOUNTS, json!({ "metadata": named("cart") }));
    guard(&api);
    api
}

fn guard(api: &TestApi) {
    let validations: Vec<Value> = EXPRESSIONS
        .iter()
        .map(|one| json!({ "expression": one }))
        .collect();
    let metadata = json!({ "name": POLICY, "creationTimestamp": ago(100) });
    let rule = json!({
        "apiGroups": ["cert-manager.io"], "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"], "resources": ["certificaterequests"],
    });
    api.put(
        POLICIES,
        json!({ "metadata": metadata, "spec": { "matchConstraints": { "resourceRules": [rule] }, "validations": validations } }),
    );
    api.put(
        BINDINGS,
        json!({ "metadata": metadata, "spec": { "policyName": POLICY, "validationActions": ["Deny"] } }),
    );
}

fn csr(key: &KeyPair) -> String {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    data_encoding::BASE64.encode(request.pem().unwrap().as_bytes())
}

/// A request of service account `shop/cart`, as cert-manager's webhook leaves it.
fn request(name: &str, approved: bool) -> Value {
    let conditions = match approved {
        true => json!([{ "type": "Approved", "status": "True" }]),
        false => json!([]),
    };
    json!({
        "metadata": { "namespace": "shop", "name": name, "uid": format!("uid-{name}"), "creationTimestamp": ago(50) },
        "spec": {
            "issuerRef": { "group": "mesh.internal", "kind": "MeshIssuer", "name": "mesh" },
            "request": csr(&KeyPair::generate().unwrap()),
            "username": "system:serviceaccount:shop:cart", "uid": "uid-cart",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:shop"],
        },
        "status": { "conditions": conditions },
    })
}

fn decoded(object: &Value, field: &str) -> String {
    let text = object["status"][field].as_str().unwrap();
    String::from_utf8(data_encoding::BASE64.decode(text.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn an_approved_request_is_answered_and_one_that_nobody_approved_is_not_touched() {
    let cluster = Cluster::start(api()).await;
    cluster.api.put(REQUESTS, request("waits", false));
    cluster.api.put(REQUESTS, request("web", true));
    let object = cluster.ends("web", "Issued").await;
    let id = cluster.verify(&decoded(&object, "certificate"));
    assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    let anchor = cluster.bundle.iter().next().unwrap().to_pem();
    assert_eq!(decoded(&object, "ca"), anchor);
    assert_eq!(object["status"]["conditions"][0]["type"], "Approved");
    assert!(cluster.log().contains("certificate request shop/web uid uid-web to MeshIssuer mesh, asked for by system:serviceaccount:shop:cart"));
    let waits = cluster.api.get(REQUESTS, Some("shop"), "waits").unwrap();
    assert_eq!(ready(&waits), None);
    // Somebody approves it after all.
    cluster.api.put(REQUESTS, request("waits", true));
    cluster.ends("waits", "Issued").await;
}

#[tokio::test]
async fn an_issuer_says_that_it_is_ready_and_is_waited_for_until_it_is_there() {
    let cluster = Cluster::start(api()).await;
    let is_ready = |object: &Value| ready(object).is_some_and(|(reason, _)| reason == "Ready");
    cluster
        .api
        .until((ISSUERS, Some("shop"), "mesh"), is_ready)
        .await;
    let mut other = request("early", true);
    other["spec"]["issuerRef"]["name"] = json!("later");
    cluster.api.put(REQUESTS, other);
    let (reason, message) = cluster.answer("early").await;
    assert_eq!(reason, "Pending", "{message}");
    cluster.api.put(
        ISSUERS,
        json!({ "metadata": { "namespace": "shop", "name": "later", "generation": 1 }, "spec": {} }),
    );
    cluster.ends("early", "Issued").await;
}

#[tokio::test]
async fn without_the_guard_of_user_names_nothing_is_issued_and_issuers_say_so() {
    let api = api();
    api.remove(BINDINGS, None, POLICY);
    let cluster = Cluster::start(api).await;
    cluster.api.put(REQUESTS, request("web", true));
    let (reason, message) = cluster.answer("web").await;
    assert_eq!(reason, "Pending", "{message}");
    let unguarded = |object: &Value| ready(object).is_some_and(|(reason, _)| reason == "Unguarded");
    cluster
        .api
        .until((ISSUERS, Some("shop"), "mesh"), unguarded)
        .await;
    assert_eq!(cluster.certificates_of("shop/web"), 0);
    guard(&cluster.api);
    cluster.ends("web", "Issued").await;
}

#[tokio::test]
async fn what_was_signed_and_could_not_be_written_is_written_later_and_not_signed_again() {
    let cluster = Cluster::start(api()).await;
    cluster.issuers_are_ready().await;
    cluster.api.failing.store(2, Ordering::SeqCst);
    cluster.api.put(REQUESTS, request("web", true));
    let object = cluster.ends("web", "Issued").await;
    cluster.verify(&decoded(&object, "certificate"));
    assert_eq!(cluster.certificates_of("shop/web"), 1);
}

#[tokio::test]
async fn what_others_say_of_a_request_while_its_answer_waits_is_kept() {
    let cluster = Cluster::start(api()).await;
    let mut object = cluster.signed_and_not_written("web").await;
    let conditions = object["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(json!({ "type": "Checked", "status": "True" }));
    cluster.api.put(REQUESTS, object);
    cluster.api.failing.store(0, Ordering::SeqCst);
    let object = cluster.ends("web", "Issued").await;
    cluster.verify(&decoded(&object, "certificate"));
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let kinds: Vec<_> = conditions.iter().map(|one| &one["type"]).collect();
    assert_eq!(kinds, ["Approved", "Checked", "Ready"]);
    assert_eq!(cluster.certificates_of("shop/web"), 1);
}

#[tokio::test]
async fn a_request_that_is_denied_before_its_certificate_was_written_gets_none() {
    let cluster = Cluster::start(api()).await;
    let mut object = cluster.signed_and_not_written("web").await;
    let conditions = object["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(json!({ "type": "Denied", "status": "True" }));
    cluster.api.put(REQUESTS, object);
    cluster.api.failing.store(0, Ordering::SeqCst);
    let object = cluster.ends("web", "Denied").await;
    assert!(object["status"].get("certificate").is_none(), "{object}");
    assert_eq!(object["status"]["conditions"][1]["type"], "Denied");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = cluster.api.get(REQUESTS, Some("shop"), "web").unwrap();
    assert_eq!(later["status"], object["status"]);
}

#[tokio::test]
async fn an_api_server_that_is_slow_about_the_guard_does_not_hold_up_other_requests() {
    let api = api();
    api.stalled.store(true, Ordering::SeqCst);
    let cluster = Cluster::start(api).await;
    // The look at the guard begins with the first issuer that is seen.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut denied = request("denied", false);
    denied["status"]["conditions"] = json!([{ "type": "Denied", "status": "True" }]);
    cluster.api.put(REQUESTS, denied);
    let noted = cluster.ends("denied", "Denied");
    let noted = tokio::time::timeout(Duration::from_secs(3), noted).await;
    assert!(noted.is_ok(), "it waited for the guard");
    cluster.api.stalled.store(false, Ordering::SeqCst);
    cluster.issuers_are_ready().await;
}

#[tokio::test]
async fn an_issuer_of_which_others_say_something_too_is_told_once() {
    let api = api();
    let mut issuer = api.get(ISSUERS, Some("shop"), "mesh").unwrap();
    issuer["status"] = json!({ "conditions": [{ "type": "Audited", "status": "True" }] });
    api.put(ISSUERS, issuer);
    let cluster = Cluster::start(api).await;
    cluster.issuers_are_ready().await;
    let told = cluster.api.get(ISSUERS, Some("shop"), "mesh").unwrap();
    assert_eq!(told["status"]["conditions"][0]["type"], "Audited");
    // The next look, at once: it tells those whose names come later last.
    let named = json!({ "namespace": "shop", "name": "zz", "generation": 1 });
    cluster
        .api
        .put(ISSUERS, json!({ "metadata": named, "spec": {} }));
    let is_ready = |object: &Value| ready(object).is_some();
    let last = (ISSUERS, Some("shop"), "zz");
    cluster.api.until(last, is_ready).await;
    let later = cluster.api.get(ISSUERS, Some("shop"), "mesh").unwrap();
    assert_eq!(later, told, "it was written again");
}

#[tokio::test]
async fn denied_identities_and_used_keys_fail_for_good() {
    let cluster = Cluster::start(api()).await;
    let first = request("first", true);
    let mut again = request("again", true);
    again["spec"]["request"] = first["spec"]["request"].clone();
    cluster.api.put(REQUESTS, first);
    cluster.ends("first", "Issued").await;
    cluster.api.put(REQUESTS, again);
    let (reason, message) = cluster.answer("again").await;
    assert_eq!(reason, "Failed");
    assert!(message.contains("MESH-0223"), "{message}");
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    let denials = Denials::default().deny(Denied::Identity(id), NOW, "test");
    let denials = denials.unwrap();
    cluster.denials.send_replace(Arc::new(denials));
    cluster.api.put(REQUESTS, request("denied", true));
    let object = cluster.ends("denied", "Failed").await;
    assert!(ready(&object).unwrap().1.contains("MESH-0277"));
    assert!(object["status"]["failureTime"].is_string());
    assert!(object["status"].get("certificate").is_none());
}

#[tokio::test]
async fn a_pods_request_gets_chain_and_times_at_once() {
    let api = api();
    let pod = json!({
        "metadata": { "namespace": "shop", "name": "cart-0", "uid": "p-1" },
        "spec": { "serviceAccountName": "cart", "nodeName": "node-a", "containers": [] },
        "status": { "phase": "Pending" },
    });
    api.put(PODS, pod);
    let key = KeyPair::generate().unwrap();
    let stub = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let ask = |name: &str, uid: &str| {
        json!({
            "metadata": { "namespace": "shop", "name": name, "uid": format!("uid-{name}") },
            "spec": {
                "signerName": SIGNER, "podName": "cart-0", "podUID": uid,
                "serviceAccountName": "cart", "serviceAccountUID": "uid-cart",
                "nodeName": "node-a", "nodeUID": "n-1", "maxExpirationSeconds": 7_200,
                "stubPKCS10Request": data_encoding::BASE64.encode(stub.der()),
            },
        })
    };
    api.put(POD_REQUESTS, ask("good", "p-1"));
    api.put(POD_REQUESTS, ask("forged", "p-2"));
    let cluster = Cluster::start(api).await;
    let done = |object: &Value| object.pointer("/status/conditions/0").is_some();
    let good = cluster
        .api
        .until((POD_REQUESTS, Some("shop"), "good"), done)
        .await;
    let status = &good["status"];
    assert_eq!(status["conditions"][0]["type"], "Issued", "{status}");
    let id = cluster.verify(status["certificateChain"].as_str().unwrap());
    assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    let time = |field: &str| -> i64 {
        let text = status[field].as_str().unwrap();
        text.parse::<mesh_trust::Timestamp>().unwrap().unix_secs()
    };
    assert_eq!(time("notAfter") - time("notBefore"), 7_200);
    assert!(time("notBefore") > NOW.unix_secs() - 300);
    assert!(time("notBefore") + 600 < time("beginRefreshAt"));
    assert!(time("beginRefreshAt") + 600 < time("notAfter"));
    let forged = cluster
        .api
        .until((POD_REQUESTS, Some("shop"), "forged"), done)
        .await;
    assert_eq!(
        forged["status"]["conditions"][0]["reason"],
        "PodNotAttested"
    );
    assert!(forged["status"].get("certificateChain").is_none());
}

#[tokio::test]
async fn the_trust_bundle_is_published_kept_and_at_rest_not_written() {
    let api = api();
    // An API server has the kind if it ever had an object of it.
    let other = json!({ "metadata": { "name": "other" }, "spec": { "trustBundle": "x" } });
    api.put(BUNDLES, other);
    let cluster = Cluster::start(api).await;
    let anchor = cluster.bundle.iter().next().unwrap().to_pem();
    let ours = |object: &Value| object["spec"]["trustBundle"] == json!(anchor);
    let published = cluster.api.until((BUNDLES, None, BUNDLE), ours).await;
    assert_eq!(published["spec"]["signerName"], SIGNER);
    assert_eq!(
        published["metadata"]["annotations"]["mesh.internal/generation"],
        "1"
    );
    let mut changed = published.clone();
    changed["spec"]["trustBundle"] = json!("somebody's");
    cluster.api.put(BUNDLES, changed);
    cluster.api.until((BUNDLES, None, BUNDLE), ours).await;
    cluster.api.remove(BUNDLES, None, BUNDLE);
    cluster.api.until((BUNDLES, None, BUNDLE), ours).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let written = cluster.api.patches.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.api.patches.load(Ordering::SeqCst), written);
    let other = cluster.api.get(BUNDLES, None, "other").unwrap();
    assert_eq!(other["spec"]["trustBundle"], "x");
}
