//! The `mesh` command: reads the command line, runs one command, ends with its exit code.
//!
//! - [`commands`]: every command and what it calls; start here
//! - [`exit`], [`fault`], [`output`], [`arguments`]: what all commands share
//! - [`authz`], [`identity`], [`check`], [`traffic`], [`tap`], [`audit`]: questions about policy and about a running mesh
//! - [`manifests`], [`live`], [`cluster`]: where the answers come from: files on disk, the sockets of a running mesh, or a
//!   Kubernetes cluster
//! - [`up`], [`local_mesh`], [`demo`]: a mesh on one machine, its file, and the applications of its demo
//! - [`kubernetes`]: what is installed on a cluster, and added to workloads there
//! - [`run`]: one command whose connections are captured
//! - [`parts`]: CA, controller and proxy, as processes of their own; [`signer`]: that of the CA's keys
//! - [`ceremony`]: roots that are made offline
//! - [`pages`], [`reference`]: documentation that the command carries

mod arguments;
mod audit;
mod authz;
mod broker;
mod bundle_endpoint;
mod ceremony;
mod check;
mod cluster;
mod commands;
mod demo;
mod exit;
mod fault;
mod identity;
mod kubernetes;
mod live;
mod local_mesh;
mod manifests;
mod node;
mod output;
mod pages;
mod parts;
mod reference;
mod registrations;
mod run;
mod signer;
mod tap;
mod traffic;
mod trust;
mod up;
mod version;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    commands::run().into()
}
