//! Text that a command works on: a file, or stdin.

use crate::fault::Fault;
use mesh_platform::files as disk;
use std::io::Read;
use std::path::Path;

/// Bytes of one text: the manifests of a large repository.
const BYTES_MAX: u64 = 64 << 20;

/// Why it cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum TextError {
    /// stdin gives nothing, or too much.
    #[error("stdin cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0755"),
        help("give at most 64 MiB: `mesh inject < app.yaml`")
    )]
    Input { why: String },
    /// What is there is no text.
    #[error("the text is not UTF-8")]
    #[diagnostic(code("MESH-0756"), help("write it as UTF-8, as Kubernetes takes it"))]
    NoText,
}

/// The text of a file; `-` is stdin.
///
/// # Errors
/// A [`TextError`] or what the platform says, as errors of usage.
pub(crate) fn text_of(path: &Path) -> Result<String, Fault> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let input = |why: String| Fault::usage(&TextError::Input { why });
        std::io::stdin()
            .take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| input(error.to_string()))?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(input("more than 64 MiB".to_owned()));
        }
        bytes
    } else {
        disk::read_limited(path, BYTES_MAX).map_err(|error| Fault::usage(&error))?
    };
    String::from_utf8(bytes).map_err(|_| Fault::usage(&TextError::NoText))
}
