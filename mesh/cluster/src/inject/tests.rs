//! Who gets a proxy, who none, who may not be made; and what exactly is added.

use super::*;
use crate::install::Values;
use serde_json::json;

fn settings() -> Settings {
    Settings::from(&Values::default())
}

fn shop(annotations: &[(&str, &str)]) -> Namespace {
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    Namespace {
        name: "shop".to_owned(),
        annotations: map(annotations),
        labels: BTreeMap::new(),
    }
}

/// A pod with these annotations and one container.
fn pod(annotations: &[(&str, &str)]) -> Value {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "orders-0", "annotations": annotations },
        "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
    })
}

/// A pod that asks for a proxy, after `change`.
fn asking(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod(&[(INJECT, "enabled")]);
    change(&mut pod);
    pod
}

fn outcome_of(pod: &Value, namespace: &Namespace) -> Outcome {
    decide(pod, namespace, &settings()).outcome
}

fn refusal_of(pod: &Value) -> Refusal {
    match outcome_of(pod, &shop(&[])) {
        Outcome::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn injected(pod: &Value) -> Value {
    let Outcome::Inject(addition) = outcome_of(pod, &shop(&[])) else {
        panic!("not injected");
    };
    let mut after = pod.clone();
    addition.apply(&mut after);
    after
}

#[test]
fn the_pod_decides_before_its_namespace() {
    let (on, off) = ("enabled", "disabled");
    for (own, namespace, want) in [
        (None, None, Some(Skip::NotAsked)),
        (None, Some(on), None),
        (None, Some(off), Some(Skip::Disabled)),
        (Some(on), None, None),
        (Some(on), Some(off), None),
        (Some(off), Some(on), Some(Skip::Disabled)),
        (Some(off), None, Some(Skip::Disabled)),
    ] {
        for key in [INJECT, LINKERD_INJECT] {
            let annotations = |value: Option<&'static str>| value.map(|v| (key, v));
            let pod = pod(annotations(own).as_slice());
            let got = match outcome_of(&pod, &shop(annotations(namespace).as_slice())) {
                Outcome::Inject(_) => None,
                Outcome::Skip(skip) => Some(skip),
                Outcome::Refuse(refusal) => panic!("{refusal}"),
            };
            assert_eq!(got, want, "{key}: pod {own:?}, namespace {namespace:?}");
        }
    }
}

#[test]
fn our_annotation_comes_before_linkerd_s() {
    let both = pod(&[(LINKERD_INJECT, "enabled"), (INJECT, "disabled")]);
    assert_eq!(outcome_of(&both, &shop(&[])), Outcome::Skip(Skip::Disabled));
    // At the level of the pod, though, either one is nearer than the namespace.
    let linkerd = pod(&[(LINKERD_INJECT, "disabled")]);
    assert_eq!(
        outcome_of(&linkerd, &shop(&[(INJECT, "enabled")])),
        Outcome::Skip(Skip::Disabled)
    );
}

#[test]
fn a_switch_that_says_neither_is_refused_and_not_taken_for_no() {
    for value in ["true", "yes", "Enabled", "", "ingress"] {
        let got = refusal_of(&pod(&[(INJECT, value)]));
        assert!(
            matches!(&got, Refusal::Switch { value: v, .. } if v == value),
            "{value}: {got}"
        );
    }
    assert!(matches!(
        outcome_of(&pod(&[]), &shop(&[(LINKERD_INJECT, "true")])),
        Outcome::Refuse(Refusal::Switch { .. })
    ));
    // Linkerd's third word is one.
    assert!(matches!(
        outcome_of(&pod(&[(LINKERD_INJECT, "ingress")]), &shop(&[])),
        Outcome::Inject(_)
    ));
    // What the pod overrules may say what it likes.
    assert_eq!(
        outcome_of(&pod(&[(INJECT, "disabled")]), &shop(&[(INJECT, "maybe")])),
        Outcome::Skip(Skip::Disabled)
    );
}

#[test]
fn a_label_in_the_place_of_an_annotation_is_reported() {
    let mut labelled = pod(&[]);
    labelled["metadata"]["labels"] = json!({ LINKERD_INJECT: "enabled" });
    let mut namespace = shop(&[]);
    namespace
        .labels
        .insert(INJECT.to_owned(), "enabled".to_owned());
    let decision = decide(&labelled, &namespace, &settings());
    assert_eq!(decision.outcome, Outcome::Skip(Skip::NotAsked));
    assert_eq!(decision.warnings.len(), 2, "{:?}", decision.warnings);
    assert!(
        decision
            .warnings
            .iter()
            .all(|w| w.starts_with("MESH-0739") && w.contains("label"))
    );
}

#[test]
fn pods_that_could_get_around_their_proxy_are_refused() {
    let app = "/spec/containers/0";
    let context = |value: Value| {
        move |pod: &mut Value| {
            pod.pointer_mut("/spec/containers/0").unwrap()["securityContext"] = value
        }
    };
    for (code, pod) in [
        (
            "MESH-0742",
            asking(|pod| pod["spec"]["hostNetwork"] = json!(true)),
        ),
        (
            "MESH-0743",
            asking(|pod| pod["spec"]["securityContext"] = json!({"runAsUser": 15014})),
        ),
        ("MESH-0743", asking(context(json!({"runAsUser": 15014})))),
        (
            "MESH-0743",
            asking(|pod| {
                pod["spec"]["initContainers"] =
                    json!([{"name": "i", "securityContext": {"runAsUser": 15014}}])
            }),
        ),
        ("MESH-0744", asking(context(json!({"privileged": true})))),
        (
            "MESH-0744",
            asking(context(
                json!({"capabilities": {"add": ["CHOWN", "NET_ADMIN"]}}),
            )),
        ),
        (
            "MESH-0744",
            asking(context(json!({"capabilities": {"add": ["CAP_NET_ADMIN"]}}))),
        ),
        (
            "MESH-0744",
            asking(context(json!({"capabilities": {"add": ["net_admin"]}}))),
        ),
        (
            "MESH-0744",
            asking(context(json!({"capabilities": {"add": ["SYS_ADMIN"]}}))),
        ),
        (
            "MESH-0744",
            asking(context(json!({"capabilities": {"add": ["ALL"]}}))),
        ),
        (
            "MESH-0745",
            asking(|pod| pod["spec"]["containers"][0]["name"] = json!("istio-proxy")),
        ),
        (
            "MESH-0745",
            asking(|pod| pod["spec"]["initContainers"] = json!([{"name": "linkerd-proxy"}])),
        ),
        (
            "MESH-0746",
            asking(|pod| pod.pointer_mut(app).unwrap()["name"] = json!("mesh-proxy")),
        ),
        (
            "MESH-0746",
            asking(|pod| pod["spec"]["volumes"] = json!([{"name": "mesh-token", "emptyDir": {}}])),
        ),
        (
            "MESH-0747",
            asking(|pod| {
                pod.pointer_mut(app).unwrap()["ports"] = json!([{"containerPort": 15006}])
            }),
        ),
        (
            "MESH-0748",
            asking(|pod| pod["spec"]["os"] = json!({"name": "windows"})),
        ),
        ("MESH-0749", asking(|pod| pod["spec"] = json!(7))),
        (
            "MESH-0749",
            asking(|pod| pod["spec"]["containers"] = json!({"name": "x"})),
        ),
        (
            "MESH-0749",
            asking(|pod| pod["spec"]["containers"] = json!([{"image": "x"}])),
        ),
        (
            "MESH-0749",
            json!({"metadata": {"annotations": []}, "spec": {}}),
        ),
    ] {
        let refusal = refusal_of(&pod);
        let got = miette::Diagnostic::code(&refusal)
            .expect("a code")
            .to_string();
        assert_eq!(got, code, "{refusal}");
        assert!(miette::Diagnostic::help(&refusal).is_some(), "{refusal}");
    }
}

#[test]
fn what_looks_alike_but_is_harmless_is_not_refused() {
    for pod in [
        asking(|pod| pod["spec"]["hostNetwork"] = json!(false)),
        asking(|pod| {
            pod["spec"]["containers"][0]["securityContext"] =
                json!({"runAsUser": 0, "privileged": false})
        }),
        asking(|pod| {
            pod["spec"]["containers"][0]["securityContext"] =
                json!({"capabilities": {"drop": ["NET_ADMIN", "ALL"]}})
        }),
        asking(|pod| pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 15007}])),
        asking(|pod| pod["spec"]["os"] = json!({"name": "linux"})),
        asking(|pod| pod["spec"]["initContainers"] = json!(null)),
    ] {
        assert!(
            matches!(outcome_of(&pod, &shop(&[])), Outcome::Inject(_)),
            "{pod}"
        );
    }
}

