//! A node's folders: what is put into them, what is left alone, and what is as it was afterwards.

use super::*;
use std::collections::BTreeMap;

struct Node {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["bin", "net.d", "account"] {
            fs::create_dir(path(name)).unwrap();
        }
        files::write_atomic(&path("program"), b"a program", 0o755).unwrap();
        let settings = Settings {
            program: path("program"),
            bin_dir: path("bin"),
            conf_dir: path("net.d"),
            account_dir: path("account"),
            host: "10.96.0.1".to_owned(),
            port: 443,
            exclude_namespaces: vec!["kube-system".to_owned()],
        };
        let node = Self { dir, settings };
        node.account("token-1");
        for (name, text) in files {
            node.write(name, text);
        }
        node
    }

    fn write(&self, name: &str, text: &str) {
        files::write_atomic(&self.settings.conf_dir.join(name), text.as_bytes(), 0o640).unwrap();
    }

    fn account(&self, token: &str) {
        for (name, text) in [
            ("token", token),
            ("ca.crt", "-----BEGIN CERTIFICATE-----\n"),
        ] {
            let path = self.settings.account_dir.join(name);
            files::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
    }

    /// All configurations, by name.
    fn files(&self) -> BTreeMap<String, String> {
        let all = fs::read_dir(&self.settings.conf_dir).unwrap();
        all.map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, files::read_to_string(&path).unwrap())
        })
        .collect()
    }

    fn plugins(&self, name: &str) -> Vec<String> {
        let list: Value = serde_json::from_str(&self.files()[name]).unwrap();
        let plugins = list["plugins"].as_array().unwrap().iter();
        plugins
            .map(|one| one["type"].as_str().unwrap().to_owned())
            .collect()
    }

    fn mode(&self, name: &str) -> u32 {
        mode(&self.settings.conf_dir.join(name)).unwrap()
    }
}

const LIST: &str = r#"{"cniVersion": "1.0.0",   "name": "pods", "plugins": [{"type":"bridge"}, {"type":"portmap"}]}"#;
const SINGLE: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "type": "bridge"}
"#;
const CHANGED: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type":"calico"}]}"#;

fn names(map: &BTreeMap<String, String>) -> Vec<&str> {
    map.keys().map(String::as_str).collect()
}

#[test]
fn everything_is_put_in_place_once() {
    let node = Node::new(&[("10-pods.conflist", LIST), ("20-other.conflist", CHANGED)]);
    assert!(node.settings.check().is_err(), "nothing is there yet");
    let first = node.settings.look().unwrap();
    assert!(first.program && first.kubeconfig && first.chain.is_some());
    assert_eq!(
        node.plugins("10-pods.conflist"),
        ["bridge", "portmap", "mesh-cni"]
    );
    assert_eq!(node.plugins("20-other.conflist"), ["calico"]);
    assert_eq!(
        (node.mode(KUBECONFIG), node.mode("10-pods.conflist")),
        (0o600, 0o640)
    );
    let program = node.settings.bin_dir.join("mesh-cni");
    assert_eq!(mode(&program).unwrap(), 0o755);
    let before = node.files();
    assert_eq!(node.settings.look().unwrap(), Changes::default());
    assert_eq!(node.files(), before);
    node.settings.check().unwrap();
}

#[test]
fn what_was_there_is_there_again_byte_for_byte() {
    for (name, text) in [
        ("10-pods.conflist", LIST),
        ("10-pods.conf", SINGLE),
        ("10-pods.json", SINGLE),
    ] {
        let node = Node::new(&[(name, text), ("99-loopback.conf", SINGLE)]);
        let before = node.files();
        node.settings.look().unwrap();
        assert_eq!(node.plugins("10-pods.conflist").last().unwrap(), "mesh-cni");
        if name != "10-pods.conflist" {
            assert!(
                !node.files().contains_key(name),
                "{name} would be read first"
            );
        }
        node.settings.look().unwrap();
        assert_eq!(node.settings.remove().unwrap().len(), 1, "{name}");
        assert_eq!(node.files(), before, "{name}");
        assert_eq!(node.mode(name), 0o640);
        assert!(node.settings.remove().unwrap().is_empty(), "twice is once");
        assert_eq!(node.files(), before);
    }
}

#[test]
fn the_program_stays_for_pods_that_were_made_with_it() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.settings.look().unwrap();
    node.settings.remove().unwrap();
    assert!(node.settings.bin_dir.join("mesh-cni").exists());
}

#[test]
fn a_configuration_that_is_written_anew_is_chained_anew() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.settings.look().unwrap();
    node.write("10-pods.conflist", CHANGED);
    assert!(node.settings.check().is_err());
    assert!(node.settings.look().unwrap().chain.is_some());
    assert_eq!(node.plugins("10-pods.conflist"), ["calico", "mesh-cni"]);
    // A plugin that comes before all others takes us along.
    node.write("05-first.conflist", LIST);
    node.settings.look().unwrap();
    assert_eq!(
        node.plugins("05-first.conflist"),
        ["bridge", "portmap", "mesh-cni"]
    );
    assert_eq!(node.settings.remove().unwrap().len(), 2);
    assert_eq!(
        node.files(),
        BTreeMap::from([
            ("05-first.conflist".to_owned(), LIST.to_owned()),
            ("10-pods.conflist".to_owned(), CHANGED.to_owned()),
        ])
    );
}

