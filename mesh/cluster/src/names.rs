//! Names, ports and paths that the control plane, injected pods and the proxy's configuration agree on.

/// Namespace of the control plane.
pub const NAMESPACE: &str = "mesh-system";

/// Namespace of the CNI plugin's DaemonSet: it mounts folders of the node, which the control plane's namespace forbids.
pub const CNI_NAMESPACE: &str = "mesh-cni";

/// The CNI plugin's DaemonSet.
pub const CNI: &str = "mesh-cni";

/// Namespaces whose pods get no proxy: without them no cluster could start an injector, nor what an injector needs.
pub const OUTSIDE: [&str; 5] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    NAMESPACE,
    CNI_NAMESPACE,
];

/// Prefix of our annotations and labels.
pub const PREFIX: &str = "mesh.internal/";

/// Prefix of Linkerd's settings of one workload. Those with a meaning here are honoured.
pub const LINKERD_CONFIG: &str = "config.linkerd.io/";

/// Annotation that asks for a proxy: `enabled` or `disabled`.
pub const INJECT: &str = "mesh.internal/inject";

/// Linkerd's spelling of [`INJECT`].
pub const LINKERD_INJECT: &str = "linkerd.io/inject";

/// Label of injected pods, for selectors. Nothing trusts it: what counts is that the proxy answers with its SVID.
pub const MESHED_LABEL: &str = "mesh.internal/meshed";

/// Annotation of injected pods: the version of the mesh that added the proxy.
pub const INJECTED_BY: &str = "mesh.internal/injected-by";

/// Label of all objects of an installation; its value is [`PART_OF`].
pub const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";

/// Value of [`PART_OF_LABEL`].
pub const PART_OF: &str = "mesh";

/// Name of both webhook configurations.
pub const WEBHOOKS: &str = "mesh-injector";

/// ConfigMap that holds the values of the installation, key `values.yaml`.
pub const CONFIG: &str = "mesh-config";

/// ConfigMap of trust anchors in each namespace with meshed pods, kept by the controller.
pub const TRUST_CONFIG_MAP: &str = "mesh-trust-bundle";

/// Key of the anchors in [`TRUST_CONFIG_MAP`], PEM.
pub const TRUST_KEY: &str = "ca-bundle.crt";

/// Where the anchors are mounted.
pub const TRUST_DIR: &str = "/var/run/mesh/trust";

/// Where the projected token is mounted; its file is `token`.
pub const TOKEN_DIR: &str = "/var/run/secrets/mesh";

/// Audience of the projected token: no other service accepts it, and ours accepts no other.
pub const TOKEN_AUDIENCE: &str = "identity.mesh.internal";

/// Life of the projected token in seconds: the least that an API server grants; kubelet renews it.
pub const TOKEN_SECS: u32 = 600;

/// Where the proxy's admin socket lives.
pub const RUN_DIR: &str = "/run/mesh";

/// Where the proxy's decision records live.
pub const LOG_DIR: &str = "/var/log/mesh";

/// Container of the proxy: a native sidecar.
pub const PROXY: &str = "mesh-proxy";

/// Init container that redirects the pod's traffic, or, with the CNI plugin, waits until it is.
pub const CAPTURE: &str = "mesh-capture";

/// Ports of a proxy.
pub mod ports {
    /// mTLS from other proxies.
    pub const MESH: u16 = 15_008;
    /// Redirected traffic that enters the pod.
    pub const INBOUND: u16 = 15_006;
    /// Redirected traffic that leaves the pod, on loopback.
    pub const OUTBOUND: u16 = 15_001;
    /// `/metrics`, `/ready`, `/live`.
    pub const ADMIN: u16 = 15_020;
    /// Where proxies watch their policy.
    pub const CONTROLLER: u16 = 15_010;
    /// Where proxies get their SVID.
    pub const IDENTITY: u16 = 15_011;
    /// All of a proxy's own ports.
    pub const PROXY: [u16; 4] = [MESH, INBOUND, OUTBOUND, ADMIN];
}

/// Users of [`CAPTURE`] where it has no rights: `nobody`, or the one before where the proxy is that.
pub const WITNESS_UIDS: [u32; 2] = [65_534, 65_533];

/// User and group of the proxy, unless the installation chose another. Traffic of this user is not redirected.
pub const PROXY_UID: u32 = 15_014;
