//! Each request's end: who gets which identity, and who gets none.

use super::guard::{EXPRESSIONS, POLICY, SETTLES_SECS, guarded_since};
use super::object::{
    ReadyReason, facts, is_answered, issuer_conditions, issuer_says, status_with_ready,
};
use super::*;
use crate::testing::NOW;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use serde_json::{Value, json};

const DAY: u64 = 86_400;

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

/// A request for a certificate that asks for everything.
fn hostile_csr() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![SanType::URI(
        "spiffe://cluster.local/ns/mesh-system/sa/mesh-controller"
            .try_into()
            .unwrap(),
    )];
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    data_encoding::BASE64.encode(pem.as_bytes())
}

/// What cert-manager's webhook leaves of a request that a pod made.
fn request() -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": "cart-1", "uid": "u-1",
            "creationTimestamp": "2026-11-30T12:00:00Z",
            "annotations": { "cert-manager.io/certificate-name": "cart" },
        },
        "spec": {
            "issuerRef": { "group": "mesh.internal", "kind": "MeshIssuer", "name": "mesh" },
            "request": hostile_csr(),
            "duration": "2160h0m0s",
            "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
            "username": "system:serviceaccount:shop:cart",
            "uid": "sa-1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["cart-0"],
                "authentication.kubernetes.io/pod-uid": ["p-1"],
            },
        },
        "status": { "conditions": [{ "type": "Approved", "status": "True", "reason": "x" }] },
    })
}

fn guarded() -> Result<Timestamp, GuardError> {
    Ok("2026-11-30T11:00:00Z".parse().unwrap())
}

fn decided_by(request: &Value, rules: &IssuerRules) -> RequestDecision {
    decide(
        &facts(request).unwrap(),
        IssuerState::Rules(rules),
        &guarded(),
        terms(&domain()),
    )
}

fn terms(domain: &TrustDomain) -> Terms<'_> {
    Terms {
        domain,
        own_namespace: "mesh-system",
        leaf_secs: DAY,
    }
}

/// The decision about [`request`] after a change, under an issuer that says nothing.
fn decided(change: impl FnOnce(&mut Value)) -> RequestDecision {
    let mut request = request();
    change(&mut request);
    decided_by(&request, &IssuerRules::default())
}

fn asked(decision: RequestDecision) -> Candidate {
    match decision {
        RequestDecision::Ask(candidate) => *candidate,
        other => panic!("{other:?}"),
    }
}

