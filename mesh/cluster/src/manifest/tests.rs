//! Workloads in YAML: found wherever they stand, and nothing else touched.

use super::*;

fn annotated(text: &str) -> String {
    each(text, |workload| {
        annotate(workload.pod, "enabled");
        Ok::<(), ManifestError>(())
    })
    .expect("readable manifests")
}

#[test]
fn other_documents_come_out_byte_for_byte() {
    let service =
        "# why it is\nkind: Service   # here\nmetadata: {name: a,   labels: {yes: 'no'}}\n";
    let text = format!(
        "{service}---\n# a pod\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: []}}\n---\n{service}"
    );
    let out = annotated(&text);
    assert!(out.starts_with(service) && out.ends_with(service), "{out}");
    assert!(out.contains("mesh.internal/inject: enabled"), "{out}");
}

#[test]
fn every_kind_of_workload_has_its_pod_found() {
    for (kind, path) in TEMPLATES {
        let mut value = json!({"kind": kind, "metadata": {"name": "x", "namespace": "shop"}});
        let mut at = &mut value;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            at = &mut at[part];
        }
        at["spec"] = json!({"containers": []});
        let mut seen = Vec::new();
        each(&value.to_string(), |w| {
            seen.push((w.title.clone(), w.namespace.clone()));
            Ok::<(), ManifestError>(())
        })
        .expect("readable");
        assert_eq!(seen, [(format!("{kind} shop/x"), "shop".to_owned())]);
    }
}

#[test]
fn items_of_lists_are_workloads_too() {
    let out = annotated(
        "kind: List\nitems:\n- kind: Pod\n  metadata: {name: a}\n  spec: {}\n- kind: ConfigMap\n  metadata: {name: b}\n",
    );
    let value: Value = serde_saphyr::from_str(&out).expect("YAML");
    assert_eq!(
        value["items"][0]["metadata"]["annotations"][INJECT],
        "enabled"
    );
    assert!(value["items"][1]["metadata"].get("annotations").is_none());
}

#[test]
fn separators_with_comments_and_empty_documents_are_understood() {
    let text = "---\n---\n--- # two\nkind: A\n---\tx: 1\n---more: 1\nkind: B\n";
    assert_eq!(
        documents(text),
        [" # two\nkind: A\n", "\tx: 1\n---more: 1\nkind: B\n"]
    );
}

#[test]
fn a_workload_without_a_pod_and_broken_yaml_are_refused() {
    for text in [
        "kind: Deployment\nmetadata: {name: x}\nspec: {}\n",
        "kind: Pod\nspec: 7\n",
        "kind: [Pod\n",
        "a: 1\na: 2\n",
    ] {
        let read = each(text, |_| Ok::<(), ManifestError>(()));
        assert!(read.is_err(), "{text}");
    }
}

#[test]
fn asking_replaces_linkerd_s_annotation_and_can_be_taken_back() {
    let mut pod =
        json!({"metadata": {"annotations": {LINKERD_INJECT: "enabled", "a": "b"}}, "spec": {}});
    assert!(annotate(&mut pod, "enabled"));
    assert_eq!(
        pod["metadata"]["annotations"],
        json!({"a": "b", INJECT: "enabled"})
    );
    assert!(!annotate(&mut pod, "enabled"));
    assert!(uninject(&mut pod));
    assert_eq!(
        pod,
        json!({"metadata": {"annotations": {"a": "b"}}, "spec": {}})
    );
    assert!(!uninject(&mut pod));
}

#[test]
fn words_that_look_like_booleans_stay_words() {
    let out = annotated(
        "kind: Pod\nmetadata: {name: x, labels: {a: \"yes\", b: \"1\", c: \"null\"}}\nspec: {}\n",
    );
    for word in ["a: \"yes\"", "b: \"1\"", "c: \"null\""] {
        assert!(out.contains(word), "{out}");
    }
}
