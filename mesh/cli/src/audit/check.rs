//! `mesh audit verify DIR` of a report: signature, files, bundle, and the report computed again. Needs nothing of the mesh.

use super::run::{BUNDLE_FILE, FrameworkArgs, REPORT_FILE};
use super::verify::VerifyArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Output, Tone};
use mesh_compliance::limits::BUNDLE_BYTES_MAX;
use mesh_compliance::report::{self, Report};
use mesh_compliance::statement::{
    SIGNED_FILE, Statement, StatementError, UNSIGNED_FILE, key_id, public_key, sha256,
};
use mesh_platform::files;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Bytes of one file of a report.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// What was proved of a report.
#[derive(Serialize)]
struct Checked {
    report: PathBuf,
    /// The key that signed it; none: nobody did, so it can have been written by anybody.
    signed_by: Option<String>,
    files: usize,
    bundle_sha256: String,
    /// Whether the bundle gives this very report.
    recomputed: bool,
}

/// Why a report is not what it should be.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum CheckError {
    #[error("the bundle of `{}` does not give its report: line {line} differs", path.display())]
    #[diagnostic(
        code("MESH-0564"),
        help(
            "it was computed by another version of `mesh`, or with mappings that are not at hand (`--mapping`), or it was changed"
        )
    )]
    Differs { path: PathBuf, line: usize },
    #[error("`{}` is signed, and no public key was given", path.display())]
    #[diagnostic(
        code("MESH-0671"),
        help(
            "give the copy of the public key that you trust with `--key FILE`: 64 digits of hex, or PEM"
        )
    )]
    NoKey { path: PathBuf },
    #[error("`{}` is not signed", path.display())]
    #[diagnostic(
        code("MESH-0674"),
        help(
            "a key was given, so a signature is expected: was the statement exchanged for one that nobody signed?"
        )
    )]
    NotSigned { path: PathBuf },
}

/// Whether a folder holds a report.
pub(super) fn is_report(folder: &Path) -> bool {
    [SIGNED_FILE, UNSIGNED_FILE]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// Checks the report in a folder.
pub(super) fn run(args: &VerifyArgs, folder: &Path, output: &mut Output) -> Result<Exit, Fault> {
    let (statement, signed_by) = statement(folder, args.key.as_deref())?;
    let found = digests(folder)?;
    statement.check(&found)?;
    let bytes = files::read_limited(&folder.join(BUNDLE_FILE), BUNDLE_BYTES_MAX)?;
    let frameworks = frameworks(&statement, args)?;
    let (_, computed) = report::of_bytes(&bytes, &frameworks)?;
    let written = files::read_limited(&folder.join(REPORT_FILE), FILE_BYTES_MAX)?;
    // What cannot be read at all says so before it is compared.
    Report::parse(&folder.join(REPORT_FILE).display().to_string(), &written)?;
    let computed = computed.to_json();
    if computed.as_bytes() != written {
        let same = computed
            .lines()
            .zip(String::from_utf8_lossy(&written).lines())
            .take_while(|(a, b)| a == b)
            .count();
        let path = folder.to_owned();
        return Err(CheckError::Differs {
            path,
            line: same + 1,
        }
        .into());
    }
    let checked = Checked {
        report: folder.to_owned(),
        signed_by,
        files: found.len(),
        bundle_sha256: sha256(&bytes),
        recomputed: true,
    };
    output.value(args.output, &checked, print)?;
    Ok(Exit::Ok)
}

fn print(output: &mut Output, checked: &Checked) -> Result<(), Fault> {
    let (word, signed) = match &checked.signed_by {
        Some(key) => (
            output.toned(Tone::Good, "ok "),
            format!("signed by key {key}"),
        ),
        None => (
            output.toned(Tone::Doubtful, "ok?"),
            "not signed: anybody can have written it".to_owned(),
        ),
    };
    output.line(format_args!(
        "{word}   {}  {} files as stated, {signed}; the bundle {} gives this report byte for byte",
        checked.report.display(),
        checked.files,
        checked.bundle_sha256,
    ))
}

/// The statement of a report, and the key that signed it.
fn statement(folder: &Path, key: Option<&Path>) -> Result<(Statement, Option<String>), Fault> {
    let (signed, unsigned) = (folder.join(SIGNED_FILE), folder.join(UNSIGNED_FILE));
    if signed.is_file() && unsigned.is_file() {
        let file = unsigned.display().to_string();
        let why = "there is a signed statement beside it".to_owned();
        return Err(StatementError::File { file, why }.into());
    }
    match (signed.is_file(), key) {
        (true, None) => Err(Fault::usage(&CheckError::NoKey { path: signed })),
        (true, Some(key)) => {
            let bytes = files::read_limited(key, 16 << 10).map_err(|error| Fault::usage(&error))?;
            let key = public_key(&key.display().to_string(), &bytes)
                .map_err(|error| Fault::usage(&error))?;
            let text = files::read_limited(&signed, FILE_BYTES_MAX)?;
            let statement = Statement::verify(&signed.display().to_string(), &text, &key)?;
            Ok((statement, Some(key_id(&key))))
        }
        (false, Some(_)) => Err(CheckError::NotSigned { path: unsigned }.into()),
        (false, None) => {
            let text = files::read_limited(&unsigned, FILE_BYTES_MAX)?;
            Ok((
                Statement::parse(&unsigned.display().to_string(), &text)?,
                None,
            ))
        }
    }
}

/// Every file of the folder but the statement, with its SHA-256.
fn digests(folder: &Path) -> Result<Vec<(String, String)>, Fault> {
    let unreadable = |error| mesh_platform::PlatformError::from_io("read", folder, error);
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == SIGNED_FILE || name == UNSIGNED_FILE {
            continue;
        }
        let bytes = files::read_limited(&entry.path(), FILE_BYTES_MAX)?;
        out.push((name, sha256(&bytes)));
    }
    out.sort();
    Ok(out)
}

/// The mappings that a report names: those that were given must be the same files.
fn frameworks(
    statement: &Statement,
    args: &VerifyArgs,
) -> Result<Vec<mesh_compliance::framework::Framework>, Fault> {
    let predicate = &statement.predicate;
    let wanted = FrameworkArgs::of(
        predicate.frameworks.keys().cloned().collect(),
        args.mappings.clone(),
    );
    let (mut found, digests) = wanted.read()?;
    for (id, sha) in &predicate.mappings_sha256 {
        if digests.get(id) != Some(sha) {
            let file = format!("mapping of {id}");
            let why = "give the same file with `--mapping`".to_owned();
            return Err(StatementError::File { file, why }.into());
        }
    }
    // In the order that the report has.
    let order = &predicate.framework_order;
    found.sort_by_key(|one| order.iter().position(|id| *id == one.id));
    Ok(found)
}