#[test]
fn another_user_for_the_proxy_moves_the_refusal() {
    let pod = asking(|pod| {
        pod["metadata"]["annotations"]["config.linkerd.io/proxy-uid"] = json!("2102");
        pod["spec"]["securityContext"] = json!({"runAsUser": 15014});
    });
    let after = injected(&pod);
    assert_eq!(
        after["spec"]["initContainers"][0]["args"],
        json!(["capture", "--uid=2102"])
    );
    assert_eq!(
        after["spec"]["initContainers"][1]["securityContext"]["runAsUser"],
        2102
    );
}

#[test]
fn settings_that_cannot_be_read_are_refused() {
    for (name, value) in [
        ("proxy-uid", "0"),
        ("proxy-uid", "root"),
        ("proxy-uid", "4294967296"),
        ("proxy-cpu-request", "much"),
        ("proxy-memory-limit", "64MB!"),
        ("proxy-log-level", "info\nx: y"),
        ("skip-inbound-ports", "0"),
        ("skip-inbound-ports", "80-70"),
        ("skip-inbound-ports", "http"),
        ("skip-inbound-ports", "70000"),
        ("skip-inbound-ports", "15000-15010"),
        ("skip-outbound-ports", "5432,"),
        ("skip-outbound-ports", "1;2"),
        ("skip-subnets", "10.0.0.0/33"),
        ("skip-subnets", "fd00::/129"),
        ("skip-subnets", "example.com"),
        ("skip-subnets", "10.0.0.0/8 --remove"),
        ("skip-udp-ports", "0"),
        ("skip-udp-ports", "dns"),
        ("skip-udp-ports", "1-65536"),
    ] {
        for prefix in ["mesh.internal/", "config.linkerd.io/"] {
            let key = format!("{prefix}{name}");
            let pod = pod(&[(INJECT, "enabled"), (&key, value)]);
            if value == "5432," {
                // An empty entry is nothing.
                assert!(matches!(outcome_of(&pod, &shop(&[])), Outcome::Inject(_)));
                continue;
            }
            assert!(
                matches!(refusal_of(&pod), Refusal::Setting { annotation, .. } if annotation.ends_with(name)),
                "{key}: {value}"
            );
        }
    }
}