#[test]
fn another_version_of_us_does_not_take_its_own_work_for_what_was_before() {
    let mut node = Node::new(&[("10-pods.conflist", LIST)]);
    node.settings.look().unwrap();
    node.settings
        .exclude_namespaces
        .push("mesh-system".to_owned());
    assert!(node.settings.look().unwrap().chain.is_some());
    assert!(node.files()["10-pods.conflist"].contains("mesh-system"));
    node.settings.remove().unwrap();
    assert_eq!(node.files()["10-pods.conflist"], LIST);
}

#[test]
fn changes_of_others_outlive_us() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.settings.look().unwrap();
    let text = node.files()["10-pods.conflist"].replace("portmap", "bandwidth");
    node.write("10-pods.conflist", &text);
    node.settings.look().unwrap();
    node.settings.remove().unwrap();
    assert_eq!(node.plugins("10-pods.conflist"), ["bridge", "bandwidth"]);
    assert_eq!(names(&node.files()), ["10-pods.conflist"]);
}

#[test]
fn the_kubeconfig_follows_the_token_and_is_never_readable_by_others() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.settings.look().unwrap();
    node.account("token-2");
    assert!(node.settings.check().is_err());
    let changes = node.settings.look().unwrap();
    assert!(changes.kubeconfig && changes.chain.is_none() && !changes.program);
    assert!(node.files()[KUBECONFIG].contains("token-2"));
    let path = node.settings.conf_dir.join(KUBECONFIG);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(node.settings.look().unwrap().kubeconfig);
    assert_eq!(node.mode(KUBECONFIG), 0o600);
    // Nor is it written through a link that somebody put there.
    let target = node.dir.path().join("target");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    node.settings.look().unwrap();
    assert!(!target.exists() && fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn a_program_that_was_taken_away_comes_back() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.settings.look().unwrap();
    fs::remove_file(node.settings.bin_dir.join("mesh-cni")).unwrap();
    assert!(node.settings.check().is_err());
    assert!(node.settings.look().unwrap().program);
}

#[test]
fn what_cannot_be_chained_to_is_left_as_it_is() {
    for (name, text) in [
        ("10-pods.conflist", "nothing"),
        ("10-pods.conflist", "{}"),
        ("10-pods.conflist", SINGLE),
        ("10-pods.conf", LIST),
        ("10-pods.conf", r#"{"name": "pods", "type": "bridge"}"#),
        ("10-pods.json", ""),
    ] {
        // The second would do, but a runtime uses the first.
        let node = Node::new(&[(name, text), ("20-other.conflist", LIST)]);
        let refused = node.settings.look();
        assert!(
            matches!(refused, Err(InstallError::NotChainable { .. })),
            "{name}: {refused:?}"
        );
        assert_eq!(node.files()[name], text);
        assert_eq!(node.files()["20-other.conflist"], LIST);
        assert!(node.settings.check().is_err());
    }
}

#[test]
fn a_list_of_the_same_name_is_not_written_over() {
    let node = Node::new(&[("10-pods.conf", SINGLE), ("10-pods.conflist", LIST)]);
    let refused = node.settings.look();
    assert!(
        matches!(refused, Err(InstallError::NotChainable { .. })),
        "{refused:?}"
    );
    assert_eq!(node.files()["10-pods.conflist"], LIST);
    assert_eq!(node.files()["10-pods.conf"], SINGLE);
}

#[test]
fn a_configuration_of_one_plugin_that_comes_back_is_turned_again() {
    let node = Node::new(&[("10-pods.conf", SINGLE)]);
    node.settings.look().unwrap();
    let other = SINGLE.replace("bridge", "macvlan");
    node.write("10-pods.conf", &other);
    node.settings.look().unwrap();
    assert_eq!(node.plugins("10-pods.conflist"), ["macvlan", "mesh-cni"]);
    node.settings.remove().unwrap();
    assert_eq!(
        node.files(),
        BTreeMap::from([("10-pods.conf".to_owned(), other)])
    );
}

#[test]
fn without_network_or_account_nothing_is_chained() {
    let empty = Node::new(&[("README", "x"), ("10-pods.conflist.bak", LIST)]);
    assert!(matches!(
        empty.settings.look(),
        Err(InstallError::NoNetwork { .. })
    ));
    for name in ["token", "ca.crt"] {
        let node = Node::new(&[("10-pods.conflist", LIST)]);
        fs::remove_file(node.settings.account_dir.join(name)).unwrap();
        let refused = node.settings.look();
        assert!(
            matches!(refused, Err(InstallError::Credentials { .. })),
            "{name}"
        );
        assert_eq!(node.files()["10-pods.conflist"], LIST);
    }
    let mut gone = Node::new(&[]);
    gone.settings.conf_dir = gone.dir.path().join("missing");
    assert!(gone.settings.look().is_err() && gone.settings.remove().is_err());
}

#[test]
fn only_who_knows_that_the_daemon_set_ended_takes_the_plugin_away() {
    let refused = KubernetesError::Refused {
        what: "read".to_owned(),
        why: "Unauthorized".to_owned(),
    };
    let failed = KubernetesError::Failed {
        what: "read".to_owned(),
        why: "connection refused".to_owned(),
    };
    let there = json!({ "metadata": { "name": "mesh-cni" } });
    let ending = json!({ "metadata": { "deletionTimestamp": "2026-12-01T00:00:00Z" } });
    for (answer, stays, what) in [
        (Some(Ok(Some(there))), true, "a new pod follows"),
        (Some(Ok(Some(ending))), false, "it is being deleted"),
        (Some(Ok(None)), false, "it is gone"),
        (Some(Err(refused)), false, "its rights are gone"),
        (Some(Err(failed)), true, "nobody can say"),
        (None, true, "nobody answers"),
    ] {
        assert_eq!(goes_on(answer), stays, "{what}");
    }
}
