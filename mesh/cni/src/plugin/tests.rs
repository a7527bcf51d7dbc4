//! Whose traffic is captured, and for whom no pod is made.

use super::*;
use mesh_cluster::inject::{Namespace, Outcome, Settings, decide};
use mesh_cluster::install::Values;
use serde_json::json;
use std::cell::RefCell;
use std::path::PathBuf;

/// A node in memory.
#[derive(Default)]
struct Fake {
    /// What the API server says; nothing: it does not answer.
    pod: Option<Value>,
    /// What was set, and where.
    set: RefCell<Vec<(PathBuf, Capture)>>,
    /// Whether there is a namespace.
    no_namespace: bool,
    unready: bool,
    /// Which pods were asked for.
    asked: RefCell<Vec<String>>,
}

impl World for Fake {
    fn pod(&self, _config: &Config, name: &PodName) -> Result<Value, CniError> {
        self.asked.borrow_mut().push(name.to_string());
        self.pod.clone().ok_or_else(|| CniError::Lookup {
            pod: name.to_string(),
            why: "it does not answer".to_owned(),
        })
    }

    fn capture(&self, netns: &Path, rules: &Capture) -> Result<(), CniError> {
        if self.no_namespace {
            let why = "it does not exist".to_owned();
            return Err(CniError::Namespace { why });
        }
        self.set
            .borrow_mut()
            .push((netns.to_owned(), rules.clone()));
        Ok(())
    }

    fn verify(&self, netns: &Path, rules: &Capture) -> Result<(), CniError> {
        if self
            .set
            .borrow()
            .contains(&(netns.to_owned(), rules.clone()))
        {
            return Ok(());
        }
        Err(mesh_proxy::capture::CaptureError::NotInstalled.into())
    }

    fn is_ready(&self, _config: &Config) -> Result<(), CniError> {
        match self.unready {
            false => Ok(()),
            true => Err(CniError::Lookup {
                pod: "any".to_owned(),
                why: "there is no kubeconfig".to_owned(),
            }),
        }
    }
}

fn plain() -> Value {
    json!({ "metadata": { "name": "orders-0", "uid": "u-1" }, "spec": { "containers": [{ "name": "app" }] } })
}

fn meshed() -> Value {
    let mut pod = plain();
    pod["metadata"]["annotations"] = json!({ "mesh.internal/inject": "enabled" });
    let values = Values::default().set("cni.enabled=true").expect("allowed");
    let decision = decide(&pod, &Namespace::default(), &Settings::from(&values));
    let Outcome::Inject(addition) = decision.outcome else {
        panic!("not injected");
    };
    addition.apply(&mut pod);
    pod
}

fn of(pod: Value) -> Fake {
    Fake {
        pod: Some(pod),
        ..Fake::default()
    }
}

const PREVIOUS: &str =
    r#"{"cniVersion":"1.1.0",  "interfaces": [], "ips":[{"address":"10.1.2.3/24"}]}"#;

fn environment(command: &str) -> Environment {
    Environment {
        command: command.to_owned(),
        container: "c0ffee".to_owned(),
        netns: "/run/netns/cni-1".to_owned(),
        interface: "eth0".to_owned(),
        args: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=orders-0;K8S_POD_UID=u-1".to_owned(),
    }
}

fn stdin() -> String {
    format!(
        r#"{{"cniVersion": "1.1.0", "name": "pods", "type": "mesh-cni", "kubeconfig": "/k",
            "excludeNamespaces": ["kube-system"], "prevResult": {PREVIOUS}}}"#
    )
}

/// The text of an answer without error.
fn good(environment: &Environment, world: &Fake) -> String {
    let answer = answer(environment, stdin().as_bytes(), world);
    assert!(!answer.is_error, "{}", answer.text);
    answer.text
}

/// The code of an error.
fn bad(environment: &Environment, stdin: &str, world: &Fake) -> u64 {
    let answer = answer(environment, stdin.as_bytes(), world);
    assert!(answer.is_error, "{}", answer.text);
    let error: Value = serde_json::from_str(&answer.text).expect("JSON");
    assert!(VERSIONS.contains(&error["cniVersion"].as_str().expect("a version")));
    let message = error["msg"].as_str().expect("a message");
    assert!(message.starts_with("mesh-cni: MESH-"), "{message}");
    assert!(!error["details"].as_str().expect("a hint").is_empty());
    error["code"].as_u64().expect("a code")
}

#[test]
fn a_meshed_pod_is_captured_and_what_was_made_before_is_handed_on_as_it_came() {
    let world = of(meshed());
    assert_eq!(good(&environment("ADD"), &world), PREVIOUS);
    let set = world.set.borrow();
    let (netns, rules) = set.first().expect("rules");
    assert_eq!(netns, Path::new("/run/netns/cni-1"));
    assert_eq!((rules.uid, rules.inbound), (15_014, 15_006));
    assert_eq!(*world.asked.borrow(), ["shop/orders-0"]);
}

#[test]
fn a_plain_pod_and_what_is_no_pod_are_left_alone() {
    let world = of(plain());
    assert_eq!(good(&environment("ADD"), &world), PREVIOUS);
    let no_pod = Environment {
        args: "IgnoreUnknown=1".to_owned(),
        ..environment("ADD")
    };
    assert_eq!(good(&no_pod, &Fake::default()), PREVIOUS);
    assert!(world.set.borrow().is_empty());
}

