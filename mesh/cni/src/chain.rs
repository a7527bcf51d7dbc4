//! Network configurations of a node, with and without us as their last plugin. No IO: bytes in, bytes out.
//!
//! What others wrote stays as it is, unknown fields too. A configuration of one plugin becomes a list, as runtimes
//! themselves read it (libcni, `ConfListFromConf`).

use crate::protocol::{PLUGIN, VERSIONS};
use serde_json::{Value, json};
use std::path::Path;

/// What a file of a node's folder is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `.conflist`: plugins, one after the other.
    List,
    /// `.conf` and `.json`: one plugin.
    Single,
}

impl Kind {
    /// Of a file; none if runtimes do not look at it.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "conflist" => Some(Self::List),
            "conf" | "json" => Some(Self::Single),
            _ => None,
        }
    }
}

/// Our entry in a list.
pub fn entry(kubeconfig: &Path, exclude_namespaces: &[String]) -> Value {
    json!({
        "type": PLUGIN,
        "kubeconfig": kubeconfig,
        "excludeNamespaces": exclude_namespaces,
    })
}

/// The configuration as a list, whatever it was.
///
/// # Errors
/// Why a runtime could not use it, or hands a plugin in it nothing to go on from.
pub fn list(kind: Kind, text: &[u8]) -> Result<Value, String> {
    let value: Value =
        serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let list = match kind {
        Kind::List => value,
        Kind::Single => {
            plugin_type(&value)?;
            let field = |name: &str| value.get(name).cloned();
            let mut list = json!({});
            for name in ["cniVersion", "name", "disableCheck"] {
                if let (Some(value), Some(map)) = (field(name), list.as_object_mut()) {
                    map.insert(name.to_owned(), value);
                }
            }
            if let Some(map) = list.as_object_mut() {
                map.insert("plugins".to_owned(), json!([value]));
            }
            list
        }
    };
    let version = list.get("cniVersion").and_then(Value::as_str);
    let version = version.unwrap_or("none");
    if !VERSIONS.contains(&version) {
        return Err(format!(
            "its CNI version is {version}, and plugins are chained in {}",
            VERSIONS.join(", ")
        ));
    }
    let name = list.get("name").and_then(Value::as_str);
    if name.is_none_or(str::is_empty) {
        return Err("it has no `name`".to_owned());
    }
    let plugins = list.get("plugins").and_then(Value::as_array);
    let plugins = plugins.ok_or("it has no list of `plugins`")?;
    let mut others = 0;
    for plugin in plugins {
        others += usize::from(plugin_type(plugin)? != PLUGIN);
    }
    if others == 0 {
        return Err("it has no plugin that makes a network".to_owned());
    }
    Ok(list)
}

fn plugin_type(plugin: &Value) -> Result<&str, String> {
    let kind = plugin.get("type").and_then(Value::as_str);
    kind.filter(|kind| !kind.is_empty())
        .ok_or_else(|| "a plugin in it has no `type`".to_owned())
}

/// The list with us at its end, once.
pub fn with(mut list: Value, entry: &Value) -> Value {
    if let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) {
        plugins.retain(|plugin| !is_ours(plugin));
        plugins.push(entry.clone());
    }
    list
}

/// The list without us.
pub fn without(mut list: Value) -> Value {
    if let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) {
        plugins.retain(|plugin| !is_ours(plugin));
    }
    list
}

