//! The mesh on Kubernetes: what is installed there, and what is added to workloads.
//!
//! - [`install`]: `mesh install`, `mesh uninstall`, and the files below `charts/`
//! - [`upgrade`]: `mesh upgrade`, `mesh prune`
//! - [`inject`]: `mesh inject`, `mesh uninject`
//! - [`text`]: what both read
//! - [`injector`]: the webhooks as a process of their own

pub(crate) mod inject;
pub(crate) mod injector;
pub(crate) mod install;
mod text;
pub(crate) mod upgrade;

pub(crate) use inject::{InjectArgs, UninjectArgs, inject, uninject};
pub(crate) use injector::{InjectorArgs, injector};
pub(crate) use install::{ChartsArgs, InstallArgs, UninstallArgs, charts, install, uninstall};
pub(crate) use upgrade::{PruneArgs, UpgradeArgs, prune, upgrade};
