//! Manifests of a git revision, read through `git` itself: nothing is checked out.

use crate::fault::Fault;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Files that one revision may have.
const FILES_MAX: usize = 100_000;

/// Why a revision cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum RevisionError {
    /// git says no, or is not there.
    #[error("`git:{revision}` cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0644"),
        help(
            "write `git:REVISION` or `git:REVISION:PATH`, inside a repository; `git log` lists revisions"
        )
    )]
    Git {
        /// The revision.
        revision: String,
        /// What git says.
        why: String,
    },
}

/// Names and contents of the manifests below `path` in `revision` (`REVISION` or `REVISION:PATH`).
///
/// # Errors
/// [`RevisionError`], ending the command with exit code 2.
pub(crate) fn read(text: &str) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    read_all(text).map_err(|why| {
        Fault::usage(&RevisionError::Git {
            revision: text.to_owned(),
            why,
        })
    })
}

fn read_all(text: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let (revision, path) = text.split_once(':').unwrap_or((text, "."));
    if revision.is_empty() || revision.starts_with('-') || path.is_empty() {
        return Err("that is no revision".to_owned());
    }
    let commit = git(&[
        "rev-parse",
        "--verify",
        "--quiet",
        &format!("{revision}^{{commit}}"),
    ])
    .map_err(|why| {
        if why.is_empty() {
            "there is no such revision".to_owned()
        } else {
            why
        }
    })?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let list = git(&["ls-tree", "-r", "-z", &commit, "--", path])?;
    let mut files = Vec::new();
    for entry in list
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
    {
        let entry = String::from_utf8_lossy(entry).into_owned();
        let (about, name) = entry
            .split_once('\t')
            .ok_or("git lists a file without a name")?;
        let mut about = about.split(' ');
        let (kind, object) = (about.nth(1), about.next());
        let hidden = name
            .split('/')
            .any(|part| part.starts_with('.') && part != ".." && part != ".");
        let manifest = [".yaml", ".yml", ".json"]
            .iter()
            .any(|end| name.ends_with(end));
        if let (Some("blob"), Some(object), true) = (kind, object, manifest && !hidden) {
            files.push((name.to_owned(), object.to_owned()));
        }
    }
    if files.is_empty() {
        return Err(format!("there is no manifest below `{path}` in it"));
    }
    if files.len() > FILES_MAX {
        return Err(format!("it has more than {FILES_MAX} manifests"));
    }
    files.sort();
    contents(files)
}

/// Contents of all objects, by one process.
fn contents(files: Vec<(String, String)>) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut child = Command::new("git")
        .args(["cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().ok_or("git takes no input")?;
    let wanted: String = files
        .iter()
        .map(|(_, object)| format!("{object}\n"))
        .collect();
    // Both pipes are bounded: whoever writes all before it reads waits forever.
    let writer = std::thread::spawn(move || stdin.write_all(wanted.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    let written = writer
        .join()
        .map_err(|_| "the writer to git ended early".to_owned())?;
    written.map_err(|error| error.to_string())?;
    let all = succeeded(output)?;
    let mut rest = all.as_slice();
    let mut out = Vec::with_capacity(files.len());
    for (name, object) in files {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("git ended early")?;
        let head = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
        let size: usize = head
            .strip_prefix(&format!("{object} blob "))
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| format!("git answers `{head}`"))?;
        let body = rest
            .get(end + 1..end + 1 + size)
            .ok_or("git ended early")?
            .to_vec();
        rest = rest.get(end + 2 + size..).unwrap_or_default();
        out.push((name, body));
    }
    Ok(out)
}

fn git(arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new("git")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    succeeded(output.map_err(|error| format!("git does not start: {error}"))?)
}

fn succeeded(output: Output) -> Result<Vec<u8>, String> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
