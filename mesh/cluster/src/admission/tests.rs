//! What an API server is answered.

use super::*;
use crate::install::Values;

fn request(object: Value) -> Request {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": { "uid": "7", "namespace": "shop", "operation": "CREATE", "object": object, "oldObject": null, "more": 1 },
    });
    Review::read(review.to_string().as_bytes()).expect("a review")
}

fn update(old: Value, new: Value) -> Request {
    Request {
        operation: "UPDATE".to_owned(),
        old_object: old,
        ..request(new)
    }
}

fn settings() -> Settings {
    Settings::from(&Values::default())
}

fn patch_of(answer: &Value) -> Value {
    let patch = answer["response"]["patch"].as_str().expect("a patch");
    serde_json::from_slice(
        &data_encoding::BASE64
            .decode(patch.as_bytes())
            .expect("base64"),
    )
    .expect("JSON")
}

#[test]
fn a_pod_that_asks_is_answered_with_a_patch() {
    let pod = json!({"metadata": {"annotations": {"mesh.internal/inject": "enabled"}}, "spec": {"containers": [{"name": "a"}]}});
    let (answer, _) = mutate(&request(pod), &Namespace::default(), &settings());
    let response = &answer["response"];
    assert_eq!(
        (
            &response["uid"],
            &response["allowed"],
            &response["patchType"]
        ),
        (&json!("7"), &json!(true), &json!("JSONPatch"))
    );
    assert_eq!(answer["kind"], "AdmissionReview");
    let patch = patch_of(&answer);
    assert!(
        patch
            .as_array()
            .expect("a list")
            .iter()
            .any(|op| op["path"] == "/spec/initContainers")
    );
}

#[test]
fn a_pod_that_does_not_ask_is_let_through_as_it_is() {
    let (answer, _) = mutate(
        &request(json!({"spec": {"containers": []}})),
        &Namespace::default(),
        &settings(),
    );
    assert_eq!(answer["response"], json!({"uid": "7", "allowed": true}));
}

#[test]
fn a_pod_that_cannot_be_meshed_is_denied_with_code_and_hint() {
    let pod = json!({"metadata": {"annotations": {"mesh.internal/inject": "enabled"}}, "spec": {"hostNetwork": true}});
    let (answer, _) = mutate(&request(pod), &Namespace::default(), &settings());
    let response = &answer["response"];
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().expect("a message");
    assert!(
        message.starts_with("MESH-0742: ") && message.contains("disabled"),
        "{message}"
    );
    assert!(response.get("patch").is_none());
}

#[test]
fn what_is_no_review_is_an_error() {
    for body in [
        "",
        "{}",
        "[]",
        "{\"request\": {}}",
        "{\"request\": {\"uid\": 7}}",
        "nonsense",
    ] {
        assert!(Review::read(body.as_bytes()).is_err(), "{body}");
    }
}

fn server(spec: Value) -> Value {
    json!({"apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": "s", "namespace": "shop",
        "uid": "u", "resourceVersion": "1", "managedFields": [{"manager": "kubectl"}]}, "spec": spec})
}

#[test]
fn a_policy_is_denied_for_what_lint_calls_an_error() {
    for (spec, part) in [
        (json!({"podSelector": {}, "port": 0}), "port"),
        (
            json!({"podSelector": {}, "port": 80, "proxyProtokol": "gRPC"}),
            "did you mean `proxyProtocol`",
        ),
        (
            json!({"podSelector": {}, "port": 80, "accessPolicy": "allow"}),
            "accessPolicy",
        ),
        (json!({"port": 80}), "podSelector"),
    ] {
        let (answer, _) = validate(&request(server(spec)));
        let response = &answer["response"];
        assert_eq!(response["allowed"], false, "{response}");
        let message = response["status"]["message"].as_str().expect("a message");
        assert!(
            message.contains("MESH-03") && message.contains(part),
            "{message}"
        );
    }
}

#[test]
fn a_sound_policy_is_let_through_and_doubts_become_warnings() {
    let (answer, _) = validate(&request(server(json!({"podSelector": {}, "port": 80}))));
    assert_eq!(answer["response"], json!({"uid": "7", "allowed": true}));
    let masked = json!({"apiVersion": "policy.linkerd.io/v1alpha1", "kind": "NetworkAuthentication",
        "metadata": {"name": "n", "namespace": "shop"}, "spec": {"networks": [{"cidr": "10.0.0.1/8"}]}});
    let (answer, _) = validate(&request(masked));
    assert_eq!(answer["response"]["allowed"], true);
    assert!(
        answer["response"]["warnings"][0]
            .as_str()
            .expect("a warning")
            .starts_with("MESH-0376"),
        "{answer}"
    );
}

#[test]
fn an_invalid_object_can_lose_its_finalizer_but_not_gain_a_worse_spec() {
    let broken = server(json!({"podSelector": {}, "port": 0}));
    let mut freed = broken.clone();
    freed["metadata"]["finalizers"] = json!([]);
    assert_eq!(
        validate(&update(broken.clone(), freed)).0["response"]["allowed"],
        true
    );
    let other = server(json!({"podSelector": {}, "port": 70000}));
    assert_eq!(
        validate(&update(broken.clone(), other)).0["response"]["allowed"],
        false
    );
    let mut annotated = broken.clone();
    annotated["metadata"]["annotations"] = json!({"mesh.internal/path-escapes": "maybe"});
    assert_eq!(
        validate(&update(broken, annotated)).0["response"]["allowed"],
        false
    );
}

#[test]
fn warnings_are_as_long_and_as_many_as_an_api_server_passes_on() {
    let warnings: Vec<String> = (0..40).map(|_| "é".repeat(1000)).collect();
    let answer = allowed(&request(json!({})), &warnings, None);
    let sent = answer["response"]["warnings"].as_array().expect("warnings");
    assert_eq!(
        (sent.len(), sent[0].as_str().expect("text").chars().count()),
        (16, 256)
    );
}

#[test]
fn a_pod_about_which_nothing_is_known_is_not_let_through() {
    let error = ReviewError {
        why: "the API server does not answer".to_owned(),
    };
    let answer = undecided(&request(json!({})), &error);
    assert_eq!(
        (&answer["response"]["allowed"], &answer["response"]["uid"]),
        (&json!(false), &json!("7"))
    );
}
