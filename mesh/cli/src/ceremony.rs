//! `mesh ca request` and `mesh ca ceremony`: a root whose key is on no machine, and issuers that it signs.
//!
//! Nothing is asked while they run: all is on the command line, so a ceremony is a script that people read before, and
//! the same script is tried with another name the day before. What was done is in a transcript that the root's key signs.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::trust_domain;
use crate::output::{Format, Output, Tone};
use crate::signer::TokenArgs;
use clap::{Args, Subcommand};
use mesh_ca::ceremony::{self, IssuerWish, Named, RootWish};
use mesh_issuance::limits::{CEREMONY_ISSUER_DAYS, CEREMONY_TEXT_BYTES_MAX};
use mesh_platform::{Platform, System, files, process};
use mesh_trust::{Timestamp, TrustDomain};
use serde::Serialize;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What there is beside running a CA.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum CaCommand {
    /// Makes the key of an issuer, and a request that a root's keeper signs.
    Request(RequestArgs),
    /// Makes a root offline, in shares; signs issuers with it; checks what is there.
    #[command(subcommand)]
    Ceremony(CeremonyCommand),
}

/// Roots that are made offline.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum CeremonyCommand {
    /// Makes a root: its certificate, its key in shares, and a transcript.
    Make(MakeArgs),
    /// Puts shares together and signs an issuer.
    Sign(SignArgs),
    /// Checks transcripts and shares. Shows nothing of a share.
    Verify(VerifyArgs),
}

/// `mesh ca request`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RequestArgs {
    /// New folder for `tls.key`, which stays where it is, and `issuer.csr`, which goes to the root's keeper.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    token: TokenArgs,
}

/// `mesh ca ceremony make`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MakeArgs {
    /// Trust domain of the root.
    #[arg(long, value_name = "NAME", value_parser = trust_domain)]
    trust_domain: TrustDomain,
    /// How many shares, 2 to 100.
    #[arg(long, value_name = "N")]
    shares: u8,
    /// How many of them restore the key, 2 up to all.
    #[arg(long, value_name = "K")]
    threshold: u8,
    /// New folder for what is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `mesh ca ceremony sign`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SignArgs {
    /// The root's certificate.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A share; as many as restore the key.
    #[arg(long = "share", value_name = "FILE", required = true)]
    shares: Vec<PathBuf>,
    /// Request of the issuer (PKCS #10), or its public key.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// Life of the issuer, days, 1 to 398.
    #[arg(long, value_name = "DAYS", default_value_t = CEREMONY_ISSUER_DAYS)]
    days: u32,
    /// New folder for `tls.crt`, `ca.crt` and the transcript.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `mesh ca ceremony verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// The root's certificate.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A transcript; may be given several times.
    #[arg(long = "transcript", value_name = "FILE")]
    transcripts: Vec<PathBuf>,
    /// A share; may be given several times.
    #[arg(long = "share", value_name = "FILE")]
    shares: Vec<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl CaCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Request(_) => Format::Text,
            Self::Ceremony(CeremonyCommand::Make(args)) => args.output,
            Self::Ceremony(CeremonyCommand::Sign(args)) => args.output,
            Self::Ceremony(CeremonyCommand::Verify(args)) => args.output,
        }
    }
}

/// Runs one of the commands.
pub(crate) fn run(command: CaCommand, output: &mut Output) -> Result<Exit, Fault> {
    harden(output)?;
    match command {
        CaCommand::Request(args) => request(&args, output),
        CaCommand::Ceremony(CeremonyCommand::Make(args)) => make(&args, output),
        CaCommand::Ceremony(CeremonyCommand::Sign(args)) => sign(&args, output),
        CaCommand::Ceremony(CeremonyCommand::Verify(args)) => verify(&args, output),
    }
}

/// Keys that pass through get neither into core files nor to swap space.
fn harden(output: &mut Output) -> Result<(), Fault> {
    process::no_core_dumps()?;
    if let Err(error) = process::lock_memory() {
        output.talk(format_args!(
            "warning: the memory is not locked ({error}): run where there is no swap space, or as root"
        ));
    }
    Ok(())
}

