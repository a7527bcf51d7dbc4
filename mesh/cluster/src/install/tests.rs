//! What the chart renders to, and what may be set.

use super::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

fn charts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts"))
}

fn find<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn files_made_from_code_are_what_the_code_makes() {
    for (path, text) in files::made().expect("files") {
        let committed = std::fs::read_to_string(charts().join(&path)).unwrap_or_default();
        assert!(
            committed == text,
            "charts/{path} is stale: write it anew with `mesh charts charts`"
        );
    }
}

#[test]
fn no_definition_is_committed_that_the_code_does_not_make() {
    let made: BTreeSet<String> = files::made()
        .expect("files")
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    for entry in std::fs::read_dir(charts().join("mesh-crds/templates")).expect("the folder") {
        let name = entry.expect("an entry").file_name();
        let path = format!("mesh-crds/templates/{}", name.to_string_lossy());
        assert!(made.contains(&path), "{path}");
    }
}

#[test]
fn the_values_of_the_chart_are_those_of_the_code() {
    let chart: Value = serde_saphyr::from_str(values::DEFAULTS).expect("YAML");
    assert_eq!(chart, Values::default().to_json());
    let schema =
        std::fs::read_to_string(charts().join("mesh/values.schema.json")).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(keys(&chart, ""), schema_keys(&schema, ""));
}

fn keys(value: &Value, path: &str) -> BTreeSet<String> {
    match value.as_object() {
        Some(map) => map
            .iter()
            .flat_map(|(key, below)| keys(below, &format!("{path}.{key}")))
            .collect(),
        None => BTreeSet::from([path.to_owned()]),
    }
}

fn schema_keys(schema: &Value, path: &str) -> BTreeSet<String> {
    match schema["properties"].as_object() {
        Some(map) => map
            .iter()
            // Helm adds `global` to the values of every chart.
            .filter(|(key, _)| *key != "global")
            .flat_map(|(key, below)| schema_keys(below, &format!("{path}.{key}")))
            .collect(),
        None => BTreeSet::from([path.to_owned()]),
    }
}

#[test]
fn charts_have_the_version_of_the_mesh() {
    for chart in ["mesh", "mesh-crds"] {
        let text =
            std::fs::read_to_string(charts().join(chart).join("Chart.yaml")).expect("Chart.yaml");
        let chart: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert_eq!(
            (&chart["version"], &chart["appVersion"]),
            (&json!(VERSION), &json!(VERSION))
        );
    }
}

#[test]
fn every_template_of_the_chart_is_rendered() {
    let named: BTreeSet<String> = TEMPLATES
        .iter()
        .map(|(name, _)| format!("{name}.yaml"))
        .collect();
    let folder = std::fs::read_dir(charts().join("mesh/templates")).expect("the folder");
    let there: BTreeSet<String> = folder
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(named, there);
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    for assignment in [
        "trustDomain=Prod.Example",
        "trustDomain=a b",
        "trustDomain=",
        "defaultPolicy=allow",
        "image.name=x\"y",
        "image.name=",
        "image.tag=a b",
        "image.tag=-x",
        "image.pullPolicy=Sometimes",
        "logLevel=info\n- --evil",
        "logLevel=",
        "priorityClassName=X",
        "identity.claim=A b",
        "identity.makeClaim=yes",
        "identity.storage=",
        "identity.storage=1Ti2",
        "identity.storageClass=A",
        "identity.issuerSecret=a/b",
        "identity.rootsConfigMap=bundle",
        "identity.svidTtl=24",
        "identity.svidTtl=",
        "identity.svidTtl=h",
        "proxy.uid=0",
        "proxy.uid=-1",
        "proxy.uid=4294967295",
        "proxy.uid=x",
        "proxy.cpuLimit=1core",
        "proxy.memoryLimit=1Ti2",
        "proxy.memoryLimit=.5Mi",
        "injector.failurePolicy=fail",
        "highAvailability=yes",
        "nothing=1",
        "proxy=1",
        "proxy.nothing=1",
        "trustDomain.x=1",
        "no-assignment",
    ] {
        assert!(Values::default().set(assignment).is_err(), "{assignment}");
    }
}

#[test]
fn values_are_set_by_their_keys_and_keep_their_types() {
    let values = Values::default()
        .set("image.tag=1.30")
        .and_then(|v| v.set("highAvailability=true"))
        .and_then(|v| v.set("proxy.uid=2102"))
        .expect("allowed values");
    assert_eq!(
        (
            values.image.tag.as_str(),
            values.high_availability,
            values.proxy.uid
        ),
        ("1.30", true, 2102)
    );
    assert!(Values::read("proxy: {uids: 1}\n").is_err());
    assert_eq!(
        Values::read("proxy: {uid: 5}\n").map(|v| v.proxy.uid),
        Ok(5)
    );
}

