//! Files of kind PolicyTest: text to cases. Unknown fields are refused, and so is what cannot be meant.

use crate::authz::explain::implied_protocol;
use crate::authz::target::{From, To};
use crate::fault::Fault;
use crate::manifests;
use mesh_policy::decide::{Generation, Phase, Verdict};
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy::snapshot::ServerProtocol;
use mesh_policy_analysis::cases::{Case, Expectation};
use mesh_policy_index::Index;
use mesh_trust::{Timestamp, TrustDomain};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

const API_VERSION: &str = "mesh.internal/v1alpha1";
const KIND: &str = "PolicyTest";

/// The cases of one file.
pub(super) struct Suite {
    /// The file, as it was found.
    pub(super) name: String,
    /// Its cases, in order.
    pub(super) cases: Vec<Case>,
}

/// Why cases cannot be run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(super) enum CaseFileError {
    /// Not YAML, a wrong type, or an unknown field.
    #[error("`{file}:{line}:{column}` cannot be read as a PolicyTest: {why}")]
    #[diagnostic(
        code("MESH-0660"),
        help("docs/guides/testing-policies.md names every field; examples/shop/tests has cases")
    )]
    Syntax {
        /// The file.
        file: String,
        /// Line, from 1; 0 if unknown.
        line: u64,
        /// Column, from 1; 0 if unknown.
        column: u64,
        /// What the parser says.
        why: String,
    },
    /// A value that has the right type and no meaning.
    #[error("`{file}:{line}:{column}`: {why}")]
    #[diagnostic(
        code("MESH-0661"),
        help("docs/guides/testing-policies.md says what each field may hold")
    )]
    Value {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong.
        why: String,
    },
    /// Nothing to run.
    #[error("there is no test case in {places}")]
    #[diagnostic(
        code("MESH-0662"),
        help("cases stand in documents of kind PolicyTest, under `spec.cases`")
    )]
    Nothing {
        /// Where was looked.
        places: String,
    },
    /// The report.
    #[error("the JUnit report `{file}` cannot be written: {why}")]
    #[diagnostic(
        code("MESH-0663"),
        help("name a file in a folder that exists and may be written")
    )]
    Report {
        /// The file.
        file: String,
        /// What the system says.
        why: String,
    },
}

/// A document, as far as its kind.
#[derive(Deserialize)]
struct Head {
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TestFile {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    #[serde(default, rename = "metadata")]
    _metadata: Option<Metadata>,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    at: Option<Spanned<String>>,
    cases: Vec<Spanned<CaseFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    name: String,
    from: Spanned<String>,
    to: Spanned<String>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    grpc: Option<Spanned<String>>,
    tcp: Option<bool>,
    ip: Option<Spanned<String>>,
    tls: Option<bool>,
    at: Option<Spanned<String>>,
    expect: Verdict,
    phase: Option<Phase>,
    status: Option<u16>,
    audit: Option<bool>,
    route: Option<String>,
    policy: Option<String>,
    reasons: Option<BTreeSet<String>>,
}

/// One value, or several of one name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

/// Reads the cases of files and folders; a folder may hold manifests too.
pub(super) fn read(
    paths: &[PathBuf],
    index: &Index,
    home: &TrustDomain,
) -> Result<Vec<Suite>, Fault> {
    let mut suites = Vec::new();
    for path in paths {
        let named = !path.is_dir();
        for (name, bytes) in manifests::contents(std::slice::from_ref(path))? {
            let reader = Reader {
                file: &name,
                index,
                home,
            };
            let cases = reader
                .cases(&bytes, named)
                .map_err(|error| Fault::usage(&error))?;
            if !cases.is_empty() {
                suites.push(Suite { name, cases });
            }
        }
    }
    if suites.is_empty() {
        let places: Vec<_> = paths.iter().map(|p| format!("`{}`", p.display())).collect();
        let places = places.join(", ");
        return Err(Fault::usage(&CaseFileError::Nothing { places }));
    }
    Ok(suites)
}

struct Reader<'a> {
    file: &'a str,
    index: &'a Index,
    home: &'a TrustDomain,
}