fn request(args: &RequestArgs, output: &mut Output) -> Result<Exit, Fault> {
    let new = ceremony::request(args.token.config().as_ref())?;
    write(
        &args.out,
        &[
            ("tls.key", new.key.as_bytes()),
            ("issuer.csr", new.request.as_bytes()),
        ],
    )?;
    let request = args.out.join("issuer.csr");
    output.line(format_args!(
        "wrote {}: take it to the root's keeper",
        request.display()
    ))?;
    output.line(format_args!(
        "wrote {}: it stays here",
        args.out.join("tls.key").display()
    ))?;
    Ok(Exit::Ok)
}

/// What `make` says, without a share.
#[derive(Serialize)]
struct Made {
    trust_domain: TrustDomain,
    root_sha256: String,
    not_after: Timestamp,
    set: String,
    threshold: u8,
    files: Vec<PathBuf>,
}

fn make(args: &MakeArgs, output: &mut Output) -> Result<Exit, Fault> {
    let wish = RootWish {
        domain: args.trust_domain.clone(),
        shares: args.shares,
        threshold: args.threshold,
        version: version(),
    };
    let made = ceremony::make(&wish, &*System::new())?;
    let mut written: Vec<(&str, &[u8])> = vec![
        ("root.pem", made.pem.as_bytes()),
        ("transcript.txt", made.transcript.as_bytes()),
    ];
    let shares = made.shares.iter();
    written.extend(shares.map(|(name, text)| (name.as_str(), text.as_bytes())));
    write(&args.out, &written)?;
    // What people carry away is what lies on this disk, not what was in memory.
    let read = |name: &str| read(&args.out.join(name));
    let shares: Result<Vec<_>, Fault> = made
        .shares
        .iter()
        .map(|(name, _)| Ok((name.clone(), Zeroizing::new(read(name)?))))
        .collect();
    let transcript = ("transcript.txt".to_owned(), read("transcript.txt")?);
    let root = read("root.pem")?;
    ceremony::check(
        ("root.pem", &root),
        &[transcript],
        &shares?,
        System::new().wall_clock(),
    )?;
    let said = Made {
        trust_domain: args.trust_domain.clone(),
        root_sha256: hex(&made.root.fingerprint()),
        not_after: made.root.validity().not_after,
        set: made.set,
        threshold: args.threshold,
        files: written
            .iter()
            .map(|(name, _)| args.out.join(name))
            .collect(),
    };
    output.value(args.output, &said, |output, said| {
        output.line(format_args!("root       {}, until {}", said.root_sha256, said.not_after))?;
        output.line(format_args!(
            "shares     set {}, any {} restore the key",
            said.set, said.threshold
        ))?;
        for file in &said.files {
            output.line(format_args!("wrote      {}", file.display()))?;
        }
        output.line("next       give each share to another person, then delete it here; publish root.pem and transcript.txt")
    })?;
    Ok(Exit::Ok)
}

/// What `sign` says.
#[derive(Serialize)]
struct Signed {
    issuer_sha256: String,
    subject: String,
    not_after: Timestamp,
    files: Vec<PathBuf>,
}

fn sign(args: &SignArgs, output: &mut Output) -> Result<Exit, Fault> {
    let wish = IssuerWish {
        request: named(&args.request)?,
        days: args.days,
        version: version(),
    };
    let place = args.root.display().to_string();
    let root = read(&args.root)?;
    let signed = ceremony::sign(
        &wish,
        (&place, &root),
        &secrets(&args.shares)?,
        &*System::new(),
    )?;
    let written: [(&str, &[u8]); 3] = [
        ("tls.crt", signed.chain.as_bytes()),
        ("ca.crt", signed.root.as_bytes()),
        ("transcript.txt", signed.transcript.as_bytes()),
    ];
    write(&args.out, &written)?;
    let said = Signed {
        issuer_sha256: hex(&signed.issuer.fingerprint()),
        subject: signed.issuer.subject_text().to_owned(),
        not_after: signed.issuer.validity().not_after,
        files: written
            .iter()
            .map(|(name, _)| args.out.join(name))
            .collect(),
    };
    output.value(args.output, &said, |output, said| {
        output.line(format_args!("issuer     {}, until {}", said.subject, said.not_after))?;
        output.line(format_args!("sha256     {}", said.issuer_sha256))?;
        for file in &said.files {
            output.line(format_args!("wrote      {}", file.display()))?;
        }
        output.line("next       put tls.crt and ca.crt beside tls.key, and start the CA with --issuer that folder")
    })?;
    Ok(Exit::Ok)
}