#[test]
fn of_namespaces_that_have_no_proxies_nobody_is_asked() {
    let world = Fake::default();
    let left_out = Environment {
        args: "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=coredns-1".to_owned(),
        ..environment("ADD")
    };
    assert_eq!(good(&left_out, &world), PREVIOUS);
    assert!(world.asked.borrow().is_empty());
    let alike = Environment {
        args: "K8S_POD_NAMESPACE=kube-system-2;K8S_POD_NAME=coredns-1".to_owned(),
        ..environment("ADD")
    };
    assert_eq!(bad(&alike, &stdin(), &world), 11);
}

#[test]
fn a_pod_that_cannot_be_told_is_not_made() {
    let half = |change: fn(&mut Value)| {
        let mut pod = meshed();
        change(&mut pod);
        of(pod)
    };
    for (what, world, want) in [
        ("no answer", Fake::default(), 11),
        (
            "another pod of this name",
            half(|pod| pod["metadata"]["uid"] = "u-2".into()),
            11,
        ),
        (
            "another one that is plain",
            {
                let mut pod = plain();
                pod["metadata"]["uid"] = "u-2".into();
                of(pod)
            },
            11,
        ),
        (
            "the proxy alone",
            half(|pod| {
                pod["spec"]["initContainers"]
                    .as_array_mut()
                    .unwrap()
                    .remove(0);
            }),
            100,
        ),
        (
            "the mark alone",
            half(|pod| pod["spec"]["initContainers"] = json!([])),
            100,
        ),
        (
            "arguments of nobody's",
            half(|pod| pod["spec"]["initContainers"][0]["args"] = json!(["capture", "--remove"])),
            100,
        ),
        (
            "no namespace",
            Fake {
                no_namespace: true,
                ..of(meshed())
            },
            3,
        ),
    ] {
        assert_eq!(bad(&environment("ADD"), &stdin(), &world), want, "{what}");
        assert!(world.set.borrow().is_empty(), "{what}");
    }
}

#[test]
fn a_runtime_that_asks_wrongly_is_told_so_before_anybody_else_is_asked() {
    let sound = environment("ADD");
    let with = |change: fn(&mut Environment)| {
        let mut changed = sound.clone();
        change(&mut changed);
        changed
    };
    for (environment, stdin, want) in [
        (environment(""), stdin(), 4),
        (environment("FROBNICATE"), stdin(), 4),
        (with(|e| e.netns.clear()), stdin(), 4),
        (with(|e| e.container.clear()), stdin(), 4),
        (with(|e| e.interface.clear()), stdin(), 4),
        (with(|e| e.args = "K8S_POD_NAME=a".to_owned()), stdin(), 4),
        (sound.clone(), String::new(), 6),
        (
            sound.clone(),
            stdin().replace("\"1.1.0\", \"name\"", "\"0.2.0\", \"name\""),
            1,
        ),
        (sound.clone(), stdin().replace("prevResult", "result"), 7),
        (sound.clone(), stdin().replace("kubeconfig", "config"), 7),
    ] {
        let world = of(meshed());
        assert_eq!(
            bad(&environment, &stdin, &world),
            want,
            "{environment:?} {stdin}"
        );
        assert!(world.asked.borrow().is_empty() && world.set.borrow().is_empty());
    }
}

#[test]
fn a_check_sees_rules_that_are_there_and_sets_none() {
    let world = of(meshed());
    assert_eq!(bad(&environment("CHECK"), &stdin(), &world), 101);
    assert!(world.set.borrow().is_empty());
    good(&environment("ADD"), &world);
    assert_eq!(good(&environment("CHECK"), &world), "");
    assert_eq!(good(&environment("CHECK"), &of(plain())), "");
    // A pod whose settings are others now is not as it was made.
    let mut other = meshed();
    other["spec"]["initContainers"][0]["args"] = json!(["capture", "--uid=2102"]);
    let changed = Fake {
        set: RefCell::new(world.set.take()),
        ..of(other)
    };
    assert_eq!(bad(&environment("CHECK"), &stdin(), &changed), 101);
}

#[test]
fn an_end_is_never_refused_and_asks_nobody() {
    for command in ["DEL", "GC"] {
        for stdin in ["", "nothing", "{}", r#"{"cniVersion": "9.9.9"}"#] {
            let world = Fake::default();
            let empty = Environment {
                command: command.to_owned(),
                ..Environment::default()
            };
            let answer = answer(&empty, stdin.as_bytes(), &world);
            assert_eq!(
                (answer.text.as_str(), answer.is_error),
                ("", false),
                "{command} {stdin}"
            );
            assert!(world.asked.borrow().is_empty());
        }
    }
}

#[test]
fn a_node_without_kubeconfig_says_that_it_can_take_no_pods() {
    assert_eq!(good(&environment("STATUS"), &Fake::default()), "");
    let unready = Fake {
        unready: true,
        ..Fake::default()
    };
    assert_eq!(bad(&environment("STATUS"), &stdin(), &unready), 50);
}

#[test]
fn versions_are_told_whatever_stands_in_stdin() {
    for stdin in ["", "x", r#"{"cniVersion": "9.9.9"}"#] {
        let answer = answer(&environment("VERSION"), stdin.as_bytes(), &Fake::default());
        assert!(
            !answer.is_error && answer.text.contains("supportedVersions"),
            "{stdin}"
        );
    }
}