/// Whether we are in a list.
pub fn holds(list: &Value) -> bool {
    let plugins = list.get("plugins").and_then(Value::as_array);
    plugins.into_iter().flatten().any(is_ours)
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

/// As it stands in a file.
pub fn text(list: &Value) -> String {
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLANNEL: &str = r#"{
      "name": "cbr0", "cniVersion": "0.3.1", "unknown": [1, 2.5, "x"],
      "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": true}},
        {"type": "portmap", "capabilities": {"portMappings": true}}
      ]
    }"#;

    fn ours() -> Value {
        entry(
            Path::new("/etc/cni/net.d/mesh-cni-kubeconfig"),
            &["kube-system".to_owned()],
        )
    }

    #[test]
    fn we_come_last_and_once_and_leave_no_trace() {
        let before = list(Kind::List, FLANNEL.as_bytes()).expect("a list");
        let after = with(before.clone(), &ours());
        assert_eq!(after["plugins"].as_array().map(Vec::len), Some(3));
        assert_eq!(after["plugins"][2]["type"], PLUGIN);
        assert_eq!(with(after.clone(), &ours()), after);
        // Whoever comes behind us later is before us again.
        let mut more = after.clone();
        more["plugins"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "bandwidth"}));
        let again = with(more, &ours());
        assert_eq!(again["plugins"][2]["type"], "bandwidth");
        assert_eq!(again["plugins"][3]["type"], PLUGIN);
        assert!(holds(&after) && !holds(&before));
        assert_eq!(without(after), before);
        // Fields keep their order and form: what others read in the file is what they wrote.
        let text = text(&before);
        assert_eq!(list(Kind::List, text.as_bytes()), Ok(before));
        assert!(text.find("cbr0") < text.find("unknown") && text.contains("2.5"));
    }

    #[test]
    fn a_configuration_of_one_plugin_becomes_a_list() {
        let single = r#"{"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": {"type": "host-local"}}"#;
        let list = list(Kind::Single, single.as_bytes()).expect("a list");
        assert_eq!(list["name"], "net");
        assert_eq!(list["cniVersion"], "1.0.0");
        assert_eq!(list["plugins"][0]["ipam"]["type"], "host-local");
        assert!(list.get("ipam").is_none());
    }

    #[test]
    fn what_no_plugin_can_be_chained_to_is_refused() {
        for (kind, text) in [
            (Kind::List, ""),
            (Kind::List, "not json"),
            (Kind::List, "[]"),
            (Kind::List, "{}"),
            (Kind::List, r#"{"cniVersion": "1.0.0", "name": "x"}"#),
            (
                Kind::List,
                r#"{"cniVersion": "1.0.0", "name": "x", "plugins": []}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "1.0.0", "name": "x", "plugins": {}}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "1.0.0", "name": "x", "plugins": ["bridge"]}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": ""}]}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "mesh-cni"}]}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "1.0.0", "name": "", "plugins": [{"type": "bridge"}]}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "0.2.0", "name": "x", "plugins": [{"type": "bridge"}]}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": "2.0.0", "name": "x", "plugins": [{"type": "bridge"}]}"#,
            ),
            (
                Kind::List,
                r#"{"cniVersion": 1, "name": "x", "plugins": [{"type": "bridge"}]}"#,
            ),
            (
                Kind::List,
                r#"{"name": "x", "plugins": [{"type": "bridge"}]}"#,
            ),
            (Kind::Single, FLANNEL),
            (Kind::Single, r#"{"cniVersion": "1.0.0", "name": "x"}"#),
            (Kind::Single, r#"{"name": "x", "type": "bridge"}"#),
            (
                Kind::Single,
                r#"{"cniVersion": "1.0.0", "name": "x", "type": "mesh-cni"}"#,
            ),
        ] {
            assert!(list(kind, text.as_bytes()).is_err(), "{kind:?} {text}");
        }
    }

    #[test]
    fn runtimes_look_at_three_kinds_of_names() {
        for (name, want) in [
            ("10-a.conflist", Some(Kind::List)),
            ("10-a.conf", Some(Kind::Single)),
            ("10-a.json", Some(Kind::Single)),
            ("mesh-cni-kubeconfig", None),
            ("10-a.conflist.before-mesh-cni", None),
            ("README.md", None),
        ] {
            assert_eq!(Kind::of(Path::new(name)), want, "{name}");
        }
    }
}