#[test]
fn high_availability_means_three_of_each_but_the_ca() {
    for (set, replicas) in [("highAvailability=false", 1), ("highAvailability=true", 3)] {
        let objects = objects(&Values::default().set(set).expect("allowed")).expect("objects");
        for name in ["mesh-controller", "mesh-injector"] {
            let deployment = find(&objects, "Deployment", name);
            assert_eq!(deployment["spec"]["replicas"], replicas, "{name}");
            find(&objects, "PodDisruptionBudget", name);
        }
        // Each of several would have a root of its own.
        let ca = find(&objects, "Deployment", "mesh-identity");
        assert_eq!(ca["spec"]["replicas"], 1);
    }
}

/// What the CA may read besides what it always may, and where its keys lie.
fn ca_of(sets: &[&str]) -> (Vec<Value>, Value, usize) {
    let mut values = Values::default();
    for set in sets {
        values = values.set(set).expect("allowed");
    }
    let objects = objects(&values).expect("objects");
    let role = find(&objects, "Role", "mesh-identity");
    let rules = role["rules"].as_array().expect("rules");
    let reads = rules
        .iter()
        .filter(|rule| rule["verbs"] == json!(["get", "list", "watch"]));
    let pod = &find(&objects, "Deployment", "mesh-identity")["spec"]["template"]["spec"];
    let claims = objects
        .iter()
        .filter(|o| o["kind"] == "PersistentVolumeClaim")
        .count();
    (reads.cloned().collect(), pod["volumes"][0].clone(), claims)
}

#[test]
fn the_keys_of_the_ca_outlive_its_pod_unless_somebody_says_otherwise() {
    let (_, volume, claims) = ca_of(&[]);
    assert_eq!(
        volume["persistentVolumeClaim"]["claimName"],
        "mesh-identity"
    );
    assert_eq!(claims, 1);
    let (_, volume, claims) = ca_of(&["identity.makeClaim=false", "identity.claim=mine"]);
    assert_eq!(
        (
            volume["persistentVolumeClaim"]["claimName"].as_str(),
            claims
        ),
        (Some("mine"), 0)
    );
    let (_, volume, claims) = ca_of(&["identity.makeClaim=false"]);
    assert_eq!((volume.get("emptyDir").is_some(), claims), (true, 0));
}

#[test]
fn kubelet_leaves_the_modes_of_key_files_alone() {
    let objects = objects(&Values::default()).expect("objects");
    let pod = &find(&objects, "Deployment", "mesh-identity")["spec"]["template"]["spec"];
    assert_eq!(
        pod["securityContext"]["fsGroupChangePolicy"],
        "OnRootMismatch"
    );
}

#[test]
fn the_ca_may_read_the_one_secret_and_the_one_config_map_that_were_named() {
    assert_eq!(
        ca_of(&[]).0,
        [] as [Value; 0],
        "no Secret unless one is named"
    );
    let (reads, _, _) = ca_of(&[
        "identity.issuerSecret=issuer",
        "identity.rootsConfigMap=roots",
    ]);
    let named: Vec<_> = reads
        .iter()
        .map(|rule| (&rule["resources"], &rule["resourceNames"]))
        .collect();
    assert_eq!(
        named,
        [
            (&json!(["secrets"]), &json!(["issuer"])),
            (&json!(["configmaps"]), &json!(["roots"]))
        ]
    );
}

/// PodSecurity, level restricted, as Kubernetes defines it; and a root file system that cannot be written.
#[test]
fn every_pod_is_restricted() {
    let objects = objects(&Values::default()).expect("objects");
    let deployments: Vec<_> = objects
        .iter()
        .filter(|o| o["kind"] == "Deployment")
        .collect();
    assert_eq!(deployments.len(), 3);
    for deployment in deployments {
        let spec = &deployment["spec"]["template"]["spec"];
        let name = &deployment["metadata"]["name"];
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec.get(key).is_none(), "{name}: {key}");
        }
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}");
        for container in spec["containers"].as_array().expect("containers") {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["runAsNonRoot"], true, "{name}");
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            assert_eq!(
                context["seccompProfile"]["type"], "RuntimeDefault",
                "{name}"
            );
        }
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            assert!(volume.get("hostPath").is_none(), "{name}");
        }
    }
    let labels = &find(&objects, "Namespace", "mesh-system")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn no_right_is_a_wildcard_and_none_is_to_secrets() {
    let objects = objects(&Values::default()).expect("objects");
    let roles = objects
        .iter()
        .filter(|o| o["kind"] == "ClusterRole" || o["kind"] == "Role");
    let mut seen = 0;
    for role in roles {
        let title = format!("{} {}", role["kind"], role["metadata"]["name"]);
        for rule in role["rules"].as_array().expect("rules") {
            seen += 1;
            for field in ["apiGroups", "resources", "verbs"] {
                let words = rule[field].as_array().expect("a list");
                assert!(
                    !words.is_empty()
                        && words
                            .iter()
                            .all(|w| !w.as_str().expect("a word").contains('*')),
                    "{title}: {rule}"
                );
            }
            assert!(rule.get("nonResourceURLs").is_none(), "{title}");
            let verbs: Vec<_> = rule["verbs"]
                .as_array()
                .expect("verbs")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            for verb in [
                "escalate",
                "bind",
                "impersonate",
                "deletecollection",
                "delete",
            ] {
                assert!(!verbs.contains(&verb), "{title}: {verb}");
            }
            let resources = rule["resources"].as_array().expect("resources");
            assert!(!resources.contains(&json!("secrets")), "{title}: {rule}");
        }
    }
    assert!(seen > 8, "{seen}");
}

