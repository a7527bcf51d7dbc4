//! `mesh identity`: who a workload is, by which certificates, for how long ([`show`]); what the Workload API gives to this
//! process ([`workload`]); and whom nobody trusts any more ([`deny`]).

mod deny;
mod workload;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::output::{Format, Output, Tone, duration};
use clap::{Args, Subcommand};
use deny::{AllowArgs, DeniedArgs, DenyArgs};
pub(crate) use deny::{CaAdminArgs, DenyError};
use mesh_api::admin::{AnchorStatus, IdentityStatus};
use mesh_api::error::CodedError;
use mesh_platform::{Platform, System, files};
use mesh_trust::{Svid, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use std::path::{Path, PathBuf};
use workload::{FetchArgs, JwtArgs, ValidateArgs, WatchArgs};

/// Certificates that one file may hold: more is no chain.
const CHAIN_MAX: usize = 100;

/// Identities.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum IdentityCommand {
    /// Shows SVIDs: chain, SPIFFE ID, serial, remaining life, issuer, trust anchors.
    Show(ShowArgs),
    /// Fetches this process's X.509-SVIDs from the Workload API, once.
    Fetch(FetchArgs),
    /// Follows this process's X.509-SVIDs through their renewals.
    Watch(WatchArgs),
    /// Fetches a JWT-SVID for an audience.
    Jwt(JwtArgs),
    /// Denies an identity, a certificate, a key or an issuer: nobody in the mesh trusts it any more.
    Deny(DenyArgs),
    /// Ends a denial.
    Allow(AllowArgs),
    /// Lists what is denied, and who enforces it.
    Denied(DeniedArgs),
    /// Asks the Workload API whether a JWT-SVID is to be believed.
    Validate(ValidateArgs),
}

/// Whose identity.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShowArgs {
    /// One workload, `namespace/name`; without it all of the running mesh.
    #[arg(value_name = "NS/WORKLOAD", conflicts_with = "file")]
    workload: Option<String>,
    /// A certificate chain in PEM, leaf first.
    #[arg(long, value_name = "PEM")]
    file: Option<PathBuf>,
    #[command(flatten)]
    live: LiveArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl IdentityCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Show(args) => args.output,
            Self::Fetch(args) => args.format(),
            Self::Watch(args) => args.format(),
            Self::Jwt(args) => args.format(),
            Self::Validate(args) => args.format(),
            Self::Deny(args) => args.format(),
            Self::Allow(args) => args.format(),
            Self::Denied(args) => args.format(),
        }
    }
}

/// Why a file shows no identity.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum IdentityError {
    /// No certificates, or broken ones.
    #[error("`{}` holds no certificate chain: {why}", file.display())]
    #[diagnostic(
        code("MESH-0615"),
        help("give a PEM file with `BEGIN CERTIFICATE` blocks, leaf first")
    )]
    NoChain {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// One identity, from a proxy or from a file.
#[derive(Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    spiffe_id: Option<String>,
    serial: Option<String>,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    remaining_secs: Option<u64>,
    issued_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotations: Option<u64>,
    chain: Vec<Certificate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    anchors: Vec<AnchorStatus>,
    /// Why the leaf is no SVID, if it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<CodedError>,
}

/// One certificate, in words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Certificate {
    /// Subject.
    pub(crate) subject: String,
    /// Issuer.
    pub(crate) issuer: String,
    /// Serial, lower-case hex.
    pub(crate) serial: String,
    /// First moment of validity.
    pub(crate) not_before: Timestamp,
    /// Last moment of validity.
    pub(crate) not_after: Timestamp,
    /// Whether it may sign others.
    pub(crate) authority: bool,
    /// SHA-256 of its DER, lower-case hex.
    pub(crate) sha256: String,
}

/// Runs one of the commands.
pub(crate) fn run(command: IdentityCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        IdentityCommand::Show(args) => show(&args, output),
        IdentityCommand::Fetch(args) => live::wait(workload::fetch(&args, output)),
        IdentityCommand::Watch(args) => live::wait(workload::watch(&args, output)),
        IdentityCommand::Jwt(args) => live::wait(workload::jwt(&args, output)),
        IdentityCommand::Validate(args) => live::wait(workload::validate(&args, output)),
        IdentityCommand::Deny(args) => live::wait(deny::deny(&args, output)),
        IdentityCommand::Allow(args) => live::wait(deny::allow(&args, output)),
        IdentityCommand::Denied(args) => live::wait(deny::denied(&args, output)),
    }
}

fn show(args: &ShowArgs, output: &mut Output) -> Result<Exit, Fault> {
    let shown = match &args.file {
        Some(file) => vec![from_file(file, System::new().wall_clock())?],
        None => {
            let live = Live::find(&args.live)?;
            live::wait(from_proxies(&live, args.workload.as_deref()))?
        }
    };
    let exit = if shown
        .iter()
        .any(|one| one.error.is_some() || one.remaining_secs == Some(0))
    {
        Exit::Failure
    } else {
        Exit::Ok
    };
    output.value(args.output, &shown, |output, shown| {
        shown.iter().try_for_each(|one| print(one, output))
    })?;
    Ok(exit)
}

