//! Which pods get a certificate over the API, and which answer all others get.

use super::super::kubernetes::is_outside;
use super::*;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

fn request() -> Value {
    let key = KeyPair::generate().unwrap();
    let stub = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    json!({
        "metadata": { "namespace": "shop", "name": "req-1", "uid": "u-1" },
        "spec": {
            "signerName": SIGNER, "podName": "cart-0", "podUID": "p-1",
            "serviceAccountName": "cart", "serviceAccountUID": "sa-1",
            "nodeName": "node-a", "nodeUID": "n-1",
            "maxExpirationSeconds": 86_400,
            "stubPKCS10Request": data_encoding::BASE64.encode(stub.der()),
        },
    })
}

fn pod() -> Pod {
    Pod {
        uid: "p-1".to_owned(),
        phase: "Pending".to_owned(),
        deleting: false,
        service_account: "cart".to_owned(),
        node: "node-a".to_owned(),
    }
}

fn decided(change: impl FnOnce(&mut Value)) -> PodDecision {
    let mut request = request();
    change(&mut request);
    decide(&request, 86_400)
}

fn asked(decision: PodDecision) -> PodCandidate {
    match decision {
        PodDecision::Ask(candidate) => *candidate,
        other => panic!("{other:?}"),
    }
}

fn condition(decision: PodDecision) -> (&'static str, &'static str) {
    match decision {
        PodDecision::Refuse(why) => why.condition(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_live_pod_gets_the_identity_of_its_service_account() {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let candidate = asked(decided(|_| {}));
    assert_eq!(candidate.pod(), ("shop", "cart-0"));
    let granted = candidate.grant(Some(&pod()), &domain).unwrap();
    assert_eq!(
        granted.request.id.as_str(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(
        granted.evidence,
        "pod certificate request shop/req-1 uid u-1: pod shop/cart-0 uid p-1, node node-a"
    );
    assert!(is_outside(&granted.instance));
    let within =
        granted.request.lifetime_secs.unwrap() + granted.request.backdate_secs_max.unwrap();
    assert_eq!(within, 86_400, "not a second more than the request allows");
}

#[test]
fn a_key_alone_is_taken_from_older_api_servers() {
    let key = KeyPair::generate().unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    asked(decided(|request| {
        let spec = request["spec"].as_object_mut().unwrap();
        spec.remove("stubPKCS10Request");
        let text = data_encoding::BASE64.encode(&spki);
        spec.insert("pkixPublicKey".to_owned(), text.into());
    }));
}

#[test]
fn other_signers_requests_and_answered_ones_are_left_alone() {
    type Change = fn(&mut Value);
    let cases: [Change; 5] = [
        |request| request["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client-pod"),
        |request| request["spec"]["signerName"] = Value::Null,
        |request| {
            request["status"] = json!({ "conditions": [{ "type": "Issued", "status": "True" }] })
        },
        |request| {
            request["status"] = json!({ "conditions": [{ "type": "Denied", "status": "True" }] })
        },
        |request| {
            request["status"] = json!({ "conditions": [{ "type": "Failed", "status": "True" }] })
        },
    ];
    for change in cases {
        let decision = decided(change);
        assert!(matches!(decision, PodDecision::Leave), "{decision:?}");
    }
}

#[test]
fn what_is_refused_says_so_in_the_words_of_the_api() {
    let annotated = decided(|request| {
        request["spec"]["unverifiedUserAnnotations"] = json!({ "example.org/name": "root" });
    });
    assert_eq!(
        condition(annotated),
        ("Denied", "InvalidUnverifiedUserAnnotations")
    );
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let stub = CertificateParams::default()
        .serialize_request(&ed25519)
        .unwrap();
    let other_key = decided(|request| {
        request["spec"]["stubPKCS10Request"] = json!(data_encoding::BASE64.encode(stub.der()));
    });
    assert_eq!(condition(other_key), ("Denied", "UnsupportedKeyType"));
    let alone = rcgen::PublicKeyData::subject_public_key_info(&ed25519);
    let other_key = decided(|request| {
        request["spec"]["stubPKCS10Request"] = Value::Null;
        request["spec"]["pkixPublicKey"] = json!(data_encoding::BASE64.encode(&alone));
    });
    assert_eq!(condition(other_key), ("Denied", "UnsupportedKeyType"));
    let damaged = decided(|request| request["spec"]["stubPKCS10Request"] = json!("AAAA"));
    assert_eq!(condition(damaged), ("Denied", "KeyRefused"));
    for field in [
        "podName",
        "podUID",
        "serviceAccountName",
        "nodeName",
        "stubPKCS10Request",
    ] {
        let lacking = decided(|request| request["spec"][field] = json!(""));
        assert_eq!(condition(lacking), ("Failed", "Incomplete"), "{field}");
    }
    let short = decide(&request(), 3_000);
    assert_eq!(condition(short), ("Failed", "LifeTooShort"));
}

#[test]
fn the_shortest_life_that_may_be_asked_for_is_granted() {
    let candidate = asked(decided(|request| {
        request["spec"]["maxExpirationSeconds"] = json!(LIFE_SECS_MIN);
    }));
    assert_eq!(candidate.lifetime_secs, LIFE_SECS_MIN - BACKDATE_SECS);
}

#[test]
fn a_pod_that_is_not_as_the_request_says_gets_nothing() {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    type Change = fn(&mut Pod);
    let cases: [Change; 5] = [
        |pod| pod.uid = "p-2".to_owned(),
        |pod| pod.node = "node-b".to_owned(),
        |pod| pod.service_account = "root".to_owned(),
        |pod| pod.deleting = true,
        |pod| pod.phase = "Succeeded".to_owned(),
    ];
    for change in cases {
        let mut pod = pod();
        change(&mut pod);
        let refused = asked(decided(|_| {}))
            .grant(Some(&pod), &domain)
            .unwrap_err();
        assert_eq!(refused.condition(), ("Failed", "PodNotAttested"));
    }
    assert!(asked(decided(|_| {})).grant(None, &domain).is_err());
}
