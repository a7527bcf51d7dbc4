//! Machines that join the mesh: who they are, what their agents get, and what an operator says of them.
//!
//! A join token lets one machine in, once. From then on its agent shows the SVID that it got, and asks with it for the
//! next one and for those of its workloads, which it attests as the CA does on its own machine. It gets what its token
//! said, and no more ([`mesh_issuance::attestation::node`]).
//!
//! - [`book`]: tokens and nodes, on disk and in force
//! - [`desk`]: what agents ask, over the network; [`watch`]: what they are told
//! - [`admin`]: what an operator asks
//!
//! The agent's side is [`crate::joined`].

pub(crate) mod admin;
pub(crate) mod book;
pub(crate) mod desk;
pub(crate) mod watch;

/// The instance of a node's agent, as a rotation counts it.
pub(crate) fn agent_instance(node: &str) -> String {
    format!("node {node}")
}

/// The instance of a process of a node; `process` is `<pid>.<start time>` there.
pub(crate) fn process_instance(node: &str, process: &str) -> String {
    format!("node {node} process {process}")
}

/// Whether an instance is a node's agent or one of its processes. Names of nodes have no spaces.
pub(crate) fn is_of(node: &str, instance: &str) -> bool {
    let rest = instance.strip_prefix("node ");
    rest.is_some_and(|rest| rest.split(' ').next() == Some(node))
}
