//! Who a requester is, judged from evidence that others collected. Pure: asking an API server is the edge's.
//!
//! - [`join`]: single-use tokens with which an operator lets another machine in
//! - [`kubernetes`]: a projected service account token, and the pod that it is bound to
//! - [`node`]: machines that joined, and for whom their agents may speak
//! - [`pod_certificate`]: a PodCertificateRequest, which the API server itself vouches for

pub mod join;
pub mod kubernetes;
pub mod node;
pub mod pod_certificate;
