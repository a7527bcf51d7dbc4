//! Pods that cannot be meshed: what they are would let them, or what is in them, around their proxy.

use crate::names::{CAPTURE, PROXY, ports};
use miette::Diagnostic;
use serde_json::Value;

/// Why a pod that asks for a proxy must not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum Refusal {
    /// The switch says neither yes nor no.
    #[error("`{annotation}: {value}` of {whose} is neither `enabled` nor `disabled`")]
    #[diagnostic(
        code("MESH-0740"),
        help("write `enabled` or `disabled`; what else it may mean, nobody can tell")
    )]
    Switch {
        /// The annotation.
        annotation: &'static str,
        /// What it says.
        value: String,
        /// The pod's, or its namespace's.
        whose: &'static str,
    },
    /// A setting cannot be read.
    #[error("annotation `{annotation}: {value}` must be {what}")]
    #[diagnostic(
        code("MESH-0741"),
        help("correct the annotation, or remove it: the installation's value then holds")
    )]
    Setting {
        /// The annotation.
        annotation: String,
        /// What it says.
        value: String,
        /// What it must be.
        what: &'static str,
    },
    /// The pod has no network of its own.
    #[error(
        "the pod uses the node's network (`hostNetwork: true`), where nothing can be redirected for it alone"
    )]
    #[diagnostic(
        code("MESH-0742"),
        help(
            "remove `hostNetwork`, or say that it stays outside of the mesh: annotation `mesh.internal/inject: disabled`"
        )
    )]
    HostNetwork,
    /// An application would pass for the proxy.
    #[error(
        "{container} runs as user {uid}, which is the proxy's: its traffic would not be redirected"
    )]
    #[diagnostic(
        code("MESH-0743"),
        help(
            "run it as another user, or give this pod's proxy another one: annotation `mesh.internal/proxy-uid`"
        )
    )]
    ProxyUser {
        /// Which container, or the pod.
        container: String,
        /// The user.
        uid: u32,
    },
    /// An application could undo the redirect.
    #[error("container `{container}` {right}: it could undo the redirect to its proxy")]
    #[diagnostic(
        code("MESH-0744"),
        help(
            "take the right away, or say that the pod stays outside of the mesh: annotation `mesh.internal/inject: disabled`"
        )
    )]
    Powerful {
        /// The container.
        container: String,
        /// What it may.
        right: &'static str,
    },
    /// The proxy of another mesh.
    #[error("the pod has the proxy of another mesh, `{container}`: only one can have its traffic")]
    #[diagnostic(
        code("MESH-0745"),
        help(
            "remove it (`linkerd uninject`, or that mesh's annotation), or keep the pod outside of this mesh"
        )
    )]
    OtherMesh {
        /// The container.
        container: String,
    },
    /// A name of ours is taken.
    #[error("the pod has a {what} named `{name}`, which is a name of this mesh")]
    #[diagnostic(
        code("MESH-0746"),
        help("rename it; `mesh uninject` removes what `mesh inject` added")
    )]
    NameTaken {
        /// Container or volume.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A port of ours is taken.
    #[error("container `{container}` declares port {port}, on which the proxy listens")]
    #[diagnostic(
        code("MESH-0747"),
        help(
            "let the application listen elsewhere: 15001, 15006, 15008 and 15020 are the proxy's"
        )
    )]
    PortTaken {
        /// The container.
        container: String,
        /// The port.
        port: u16,
    },
    /// Not Linux.
    #[error("the pod is for `{os}`; the proxy runs on Linux alone")]
    #[diagnostic(
        code("MESH-0748"),
        help("keep it outside of the mesh: annotation `mesh.internal/inject: disabled`")
    )]
    OtherSystem {
        /// Its `spec.os.name`.
        os: String,
    },
    /// Nobody added the proxy that the pod asks for.
    #[error("the pod asks for a proxy, and has none")]
    #[diagnostic(
        code("MESH-0754"),
        help("the policy that adds it was passed over, or is not there: `mesh check` says more")
    )]
    NotAdded,
    /// No pod that can be read.
    #[error("`{path}` of the pod is not what the API says it is")]
    #[diagnostic(
        code("MESH-0749"),
        help("compare with the reference of the Pod; an API server refuses such a pod too")
    )]
    Shape {
        /// Where.
        path: String,
    },
}

/// Containers of other meshes.
pub(super) const OTHER_MESHES: &[&str] =
    &["linkerd-proxy", "linkerd-init", "istio-proxy", "istio-init"];

