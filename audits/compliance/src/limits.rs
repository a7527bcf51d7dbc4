//! Every limit of this crate, with its cost and reason.

/// Bytes of a bundle. A mesh of 1,000 workloads and 10,000 policies has about 40 MB; a report may take 500 MiB.
pub const BUNDLE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of one line of a bundle: a file of manifests is one line, and `mesh authz` reads no larger ones.
pub const LINE_BYTES_MAX: usize = 68 << 20;

/// Bytes of a file that maps controls to evidence. The largest built in has about 15 KB.
pub const MAPPING_BYTES_MAX: usize = 1 << 20;

/// Rows of one table of evidence in a report; `mesh audit evidence` prints all.
pub const ROWS_MAX: usize = 1_000;

/// Findings of one check in one scope that a report names; the count is always whole.
pub const FINDINGS_EACH_MAX: usize = 100;

/// Rows of one table in a document for people (HTML, PDF).
pub const SHOWN_ROWS_MAX: usize = 60;

/// Lines of the access review in a report: who may reach which asset.
pub const REVIEW_MAX: usize = 5_000;

/// Bytes of a text in a cell; what comes from logs may be long. More is cut, with a mark.
pub const CELL_BYTES_MAX: usize = 512;

/// Hours of a window whose denials are counted apart: 400 days.
pub const HOURS_MAX: usize = 9_600;
