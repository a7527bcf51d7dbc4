//! What runtimes may say, and what they may not.

use super::*;

fn config(text: &str, command: Command) -> Result<Config, u32> {
    Config::read(text.as_bytes(), command).map_err(|error| error.number())
}

const SOUND: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "type": "mesh-cni", "kubeconfig": "/etc/kc",
    "excludeNamespaces": ["kube-system"], "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/24"}]},
    "runtimeConfig": {"x": 1}, "cni.dev/valid-attachments": []}"#;

#[test]
fn a_configuration_is_read_with_what_the_runtime_adds() {
    let config = config(SOUND, Command::Add).expect("sound");
    assert_eq!(config.kubeconfig, PathBuf::from("/etc/kc"));
    assert_eq!(config.exclude_namespaces, ["kube-system"]);
    assert_eq!(config.timeout(), LOOKUP);
    let result = config.result().expect("a result");
    assert_eq!(
        result,
        r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/24"}]}"#
    );
}

#[test]
fn every_version_is_spoken_and_has_the_commands_that_it_has() {
    for version in VERSIONS {
        let text = SOUND.replace("1.0.0", version);
        assert!(config(&text, Command::Add).is_ok(), "{version}");
        assert_eq!(
            config(&text, Command::Check).is_ok(),
            version >= "0.4.0",
            "{version}"
        );
        assert_eq!(
            config(&text, Command::Status).is_ok(),
            version >= "1.1.0",
            "{version}"
        );
    }
}

#[test]
fn what_cannot_be_a_configuration_has_the_code_of_the_specification() {
    for (text, want) in [
        ("", 6),
        ("nothing", 6),
        ("{", 6),
        ("\u{feff}{}", 6),
        ("[]", 1),
        ("{}", 1),
        (r#"{"cniVersion": 1}"#, 1),
        (r#"{"cniVersion": ""}"#, 1),
        (r#"{"cniVersion": "0.2.0", "kubeconfig": "/k"}"#, 1),
        (r#"{"cniVersion": "1.2.0", "kubeconfig": "/k"}"#, 1),
        (r#"{"cniVersion": "1.0"}"#, 1),
        (r#"{"cniVersion": "1.0.0"}"#, 7),
        (r#"{"cniVersion": "1.0.0", "kubeconfig": 1}"#, 7),
        (r#"{"cniVersion": "1.0.0", "kubeconfig": "k"}"#, 7),
        (
            r#"{"cniVersion": "1.0.0", "kubeconfig": "/k", "excludeNamespaces": "x"}"#,
            7,
        ),
        (
            r#"{"cniVersion": "1.0.0", "kubeconfig": "/k", "timeoutSecs": 0}"#,
            7,
        ),
        (
            r#"{"cniVersion": "1.0.0", "kubeconfig": "/k", "timeoutSecs": 61}"#,
            7,
        ),
        (
            r#"{"cniVersion": "1.0.0", "kubeconfig": "/k", "timeoutSecs": -1}"#,
            7,
        ),
        (
            r#"{"cniVersion": "1.0.0", "kubeconfig": "/k", "timeoutSecs": "9"}"#,
            7,
        ),
    ] {
        assert_eq!(config(text, Command::Add).err(), Some(want), "{text}");
    }
}

#[test]
fn a_result_is_an_object_of_somebody_before_us() {
    for result in [
        "",
        r#", "prevResult": null"#,
        r#", "prevResult": []"#,
        r#", "prevResult": "x""#,
    ] {
        let text = format!(r#"{{"cniVersion": "1.0.0", "kubeconfig": "/k"{result}}}"#);
        let config = config(&text, Command::Add).expect("sound");
        assert_eq!(
            config.result().map_err(|error| error.number()),
            Err(7),
            "{text}"
        );
    }
}

fn pod_of(args: &str) -> Result<Option<PodName>, CniError> {
    Environment {
        args: args.to_owned(),
        ..Environment::default()
    }
    .pod()
}

#[test]
fn a_pod_is_named_by_the_runtime() {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=orders-0.x;K8S_POD_INFRA_CONTAINER_ID=Ab;K8S_POD_UID=0b5c-9";
    let name = pod_of(args).expect("a name").expect("a pod");
    assert_eq!(name.to_string(), "shop/orders-0.x");
    assert_eq!(name.uid.as_deref(), Some("0b5c-9"));
    assert_eq!(pod_of("").expect("no pod"), None);
    assert_eq!(pod_of("IgnoreUnknown=1;MAC=aa:bb").expect("no pod"), None);
}

#[test]
fn half_a_pod_and_what_is_no_name_are_refused() {
    for args in [
        "K8S_POD_NAME=a",
        "K8S_POD_NAMESPACE=a",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=",
        "K8S_POD_NAMESPACE=;K8S_POD_NAME=",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_NAME=c",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=../../secrets/x",
        "K8S_POD_NAMESPACE=a/b;K8S_POD_NAME=c",
        "K8S_POD_NAMESPACE=A;K8S_POD_NAME=c",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=-c",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=c%2f",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=c?x",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=c;K8S_POD_UID=",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=c;nothing",
    ] {
        let error = pod_of(args).expect_err(args);
        assert_eq!(error.number(), 4, "{args}");
    }
}

#[test]
fn a_namespace_is_a_path_and_container_and_interface_are_named() {
    for (netns, fits) in [
        ("/run/netns/x", true),
        ("", false),
        ("x", false),
        ("pid:1", false),
    ] {
        let environment = Environment {
            netns: netns.to_owned(),
            ..Environment::default()
        };
        assert_eq!(environment.netns().is_ok(), fits, "{netns}");
    }
    for (container, interface, fits) in [("c", "eth0", true), ("", "eth0", false), ("c", "", false)]
    {
        let environment = Environment {
            container: container.to_owned(),
            interface: interface.to_owned(),
            ..Environment::default()
        };
        assert_eq!(environment.check().is_ok(), fits);
    }
}

#[test]
fn commands_are_those_of_the_specification() {
    for (text, known) in [
        ("ADD", true),
        ("DEL", true),
        ("CHECK", true),
        ("VERSION", true),
        ("STATUS", true),
        ("GC", true),
        ("", false),
        ("add", false),
        ("ADD ", false),
        ("UPDATE", false),
    ] {
        assert_eq!(Command::parse(text).is_ok(), known, "{text:?}");
    }
}

#[test]
fn the_versions_are_told_in_the_one_that_asks() {
    let told =
        |stdin: &str| serde_json::from_str::<Value>(&versions(stdin.as_bytes())).expect("JSON");
    assert_eq!(told(r#"{"cniVersion": "0.4.0"}"#)["cniVersion"], "0.4.0");
    for stdin in ["", "x", "{}", r#"{"cniVersion": "9"}"#] {
        assert_eq!(told(stdin)["cniVersion"], NEWEST, "{stdin}");
    }
    assert_eq!(told("")["supportedVersions"], json!(VERSIONS));
}