#[test]
fn settings_of_the_pod_come_before_those_of_its_namespace() {
    let pod = pod(&[
        ("config.linkerd.io/proxy-log-level", "debug"),
        ("mesh.internal/skip-outbound-ports", "25, 4000-4010"),
        ("config.linkerd.io/skip-subnets", "10.0.0.0/8, fd00::1"),
        ("mesh.internal/skip-udp-ports", "123, 8125-8126"),
    ]);
    let namespace = shop(&[
        (INJECT, "enabled"),
        ("mesh.internal/proxy-log-level", "error"),
        ("mesh.internal/proxy-cpu-limit", "2"),
    ]);
    let decision = decide(&pod, &namespace, &settings());
    let Outcome::Inject(addition) = decision.outcome else {
        panic!("not injected")
    };
    let mut after = pod.clone();
    addition.apply(&mut after);
    let [capture, proxy] = [0, 1].map(|n| &after["spec"]["initContainers"][n]);
    assert_eq!(
        capture["args"],
        json!([
            "capture",
            "--uid=15014",
            "--skip-outbound-ports=25,4000-4010",
            "--skip-subnets=10.0.0.0/8,fd00::1",
            "--skip-udp-ports=123,8125-8126"
        ])
    );
    assert!(
        proxy["env"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "MESH_LOG", "value": "debug"}))
    );
    assert_eq!(
        proxy["resources"],
        json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "2"}})
    );
    assert_eq!(decision.warnings.len(), 3);
    assert!(
        decision
            .warnings
            .iter()
            .all(|one| one.starts_with("MESH-0738")),
        "{:?}",
        decision.warnings
    );
}

