//! What of a pod is captured. No IO: a pod of the API server in, rules out.
//!
//! The injector has decided already, and wrote it into the arguments of `mesh-capture`: the same words that would set the
//! rules in the pod set them from outside. Annotations are read by the injector alone, so there is one place where a
//! setting is judged, and none where it could mean more to the plugin than to the init container.

use mesh_cluster::inject::is_meshed;
use mesh_cluster::names::{CAPTURE, INJECTED_BY, PROXY, ports};
use mesh_proxy::capture::CaptureArgs;
use mesh_proxy_core::capture::Capture;
use serde_json::Value;

/// Annotation of a pod that kubelet has from a file, in the API: its uid there is another one.
const STATIC_UID: &str = "kubernetes.io/config.hash";

/// The rules for a pod; none if it has no proxy.
///
/// # Errors
/// What is wrong, if the pod has a part of an injection or its mark, and is not what the injector makes: let through, it
/// could have a proxy that nothing is redirected to.
pub fn wanted(pod: &Value) -> Result<Option<Capture>, String> {
    let capture = container(pod, CAPTURE);
    let marked = pod
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(INJECTED_BY))
        .is_some();
    if capture.is_none() && container(pod, PROXY).is_none() && !marked {
        return Ok(None);
    }
    let Some(capture) = capture.filter(|_| is_meshed(pod)) else {
        return Err(format!(
            "it does not have both init containers, `{CAPTURE}` and the sidecar `{PROXY}`"
        ));
    };
    let words = capture.get("args").and_then(Value::as_array);
    let words: Option<Vec<String>> = words.and_then(|words| {
        let text = |word: &Value| word.as_str().map(str::to_owned);
        words.iter().map(text).collect()
    });
    let words = words.ok_or_else(|| format!("`{CAPTURE}` has no arguments that are texts"))?;
    let foreign = |why: String| format!("the arguments of `{CAPTURE}` cannot be used: {why}");
    let args = CaptureArgs::of_container(&words).map_err(|error| foreign(error.to_string()))?;
    let capture = args.capture();
    // The injector never says so: other ports would lead to somebody who is not the proxy.
    let own = (
        ports::INBOUND,
        ports::OUTBOUND,
        vec![ports::MESH, ports::ADMIN],
    );
    if own != (capture.inbound, capture.outbound, capture.open.clone()) {
        return Err(foreign("other ports than the proxy's".to_owned()));
    }
    capture
        .check()
        .map_err(|fault| foreign(fault.to_string()))?;
    Ok(Some(capture))
}

/// Whether the pod is the one of this uid: a StatefulSet makes pods of one name after the other.
pub fn is_same(pod: &Value, uid: &str) -> bool {
    let own = pod.pointer("/metadata/uid").and_then(Value::as_str);
    let file = pod
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(STATIC_UID)?.as_str());
    own == Some(uid) || file == Some(uid)
}

