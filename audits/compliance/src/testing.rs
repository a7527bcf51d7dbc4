//! A small mesh for tests: `web` may ask `orders`, both in `shop`; nothing is wrong with it.

use crate::bundle::{
    Bundle, Certificate, Change, Issuance, Log, LogKind, ManifestFile, Observed, Said, SaidBy,
    Scope, Traffic, What, Workload,
};
use crate::framework;
use crate::judge::{ControlResult, FrameworkResult, Status};
use crate::report::{self, Report};
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use mesh_trust::{Timestamp, TrustDomain};
use std::collections::BTreeMap;

/// End of the window, seconds since 1970.
pub(crate) const UNTIL: i64 = 1_800_000_000;

/// `UNTIL`, and so many seconds.
pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(UNTIL + secs)
}

/// Workloads of the mesh.
pub(crate) const WORKLOADS: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Pod
metadata: { name: orders, namespace: shop, labels: { app: orders } }
spec:
  serviceAccountName: orders
  containers: [{ name: orders, ports: [{ name: http, containerPort: 8080 }] }]
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec: { serviceAccountName: web }
";

/// Its policy: one Server, one grant with an owner and a reason.
pub(crate) const POLICY: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: { name: orders, namespace: shop }
spec:
  podSelector: { matchLabels: { app: orders } }
  port: 8080
  proxyProtocol: HTTP/1
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata:
  name: orders
  namespace: shop
  annotations: { mesh.internal/owner: shop-team, mesh.internal/reason: the shop reads orders }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: orders }
  requiredAuthenticationRefs:
    - { kind: ServiceAccount, name: web }
";

/// The grant of [`POLICY`].
pub(crate) const GRANT: &str = "AuthorizationPolicy/shop/orders/0";
/// Who it lets in.
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The bundle of the mesh.
pub(crate) fn bundle() -> Bundle {
    let mut bundle = Bundle::of(Scope {
        since: at(-3_600),
        until: at(0),
        trust_domain: TrustDomain::parse("cluster.local").expect("a domain"),
        default_policy: "deny".to_owned(),
        generation: 3,
        collected_from: "state".to_owned(),
        collector: "0".to_owned(),
        leaf_lifetime_secs_max: 86_400,
    });
    bundle.files = vec![
        file("policy.yaml", POLICY),
        file("workloads.yaml", WORKLOADS),
    ];
    bundle.workloads = vec![workload("shop", "orders"), workload("shop", "web")];
    bundle.logs = vec![
        log("controller", LogKind::Changes, None),
        log("issuance", LogKind::Issuance, None),
        log("shop.orders", LogKind::Decisions, Some("orders")),
        log("shop.web", LogKind::Decisions, Some("web")),
    ];
    bundle.traffic = vec![allowed(10), denied(4)];
    if let Some(log) = bundle.logs.get_mut(2) {
        (log.decisions, log.denied) = (14, 4);
    }
    bundle.certificates = vec![certificate("01", "orders"), certificate("02", "web")];
    bundle.observed = vec![Observed {
        serial: "02".to_owned(),
        spiffe_id: WEB.to_owned(),
        expires: Some(at(80_000)),
        seen_in: "shop".to_owned(),
        count: 14,
        allowed: 10,
        last: Some(at(-5)),
        last_allowed: Some(at(-5)),
    }];
    bundle
}

/// A file of manifests.
pub(crate) fn file(name: &str, text: &str) -> ManifestFile {
    ManifestFile {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

/// A workload in the mesh that records everything.
pub(crate) fn workload(namespace: &str, name: &str) -> Workload {
    Workload {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        service_account: name.to_owned(),
        meshed: true,
        allow_sample_ppm: 1_000_000,
    }
}

/// A log, proved and sealed, over the whole window.
pub(crate) fn log(origin: &str, records: LogKind, workload: Option<&str>) -> Log {
    Log {
        origin: origin.to_owned(),
        records,
        namespace: workload.map(|_| "shop".to_owned()),
        workload: workload.map(str::to_owned),
        entries: 20,
        decisions: 0,
        denied: 0,
        incomplete: BTreeMap::new(),
        cut: 0,
        gaps: 0,
        lost: 0,
        clock_back: 0,
        first: Some(at(-4_000)),
        last: Some(at(-1)),
        sealed_through: Some(19),
        root: Some("00".repeat(32)),
        counts_allows: false,
        broken: None,
    }
}

/// `web` was allowed so often.
pub(crate) fn allowed(count: u64) -> Traffic {
    Traffic {
        namespace: "shop".to_owned(),
        workload: "orders".to_owned(),
        port: 8080,
        server: Some("orders".to_owned()),
        client: Some(WEB.to_owned()),
        tls: true,
        ip: Some("10.0.0.1".to_owned()),
        protocol: Protocol::Http,
        method: Some("GET".to_owned()),
        route: None,
        verdict: Verdict::Allow,
        phase: Phase::Permit,
        status: Some(200),
        reasons: vec![GRANT.to_owned()],
        audit: false,
        count,
        first: Some(at(-3_000)),
        last: Some(at(-5)),
    }
}

/// An unknown client was denied so often.
pub(crate) fn denied(count: u64) -> Traffic {
    Traffic {
        client: None,
        tls: false,
        verdict: Verdict::Deny,
        status: Some(403),
        reasons: Vec::new(),
        count,
        ..allowed(1)
    }
}

/// A certificate of a workload of `shop` that lives.
pub(crate) fn certificate(serial: &str, account: &str) -> Certificate {
    Certificate {
        serial: serial.to_owned(),
        what: What::Leaf,
        spiffe_id: format!("spiffe://cluster.local/ns/shop/sa/{account}"),
        not_before: at(-6_700),
        not_after: at(80_000),
        time: at(-6_400),
        key_sha256: format!("{serial}key"),
        signed_by: Some("aa".to_owned()),
        evidence: "launch pid=1".to_owned(),
        state: Issuance::Signed,
    }
}

/// A change that somebody made and somebody else approved.
pub(crate) fn change() -> Change {
    Change {
        time: at(-60),
        generation: 3,
        digest: "dd".repeat(32),
        files: vec!["policy.yaml".to_owned()],
        workloads_changed: 1,
        objects: Some(vec!["~ AuthorizationPolicy/shop/orders".to_owned()]),
        author: said("ana"),
        approver: said("ben (1)"),
        gained: Some(1),
        lost: Some(0),
        exact: Some(true),
        access: vec!["+ shop/orders:8080: shop/web GET /".to_owned()],
        initial: false,
    }
}

/// What an annotation says.
pub(crate) fn said(who: &str) -> Option<Said> {
    Some(Said {
        who: vec![who.to_owned()],
        from: SaidBy::Annotation,
    })
}

/// The report of a bundle under one framework.
pub(crate) fn report_of(bundle: &Bundle, framework: &str) -> Report {
    let framework = framework::built_in(framework).expect("a framework");
    report::run(bundle, "00", &[framework])
}

/// A control of a report.
pub(crate) fn control<'r>(result: &'r FrameworkResult, id: &str) -> &'r ControlResult {
    result
        .controls
        .iter()
        .find(|one| one.id == id)
        .expect("a control")
}

/// How a control of 800-53 stands.
pub(crate) fn status(bundle: &Bundle, id: &str) -> Status {
    let report = report_of(bundle, "nist-800-53");
    control(&report.frameworks[0], id).status
}