#[test]
fn annotations_that_nobody_reads_are_reported() {
    let pod = pod(&[
        (INJECT, "enabled"),
        ("mesh.internal/skip-inbound-port", "80"),
        ("config.linkerd.io/proxy-version", "2.20"),
        ("config.linkerd.io/opaque-ports", "3306"),
        ("config.linkerd.io/default-inbound-policy", "deny"),
        ("prometheus.io/scrape", "true"),
    ]);
    let warnings = decide(&pod, &shop(&[]), &settings()).warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|w| w.starts_with("MESH-0737")));
}

#[test]
fn the_capture_alone_has_rights_and_the_proxy_has_none() {
    let after = injected(&asking(|_| {}));
    let inits = after["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<_> = inits.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mesh-capture", "mesh-proxy"]);
    let [capture, proxy] = [&inits[0]["securityContext"], &inits[1]["securityContext"]];
    assert_eq!(
        capture["capabilities"],
        json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]})
    );
    assert_eq!(
        (&capture["runAsUser"], &capture["privileged"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(proxy["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(
        (&proxy["runAsUser"], &proxy["runAsNonRoot"]),
        (&json!(15014), &json!(true))
    );
    for context in [capture, proxy] {
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    }
    assert_eq!(inits[1]["restartPolicy"], "Always");
    assert!(inits[0].get("restartPolicy").is_none());
    // The token is for our CA alone, and only the proxy sees it.
    let token = after["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "mesh-token")
        .unwrap();
    let source = &token["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(
        (&source["audience"], &source["expirationSeconds"]),
        (&json!("identity.mesh.internal"), &json!(600))
    );
    assert!(inits[0].get("volumeMounts").is_none());
    assert!(after["spec"]["containers"][0].get("volumeMounts").is_none());
}

#[test]
fn the_proxy_s_configuration_is_yaml_with_the_identities_of_the_control_plane() {
    let after = injected(&asking(|_| {}));
    let env = after["spec"]["initContainers"][1]["env"]
        .as_array()
        .unwrap();
    let text = env
        .iter()
        .find(|v| v["name"] == "MESH_PROXY_CONFIG")
        .unwrap()["value"]
        .as_str()
        .unwrap();
    let names: Vec<_> = env.iter().map(|v| v["name"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|n| *n == name).unwrap();
    // Kubernetes puts in only what stands before.
    assert!(
        place("POD_NAME") < place("MESH_PROXY_CONFIG")
            && place("POD_NAMESPACE") < place("MESH_PROXY_CONFIG")
    );
    let expanded = text
        .replace("$(POD_NAME)", "orders-0")
        .replace("$(POD_NAMESPACE)", "shop");
    let config: Value = serde_saphyr::from_str(&expanded).unwrap();
    assert_eq!(
        config["workload"],
        json!({"namespace": "shop", "name": "orders-0"})
    );
    assert_eq!(
        config["policy"]["controller"]["identity"],
        "spiffe://cluster.local/ns/mesh-system/sa/mesh-controller"
    );
    assert_eq!(
        config["identity"]["ca"]["token"],
        "/var/run/secrets/mesh/token"
    );
    assert_eq!(config["inbound"]["mesh"], "0.0.0.0:15008");
    assert_eq!(config["outboundTransparent"], "127.0.0.1:15001");
}

/// A small reader of JSON patches, so that both ways of adding are held against each other.
fn patched(pod: &Value, patch: &[Value]) -> Value {
    let mut out = pod.clone();
    for op in patch {
        assert_eq!(op["op"], "add");
        let path = op["path"].as_str().unwrap();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        match out
            .pointer_mut(parent)
            .unwrap_or_else(|| panic!("{path}: no parent"))
        {
            Value::Array(list) if key == "-" => list.push(op["value"].clone()),
            Value::Array(list) => list.insert(key.parse().unwrap(), op["value"].clone()),
            Value::Object(map) => drop(map.insert(key, op["value"].clone())),
            other => panic!("{path}: {other}"),
        }
    }
    out
}

#[test]
fn the_patch_and_the_change_in_place_are_the_same() {
    for pod in [
        asking(|_| {}),
        asking(|pod| pod["metadata"]["labels"] = json!({"app": "x"})),
        asking(|pod| pod["metadata"]["labels"] = json!(null)),
        asking(|pod| pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}])),
        asking(|pod| {
            pod["spec"]["initContainers"] = json!([{"name": "first"}, {"name": "second"}])
        }),
        asking(|pod| pod["spec"]["initContainers"] = json!(null)),
        asking(|pod| {
            pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"] =
                json!("data")
        }),
    ] {
        let Outcome::Inject(addition) = outcome_of(&pod, &shop(&[])) else {
            panic!("not injected")
        };
        let after = injected(&pod);
        assert_eq!(patched(&pod, &addition.patch()), after);
        assert!(is_meshed(&after) && !is_meshed(&pod));
        // Ours come first: init containers of the application have network and identity already.
        assert_eq!(after["spec"]["initContainers"][0]["name"], "mesh-capture");
    }
}

#[test]
fn a_template_without_metadata_is_injected_by_its_namespace() {
    let pod = json!({"spec": {"containers": [{"name": "app"}]}});
    let Outcome::Inject(addition) = outcome_of(&pod, &shop(&[(INJECT, "enabled")])) else {
        panic!("not injected")
    };
    let after = patched(&pod, &addition.patch());
    assert_eq!(after["metadata"]["labels"][MESHED], "true");
}

const MESHED: &str = crate::names::MESHED_LABEL;

#[test]
fn what_was_added_can_be_taken_away_and_is_not_added_twice() {
    for pod in [
        asking(|_| {}),
        asking(|pod| pod["spec"]["volumes"] = json!([{"name": "data"}])),
        asking(|pod| pod["spec"]["initContainers"] = json!([{"name": "first"}])),
    ] {
        let mut after = injected(&pod);
        assert_eq!(
            outcome_of(&after, &shop(&[])),
            Outcome::Skip(Skip::AlreadyInjected)
        );
        assert!(addition::remove(&mut after));
        assert_eq!(after, pod);
        assert!(!addition::remove(&mut after));
    }
}

/// What is added where a CNI plugin redirects traffic.
fn injected_with_cni(pod: &Value) -> Value {
    let settings = Settings {
        cni: true,
        ..settings()
    };
    let Outcome::Inject(addition) = decide(pod, &shop(&[]), &settings).outcome else {
        panic!("not injected");
    };
    let mut after = pod.clone();
    addition.apply(&mut after);
    after
}

/// PodSecurity, level restricted, of containers (Kubernetes 1.34).
fn is_restricted(container: &Value) -> bool {
    let context = &container["securityContext"];
    context["allowPrivilegeEscalation"] == false
        && context["privileged"] != true
        && context["runAsNonRoot"] == true
        && context["runAsUser"] != 0
        && context["capabilities"] == json!({"drop": ["ALL"]})
        && context["seccompProfile"]["type"] == "RuntimeDefault"
}

#[test]
fn with_the_cni_plugin_nothing_in_a_pod_has_rights() {
    let after = injected_with_cni(&asking(|_| {}));
    let inits = after["spec"]["initContainers"].as_array().unwrap();
    assert!(inits.iter().all(is_restricted), "{inits:?}");
    assert!(!after.to_string().contains("NET_ADMIN"));
    let without = injected(&asking(|_| {}));
    assert!(!is_restricted(&without["spec"]["initContainers"][0]));
    // All else is the same, and the pod is one with a proxy.
    assert_eq!(
        after["spec"]["initContainers"][1],
        without["spec"]["initContainers"][1]
    );
    assert!(is_meshed(&after));
    let mut removed = after.clone();
    assert!(addition::remove(&mut removed));
    assert_eq!(removed, asking(|_| {}));
}

#[test]
fn the_witness_says_what_the_plugin_has_to_set_and_is_not_the_proxy_s_user() {
    for (uid, witness) in [("2102", 65_534), ("65534", 65_533)] {
        let pod = asking(|pod| {
            pod["metadata"]["annotations"]["mesh.internal/proxy-uid"] = uid.into();
            pod["metadata"]["annotations"]["mesh.internal/skip-inbound-ports"] = "22".into();
        });
        let (with, without) = (injected_with_cni(&pod), injected(&pod));
        let of = |pod: &Value| pod["spec"]["initContainers"][0].clone();
        let (with, without) = (of(&with), of(&without));
        assert_eq!(with["securityContext"]["runAsUser"], witness);
        let mut args = without["args"].as_array().unwrap().clone();
        args.extend(["--check", "--unprivileged", "--wait=10"].map(Value::from));
        assert_eq!(with["args"], Value::from(args));
    }
}

#[test]
fn half_of_an_injection_is_none() {
    let mut pod = injected(&asking(|_| {}));
    pod["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    assert!(matches!(refusal_of(&pod), Refusal::NameTaken { .. }));
    let mut plain = injected(&asking(|_| {}));
    plain["spec"]["initContainers"][1]
        .as_object_mut()
        .unwrap()
        .remove("restartPolicy");
    assert!(!is_meshed(&plain));
}

#[test]
fn spans_go_nowhere_unless_a_collector_is_named() {
    let configuration = |pod: &Value, set: &[&str]| {
        let values = set.iter().fold(Values::default(), |values, one| {
            values.set(one).expect("a value")
        });
        let decision = decide(pod, &shop(&[]), &Settings::from(&values));
        let Outcome::Inject(addition) = decision.outcome else {
            panic!("not injected");
        };
        let mut after = pod.clone();
        addition.apply(&mut after);
        let env = after["spec"]["initContainers"][1]["env"]
            .as_array()
            .expect("variables")
            .clone();
        let names: Vec<_> = env
            .iter()
            .map(|one| one["name"].as_str().expect("a name").to_owned())
            .collect();
        assert_eq!(names.last().map(String::as_str), Some("MESH_PROXY_CONFIG"));
        let text = env.last().expect("it")["value"]
            .as_str()
            .expect("text")
            .to_owned();
        for variable in text.split("$(").skip(1) {
            let (name, _) = variable.split_once(')').expect("an end");
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        serde_saphyr::from_str::<Value>(&text).expect("YAML")
    };
    let plain = asking(|_| {});
    assert!(configuration(&plain, &[]).get("traces").is_none());
    let traced = configuration(
        &plain,
        &[
            "proxy.tracesService=observability/collector:4317",
            "proxy.tracesSample=1",
        ],
    );
    assert_eq!(
        traced["traces"],
        json!({
            "service": "observability/collector:4317", "protocol": "grpc", "sample": 1,
            "attributes": {
                "service.name": "$(SERVICE_ACCOUNT)", "k8s.namespace.name": "$(POD_NAMESPACE)", "k8s.pod.name": "$(POD_NAME)",
                "k8s.pod.uid": "$(POD_UID)", "k8s.node.name": "$(NODE_NAME)",
            },
        })
    );
    let outside = [
        "proxy.tracesAddress=collector.example:4318",
        "proxy.tracesProtocol=http",
        "proxy.metricsIntervalSecs=15",
    ];
    for (labels, want) in [
        (json!({ "app": "orders" }), "orders"),
        (
            json!({ "app": "orders", "app.kubernetes.io/name": "Orders_1.2" }),
            "Orders_1.2",
        ),
        (json!({ "app": "a\"\nadmin: x" }), "$(SERVICE_ACCOUNT)"),
    ] {
        let labelled = asking(|pod| pod["metadata"]["labels"] = labels.clone());
        let traces = &configuration(&labelled, &outside)["traces"];
        assert_eq!(traces["address"], "collector.example:4318");
        assert_eq!(traces["metrics"], json!({ "intervalSecs": 15 }));
        assert_eq!(traces["attributes"]["service.name"], want, "{labels}");
    }
}