/// What a container may that is privileged.
pub(super) const PRIVILEGED: &str = "is privileged";

/// Capabilities with which a container can change the rules of its network namespace, and what is said of it.
pub(super) const RIGHTS: [(&str, &str); 3] = [
    ("ALL", "has all capabilities"),
    ("NET_ADMIN", "has the capability NET_ADMIN"),
    ("SYS_ADMIN", "has the capability SYS_ADMIN"),
];

/// Names of volumes that are added.
pub(super) const VOLUMES: [&str; 4] = ["mesh-run", "mesh-log", "mesh-token", "mesh-trust"];

/// Looks for what makes a pod impossible to mesh.
///
/// # Errors
/// The first [`Refusal`].
pub(super) fn check(pod: &Value, uid: u32) -> Result<(), Refusal> {
    let Some(spec) = pod.get("spec").filter(|spec| spec.is_object()) else {
        return Err(Refusal::Shape {
            path: "/spec".to_owned(),
        });
    };
    if spec
        .get("hostNetwork")
        .is_some_and(|v| v != &Value::Bool(false))
    {
        return Err(Refusal::HostNetwork);
    }
    if let Some(os) = spec
        .pointer("/os/name")
        .and_then(Value::as_str)
        .filter(|os| *os != "linux")
    {
        return Err(Refusal::OtherSystem { os: os.to_owned() });
    }
    if user(spec) == Some(i64::from(uid)) {
        return Err(Refusal::ProxyUser {
            container: "the pod".to_owned(),
            uid,
        });
    }
    for container in containers(spec)? {
        check_container(container, uid)?;
    }
    for volume in list(spec, "volumes")? {
        if let Some(name) = name_of(volume).filter(|name| VOLUMES.contains(name)) {
            return Err(Refusal::NameTaken {
                what: "volume",
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

fn check_container(container: &Value, uid: u32) -> Result<(), Refusal> {
    let Some(name) = name_of(container) else {
        return Err(Refusal::Shape {
            path: "/spec/containers/*/name".to_owned(),
        });
    };
    if OTHER_MESHES.contains(&name) {
        return Err(Refusal::OtherMesh {
            container: name.to_owned(),
        });
    }
    if [PROXY, CAPTURE].contains(&name) {
        return Err(Refusal::NameTaken {
            what: "container",
            name: name.to_owned(),
        });
    }
    if user(container) == Some(i64::from(uid)) {
        return Err(Refusal::ProxyUser {
            container: format!("container `{name}`"),
            uid,
        });
    }
    if let Some(right) = power(container) {
        return Err(Refusal::Powerful {
            container: name.to_owned(),
            right,
        });
    }
    let declared = container
        .get("ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for port in declared.filter_map(|port| port.get("containerPort")?.as_u64()) {
        if let Some(port) = ports::PROXY.iter().find(|ours| u64::from(**ours) == port) {
            return Err(Refusal::PortTaken {
                container: name.to_owned(),
                port: *port,
            });
        }
    }
    Ok(())
}

/// The right of a container to change the rules of its network namespace.
fn power(container: &Value) -> Option<&'static str> {
    let context = container.get("securityContext")?;
    if context.get("privileged") == Some(&Value::Bool(true)) {
        return Some(PRIVILEGED);
    }
    let added = context
        .pointer("/capabilities/add")
        .and_then(Value::as_array)?;
    let may = |wanted: &str| {
        let names = added.iter().filter_map(Value::as_str);
        names
            .map(|name| name.trim_start_matches("CAP_"))
            .any(|name| name.eq_ignore_ascii_case(wanted))
    };
    RIGHTS
        .iter()
        .find(|(name, _)| may(name))
        .map(|(_, right)| *right)
}

fn user(of: &Value) -> Option<i64> {
    of.pointer("/securityContext/runAsUser")
        .and_then(Value::as_i64)
}

fn name_of(of: &Value) -> Option<&str> {
    of.get("name").and_then(Value::as_str)
}

/// All containers that run in the pod from its start.
fn containers(spec: &Value) -> Result<Vec<&Value>, Refusal> {
    let (apps, inits) = (list(spec, "containers")?, list(spec, "initContainers")?);
    Ok(apps.iter().chain(inits).collect())
}

/// A list of the spec; empty if it does not stand.
fn list<'s>(spec: &'s Value, key: &str) -> Result<&'s [Value], Refusal> {
    match spec.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(Refusal::Shape {
            path: format!("/spec/{key}"),
        }),
    }
}