/// A container of this name, of whichever list.
fn container<'p>(pod: &'p Value, name: &str) -> Option<&'p Value> {
    ["/spec/initContainers", "/spec/containers"]
        .iter()
        .filter_map(|path| pod.pointer(path).and_then(Value::as_array))
        .flatten()
        .find(|one| one.get("name").and_then(Value::as_str) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_cluster::inject::{Namespace, Outcome, Settings, decide};
    use mesh_cluster::install::Values;
    use serde_json::json;

    /// A pod as the injector makes it, with the plugin or without.
    fn injected(annotations: Value, cni: bool) -> Value {
        let mut pod = json!({
            "metadata": { "name": "orders-0", "uid": "u-1", "annotations": annotations },
            "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
        });
        pod["metadata"]["annotations"]["mesh.internal/inject"] = "enabled".into();
        let mut values = Values::default();
        values.cni.enabled = cni;
        let decision = decide(&pod, &Namespace::default(), &Settings::from(&values));
        let Outcome::Inject(addition) = decision.outcome else {
            panic!("not injected: {:?}", decision.outcome);
        };
        addition.apply(&mut pod);
        pod
    }

    fn rules(pod: &Value) -> Capture {
        wanted(pod).expect("a sound pod").expect("a meshed pod")
    }

    #[test]
    fn a_pod_gets_the_rules_that_its_init_container_would_set() {
        let annotations = json!({
            "mesh.internal/skip-inbound-ports": "22,4000-4010",
            "mesh.internal/skip-outbound-ports": "5432",
            "config.linkerd.io/skip-subnets": "10.0.0.0/8",
            "mesh.internal/skip-udp-ports": "123",
            "mesh.internal/proxy-uid": "2102",
        });
        let (with, without) = (
            injected(annotations.clone(), true),
            injected(annotations, false),
        );
        assert_eq!(rules(&with), rules(&without));
        let capture = rules(&with);
        assert_eq!((capture.uid, capture.skip_inbound.len()), (2102, 2));
        assert_eq!(capture.skip_subnets.len(), 1);
    }

    #[test]
    fn a_pod_without_proxy_has_no_rules() {
        for pod in [
            json!({}),
            json!({ "spec": { "containers": [{ "name": "app" }] } }),
            json!({ "metadata": { "labels": { "mesh.internal/meshed": "true" } } }),
            json!({ "metadata": { "annotations": { "mesh.internal/inject": "enabled" } } }),
        ] {
            assert_eq!(wanted(&pod), Ok(None), "{pod}");
        }
    }

    #[test]
    fn annotations_that_come_after_the_injector_change_nothing() {
        let mut pod = injected(json!({}), true);
        let before = rules(&pod);
        for (key, value) in [
            ("mesh.internal/skip-inbound-ports", "1-14999"),
            ("mesh.internal/skip-subnets", "0.0.0.0/0"),
            ("mesh.internal/inject", "disabled"),
            ("mesh.internal/proxy-uid", "0"),
        ] {
            pod["metadata"]["annotations"][key] = value.into();
        }
        assert_eq!(rules(&pod), before);
    }

    #[test]
    fn a_pod_with_a_part_of_an_injection_is_refused() {
        type Change = fn(&mut Value);
        let inits = |pod: &mut Value| pod["spec"]["initContainers"].as_array().unwrap().clone();
        let changes: [(&str, Change); 7] = [
            ("no capture", |pod| {
                pod["spec"]["initContainers"]
                    .as_array_mut()
                    .unwrap()
                    .remove(0);
            }),
            ("no proxy", |pod| {
                pod["spec"]["initContainers"]
                    .as_array_mut()
                    .unwrap()
                    .remove(1);
            }),
            ("neither, but the mark", |pod| {
                pod["spec"]["initContainers"] = json!([]);
            }),
            ("a proxy that ends", |pod| {
                pod["spec"]["initContainers"][1]["restartPolicy"] = "Never".into();
            }),
            ("a proxy among the applications", |pod| {
                let proxy = pod["spec"]["initContainers"]
                    .as_array_mut()
                    .unwrap()
                    .remove(1);
                pod["spec"]["containers"]
                    .as_array_mut()
                    .unwrap()
                    .push(proxy);
            }),
            ("no arguments", |pod| {
                pod["spec"]["initContainers"][0]
                    .as_object_mut()
                    .unwrap()
                    .remove("args");
            }),
            ("arguments that are no texts", |pod| {
                pod["spec"]["initContainers"][0]["args"] = json!(["capture", 1]);
            }),
        ];
        for (what, change) in changes {
            let mut pod = injected(json!({}), true);
            change(&mut pod);
            assert!(wanted(&pod).is_err(), "{what}: {:?}", inits(&mut pod));
        }
    }

    #[test]
    fn arguments_that_no_injector_writes_are_refused() {
        for args in [
            json!([]),
            json!(["--uid=15014"]),
            json!(["tap"]),
            json!(["capture", "--remove"]),
            json!(["capture", "--print"]),
            json!(["capture", "--uid=0"]),
            json!(["capture", "--uid=root"]),
            json!(["capture", "--outbound-port=8080"]),
            json!(["capture", "--inbound-port=8080"]),
            json!(["capture", "--mesh-port=8080"]),
            json!(["capture", "--admin-port=8080"]),
            json!(["capture", "--skip-inbound-ports=15006"]),
            json!(["capture", "--skip-inbound-ports=1-65535"]),
            json!(["capture", "--skip-subnets=10.1.2.3/8"]),
            json!(["capture", "--frobnicate"]),
        ] {
            let mut pod = injected(json!({}), true);
            pod["spec"]["initContainers"][0]["args"] = args.clone();
            assert!(wanted(&pod).is_err(), "{args}");
        }
    }

    #[test]
    fn a_pod_is_the_one_of_its_uid_or_of_its_file() {
        let pod = injected(json!({ STATIC_UID: "f-1" }), true);
        assert!(is_same(&pod, "u-1") && is_same(&pod, "f-1"));
        assert!(!is_same(&pod, "u-2") && !is_same(&json!({}), "u-1") && !is_same(&pod, ""));
    }
}