/// What `verify` found.
#[derive(Serialize)]
struct Verified {
    trust_domain: TrustDomain,
    root_sha256: String,
    transcripts: Vec<Read>,
    shares: Vec<Seen>,
    /// Whether the shares restore the key of this root; none: fewer than are needed were given.
    restores: Option<bool>,
}

#[derive(Serialize)]
struct Read {
    file: String,
    act: String,
    begun: String,
    version: String,
}

#[derive(Serialize)]
struct Seen {
    file: String,
    set: String,
    share: u8,
    shares: u8,
    threshold: u8,
}

fn verify(args: &VerifyArgs, output: &mut Output) -> Result<Exit, Fault> {
    let place = args.root.display().to_string();
    let root = read(&args.root)?;
    let transcripts: Result<Vec<_>, Fault> =
        args.transcripts.iter().map(|file| named(file)).collect();
    let checked = ceremony::check(
        (&place, &root),
        &transcripts?,
        &secrets(&args.shares)?,
        System::new().wall_clock(),
    )?;
    let line = |of: &mesh_issuance::ceremony::transcript::Transcript, key| {
        of.get(key).unwrap_or_default().to_owned()
    };
    let found = Verified {
        trust_domain: checked.root.domain().clone(),
        root_sha256: hex(&checked.root.fingerprint()),
        transcripts: checked
            .transcripts
            .iter()
            .map(|(file, of)| Read {
                file: file.clone(),
                act: line(of, "act"),
                begun: line(of, "begun"),
                version: line(of, "version"),
            })
            .collect(),
        shares: checked
            .shares
            .iter()
            .map(|(file, share)| Seen {
                file: file.clone(),
                set: hex(&share.set.id),
                share: share.number,
                shares: share.set.shares,
                threshold: share.set.threshold,
            })
            .collect(),
        restores: checked.restores,
    };
    output.value(args.output, &found, |output, found| {
        let good = output.toned(Tone::Good, "ok");
        output.line(format_args!(
            "{good}  root of {}, sha256 {}",
            found.trust_domain, found.root_sha256
        ))?;
        for one in &found.transcripts {
            output.line(format_args!(
                "{good}  {}: {}, begun {}, by {}",
                one.file, one.act, one.begun, one.version
            ))?;
        }
        for one in &found.shares {
            output.line(format_args!(
                "{good}  {}: share {} of {}, set {}, {} restore the key",
                one.file, one.share, one.shares, one.set, one.threshold
            ))?;
        }
        match found.restores {
            Some(_) => output.line(format_args!(
                "{good}  these shares restore the key of this root"
            )),
            None => {
                output.line("--  too few shares were given to say whether they restore the key")
            }
        }
    })?;
    Ok(Exit::Ok)
}

fn version() -> String {
    format!("mesh {}", env!("CARGO_PKG_VERSION"))
}

fn hex(octets: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(octets)
}

fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    files::read_limited(file, CEREMONY_TEXT_BYTES_MAX as u64).map_err(|error| Fault::usage(&error))
}

fn named(file: &Path) -> Result<Named<Vec<u8>>, Fault> {
    Ok((file.display().to_string(), read(file)?))
}

fn secrets(shares: &[PathBuf]) -> Result<Vec<Named<Zeroizing<Vec<u8>>>>, Fault> {
    let secret = |file: &PathBuf| Ok((file.display().to_string(), Zeroizing::new(read(file)?)));
    shares.iter().map(secret).collect()
}

/// Writes a folder whole, or not at all, and never over another.
fn write(out: &Path, written: &[(&str, &[u8])]) -> Result<(), Fault> {
    Ok(files::write_directory(out, written, 0o600)?)
}
