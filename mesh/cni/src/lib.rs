//! Capture for pods that may not set rules themselves: a CNI plugin that comes last in a node's chain, and the DaemonSet's
//! program that puts it there.
//!
//! ```text
//! kubelet -> container runtime -> the node's plugins -> mesh-cni ADD -> API server: what is this pod?
//!                                                          | without proxy:  its network stays as it is
//!                                                          | with a proxy:   the rules of its `mesh-capture`, in its namespace
//!                                                          | cannot be told: an error, and the runtime tries again
//! ```
//!
//! What the plugin does not do, the pod notices: its unprivileged `mesh-capture` lets it start only once traffic is captured.
//!
//! - [`protocol`]: what a runtime asks and is answered (CNI 0.3.0 to 1.1.0)
//! - [`pod`]: what of a pod is captured; start at [`pod::wanted`]
//! - [`plugin`]: the answers; start at [`plugin::answer`]
//! - [`node`]: the world of the plugin: API server and kernel
//! - [`chain`]: network configurations of a node, with and without us
//! - [`install`]: keeps program, kubeconfig and chain in place; start at [`install::run`]
//! - [`kubeconfig`]: how the plugin reaches the API server
//! - [`error`]: what goes wrong, as the runtime and as people are told
//! - [`limits`]: sizes and times

pub mod chain;
pub mod error;
pub mod install;
pub mod kubeconfig;
pub mod limits;
pub mod node;
pub mod plugin;
pub mod pod;
pub mod protocol;
