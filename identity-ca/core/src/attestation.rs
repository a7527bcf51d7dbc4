//! Who a requester is, judged from evidence that others collected. Pure: asking an API server is the edge's.
//!
//! - [`kubernetes`]: a projected service account token, and the pod that it is bound to

pub mod kubernetes;
