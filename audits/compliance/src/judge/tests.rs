//! How evidence becomes a status; each seeded fault shows under the right controls, and goes with its cause.

use super::*;
use crate::bundle::{Bundle, Issuance, Zone};
use crate::testing::{
    GRANT, POLICY, WEB, allowed, at, bundle, certificate, change, control, file, log, report_of,
    said, status, workload,
};
use mesh_policy::decide::Verdict;

/// Controls of 800-53 against which a finding of a check speaks.
fn against(bundle: &Bundle, check: &str) -> Vec<String> {
    let report = report_of(bundle, "nist-800-53");
    let ids: Vec<String> = report
        .findings
        .iter()
        .filter(|one| one.check == check)
        .map(|one| one.id.clone())
        .collect();
    let controls = report.frameworks[0].controls.iter();
    controls
        .filter(|one| one.findings.iter().any(|id| ids.contains(id)))
        .map(|one| one.id.clone())
        .collect()
}

#[test]
fn a_mesh_without_fault_has_no_finding_and_fails_nothing() {
    let report = report_of(&bundle(), "nist-800-53");
    assert_eq!(report.findings, []);
    let of = |status: Status| {
        let controls = report.frameworks[0].controls.iter();
        let with = controls.filter(|one| one.status == status);
        with.map(|one| one.id.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of(Status::NotSatisfied), Vec::<&str>::new());
    // Nobody named a zone.
    assert_eq!(of(Status::InsufficientData), ["sc-7.21"]);
    for (id, want) in [
        ("sc-8", Status::Satisfied),
        ("ac-3", Status::Satisfied),
        // The mesh covers a part alone.
        ("si-7", Status::Partial),
        ("cm-5", Status::NotApplicable),
    ] {
        assert_eq!(status(&bundle(), id), want, "{id}");
    }
}

#[test]
fn seeded_faults_appear_under_their_controls_and_go_with_their_cause() {
    type Seed = (&'static str, fn(&mut Bundle), &'static [&'static str]);
    let seeds: [Seed; 9] = [
        (
            "e1.plaintext_edges",
            |b| {
                b.traffic.push(crate::bundle::Traffic {
                    client: None,
                    tls: false,
                    reasons: vec!["default/all-unauthenticated".into()],
                    ..allowed(2)
                })
            },
            &["sc-8", "sc-8.1", "ac-17.2", "ia-9"],
        ),
        (
            "e4.wildcard_grants",
            |b| {
                let wildcard = POLICY.replace(
                    "{ kind: ServiceAccount, name: web }",
                    "{ group: policy.linkerd.io, kind: MeshTLSAuthentication, name: all }",
                );
                b.files[0] = file(
                    "policy.yaml",
                    &format!(
                        "{wildcard}---\napiVersion: policy.linkerd.io/v1alpha1\nkind: MeshTLSAuthentication\nmetadata: {{ name: all, namespace: shop }}\nspec: {{ identities: ['*'] }}\n"
                    ),
                );
            },
            &["ac-4", "ac-6", "ca-9"],
        ),
        (
            "e2.expired",
            |b| b.certificates[1].not_after = at(-1),
            &["ia-5", "sc-12"],
        ),
        (
            "e5.unused_grants",
            |b| {
                b.traffic.retain(|one| one.verdict == Verdict::Deny);
            },
            &[],
        ),
        (
            "e3.default_allow_ports",
            |b| {
                b.files[1].text = b.files[1].text.replace("metadata: { name: shop }", "metadata: { name: shop, annotations: { config.linkerd.io/default-inbound-policy: all-authenticated } }")
            },
            &["ac-3", "cm-6", "sc-7.5"],
        ),
        (
            "e9.without_approver",
            |b| {
                b.changes.push(crate::bundle::Change {
                    approver: None,
                    ..change()
                })
            },
            &["cm-3", "cm-5"],
        ),
        (
            "e9.without_approver",
            |b| {
                b.changes.push(crate::bundle::Change {
                    approver: said("ana (2)"),
                    ..change()
                })
            },
            &["cm-3", "cm-5"],
        ),
        (
            "e10.unknown_certificates",
            |b| b.certificates.truncate(1),
            &["ia-5.2", "sc-12", "sc-17"],
        ),
        (
            "e8.unproved_logs",
            |b| {
                b.logs[2].broken = Some(crate::bundle::Broken {
                    code: "MESH-0511".into(),
                    message: "edited".into(),
                    line: 7,
                })
            },
            &["au-9", "au-2", "si-7"],
        ),
    ];
    for (check, seed, controls) in seeds {
        assert!(
            against(&bundle(), check).is_empty(),
            "{check} without its cause"
        );
        let mut spoiled = bundle();
        seed(&mut spoiled);
        let found = against(&spoiled, check);
        for control in controls {
            assert!(
                found.iter().any(|id| id == control),
                "{check} under {control}: {found:?}"
            );
        }
    }
}

#[test]
fn an_unused_grant_shows_under_the_reviews_of_access() {
    let mut unused = bundle();
    let grant = POLICY.split_once("---\n").expect("two documents").1;
    let spare = grant.replace("name: orders\n  namespace", "name: spare\n  namespace");
    assert_ne!(spare, grant);
    unused.files.insert(1, file("spare.yaml", &spare));
    let found = against(&unused, "e5.unused_grants");
    for control in ["ac-2.3", "ac-6.7", "cm-7"] {
        assert!(found.iter().any(|id| id == control), "{control}: {found:?}");
    }
    let report = report_of(&unused, "nist-800-53");
    let fix = report.findings[0].fix.as_ref().expect("a fix");
    assert_eq!((fix.line, fix.text.as_str()), (1, ""));
    unused.files.remove(1);
    assert_eq!(against(&unused, "e5.unused_grants"), Vec::<String>::new());
}

#[test]
fn missing_telemetry_of_a_namespace_is_insufficient_data_there_and_nowhere_else() {
    let mut two = bundle();
    two.workloads.insert(0, workload("bank", "vault"));
    let report = report_of(&two, "nist-800-53");
    let sc8 = control(&report.frameworks[0], "sc-8");
    let scopes: Vec<(&str, Status)> = sc8
        .scopes
        .iter()
        .map(|one| (one.scope.as_str(), one.status))
        .collect();
    assert_eq!(
        scopes,
        [
            ("bank", Status::InsufficientData),
            ("shop", Status::Satisfied)
        ]
    );
    assert_eq!(sc8.status, Status::Partial);
    let because = &sc8.scopes[0].because;
    assert!(
        because
            .iter()
            .any(|why| why.contains("no decision log of bank/vault")),
        "{because:?}"
    );
    // With its log it is known again: nothing was asked of it.
    two.logs.insert(
        0,
        crate::bundle::Log {
            namespace: Some("bank".into()),
            ..log(
                "bank.vault",
                crate::bundle::LogKind::Decisions,
                Some("vault"),
            )
        },
    );
    let report = report_of(&two, "nist-800-53");
    let sc8 = control(&report.frameworks[0], "sc-8");
    assert_eq!(
        (sc8.scopes[0].status, sc8.status),
        (Status::Satisfied, Status::Satisfied)
    );
}

#[test]
fn what_was_seen_counts_even_where_more_is_not_known() {
    let mut seen = bundle();
    seen.logs[2].broken = Some(crate::bundle::Broken {
        code: "MESH-0511".into(),
        message: "edited".into(),
        line: 7,
    });
    seen.traffic.push(crate::bundle::Traffic {
        client: None,
        tls: false,
        ..allowed(2)
    });
    let report = report_of(&seen, "nist-800-53");
    assert_eq!(
        control(&report.frameworks[0], "sc-8").status,
        Status::NotSatisfied
    );
}

#[test]
fn a_sample_proves_no_grant_unused() {
    let mut sampled = bundle();
    sampled.workloads[0].allow_sample_ppm = 10_000;
    sampled.traffic.retain(|one| one.verdict == Verdict::Deny);
    let report = report_of(&sampled, "nist-800-53");
    let ac23 = control(&report.frameworks[0], "ac-2.3");
    assert_eq!(ac23.status, Status::InsufficientData, "{ac23:?}");
    // All that was recorded, the grant is unused.
    sampled.workloads[0].allow_sample_ppm = 1_000_000;
    let report = report_of(&sampled, "nist-800-53");
    assert_eq!(
        control(&report.frameworks[0], "ac-2.3").status,
        Status::NotSatisfied
    );
    // Seen in use once, it is used, however small the sample.
    sampled.workloads[0].allow_sample_ppm = 1;
    sampled.traffic.push(allowed(1));
    sampled.traffic.sort_by_key(|one| one.verdict as u8);
    let report = report_of(&sampled, "nist-800-53");
    assert_eq!(
        control(&report.frameworks[0], "ac-2.3").status,
        Status::Partial,
        "the mesh covers a part of it"
    );
    assert!(report.findings.is_empty(), "{GRANT} {WEB}");
}

#[test]
fn zones_are_proved_or_named_open_with_a_witness() {
    let zone = |from: &[&str]| Zone {
        name: "cde".into(),
        namespaces: vec!["shop".into()],
        from: from.iter().map(|one| (*one).to_owned()).collect(),
    };
    let mut closed = bundle();
    closed.zones = vec![zone(&[])];
    assert_eq!(status(&closed, "sc-7.21"), Status::Satisfied);
    let mut open = closed.clone();
    let wider = POLICY.replace(
        "{ kind: ServiceAccount, name: web }",
        "{ kind: ServiceAccount, name: till, namespace: bank }",
    );
    open.files[0] = file("policy.yaml", &wider);
    assert_eq!(status(&open, "sc-7.21"), Status::NotSatisfied);
    let report = report_of(&open, "nist-800-53");
    let found = report
        .findings
        .iter()
        .find(|one| one.check == "e11.zones_open")
        .expect("a finding");
    assert!(
        found.message.contains("bank/till")
            && found
                .hint
                .contains("spiffe://cluster.local/ns/bank/sa/till"),
        "{found:?}"
    );
    open.zones = vec![zone(&["bank"])];
    assert_eq!(status(&open, "sc-7.21"), Status::Satisfied);
    // A zone of nothing proves nothing.
    open.zones[0].namespaces = vec!["nowhere".into()];
    assert_ne!(status(&open, "sc-7.21"), Status::Satisfied);
}

#[test]
fn stages_of_maturity_name_what_blocks_the_next() {
    let report = report_of(&bundle(), "cisa-ztmm-2.0");
    let stage = |id: &str| {
        control(&report.frameworks[0], id)
            .stage
            .clone()
            .expect("a stage")
    };
    assert_eq!(stage("networks.traffic-encryption").reached, "optimal");
    let segmentation = stage("networks.segmentation");
    assert_eq!(
        (segmentation.reached.as_str(), segmentation.next.as_deref()),
        ("advanced", Some("optimal"))
    );
    assert!(
        segmentation
            .blocked_by
            .iter()
            .any(|why| why.contains("e11.zones is not known")),
        "{segmentation:?}"
    );
    let mut plain = bundle();
    plain.traffic.push(crate::bundle::Traffic {
        client: None,
        tls: false,
        ..allowed(100)
    });
    let report = report_of(&plain, "cisa-ztmm-2.0");
    let stage = control(&report.frameworks[0], "networks.traffic-encryption")
        .stage
        .clone()
        .expect("a stage");
    assert_eq!(stage.reached, "traditional");
    assert!(
        stage.blocked_by[0].contains("e1.mtls_percent is 9.09"),
        "{stage:?}"
    );
}

#[test]
fn failed_intents_are_no_certificates() {
    let mut failed = bundle();
    failed.certificates[1].state = Issuance::Failed;
    let report = report_of(&failed, "nist-800-53");
    let found: Vec<&str> = report
        .findings
        .iter()
        .map(|one| one.check.as_str())
        .collect();
    assert!(found.contains(&"e10.unknown_certificates"), "{found:?}");
    let mut shared = bundle();
    shared.certificates.push(crate::bundle::Certificate {
        key_sha256: "01key".into(),
        ..certificate("03", "till")
    });
    let report = report_of(&shared, "nist-800-53");
    let reused = report
        .findings
        .iter()
        .filter(|one| one.check == "e2.reused_keys")
        .count();
    assert_eq!(reused, 2);
}
