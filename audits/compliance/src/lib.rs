//! Audit reports: evidence from a snapshot bundle, held against the controls of frameworks. Pure: bytes in, bytes out.
//!
//! - [`bundle`]: all that a report is made of, in one file; start at [`bundle::read`]
//! - [`facts`]: the bundle's policy, asked in full
//! - [`evidence`]: E1 to E12: numbers, findings and tables
//! - [`framework`], [`expression`]: which control needs what of which number
//! - [`judge`]: how each control stands, scope by scope
//! - [`report`]: all of it together; start at [`report::run`]
//! - [`drift`]: what changed between two reports
//! - [`formats`]: reports as OSCAL, SARIF, HTML, PDF, CSV and resources of Kubernetes
//! - [`statement`]: what was written, signed
//! - [`limits`]: every bound
//!
//! Nothing here says that an organisation fulfils a framework: controls are held against what a mesh can see, and each
//! says what it cannot.

pub mod bundle;
pub mod drift;
pub mod evidence;
pub mod expression;
pub mod facts;
pub mod formats;
pub mod framework;
pub mod judge;
pub mod limits;
pub mod report;
pub mod statement;
#[cfg(test)]
mod testing;
