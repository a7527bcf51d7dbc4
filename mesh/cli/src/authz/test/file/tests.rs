//! Files of cases: what is read, and what is refused with its place.

use super::*;
use mesh_policy_index::{IndexConfig, Loaded};

const SMALL: &str = "apiVersion: mesh.internal/v1alpha1
kind: PolicyTest
metadata: {name: small}
spec:
  cases:
    - name: web reads orders
      from: shop/web
      to: shop/orders:8080
      path: /orders
      expect: allow
";

fn cases(text: &str) -> Result<Vec<Case>, CaseFileError> {
    let home = TrustDomain::parse("cluster.local").expect("a trust domain");
    let index = Index::build(&Loaded::default(), &IndexConfig::new(home.clone()));
    let reader = Reader {
        file: "cases.yaml",
        index: &index,
        home: &home,
    };
    reader.cases(text.as_bytes(), true)
}

#[test]
fn a_case_is_a_request_record_and_an_expectation() {
    let all = cases(SMALL).expect("cases");
    let [case] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!(case.place, "cases.yaml:6");
    assert_eq!(case.expect, Expectation::verdict(Verdict::Allow));
    let record = serde_json::to_value(&case.request).expect("JSON");
    let want = serde_json::json!({
        "client": {"spiffe_id": "spiffe://cluster.local/ns/shop/sa/web"},
        "server": {"namespace": "shop", "pod": "orders", "port": 8080},
        "protocol": "http", "method": "GET", "path": "/orders",
    });
    assert_eq!(record, want);
}

#[test]
fn grpc_and_bytes_have_short_forms() {
    let text = SMALL.replace("path: /orders", "grpc: shop.v1.Payments/Charge");
    let request = &cases(&text).expect("cases")[0].request;
    assert_eq!(request.protocol, Protocol::Grpc);
    assert_eq!(request.path.as_deref(), Some("/shop.v1.Payments/Charge"));
    assert_eq!(request.method.as_deref(), Some("POST"));
    let text = SMALL.replace("path: /orders", "tcp: true");
    let request = &cases(&text).expect("cases")[0].request;
    assert_eq!((request.protocol, &request.path), (Protocol::Tcp, &None));
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (from, to, place, why) in [
        (
            "kind: PolicyTest",
            "kind: PolicyTests",
            "cases.yaml:2:",
            "PolicyTests",
        ),
        ("v1alpha1", "v9", "cases.yaml:1:", "v9"),
        ("path: /orders", "pth: /orders", "cases.yaml:9:", "pth"),
        ("expect: allow", "expect: maybe", "cases.yaml:10:", "maybe"),
        ("      expect: allow\n", "", "cases.yaml:9:", "expect"),
        ("from: shop/web", "from: web", "cases.yaml:7:", "nobody"),
        (
            "to: shop/orders:8080",
            "to: shop/orders",
            "cases.yaml:8:",
            "no target",
        ),
        (
            "path: /orders",
            "ip: 10.0.0",
            "cases.yaml:9:",
            "no IP address",
        ),
        ("path: /orders", "at: yesterday", "cases.yaml:9:", "no time"),
        ("path: /orders", "phase: gate", "cases.yaml:9:", "gate"),
        ("path: /orders", "{tcp: true", "cases.yaml:9:", ""),
        (
            "path: /orders",
            "path: /a\n      tcp: true",
            "cases.yaml:6:",
            "bytes",
        ),
        (
            "path: /orders",
            "path: /a\n      grpc: a/b",
            "cases.yaml:6:",
            "already",
        ),
        (
            "path: /orders",
            "tcp: true\n      grpc: a/b",
            "cases.yaml:6:",
            "not both",
        ),
        (
            "path: /orders",
            "path: /a\n      path: /b",
            "cases.yaml:10:",
            "path",
        ),
    ] {
        let text = SMALL.replace(from, to);
        let error = cases(&text).expect_err(to).to_string();
        assert!(
            error.contains(place) && error.contains(why),
            "{to}: {error}"
        );
    }
}

#[test]
fn a_file_that_is_named_must_hold_cases_and_one_of_a_folder_need_not() {
    let home = TrustDomain::parse("cluster.local").expect("a trust domain");
    let index = Index::build(&Loaded::default(), &IndexConfig::new(home.clone()));
    let reader = Reader {
        file: "pod.yaml",
        index: &index,
        home: &home,
    };
    let pod = b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    assert!(reader.cases(pod, true).is_err());
    assert_eq!(reader.cases(pod, false).expect("no case").len(), 0);
    assert!(reader.cases(b"\xff\xfe", false).is_err());
    let mixed = [SMALL.as_bytes(), b"---\n", pod].concat();
    assert!(reader.cases(&mixed, false).is_err());
}
