//! References that name nobody, lists of brokers that are none, and what happens when nothing can be recorded.

use super::*;
use crate::testing::{domain, id};
use miette::Diagnostic;
use prost_types::Any;

fn reference(type_url: &str, value: &[u8]) -> Option<WorkloadReference> {
    Some(WorkloadReference {
        reference: Some(Any {
            type_url: type_url.to_owned(),
            value: value.to_vec(),
        }),
    })
}

fn by_pid(pid: i32) -> Option<WorkloadReference> {
    reference(
        "type.googleapis.com/spiffe.broker.WorkloadPIDReference",
        &WorkloadPidReference { pid }.encode_to_vec(),
    )
}

#[test]
fn k3_a_reference_is_a_positive_process_id_and_nothing_else() {
    assert_eq!(referenced(by_pid(4711)), Ok(4711));
    let object = "type.googleapis.com/spiffe.broker.KubernetesObjectReference";
    for (bad, what) in [
        (None, "none"),
        (Some(WorkloadReference { reference: None }), "an empty one"),
        (by_pid(0), "process 0"),
        (by_pid(-1), "a group of processes"),
        (by_pid(i32::MIN), "the least number"),
        (
            reference("spiffe.broker.WorkloadPIDReference", &[8, 1]),
            "a name without its place",
        ),
        (
            reference("type.googleapis.com/spiffe.broker.Other", &[8, 1]),
            "an unknown type",
        ),
        (
            reference(
                "type.googleapis.com/spiffe.broker.WorkloadPIDReference",
                &[8],
            ),
            "cut off",
        ),
        (reference(object, &[]), "an object of Kubernetes"),
    ] {
        let refusal = referenced(bad).expect_err(what);
        assert!(matches!(refusal, Refusal::Reference { .. }), "{what}");
        let status = refusal.to_status();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{what}");
        assert!(status.message().starts_with("MESH-0880"), "{status}");
    }
}

#[test]
fn brokers_are_named_and_of_our_own_domain() {
    let config = |brokers: Vec<SpiffeId>| BrokerConfig {
        socket: "/run/broker.sock".into(),
        mode: 0o600,
        brokers,
    };
    let own = id("ns/mesh-system/sa/node-proxy");
    config(vec![own.clone()]).check(&domain()).unwrap();
    for bad in [
        vec![],
        vec![own.clone(); BROKERS_MAX + 1],
        vec![
            own.clone(),
            SpiffeId::parse("spiffe://other.example/ns/a/sa/b").unwrap(),
        ],
        vec![domain().id()],
    ] {
        let error = config(bad).check(&domain()).unwrap_err();
        assert_eq!(error.code().unwrap().to_string(), "MESH-0877", "{error}");
    }
}

#[test]
fn every_refusal_has_a_code_a_hint_and_the_standards_reason() {
    let own = id("ns/mesh-system/sa/node-proxy");
    for (refusal, reason) in [
        (Refusal::NoBroker { id: own.clone() }, None),
        (Refusal::OtherProcess { id: own, pid: 1 }, None),
        (
            Refusal::Reference { why: "x" },
            Some("WORKLOAD_REFERENCE_INVALID"),
        ),
        (Refusal::NotFound { pid: 1 }, Some("WORKLOAD_NOT_FOUND")),
        (
            Refusal::NotEntitled { pid: 1 },
            Some("WORKLOAD_NOT_ENTITLED"),
        ),
        (Refusal::NotRecorded, None),
        (Refusal::TooMuch { what: "x".into() }, None),
    ] {
        assert!(refusal.help().is_some(), "{refusal}");
        let status = refusal.to_status();
        assert!(status.message().starts_with("MESH-08"), "{status}");
        let Some(reason) = reason else {
            assert!(status.details().is_empty(), "{status}");
            continue;
        };
        let details = crate::proto::rpc::Status::decode(status.details()).unwrap();
        assert_eq!(details.code, i32::from(status.code()));
        let info = &details.details[0];
        assert_eq!(info.type_url, "type.googleapis.com/google.rpc.ErrorInfo");
        let info = crate::proto::rpc::ErrorInfo::decode(info.value.as_slice()).unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            (reason, "spiffe.io")
        );
    }
}
