//! The CNI plugin: whether it is on every node, and pods that started where it was not.

use super::facts::{Facts, text};
use super::plane::waits;
use crate::check::item::Item;
use mesh_cluster::names::{CAPTURE, CNI, CNI_NAMESPACE};
use serde_json::Value;

const CATEGORY: &str = "CNI plugin";

/// Pods that are named one by one.
const NAMED_MAX: usize = 10;

/// Everything about it; nothing where it is not installed.
pub(super) fn check(facts: &Facts) -> Vec<Item> {
    if !facts.settings.cni.enabled {
        return Vec::new();
    }
    let named = |lease: &Value| text(lease, "/metadata/name").to_owned();
    // Of nodes that cannot be listed those count that have a pod of it.
    let nodes: Vec<String> = facts.leases.iter().flatten().map(named).collect();
    let pods: Vec<&Value> = facts.pods().collect();
    let mut items = on_nodes(&nodes, &pods, &facts.kubectl);
    items.extend(uncaptured(&pods, &facts.kubectl));
    items
}

/// Whether each node has a plugin that is in place.
fn on_nodes(nodes: &[String], pods: &[&Value], kubectl: &str) -> Vec<Item> {
    let ours = |pod: &&&Value| {
        text(pod, "/metadata/namespace") == CNI_NAMESPACE
            && text(pod, "/metadata/labels/app.kubernetes.io~1component") == "cni"
    };
    let all: Vec<&Value> = pods.iter().filter(ours).copied().collect();
    let of = |node: &str| {
        let here = all.iter().filter(|pod| text(pod, "/spec/nodeName") == node);
        here.copied().collect::<Vec<_>>()
    };
    let mut known: Vec<&str> = nodes.iter().map(String::as_str).collect();
    known.extend(all.iter().map(|pod| text(pod, "/spec/nodeName")));
    known.sort_unstable();
    known.dedup();
    let (mut good, mut items) = (0, Vec::new());
    for node in known.into_iter().filter(|node| !node.is_empty()) {
        let here = of(node);
        if here.iter().any(|pod| is_ready(pod)) {
            good += 1;
            continue;
        }
        let why = match here.iter().find_map(|pod| waits(pod)) {
            Some(why) => why,
            None if here.is_empty() => format!("the DaemonSet {CNI} has no pod there"),
            None => "its pod is not ready".to_owned(),
        };
        let fix = format!(
            "{kubectl} -n {CNI_NAMESPACE} describe pods --field-selector spec.nodeName={node}"
        );
        let says = format!("on node {node} pods with a proxy do not start: {why}");
        items.push(Item::broken(CATEGORY, "MESH-0769", says, fix));
    }
    if good == 0 && items.is_empty() {
        let fix = format!("{kubectl} -n {CNI_NAMESPACE} describe daemonset {CNI}");
        let says = "no node has it: pods with a proxy do not start";
        return vec![Item::broken(CATEGORY, "MESH-0769", says, fix)];
    }
    items.insert(0, Item::ok(CATEGORY, format!("in place on {good} nodes")));
    items
}

/// Pods whose witness saw that nothing is captured: they do not start by themselves, since a network is made once.
fn uncaptured(pods: &[&Value], kubectl: &str) -> Vec<Item> {
    let failed = |pod: &&&Value| {
        let statuses = pod.pointer("/status/initContainerStatuses");
        let statuses = statuses.and_then(Value::as_array).into_iter().flatten();
        let mut ours = statuses.filter(|one| text(one, "/name") == CAPTURE);
        ours.any(|one| {
            [
                "/state/terminated/exitCode",
                "/lastState/terminated/exitCode",
            ]
            .iter()
            .filter_map(|path| one.pointer(path)?.as_i64())
            .next()
            .is_some_and(|code| code != 0)
        })
    };
    let all: Vec<&Value> = pods.iter().filter(failed).copied().collect();
    let one = |pod: &&Value| {
        let (namespace, name) = (
            text(pod, "/metadata/namespace"),
            text(pod, "/metadata/name"),
        );
        let says = format!("pod {namespace}/{name} does not start: its traffic is not captured");
        let fix = format!("{kubectl} -n {namespace} delete pod {name}");
        Item::broken(CATEGORY, "MESH-0486", says, fix)
    };
    let mut items: Vec<Item> = all.iter().take(NAMED_MAX).map(one).collect();
    if all.len() > NAMED_MAX {
        let says = format!("{} more pods do not start for that", all.len() - NAMED_MAX);
        let fix = format!("{kubectl} get pods -A");
        items.push(Item::broken(CATEGORY, "MESH-0486", says, fix));
    }
    items
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|one| text(one, "/type") == "Ready" && text(one, "/status") == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::item::Status;
    use serde_json::json;

    fn plugin(node: &str, ready: &str) -> Value {
        json!({
            "metadata": { "namespace": "mesh-cni", "name": "mesh-cni-x", "labels": { "app.kubernetes.io/component": "cni" } },
            "spec": { "nodeName": node },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        })
    }

    fn broken(nodes: &[&str], pods: &[Value]) -> Vec<String> {
        let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        let pods: Vec<&Value> = pods.iter().collect();
        let items = on_nodes(&nodes, &pods, "kubectl");
        let broken = items
            .into_iter()
            .filter(|item| item.status == Status::Broken);
        broken.map(|item| item.says).collect()
    }

    #[test]
    fn every_node_needs_a_plugin_that_is_ready() {
        assert!(broken(&["a", "b"], &[plugin("a", "True"), plugin("b", "True")]).is_empty());
        for (nodes, pods, named) in [
            (&["a", "b"][..], vec![plugin("a", "True")], "node b"),
            (&["a"], vec![plugin("a", "False")], "node a"),
            (&[], vec![plugin("a", "False")], "node a"),
            (&[], vec![], "no node"),
        ] {
            let says = broken(nodes, &pods);
            assert_eq!(says.len(), 1, "{says:?}");
            assert!(says[0].contains(named), "{says:?}");
        }
        // A pod of that label elsewhere is nobody's plugin.
        let mut other = plugin("a", "True");
        other["metadata"]["namespace"] = "shop".into();
        assert_eq!(broken(&["a"], &[other]).len(), 1);
    }

    #[test]
    fn pods_that_started_uncaptured_are_named_with_what_mends_them() {
        let pod = |state: Value| {
            json!({
                "metadata": { "namespace": "shop", "name": "orders" },
                "status": { "initContainerStatuses": [state] },
            })
        };
        let waiting = pod(json!({
            "name": "mesh-capture", "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": { "exitCode": 1 } },
        }));
        let done = pod(json!({
            "name": "mesh-capture", "state": { "terminated": { "exitCode": 0 } },
            "lastState": { "terminated": { "exitCode": 1 } },
        }));
        let other = pod(json!({ "name": "migrate", "state": { "terminated": { "exitCode": 1 } } }));
        let found = uncaptured(&[&waiting, &done, &other], "kubectl");
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].fix.as_deref(),
            Some("kubectl -n shop delete pod orders")
        );
        let many = [&waiting; NAMED_MAX + 2];
        assert_eq!(uncaptured(&many, "kubectl").len(), NAMED_MAX + 1);
    }
}
