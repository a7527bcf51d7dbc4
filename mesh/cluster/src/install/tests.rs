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

#[test]
fn every_value_is_among_those_that_an_upgrade_finds() {
    let (_, config) = TEMPLATES
        .iter()
        .find(|(name, _)| *name == "config")
        .expect("the template");
    for key in keys(&Values::default().to_json(), "") {
        let said = format!(".Values{key} ");
        assert!(config.contains(&said), "{key} is lost with an upgrade");
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
        "identity.pkcs11.module=lib.so",
        "identity.pkcs11.module=/opt/../lib.so",
        "identity.pkcs11.key=",
        "identity.pkcs11.key=a\"b",
        "identity.pkcs11.key=$(MESH_LOG)",
        "identity.pkcs11.pinSecret=A",
        "identity.pkcs11.image=a b",
        "identity.pkcs11.configVariable=A-B",
        "identity.pkcs11.configFile=../pin",
        "identity.pkcs11.files=relative",
        "identity.pkcs11.port=70000",
        "identity.pkcs11.cidr=10.0.0.1",
        "identity.bundleEndpoint.serviceType=ExternalName",
        "identity.bundleEndpoint.refresh=5",
        "identity.bundleEndpoint.certificateSecret=a/b",
        "proxy.uid=0",
        "proxy.uid=-1",
        "proxy.uid=4294967295",
        "proxy.uid=x",
        "proxy.cpuLimit=1core",
        "proxy.memoryLimit=1Ti2",
        "proxy.memoryLimit=.5Mi",
        "injector.failurePolicy=fail",
        "cni.enabled=yes",
        "cni.binDir=",
        "cni.binDir=opt/cni/bin",
        "cni.binDir=/opt/../etc",
        "cni.confDir=/etc/cni/net.d\n- --evil",
        "cni.confDir=/",
        "cni.confDir=/etc/cni/net d",
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
    let values = Values::default().set_all(sets).expect("allowed");
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
fn policies_refuse_what_they_do_not_write() {
    let traces = "proxy.tracesAddress=127.0.0.1:4317";
    let metrics = "proxy.metricsIntervalSecs=60";
    let by_policy = "injector.by=policy";
    for sets in [
        &[by_policy, "cni.enabled=true"][..],
        &[by_policy, traces, metrics],
    ] {
        assert!(Values::default().set_all(sets).is_err(), "{sets:?}");
        assert!(Values::default().set_all(&sets[1..]).is_ok(), "{sets:?}");
    }
    assert!(Values::default().set_all(&[by_policy, traces]).is_ok());
}

fn with_cni() -> Vec<Value> {
    let values = Values::default().set_all(&[
        "cni.enabled=true",
        "cni.binDir=/var/lib/cni/bin",
        "cni.confDir=/var/lib/cni/net.d",
    ]);
    objects(&values.expect("allowed")).expect("objects")
}

#[test]
fn the_cni_plugin_is_there_only_if_it_is_wanted() {
    let plain = objects(&Values::default()).expect("objects");
    assert!(
        plain
            .iter()
            .all(|o| o["kind"] != "DaemonSet" && o["metadata"]["namespace"] != "mesh-cni")
    );
    let objects = with_cni();
    let set = find(&objects, "DaemonSet", "mesh-cni");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for command in [
        &container["args"],
        &container["readinessProbe"]["exec"]["command"],
    ] {
        let words = command.as_array().expect("words");
        for word in [
            "--bin-dir=/var/lib/cni/bin",
            "--conf-dir=/var/lib/cni/net.d",
        ] {
            assert!(words.contains(&json!(word)), "{words:?}");
        }
    }
    // On every node; a taint would make one on which no meshed pod starts.
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    let injector = &find(&objects, "Deployment", "mesh-injector")["spec"]["template"]["spec"];
    let text = injector["containers"][0]["env"][1]["value"].as_str();
    let settings = crate::inject::Settings::read(text.expect("settings")).expect("settings");
    assert!(settings.cni);
}

#[test]
fn the_cni_plugin_has_two_folders_and_no_other_right() {
    let objects = with_cni();
    let pod = &find(&objects, "DaemonSet", "mesh-cni")["spec"]["template"]["spec"];
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(key).is_none(), "{key}");
    }
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(
        (
            &context["privileged"],
            &context["allowPrivilegeEscalation"],
            &context["readOnlyRootFilesystem"]
        ),
        (&json!(false), &json!(false), &json!(true))
    );
    let volumes = pod["volumes"].as_array().expect("volumes");
    let mounts = pod["containers"][0]["volumeMounts"]
        .as_array()
        .expect("mounts");
    let paths = |list: &[Value], path: &str| -> Vec<Value> {
        list.iter()
            .filter_map(|one| one.pointer(path).cloned())
            .collect()
    };
    // By the same paths here and there, and none is made where a node has it elsewhere.
    let want = [json!("/var/lib/cni/bin"), json!("/var/lib/cni/net.d")];
    assert_eq!(paths(volumes, "/hostPath/path"), want);
    assert_eq!(paths(mounts, "/mountPath"), want);
    assert_eq!(
        paths(volumes, "/hostPath/type"),
        [json!("Directory"), json!("Directory")]
    );
    let role = find(&objects, "ClusterRole", "mesh-cni");
    assert_eq!(
        role["rules"],
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    );
    let own = find(&objects, "Role", "mesh-cni");
    assert_eq!(
        own["rules"],
        json!([{"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": ["mesh-cni"], "verbs": ["get"]}])
    );
    // The control plane's namespace stays as strict as it is without.
    let labels = &find(&objects, "Namespace", "mesh-system")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn no_webhook_is_asked_about_namespaces_whose_pods_the_plugin_lets_through() {
    let objects = objects(&Values::default()).expect("objects");
    let hooks = find(&objects, "MutatingWebhookConfiguration", "mesh-injector");
    let rule = &hooks["webhooks"][0]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(rule["values"], json!(crate::names::OUTSIDE));
}

#[test]
fn the_config_map_holds_every_value_so_that_an_upgrade_loses_none() {
    fn names(value: &Value, path: &str, out: &mut BTreeSet<String>) {
        match value.as_object() {
            Some(fields) => fields
                .iter()
                .for_each(|(key, value)| names(value, &format!("{path}.{key}"), out)),
            None => drop(out.insert(path.to_owned())),
        }
    }
    for set in [
        "identity.svidTtl=24h",
        "identity.externalIssuer=true",
        "highAvailability=true",
        "proxy.cpuLimit=500m",
        "cni.enabled=true",
    ] {
        let values = Values::default().set(set).expect("allowed");
        let objects = objects(&values).expect("objects");
        let data = &find(&objects, "ConfigMap", "mesh-config")["data"];
        let text = data["values.yaml"].as_str().expect("a text");
        assert_eq!(Values::read(text).expect("values"), values, "{set}");
        let written: Value = serde_saphyr::from_str(text).expect("YAML");
        let (mut all, mut there) = (BTreeSet::new(), BTreeSet::new());
        names(&values.to_json(), "", &mut all);
        names(&written, "", &mut there);
        assert_eq!(all, there);
        assert_eq!(data["version"], VERSION);
    }
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
        .set_all(&TOKEN)
        .and_then(|v| {
            v.set_all(&[
                "proxy.uid=2102",
                "trustDomain=prod.example",
                "identity.externalIssuer=true",
                "identity.bundleEndpoint.enabled=true",
            ])
        })
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
            "proxy.metricsIntervalSecs=3600",
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
        &["proxy.metricsIntervalSecs=60"],
        &["proxy.tracesAddress=c:1", "proxy.metricsIntervalSecs=3601"],
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

/// A CA whose keys lie in a token of the network.
const TOKEN: [&str; 10] = [
    "identity.pkcs11.module=/opt/vendor/lib/libp11.so",
    "identity.pkcs11.token=prod 1",
    "identity.pkcs11.pinSecret=hsm-pin",
    "identity.pkcs11.image=registry.example/mesh-hsm:7",
    "identity.pkcs11.configSecret=hsm-client",
    "identity.pkcs11.configVariable=VENDOR_CONF",
    "identity.pkcs11.configFile=vendor.conf",
    "identity.pkcs11.files=/var/lib/mesh/vendor",
    "identity.pkcs11.port=1792",
    "identity.pkcs11.cidr=10.1.2.3/32",
];

fn identity_of(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "mesh-identity")["spec"]["template"]["spec"]
}

#[test]
fn a_token_is_told_to_the_ca_and_its_pin_comes_from_a_secret_alone() {
    let values = Values::default().set_all(&TOKEN).expect("allowed");
    let objects = objects(&values).expect("objects");
    let pod = identity_of(&objects);
    let container = &pod["containers"][0];
    let args = container["args"].as_array().expect("arguments");
    for argument in [
        "--pkcs11-module=/opt/vendor/lib/libp11.so",
        "--pkcs11-token=prod 1",
        "--pkcs11-key=mesh-ca",
        "--pkcs11-pin=/run/secrets/mesh/pkcs11/pin",
        "--pkcs11-pin-by-group",
        "--pkcs11-files=/var/lib/mesh/vendor",
    ] {
        assert!(args.contains(&json!(argument)), "{argument}: {args:?}");
    }
    assert_eq!(container["image"], "registry.example/mesh-hsm:7");
    let variable = json!({ "name": "VENDOR_CONF", "value": "/etc/mesh/pkcs11/vendor.conf" });
    assert!(
        container["env"]
            .as_array()
            .expect("env")
            .contains(&variable)
    );
    let volumes = pod["volumes"].as_array().expect("volumes");
    let pin = json!({ "name": "pkcs11-pin", "secret": {
        "secretName": "hsm-pin", "defaultMode": 0o440, "items": [{ "key": "pin", "path": "pin" }] } });
    assert!(volumes.contains(&pin), "{volumes:?}");
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    for (name, path) in [
        ("pkcs11-pin", "/run/secrets/mesh/pkcs11"),
        ("pkcs11-config", "/etc/mesh/pkcs11"),
    ] {
        let mount = json!({ "name": name, "mountPath": path, "readOnly": true });
        assert!(mounts.contains(&mount), "{mounts:?}");
    }
    // The group may read the PIN, so it must be the group of nobody else.
    let context = &pod["securityContext"];
    assert_eq!(
        (&context["runAsGroup"], &context["fsGroup"]),
        (&json!(15013), &json!(15013))
    );
    // The rest of the mesh neither sees the token nor runs that image.
    let policy = &find(&objects, "NetworkPolicy", "mesh-identity-token")["spec"];
    assert_eq!(
        policy["podSelector"]["matchLabels"],
        json!({ "app.kubernetes.io/component": "identity" })
    );
    assert_eq!(
        policy["egress"],
        json!([{ "ports": [{ "protocol": "TCP", "port": 1792 }], "to": [{ "ipBlock": { "cidr": "10.1.2.3/32" } }] }])
    );
    for name in ["mesh-controller", "mesh-injector"] {
        let other = &find(&objects, "Deployment", name)["spec"]["template"]["spec"];
        assert!(!other.to_string().contains("hsm"), "{name}");
    }
}

#[test]
fn half_of_a_token_and_parts_without_their_whole_are_refused() {
    for left_out in 0..3 {
        let mut some = TOKEN.to_vec();
        some.remove(left_out);
        assert!(Values::default().set_all(&some).is_err(), "{left_out}");
    }
    let alone: [&[&str]; 6] = [
        &["identity.pkcs11.token=prod"],
        &["identity.pkcs11.pinSecret=pin"],
        &["identity.pkcs11.image=a:1"],
        &["identity.pkcs11.port=1792"],
        &["identity.bundleEndpoint.refresh=1h"],
        &["identity.bundleEndpoint.certificateSecret=web"],
    ];
    for set in alone {
        assert!(Values::default().set_all(set).is_err(), "{set:?}");
    }
    let whole = &TOKEN[..3];
    for more in [
        "identity.pkcs11.configVariable=A",
        "identity.pkcs11.configFile=a",
        "identity.pkcs11.cidr=10.1.2.3/32",
    ] {
        let set = [whole, &[more]].concat();
        assert!(Values::default().set_all(&set).is_err(), "{more}");
    }
    let objects = objects(&Values::default().set_all(whole).expect("allowed")).expect("objects");
    let pod = identity_of(&objects).to_string();
    assert!(pod.contains("localhost/mesh:") && !pod.contains("pkcs11-config"));
    assert!(!pod.contains("--pkcs11-files"));
}

#[test]
fn without_a_word_no_token_and_no_endpoint_is_there() {
    let text = render(&Values::default()).expect("text");
    for word in ["pkcs11-", "bundle-endpoint", "mesh-bundle", "15012"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn the_bundle_endpoint_has_a_service_and_a_door_in_the_network_policy() {
    let ports = |objects: &[Value]| {
        let policy = &find(objects, "NetworkPolicy", "mesh-identity")["spec"]["ingress"];
        assert_eq!(policy.as_array().map(Vec::len), Some(1));
        policy[0]["ports"].clone()
    };
    let values = Values::default()
        .set_all(&[
            "identity.bundleEndpoint.enabled=true",
            "identity.bundleEndpoint.serviceType=LoadBalancer",
            "identity.bundleEndpoint.refresh=1h",
        ])
        .expect("allowed");
    let made = objects(&values).expect("objects");
    let service = &find(&made, "Service", "mesh-bundle")["spec"];
    assert_eq!(service["type"], "LoadBalancer");
    assert_eq!(
        service["ports"],
        json!([{ "name": "bundle", "port": 443, "targetPort": "bundle", "protocol": "TCP" }])
    );
    let container = &identity_of(&made)["containers"][0];
    let served = json!({ "name": "bundle", "containerPort": 15012 });
    assert!(
        container["ports"]
            .as_array()
            .expect("ports")
            .contains(&served)
    );
    let args = container["args"].as_array().expect("arguments");
    assert!(args.contains(&json!("--bundle-endpoint=0.0.0.0:15012")));
    assert!(args.contains(&json!("--bundle-refresh=1h")));
    assert!(!container.to_string().contains("certificate"));
    let door = json!({ "protocol": "TCP", "port": 15012 });
    assert!(ports(&made).as_array().expect("ports").contains(&door));
    let without = objects(&Values::default()).expect("objects");
    assert!(!ports(&without).as_array().expect("ports").contains(&door));
    let web = values.set("identity.bundleEndpoint.certificateSecret=web");
    let made = objects(&web.expect("allowed")).expect("objects");
    let pod = identity_of(&made);
    for argument in [
        "--bundle-endpoint-certificate=/run/secrets/mesh/bundle/tls.crt",
        "--bundle-endpoint-key=/run/secrets/mesh/bundle/tls.key",
    ] {
        let args = pod["containers"][0]["args"].as_array().expect("arguments");
        assert!(args.contains(&json!(argument)), "{argument}");
    }
    let volume = json!({ "name": "bundle-certificate", "secret": { "secretName": "web", "defaultMode": 0o440 } });
    assert!(
        pod["volumes"]
            .as_array()
            .expect("volumes")
            .contains(&volume)
    );
}
