//! What a report consists of, as an in-toto statement, and its signature in a DSSE envelope.
//!
//! The statement names every file of the report with its SHA-256, the bundle, the policy and the ends of the logs. Signed
//! is `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body` (DSSE v1), with Ed25519, by a key of the organisation's own.

use crate::report::Report;
use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Name of the signed statement in a report.
pub const SIGNED_FILE: &str = "statement.dsse.json";
/// Name of the statement of a report that nobody signed.
pub const UNSIGNED_FILE: &str = "statement.json";

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://mesh.internal/audit-report/v1";

/// A statement: who made what of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Type of statement.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Every file, with its digest.
    pub subject: Vec<Subject>,
    /// Type of predicate.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What the files are about.
    pub predicate: Predicate,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Path within the report.
    pub name: String,
    /// `sha256` and its hex.
    pub digest: BTreeMap<String, String>,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Predicate {
    /// Version of the program.
    pub generator: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Begin of the window.
    pub since: String,
    /// Its end.
    pub until: String,
    /// The bundle.
    pub bundle_sha256: String,
    /// The policy.
    pub policy_sha256: String,
    /// Ends of the logs: origin and root.
    pub log_roots: BTreeMap<String, Option<String>>,
    /// Frameworks, with the revision of their mapping.
    pub frameworks: BTreeMap<String, u32>,
    /// The same in the order that the report has.
    pub framework_order: Vec<String>,
    /// SHA-256 of mappings that were given, not built in, by framework.
    pub mappings_sha256: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// A key that signs reports.
pub struct SigningKey(Ed25519KeyPair);

/// Why a statement is not to be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum StatementError {
    /// Not a statement of ours.
    #[error("`{file}` is no statement over a report: {why}")]
    #[diagnostic(
        code("MESH-0560"),
        help("the file is damaged, or of another program: get another copy of the report")
    )]
    Form {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Not signed by this key.
    #[error("`{file}` is not signed by the key {key}")]
    #[diagnostic(
        code("MESH-0561"),
        help(
            "the report was changed after it was signed, or somebody else signed it: compare the public key with the copy that you trust"
        )
    )]
    Signature {
        /// The file.
        file: String,
        /// The public key, hex.
        key: String,
    },
    /// A file that is not the one that was stated.
    #[error("`{file}` is not the file that the statement names: {why}")]
    #[diagnostic(
        code("MESH-0562"),
        help("it was changed, removed or added after the report was made: get another copy")
    )]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A key that is none.
    #[error("the key `{file}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0566"),
        help(
            "a signing key is an Ed25519 key in PKCS#8 form; its public half is 64 digits of hex, or PEM"
        )
    )]
    Key {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
}

/// SHA-256, lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

impl Statement {
    /// The statement over a report with these files: names and digests. `mappings` are those that were given.
    pub fn of(
        report: &Report,
        files: &[(String, String)],
        mappings: BTreeMap<String, String>,
    ) -> Self {
        let scope = &report.scope;
        let mut subject: Vec<Subject> = files
            .iter()
            .map(|(name, sha256)| Subject {
                name: name.clone(),
                digest: BTreeMap::from([("sha256".to_owned(), sha256.clone())]),
            })
            .collect();
        subject.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject,
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate {
                generator: report.generator.clone(),
                trust_domain: scope.trust_domain.clone(),
                since: scope.since.to_string(),
                until: scope.until.to_string(),
                bundle_sha256: report.bundle_sha256.clone(),
                policy_sha256: scope.policy_sha256.clone(),
                log_roots: scope
                    .logs
                    .iter()
                    .map(|log| (log.origin.clone(), log.root.clone()))
                    .collect(),
                frameworks: report
                    .frameworks
                    .iter()
                    .map(|one| (one.framework.clone(), one.mapping_revision))
                    .collect(),
                framework_order: report
                    .frameworks
                    .iter()
                    .map(|one| one.framework.clone())
                    .collect(),
                mappings_sha256: mappings,
            },
        }
    }

    /// Its text: one line of JSON.
    pub fn to_json(&self) -> String {
        // Texts, numbers and maps of texts always have a JSON form.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a statement that nobody signed.
    ///
    /// # Errors
    /// [`StatementError::Form`].
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, StatementError> {
        let form = |why: String| StatementError::Form {
            file: file.to_owned(),
            why,
        };
        let read: Self = serde_json::from_slice(text).map_err(|error| form(error.to_string()))?;
        if read.kind != STATEMENT_TYPE || read.predicate_type != PREDICATE_TYPE {
            return Err(form(format!(
                "its types are `{}` and `{}`",
                read.kind, read.predicate_type
            )));
        }
        if read
            .subject
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.name >= b.name))
        {
            return Err(form(
                "its files are not sorted, or one stands twice".to_owned(),
            ));
        }
        Ok(read)
    }

    /// Reads a signed statement; its content counts only if `key` signed it.
    ///
    /// # Errors
    /// [`StatementError::Form`], [`StatementError::Signature`].
    pub fn verify(file: &str, text: &[u8], key: &[u8; 32]) -> Result<Self, StatementError> {
        let form = |why: String| StatementError::Form {
            file: file.to_owned(),
            why,
        };
        let envelope: Envelope =
            serde_json::from_slice(text).map_err(|error| form(error.to_string()))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(form(format!("its payload is `{}`", envelope.payload_type)));
        }
        let body = BASE64
            .decode(envelope.payload.as_bytes())
            .map_err(|error| form(format!("its payload is no base64: {error}")))?;
        let signed = signed_bytes(&body);
        let public = UnparsedPublicKey::new(&ED25519, key);
        let holds = envelope.signatures.iter().any(|one| {
            let sig = BASE64.decode(one.sig.as_bytes());
            sig.is_ok_and(|sig| public.verify(&signed, &sig).is_ok())
        });
        if !holds {
            return Err(StatementError::Signature {
                file: file.to_owned(),
                key: HEXLOWER.encode(key),
            });
        }
        Self::parse(file, &body)
    }

    /// Holds the files of a report against it: names and digests, sorted by name.
    ///
    /// # Errors
    /// [`StatementError::File`] with the first that differs.
    pub fn check(&self, files: &[(String, String)]) -> Result<(), StatementError> {
        let found: BTreeMap<&str, &str> = files
            .iter()
            .map(|(name, sha)| (name.as_str(), sha.as_str()))
            .collect();
        let wrong = |file: &str, why: String| StatementError::File {
            file: file.to_owned(),
            why,
        };
        for one in &self.subject {
            let stated = one.digest.get("sha256").map(String::as_str);
            match found.get(one.name.as_str()) {
                None => return Err(wrong(&one.name, "it is missing".to_owned())),
                Some(sha) if Some(*sha) != stated => {
                    let why = format!(
                        "its SHA-256 is {sha}, stated is {}",
                        stated.unwrap_or("none")
                    );
                    return Err(wrong(&one.name, why));
                }
                Some(_) => {}
            }
        }
        let stated: Vec<&str> = self.subject.iter().map(|one| one.name.as_str()).collect();
        match found.keys().find(|name| !stated.contains(name)) {
            Some(extra) => Err(wrong(extra, "the statement does not name it".to_owned())),
            None => Ok(()),
        }
    }
}