fn refused(decision: RequestDecision) -> Refusal {
    match decision {
        RequestDecision::Fail(RequestError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn alive() -> Live {
    Live {
        account_uid: Some("sa-1".to_owned()),
        asks_uid: Some("sa-1".to_owned()),
        pod: Some(Pod {
            uid: "p-1".to_owned(),
            phase: "Running".to_owned(),
            ..Pod::default()
        }),
    }
}

#[test]
fn an_approved_request_gets_the_identity_of_whoever_made_it_whatever_it_asks_for() {
    let granted = asked(decided(|_| {})).grant(&alive()).unwrap();
    assert_eq!(
        granted.request.id.as_str(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(granted.request.lifetime_secs, Some(DAY), "90 days asked");
    assert_eq!(
        granted.evidence,
        "certificate request shop/cart-1 uid u-1 to MeshIssuer mesh, asked for by system:serviceaccount:shop:cart, pod shop/cart-0 uid p-1"
    );
    assert_eq!(
        granted.instance,
        "outside: certificate request shop/cart-1 uid u-1"
    );
}

#[test]
fn a_wished_life_is_granted_up_to_that_of_every_svid() {
    for (wish, granted) in [
        (json!("1h0m0s"), Some(3_600)),
        (json!("1.5h"), Some(5_400)),
        (json!("90m"), Some(5_400)),
        (json!("1h30m15.5s"), Some(5_415)),
        (json!("1500ms"), Some(1)),
        (json!("10000000h"), None),
        (Value::Null, Some(DAY)),
        (json!("8760h0m0s"), Some(DAY)),
        (json!("h"), None),
        (json!(""), None),
        (json!("1"), None),
        (json!("-1h"), None),
        (json!("1d"), None),
        (json!("1hx"), None),
        (json!(3_600), None),
    ] {
        let decision = decided(|request| request["spec"]["duration"] = wish.clone());
        match granted {
            Some(secs) => assert_eq!(asked(decision).lifetime_secs, secs, "{wish}"),
            None => assert_eq!(refused(decision), Refusal::Duration, "{wish}"),
        }
    }
}

#[test]
fn what_is_not_ours_not_approved_or_done_is_left_alone() {
    let ready = |reason: &str| json!({ "type": "Ready", "status": "False", "reason": reason });
    let approved = || json!({ "type": "Approved", "status": "True" });
    type Change = Box<dyn Fn(&mut Value)>;
    let conditions = |all: Vec<Value>| -> Change {
        Box::new(move |request| request["status"]["conditions"] = json!(all))
    };
    let issuer = |field: &'static str, value: &'static str| -> Change {
        Box::new(move |request| request["spec"]["issuerRef"][field] = json!(value))
    };
    let cases: Vec<(&str, Change)> = vec![
        ("another group", issuer("group", "cert-manager.io")),
        ("no group", issuer("group", "")),
        ("another kind", issuer("kind", "Issuer")),
        ("issued", conditions(vec![approved(), ready("Issued")])),
        ("failed", conditions(vec![approved(), ready("Failed")])),
        ("denied and noted", conditions(vec![ready("Denied")])),
        ("not approved", conditions(vec![])),
        ("pending, not approved", conditions(vec![ready("Pending")])),
        (
            "approved is false",
            conditions(vec![json!({ "type": "Approved", "status": "False" })]),
        ),
    ];
    for (what, change) in cases {
        let decision = decided(change);
        assert!(
            matches!(decision, RequestDecision::Leave),
            "{what}: {decision:?}"
        );
    }
    for (what, with) in [
        (
            "denied",
            vec![json!({ "type": "Denied", "status": "True" })],
        ),
        (
            "denied and approved",
            vec![approved(), json!({ "type": "Denied", "status": "True" })],
        ),
    ] {
        let decision = decided(conditions(with));
        assert!(
            matches!(decision, RequestDecision::NoteDenied),
            "{what}: {decision:?}"
        );
    }
}

#[test]
fn what_a_mesh_issuer_does_not_give_fails_for_good() {
    let user = |name: &str| Refusal::NoServiceAccount {
        username: name.into(),
    };
    fn set(pointer: &'static str, value: Value) -> Box<dyn Fn(&mut Value)> {
        Box::new(move |request| *request.pointer_mut(pointer).unwrap() = value.clone())
    }
    let cases = vec![
        (
            set("/spec/username", json!("system:node:n1")),
            user("system:node:n1"),
        ),
        (
            set("/spec/username", json!("system:serviceaccount:shop")),
            user("system:serviceaccount:shop"),
        ),
        (
            set("/spec/username", json!("system:serviceaccount:shop:a:b")),
            user("system:serviceaccount:shop:a:b"),
        ),
        (
            set("/spec/username", json!("system:serviceaccount:shop:a/b")),
            user("system:serviceaccount:shop:a/b"),
        ),
        (set("/spec/username", Value::Null), user("")),
        // A name alone is not enough: the API server gives every account its groups and its UID.
        (
            set("/spec/groups", json!(["system:serviceaccounts"])),
            user("system:serviceaccount:shop:cart"),
        ),
        (
            set("/spec/groups", json!(["system:serviceaccounts:shop"])),
            user("system:serviceaccount:shop:cart"),
        ),
        (
            set("/spec/uid", json!("")),
            user("system:serviceaccount:shop:cart"),
        ),
        (
            set("/metadata/namespace", json!("bank")),
            Refusal::OtherNamespace {
                asks: "shop".into(),
                asked_in: "bank".into(),
            },
        ),
        (
            set("/metadata/namespace", json!("mesh-system")),
            Refusal::ControlPlane,
        ),
        (
            set("/spec/usages", json!(["server auth", "cert sign"])),
            Refusal::Usage {
                usage: "cert sign".into(),
            },
        ),
        (set("/spec/request", json!("")), Refusal::NotPem),
        (set("/spec/request", json!("not base64")), Refusal::NotPem),
        (
            set("/metadata/creationTimestamp", json!("2026-11-30T10:59:59Z")),
            Refusal::BeforeGuard {
                since: guarded().unwrap(),
            },
        ),
    ];
    for (change, want) in cases {
        assert_eq!(refused(decided(change)), want);
    }
    for wish in [json!(true), json!("yes")] {
        let decision = decided(|request| request["spec"]["isCA"] = wish);
        assert_eq!(refused(decision), Refusal::Authority);
    }
    let twice = decided(|request| {
        let text = request["spec"]["request"].as_str().unwrap();
        let pem = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
        request["spec"]["request"] = json!(data_encoding::BASE64.encode(&pem.repeat(2)));
    });
    assert_eq!(refused(twice), Refusal::NotPem);
}

#[test]
fn a_request_whose_key_is_refused_fails_with_the_codes_of_every_issuance() {
    let broken = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let decision = decided(|request| {
        request["spec"]["request"] = json!(data_encoding::BASE64.encode(broken));
    });
    assert!(
        matches!(decision, RequestDecision::Fail(RequestError::Csr(_))),
        "{decision:?}"
    );
}

#[test]
fn an_issuer_that_is_not_there_or_not_ready_is_waited_for() {
    let (facts, domain) = (facts(&request()).unwrap(), domain());
    let invalid = IssuerRules::read(Some(&json!({ "mapping": [] })), Some("shop")).unwrap_err();
    let unguarded = guarded_since(None, None);
    for (issuer, guard) in [
        (IssuerState::Absent, guarded()),
        (IssuerState::Invalid(&invalid), guarded()),
        (IssuerState::Rules(&IssuerRules::default()), unguarded),
    ] {
        let decision = decide(&facts, issuer, &guard, terms(&domain));
        assert!(matches!(decision, RequestDecision::Pend(_)), "{decision:?}");
    }
}

fn cluster_rules(spec: Value) -> IssuerRules {
    IssuerRules::read(Some(&spec), None).unwrap()
}

/// cert-manager itself asks, for a Certificate in `shop`.
fn of_cert_manager(certificate: &str) -> Value {
    let mut request = request();
    request["spec"]["username"] = json!("system:serviceaccount:cert-manager:cert-manager");
    request["spec"]["groups"] = json!([
        "system:serviceaccounts",
        "system:serviceaccounts:cert-manager"
    ]);
    request["spec"]["extra"] = json!({});
    request["metadata"]["annotations"]["cert-manager.io/certificate-name"] = json!(certificate);
    request
}

#[test]
fn whoever_is_mapped_gets_the_mapped_identity_in_the_namespace_of_the_request_alone() {
    let user = "system:serviceaccount:cert-manager:cert-manager";
    let rules = cluster_rules(json!({ "mappings": [
        { "user": user, "namespace": "shop", "certificate": "web", "serviceAccount": "web" },
        { "user": user, "namespace": "shop", "certificate": "cart", "serviceAccount": "cart" },
        { "user": user, "namespace": "bank", "serviceAccount": "teller" },
    ] }));
    let id = |request: &Value| asked(decided_by(request, &rules)).id.to_string();
    let mut in_bank = of_cert_manager("any");
    in_bank["metadata"]["namespace"] = json!("bank");
    assert_eq!(
        id(&of_cert_manager("web")),
        "spiffe://cluster.local/ns/shop/sa/web"
    );
    assert_eq!(
        id(&of_cert_manager("cart")),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(id(&in_bank), "spiffe://cluster.local/ns/bank/sa/teller");
    let not_mapped = || Refusal::NotMapped {
        username: user.to_owned(),
    };
    assert_eq!(
        refused(decided_by(&of_cert_manager("other"), &rules)),
        not_mapped()
    );
    let mut elsewhere = of_cert_manager("web");
    elsewhere["metadata"]["namespace"] = json!("pay");
    assert_eq!(refused(decided_by(&elsewhere, &rules)), not_mapped());
    let mut nameless = of_cert_manager("web");
    nameless["metadata"]["annotations"] = json!({});
    assert_eq!(refused(decided_by(&nameless, &rules)), not_mapped());
    // Not mapped: it is a service account of another namespace.
    assert!(matches!(
        refused(decided_by(&of_cert_manager("web"), &IssuerRules::default())),
        Refusal::OtherNamespace { .. }
    ));
    // Who is not mapped has its own identity beside that.
    assert_eq!(id(&request()), "spiffe://cluster.local/ns/shop/sa/cart");
}

#[test]
fn a_person_may_be_mapped_and_needs_no_groups() {
    let rules = cluster_rules(json!({ "mappings": [
        { "user": "ada@example.org", "namespace": "shop", "serviceAccount": "laptop" },
    ] }));
    let mut request = request();
    request["spec"]["username"] = json!("ada@example.org");
    request["spec"]["groups"] = json!([]);
    let candidate = asked(decided_by(&request, &rules));
    assert_eq!(
        candidate.id.as_str(),
        "spiffe://cluster.local/ns/shop/sa/laptop"
    );
    assert_eq!((&candidate.asks, &candidate.pod), (&None, &None));
    assert!(candidate.grant(&alive()).is_ok());
}

#[test]
fn an_issuer_may_be_for_some_namespaces() {
    let rules = cluster_rules(json!({ "namespaces": ["bank"] }));
    let namespace = "shop".to_owned();
    assert_eq!(
        refused(decided_by(&request(), &rules)),
        Refusal::NotForNamespace { namespace }
    );
    let rules = cluster_rules(json!({ "namespaces": ["bank", "shop"] }));
    asked(decided_by(&request(), &rules));
    let nowhere = cluster_rules(json!({ "namespaces": [] }));
    refused(decided_by(&request(), &nowhere));
}

#[test]
fn rules_that_could_be_meant_otherwise_are_refused() {
    let mapping = |extra: Value| {
        let mut mapping = json!({ "user": "u", "serviceAccount": "a" });
        for (key, value) in extra.as_object().unwrap() {
            mapping[key] = value.clone();
        }
        mapping
    };
    for (own, spec) in [
        (Some("shop"), Value::Null),
        (Some("shop"), json!({ "mapping": [] })),
        (Some("shop"), json!({ "namespaces": ["shop"] })),
        (
            Some("shop"),
            json!({ "mappings": [mapping(json!({ "namespace": "bank" }))] }),
        ),
        (
            Some("shop"),
            json!({ "mappings": [mapping(json!({ "certificat": "x" }))] }),
        ),
        (
            Some("shop"),
            json!({ "mappings": [mapping(json!({})), mapping(json!({}))] }),
        ),
        (
            Some("shop"),
            json!({ "mappings": [mapping(json!({ "certificate": "x" })), mapping(json!({}))] }),
        ),
        (
            Some("shop"),
            json!({ "mappings": [mapping(json!({ "user": "" }))] }),
        ),
        (
            Some("shop"),
            json!({ "mappings": [mapping(json!({ "serviceAccount": "" }))] }),
        ),
        (None, json!({ "mappings": [mapping(json!({}))] })),
        (
            None,
            json!({ "mappings": vec![mapping(json!({ "namespace": "n" })); 65] }),
        ),
    ] {
        let read = IssuerRules::read(Some(&spec), own);
        assert!(read.is_err(), "{spec}: {read:?}");
    }
    assert!(IssuerRules::read(None, Some("shop")).is_err());
    for (own, spec) in [
        (Some("shop"), json!({})),
        (
            Some("shop"),
            json!({ "mappings": [mapping(json!({ "namespace": "shop" }))] }),
        ),
        (None, json!({})),
    ] {
        IssuerRules::read(Some(&spec), own).unwrap();
    }
}

#[test]
fn whoever_is_gone_or_another_one_by_now_gets_nothing() {
    type Change = fn(&mut Live);
    let cases: [(Change, &str); 6] = [
        (|live| live.asks_uid = None, "does not exist"),
        (|live| live.asks_uid = Some("sa-2".into()), "another one"),
        (|live| live.account_uid = None, "does not exist"),
        (|live| live.pod = None, "not there any more"),
        (
            |live| live.pod.as_mut().unwrap().uid = "p-2".into(),
            "not there any more",
        ),
        (
            |live| live.pod.as_mut().unwrap().phase = "Succeeded".into(),
            "not there any more",
        ),
    ];
    for (change, why) in cases {
        let mut live = alive();
        change(&mut live);
        let error = asked(decided(|_| {})).grant(&live).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

fn policy() -> Value {
    let validations: Vec<Value> = EXPRESSIONS
        .iter()
        .map(|expression| json!({ "expression": expression }))
        .collect();
    json!({
        "metadata": { "creationTimestamp": "2026-11-30T10:00:00Z" },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "resourceRules": [{
                    "apiGroups": ["cert-manager.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["certificaterequests"], "scope": "*",
                }],
            },
            "validations": validations,
        },
    })
}

fn binding() -> Value {
    json!({
        "metadata": { "creationTimestamp": "2026-11-30T10:00:05Z" },
        "spec": { "policyName": POLICY, "validationActions": ["Deny"] },
    })
}

#[test]
fn the_api_server_vouches_for_names_from_shortly_after_the_policy_was_there() {
    let since = guarded_since(Some(&policy()), Some(&binding())).unwrap();
    let made: Timestamp = "2026-11-30T10:00:05Z".parse().unwrap();
    assert_eq!(since, made.plus_secs(SETTLES_SECS));
}

#[test]
fn a_policy_that_says_less_vouches_for_nothing() {
    let (policy, binding) = (policy(), binding());
    assert!(guarded_since(None, Some(&binding)).is_err());
    assert!(guarded_since(Some(&policy), None).is_err());
    for (pointer, value) in [
        ("/spec/failurePolicy", json!("Ignore")),
        (
            "/spec/matchConditions",
            json!([{ "name": "x", "expression": "false" }]),
        ),
        ("/spec/paramKind", json!({ "kind": "ConfigMap" })),
        (
            "/spec/matchConstraints/namespaceSelector",
            json!({ "matchLabels": { "a": "b" } }),
        ),
        (
            "/spec/matchConstraints/objectSelector",
            json!({ "matchLabels": { "a": "b" } }),
        ),
        (
            "/spec/matchConstraints/excludeResourceRules",
            json!([{ "resources": ["*"] }]),
        ),
        ("/spec/matchConstraints/resourceRules", json!([])),
        (
            "/spec/matchConstraints/resourceRules/0/operations",
            json!(["CREATE"]),
        ),
        (
            "/spec/matchConstraints/resourceRules/0/apiVersions",
            json!(["v1alpha2"]),
        ),
        (
            "/spec/matchConstraints/resourceRules/0/resourceNames",
            json!(["x"]),
        ),
        (
            "/spec/matchConstraints/resourceRules/0/scope",
            json!("Cluster"),
        ),
        ("/spec/validations/0/expression", json!("true")),
        ("/spec/validations/5", json!({})),
        ("/metadata/creationTimestamp", Value::Null),
    ] {
        let mut changed = policy.clone();
        set(&mut changed, pointer, value.clone());
        let outcome = guarded_since(Some(&changed), Some(&binding));
        assert!(outcome.is_err(), "{pointer}: {value}");
    }
    for (pointer, value) in [
        ("/spec/policyName", json!("another")),
        ("/spec/validationActions", json!(["Warn", "Audit"])),
        ("/spec/validationActions", json!([])),
        ("/spec/paramRef", json!({ "name": "x" })),
        (
            "/spec/matchResources",
            json!({ "namespaceSelector": { "matchLabels": { "a": "b" } } }),
        ),
        (
            "/spec/matchResources",
            json!({ "resourceRules": [{ "resources": ["pods"] }] }),
        ),
        ("/metadata/creationTimestamp", Value::Null),
    ] {
        let mut changed = binding.clone();
        set(&mut changed, pointer, value.clone());
        let outcome = guarded_since(Some(&policy), Some(&changed));
        assert!(outcome.is_err(), "{pointer}: {value}");
    }
}

/// Puts a value where a pointer leads, which need not be there yet.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer.split('/').skip(1) {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    *at = value;
}

#[test]
fn what_others_noted_in_a_status_stays() {
    let failed = status_with_ready(&request(), ReadyReason::Failed, "why", NOW);
    let kinds: Vec<&str> = failed["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["Approved", "Ready"]);
    let time = failed["failureTime"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    let issued = status_with_ready(&request(), ReadyReason::Issued, "", NOW);
    assert_eq!(issued["conditions"][1]["status"], "True");
    assert_eq!(issued.get("failureTime"), None);
}

#[test]
fn the_time_of_an_issuers_condition_changes_with_its_status_alone() {
    let mut issuer = json!({ "metadata": { "generation": 3 }, "spec": {} });
    issuer["status"] =
        json!({ "conditions": issuer_conditions(&issuer, (true, "Ready", "a"), NOW) });
    let first = issuer["status"]["conditions"][0]["lastTransitionTime"].clone();
    let later = NOW.plus_secs(60);
    let same = issuer_conditions(&issuer, (true, "Ready", "b"), later);
    assert_eq!(same[0]["lastTransitionTime"], first);
    let other = issuer_conditions(&issuer, (false, "Unguarded", "c"), later);
    assert_ne!(other[0]["lastTransitionTime"], first);
    assert_eq!(other.as_array().unwrap().len(), 1);
}

#[test]
fn what_an_issuer_says_already_is_read_from_its_own_condition() {
    let told = (true, "Ready", "a");
    let mut issuer = json!({ "metadata": { "generation": 3 }, "spec": {} });
    issuer["status"] = json!({ "conditions": [{ "type": "Audited", "observedGeneration": 7 }] });
    assert!(!issuer_says(&issuer, told));
    let conditions = issuer_conditions(&issuer, told, NOW);
    assert_eq!(conditions[0]["type"], "Audited", "another's comes first");
    issuer["status"]["conditions"] = conditions;
    assert!(issuer_says(&issuer, told), "and is not written again");
    for other in [
        (false, "Ready", "a"),
        (true, "Invalid", "a"),
        (true, "Ready", "b"),
    ] {
        assert!(!issuer_says(&issuer, other), "{other:?}");
    }
    issuer["metadata"]["generation"] = json!(4);
    assert!(!issuer_says(&issuer, told), "its spec changed");
}

#[test]
fn a_request_is_answered_by_ready_alone_and_open_by_approval() {
    let mut object = request();
    assert!(!is_answered(&object));
    assert_eq!(standing(&facts(&object).unwrap()), Standing::Approved);
    for (reason, answered) in [
        (ReadyReason::Pending, false),
        (ReadyReason::Issued, true),
        (ReadyReason::Failed, true),
        (ReadyReason::Denied, true),
    ] {
        object["status"] = Value::Object(status_with_ready(&request(), reason, "", NOW));
        assert_eq!(is_answered(&object), answered, "{reason:?}");
        let stands = standing(&facts(&object).unwrap());
        assert_eq!(stands == Standing::NotOpen, answered, "{reason:?}");
    }
    let condition = |kind: &str| json!({ "type": kind, "status": "True" });
    for (conditions, wanted) in [
        (vec![], Standing::NotOpen),
        (vec!["Denied"], Standing::Denied),
        (vec!["Approved", "Denied"], Standing::Denied),
    ] {
        let all: Vec<Value> = conditions.into_iter().map(condition).collect();
        object["status"] = json!({ "conditions": all });
        assert_eq!(standing(&facts(&object).unwrap()), wanted);
    }
}