async fn from_proxies(live: &Live, workload: Option<&str>) -> Result<Vec<Shown>, Fault> {
    let asked: Vec<_> = match workload {
        Some(name) => vec![live.proxy(name)?],
        None => live.proxies().collect(),
    };
    let mut shown = Vec::new();
    for (workload, proxy) in asked {
        let status: IdentityStatus = live::answer(&proxy.socket, "/identity").await?;
        let name = format!("{}/{}", workload.namespace, workload.name);
        let chain = chain(status.chain_pem.as_bytes(), &proxy.socket)?;
        shown.push(Shown {
            workload: Some(name),
            spiffe_id: Some(status.spiffe_id.to_string()),
            serial: Some(status.serial),
            not_before: Some(status.not_before),
            not_after: Some(status.not_after),
            remaining_secs: Some(status.remaining_secs),
            issued_by: Some(status.issued_by),
            rotations: Some(status.rotations),
            chain,
            anchors: status.anchors,
            error: None,
        });
    }
    Ok(shown)
}

fn from_file(file: &Path, now: Timestamp) -> Result<Shown, Fault> {
    let pem = files::read(file).map_err(|error| Fault::usage(&error))?;
    let ders = certificates(&pem, file).map_err(|error| Fault::usage(&error))?;
    let chain = chain(&pem, file).map_err(|error| Fault::usage(&error))?;
    let issued_by = chain.first().map(|leaf| leaf.issuer.clone());
    let leaf = chain.first().cloned();
    let svid = Svid::parse(ders);
    let error = svid
        .as_ref()
        .err()
        .map(|error| CodedError::from(error as &dyn miette::Diagnostic));
    let not_after = leaf.as_ref().map(|leaf| leaf.not_after);
    Ok(Shown {
        workload: None,
        spiffe_id: svid.ok().map(|svid| svid.id().to_string()),
        serial: leaf.as_ref().map(|leaf| leaf.serial.clone()),
        not_before: leaf.as_ref().map(|leaf| leaf.not_before),
        not_after,
        remaining_secs: not_after.map(|end| now.secs_until(end)),
        issued_by,
        rotations: None,
        chain,
        anchors: Vec::new(),
        error,
    })
}

/// The certificates of a PEM text, DER.
pub(crate) fn certificates(
    pem: &[u8],
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let broken = |why: String| IdentityError::NoChain {
        file: file.to_path_buf(),
        why,
    };
    let found = CertificateDer::pem_slice_iter(pem)
        .take(CHAIN_MAX)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken(error.to_string()))?;
    if found.is_empty() {
        Err(broken("it has no `BEGIN CERTIFICATE` block".to_owned()))
    } else {
        Ok(found)
    }
}

/// The certificates of a PEM text, in words.
pub(crate) fn chain(pem: &[u8], file: &Path) -> Result<Vec<Certificate>, IdentityError> {
    certificates(pem, file)?
        .iter()
        .map(|der| Certificate::read(der, file))
        .collect()
}

impl Certificate {
    fn read(der: &CertificateDer<'_>, file: &Path) -> Result<Self, IdentityError> {
        let (_, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|error| IdentityError::NoChain {
                file: file.to_path_buf(),
                why: error.to_string(),
            })?;
        let validity = certificate.validity();
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: data_encoding::HEXLOWER.encode(certificate.raw_serial()),
            not_before: Timestamp::from_unix_secs(validity.not_before.timestamp()),
            not_after: Timestamp::from_unix_secs(validity.not_after.timestamp()),
            authority: certificate.is_ca(),
            sha256: data_encoding::HEXLOWER.encode(digest.as_ref()),
        })
    }
}

fn print(shown: &Shown, output: &mut Output) -> Result<(), Fault> {
    if let Some(workload) = &shown.workload {
        let heading = output.toned(Tone::Strong, workload);
        output.line(heading)?;
    }
    let remaining = match shown.remaining_secs {
        Some(0) => output.toned(Tone::Bad, "EXPIRED"),
        Some(secs) => duration(secs),
        None => "-".to_owned(),
    };
    let until = shown
        .not_after
        .map(|end| format!(" (until {end})"))
        .unwrap_or_default();
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    output.line(format_args!("  spiffe id  {}", or_dash(&shown.spiffe_id)))?;
    output.line(format_args!("  serial     {}", or_dash(&shown.serial)))?;
    output.line(format_args!("  remaining  {remaining}{until}"))?;
    output.line(format_args!("  issued by  {}", or_dash(&shown.issued_by)))?;
    if let Some(rotations) = shown.rotations {
        output.line(format_args!(
            "  rotations  {rotations} since the proxy started"
        ))?;
    }
    for (depth, certificate) in shown.chain.iter().enumerate() {
        let kind = if certificate.authority {
            "authority"
        } else {
            "leaf"
        };
        let short = certificate.sha256.get(..16).unwrap_or_default();
        let subject = if certificate.subject.is_empty() {
            "(no subject)"
        } else {
            &certificate.subject
        };
        output.line(format_args!(
            "  chain {depth}    {kind} {subject}, sha256 {short}.., until {}",
            certificate.not_after
        ))?;
    }
    for anchor in &shown.anchors {
        for sha256 in &anchor.sha256 {
            let short = sha256.get(..16).unwrap_or_default();
            output.line(format_args!(
                "  anchor     {}, sha256 {short}..",
                anchor.trust_domain
            ))?;
        }
    }
    if let Some(error) = &shown.error {
        let bad = output.toned(Tone::Bad, "no SVID");
        output.line(format_args!("  {bad}    {} {}", error.code, error.message))?;
    }
    Ok(())
}