impl SigningKey {
    /// Reads a private key in PKCS#8 form, DER or PEM.
    ///
    /// # Errors
    /// [`StatementError::Key`].
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, StatementError> {
        let wrong = |why: &str| StatementError::Key {
            file: file.to_owned(),
            why: why.to_owned(),
        };
        let der = match pem(bytes, "PRIVATE KEY") {
            Some(der) => der.ok_or_else(|| wrong("its PEM is broken"))?,
            None => bytes.to_vec(),
        };
        // Keys of other programs have version 1, without the public half.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map(Self)
            .map_err(|error| wrong(&error.to_string()))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        let mut out = [0; 32];
        // An Ed25519 public key has exactly these 32 bytes.
        for (to, from) in out.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        out
    }

    /// The envelope of a statement, signed. The same statement and key give the same bytes.
    pub fn sign(&self, statement: &Statement) -> String {
        let body = statement.to_json();
        let signature = self.0.sign(&signed_bytes(body.as_bytes()));
        let envelope: Value = json!({
            "payloadType": PAYLOAD_TYPE,
            "payload": BASE64.encode(body.as_bytes()),
            "signatures": [{ "keyid": key_id(&self.public()), "sig": BASE64.encode(signature.as_ref()) }],
        });
        envelope.to_string() + "\n"
    }
}

/// Reads a public key: 64 digits of hex, or PEM.
///
/// # Errors
/// [`StatementError::Key`].
pub fn public_key(file: &str, bytes: &[u8]) -> Result<[u8; 32], StatementError> {
    // SubjectPublicKeyInfo of Ed25519 (RFC 8410): this prefix, then the key.
    const PREFIX: &[u8] = &[
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let wrong = |why: &str| StatementError::Key {
        file: file.to_owned(),
        why: why.to_owned(),
    };
    let raw = match pem(bytes, "PUBLIC KEY") {
        Some(der) => {
            let der = der.ok_or_else(|| wrong("its PEM is broken"))?;
            der.strip_prefix(PREFIX)
                .ok_or_else(|| wrong("it is no Ed25519 key"))?
                .to_vec()
        }
        None => HEXLOWER
            .decode(bytes.trim_ascii())
            .map_err(|_| wrong("it is neither 64 digits of lower-case hex nor PEM"))?,
    };
    raw.try_into()
        .map_err(|_| wrong("an Ed25519 key has 32 bytes"))
}

/// Name of a key: SHA-256 of it, hex; a help for finding it, never trusted.
pub fn key_id(public: &[u8; 32]) -> String {
    sha256(public)
}

/// The DER inside a PEM of this label; none if the text is no PEM at all.
fn pem(bytes: &[u8], label: &str) -> Option<Option<Vec<u8>>> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let rest = text.strip_prefix("-----BEGIN ")?;
    let inner = rest
        .strip_prefix(label)
        .and_then(|rest| rest.strip_prefix("-----"))
        .and_then(|rest| rest.strip_suffix("-----"))
        .and_then(|rest| rest.strip_suffix(label))
        .and_then(|rest| rest.strip_suffix("-----END "));
    let base64: String = inner?.split_whitespace().collect();
    Some(BASE64.decode(base64.as_bytes()).ok())
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests;
