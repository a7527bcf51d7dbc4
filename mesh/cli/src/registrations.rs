//! The file of `mesh ca --registrations`: identities for processes that nobody launches.

use crate::fault::Fault;
use mesh_ca::Registration;
use mesh_platform::files;
use mesh_trust::SpiffeId;
use mesh_trust::quoted::Quoted;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Bytes of the file: thousands of registrations.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The file as text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistrationsFile {
    registrations: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    spiffe_id: String,
    uid: Option<u32>,
    executable: Option<PathBuf>,
    systemd_service: Option<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum RegistrationsError {
    #[error("`{}` is no file of registrations: {why}", file.display())]
    #[diagnostic(
        code("MESH-0695"),
        help(
            "it has a list `registrations`, each with `spiffeId` and one or more of `uid`, `executable`, `systemdService`"
        )
    )]
    Malformed { file: PathBuf, why: String },
}

/// Reads the file. What a registration must have is checked by the CA.
pub(crate) fn read(file: &Path) -> Result<Vec<Registration>, Fault> {
    let bytes = files::read_limited(file, FILE_BYTES_MAX).map_err(|error| Fault::usage(&error))?;
    parse(&bytes).map_err(|why| {
        let file = file.to_owned();
        Fault::usage(&RegistrationsError::Malformed { file, why })
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<Registration>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let read: RegistrationsFile = serde_saphyr::from_str(text).map_err(|error| {
        let why = error.without_snippet().to_string();
        why.lines().next().unwrap_or_default().to_owned()
    })?;
    let registration = |line: Line| {
        let identity = SpiffeId::parse(&line.spiffe_id)
            .map_err(|error| format!("`{}`: {error}", Quoted::new(&line.spiffe_id)))?;
        Ok(Registration {
            uid: line.uid,
            executable: line.executable,
            unit: line.systemd_service,
            identity,
        })
    };
    read.registrations.into_iter().map(registration).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_says_who_by_user_program_or_service() {
        let text = "registrations:\n\
                    - { spiffeId: spiffe://example.org/server, executable: /usr/bin/server }\n\
                    - { spiffeId: spiffe://example.org/cart, uid: 1000, systemdService: cart.service }\n";
        let read = parse(text.as_bytes()).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(
            read[0].executable.as_deref(),
            Some(Path::new("/usr/bin/server"))
        );
        assert_eq!(
            (read[1].uid, read[1].unit.as_deref()),
            (Some(1_000), Some("cart.service"))
        );
        assert_eq!(read[1].identity.as_str(), "spiffe://example.org/cart");
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        for text in [
            "",
            "registrations: {}",
            "registrations: [{ uid: 1 }]",
            "registrations: [{ spiffeId: cart, uid: 1 }]",
            "registrations: [{ spiffeId: spiffe://example.org/a, user: root }]",
            "registrations: [{ spiffeId: spiffe://example.org/a, uid: root }]",
            "registrations: [{ spiffeId: spiffe://example.org/a, uid: -1 }]",
            "registrations: [{ spiffeId: spiffe://example.org/a, uid: 1, uid: 2 }]",
            "registrations: []\nextra: 1",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(&[0xff]).is_err());
    }
}