impl Reader<'_> {
    /// The cases of one file. `named`: it was named itself, so it must hold cases and nothing else.
    fn cases(&self, bytes: &[u8], named: bool) -> Result<Vec<Case>, CaseFileError> {
        let text = std::str::from_utf8(bytes).map_err(|error| CaseFileError::Syntax {
            file: self.file.to_owned(),
            line: 0,
            column: 0,
            why: error.to_string(),
        })?;
        if !named {
            let heads: Vec<Head> =
                serde_saphyr::from_multiple(text).map_err(|error| self.syntax(&error))?;
            if !heads.iter().any(|head| head.kind.as_deref() == Some(KIND)) {
                return Ok(Vec::new());
            }
        }
        let files: Vec<TestFile> =
            serde_saphyr::from_multiple(text).map_err(|error| self.syntax(&error))?;
        let mut cases = Vec::new();
        for file in files {
            for (field, want) in [(&file.api_version, API_VERSION), (&file.kind, KIND)] {
                if field.value != want {
                    return Err(self.value(field, format!("`{}` is not `{want}`", field.value)));
                }
            }
            let at = file.spec.at.as_ref().map(|at| self.time(at)).transpose()?;
            for case in file.spec.cases {
                cases.push(self.case(case, at)?);
            }
        }
        Ok(cases)
    }

    fn case(&self, case: Spanned<CaseFile>, at: Option<Timestamp>) -> Result<Case, CaseFileError> {
        let place = format!("{}:{}", self.file, case.referenced.line());
        if let Some(why) = contradiction(&case.value) {
            return Err(self.value(&case, why.to_owned()));
        }
        let from = &case.value.from;
        let from = From::parse(&from.value).map_err(|why| self.value(from, why))?;
        let to = &case.value.to;
        let to = To::parse(&to.value).map_err(|why| self.value(to, why))?;
        if let Some(ip) = &case.value.ip
            && ip.value.parse::<IpAddr>().is_err()
        {
            return Err(self.value(ip, format!("`{}` is no IP address", ip.value)));
        }
        let own = case.value.at.as_ref().map(|at| self.time(at)).transpose()?;
        let case = case.value;
        let (target, server) = self.target(&to);
        Ok(Case {
            place,
            at: own.or(at),
            expect: Expectation {
                verdict: case.expect,
                phase: case.phase,
                status: case.status,
                audit: case.audit,
                route: case.route.clone(),
                policy: case.policy.clone(),
                reasons: case.reasons.clone(),
            },
            name: case.name.clone(),
            request: request(case, from.spiffe_id(self.home), target, server),
        })
    }

    /// What a target means, and how its Server reads; a pod if nobody has the name, which the run then says.
    fn target(&self, to: &To) -> (TargetRecord, Option<ServerProtocol>) {
        for target in to.readings() {
            let Ok(places) = self.index.resolve(&target) else {
                continue;
            };
            let server = places.first().and_then(|(workload, port)| {
                let data = self.index.snapshot(workload, Generation::default())?;
                let policy = data.ports.get(port).unwrap_or(&data.other_ports);
                Some(policy.server.protocol)
            });
            return (target, server);
        }
        let target = if to.service_only {
            to.service()
        } else {
            to.pod()
        };
        (target, None)
    }

    fn time(&self, at: &Spanned<String>) -> Result<Timestamp, CaseFileError> {
        crate::arguments::time(&at.value).map_err(|why| self.value(at, why))
    }

    fn value<T>(&self, field: &Spanned<T>, why: String) -> CaseFileError {
        CaseFileError::Value {
            file: self.file.to_owned(),
            line: field.referenced.line(),
            column: field.referenced.column(),
            why,
        }
    }

    fn syntax(&self, error: &serde_saphyr::Error) -> CaseFileError {
        let (line, column) = error
            .location()
            .map_or((0, 0), |at| (at.line(), at.column()));
        let why = error.without_snippet().to_string();
        let why = why.lines().next().unwrap_or_default();
        // The parser repeats the place in its text; ours stands in front already.
        let why = why.rsplit_once(" at line ").map_or(why, |(why, _)| why);
        CaseFileError::Syntax {
            file: self.file.to_owned(),
            line,
            column,
            why: why.to_owned(),
        }
    }
}

/// Why fields of a case cannot stand together, if so.
fn contradiction(case: &CaseFile) -> Option<&'static str> {
    let http = case.path.is_some() || case.method.is_some();
    let head = http || case.host.is_some() || !case.headers.is_empty();
    match (case.grpc.is_some(), case.tcp == Some(true)) {
        (true, true) => Some("a case is `grpc` or `tcp`, not both"),
        (true, false) if http => Some("`grpc` names path and method already"),
        (false, true) if head => Some("bytes have no method, path, host or headers"),
        _ => None,
    }
}

fn request(
    case: CaseFile,
    spiffe_id: Option<String>,
    server: TargetRecord,
    spoken: Option<ServerProtocol>,
) -> RequestRecord {
    let asks_http = case.path.is_some() || case.method.is_some() || case.host.is_some();
    let protocol = match (&case.grpc, case.tcp) {
        (Some(_), _) => Protocol::Grpc,
        (None, Some(true)) => Protocol::Tcp,
        (None, Some(false)) => Protocol::Http,
        (None, None) => implied_protocol(spoken, asks_http),
    };
    let http = protocol != Protocol::Tcp;
    let method = case.method.unwrap_or_else(|| {
        if protocol == Protocol::Grpc {
            "POST".to_owned()
        } else {
            "GET".to_owned()
        }
    });
    let rpc = case
        .grpc
        .map(|rpc| format!("/{}", rpc.value.trim_start_matches('/')));
    let headers = case.headers.into_iter().map(|(name, values)| {
        let values = match values {
            Values::One(value) => vec![value],
            Values::Many(values) => values,
        };
        (name.to_ascii_lowercase(), values)
    });
    RequestRecord {
        client: ClientRecord {
            spiffe_id,
            ip: case.ip.map(|ip| ip.value),
            tls: case.tls,
        },
        server,
        protocol,
        method: http.then_some(method),
        path: http.then(|| rpc.or(case.path).unwrap_or_else(|| "/".to_owned())),
        host: case.host.filter(|_| http),
        headers: if http {
            headers.collect()
        } else {
            BTreeMap::new()
        },
    }
}

#[cfg(test)]
mod tests;