#[test]
fn webhooks_come_last_and_go_first() {
    let objects = objects(&Values::default()).expect("objects");
    let last: Vec<_> = objects
        .iter()
        .rev()
        .take(2)
        .map(|o| o["kind"].as_str().expect("a kind"))
        .collect();
    assert_eq!(
        last,
        [
            "ValidatingWebhookConfiguration",
            "MutatingWebhookConfiguration"
        ]
    );
    let removal: Vec<Value> =
        serde_saphyr::from_multiple(&render_removal(&Values::default()).expect("text"))
            .expect("YAML");
    assert_eq!(removal.len(), objects.len());
    assert_eq!(removal[1]["kind"], "MutatingWebhookConfiguration");
    assert!(
        removal
            .iter()
            .all(|o| o.get("spec").is_none() && o.get("rules").is_none())
    );
}

#[test]
fn pods_wait_for_their_injector_where_none_was_told_to_fail_open() {
    for (set, want) in [
        ("injector.failurePolicy=Fail", "Fail"),
        ("injector.failurePolicy=Ignore", "Ignore"),
    ] {
        let objects = objects(&Values::default().set(set).expect("allowed")).expect("objects");
        let webhook =
            &find(&objects, "MutatingWebhookConfiguration", "mesh-injector")["webhooks"][0];
        assert_eq!(webhook["failurePolicy"], want);
        let excluded = &webhook["namespaceSelector"]["matchExpressions"][0];
        assert_eq!(excluded["operator"], "NotIn");
        for namespace in ["kube-system", "mesh-system"] {
            assert!(
                excluded["values"]
                    .as_array()
                    .expect("values")
                    .contains(&json!(namespace)),
                "{namespace}"
            );
        }
    }
}

#[test]
fn the_injector_reads_what_the_chart_tells_it() {
    let values = Values::default()
        .set("proxy.uid=2102")
        .and_then(|v| v.set("trustDomain=prod.example"))
        .expect("allowed");
    let objects = objects(&values).expect("objects");
    let env = &find(&objects, "Deployment", "mesh-injector")["spec"]["template"]["spec"]["containers"]
        [0]["env"];
    let text = env
        .as_array()
        .expect("env")
        .iter()
        .find(|v| v["name"] == "MESH_INJECTOR_CONFIG")
        .expect("the settings");
    let settings =
        crate::inject::Settings::read(text["value"].as_str().expect("text")).expect("settings");
    assert_eq!(
        (settings.proxy.uid, settings.trust_domain.as_str()),
        (2102, "prod.example")
    );
    assert_eq!(settings.image, format!("localhost/mesh:{VERSION}"));
    let config = &find(&objects, "ConfigMap", "mesh-config")["data"]["values.yaml"];
    assert_eq!(Values::read(config.as_str().expect("text")), Ok(values));
}

#[test]
fn a_namespace_that_helm_makes_is_not_made_twice() {
    let objects = objects(
        &Values::default()
            .set("createNamespace=false")
            .expect("allowed"),
    )
    .expect("objects");
    assert!(objects.iter().all(|o| o["kind"] != "Namespace"));
}

#[test]
fn a_collector_of_spans_is_one_and_has_a_port() {
    for good in [
        &["proxy.tracesService=observability/collector:4317"][..],
        &[
            "proxy.tracesAddress=[fd00::1]:4317",
            "proxy.tracesSample=1.0",
        ],
        &[
            "proxy.tracesAddress=collector.example:4318",
            "proxy.tracesProtocol=http",
        ],
    ] {
        let values = good
            .iter()
            .try_fold(Values::default(), |values, one| values.set(one));
        assert!(values.is_ok(), "{good:?}: {values:?}");
    }
    for bad in [
        &["proxy.tracesService=collector:4317"][..],
        &["proxy.tracesService=a/b:0"],
        &["proxy.tracesService=a/b\": x:1"],
        &["proxy.tracesAddress=collector"],
        &["proxy.tracesAddress=http://collector:4317"],
        &["proxy.tracesAddress=[::1:4317"],
        &["proxy.tracesProtocol=zipkin"],
        &["proxy.tracesSample=2"],
        &["proxy.tracesSample=1e0"],
        &["proxy.tracesSample="],
        &["proxy.tracesService=a/b:1", "proxy.tracesAddress=c:1"],
    ] {
        let values = bad
            .iter()
            .try_fold(Values::default(), |values, one| values.set(one));
        assert!(
            matches!(
                values,
                Err(crate::install::values::ValuesError::NotAllowed { .. })
            ),
            "{bad:?}: {values:?}"
        );
    }
}
