//! Reports in the forms that others read. Each is a pure function of the report.
//!
//! - [`document`]: the report as headings, tables and paragraphs, for [`html`] and [`pdf`]
//! - [`oscal`], [`sarif`], [`kubernetes`], [`csv`]: for programs

pub mod csv;
pub mod document;
pub mod html;
pub mod kubernetes;
pub mod oscal;
pub mod pdf;
pub mod sarif;
mod uuid;

#[cfg(test)]
mod tests;
