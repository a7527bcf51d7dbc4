//! `mesh trust federate`: relations with other trust domains, and where our own bundle is served to them.

use super::{Steward, StewardArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live;
use crate::manifests::trust_domain;
use crate::output::{Format, Output, Table, Tone, duration};
use clap::{Args, ValueEnum};
use mesh_api::federation::{FederationStatus, HeldStatus, RelationStatus};
use mesh_api::proto::federate_request::Profile as Proof;
use mesh_api::proto::{FederateRequest, FetchBundleRequest, UnfederateRequest};
use mesh_api::trust::TrustStatus;
use mesh_issuance::limits::FOREIGN_BUNDLE_BYTES_MAX;
use mesh_platform::{PlatformError, files};
use mesh_trust::TrustDomain;
use std::path::PathBuf;

/// `mesh trust federate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FederateArgs {
    /// Trust domain whose bundle is to be fetched; without it, all relations are listed.
    #[arg(value_name = "DOMAIN", value_parser = trust_domain, requires = "url", requires = "profile")]
    domain: Option<TrustDomain>,
    /// Address of its bundle endpoint, `https://HOST[:PORT][/PATH]`.
    #[arg(long, value_name = "URL", requires = "domain")]
    url: Option<String>,
    /// How that endpoint proves who it is.
    #[arg(long, value_enum, requires = "domain")]
    profile: Option<EndpointProfile>,
    /// SPIFFE ID of the endpoint.
    #[arg(
        long,
        value_name = "ID",
        required_if_eq("profile", "https_spiffe"),
        requires = "domain"
    )]
    endpoint_id: Option<String>,
    /// A SPIFFE bundle of that domain to begin with, JSON, fetched by a way that you trust.
    #[arg(
        long,
        value_name = "FILE",
        required_if_eq("profile", "https_spiffe"),
        requires = "domain"
    )]
    bundle: Option<PathBuf>,
    /// File of the roots by which the endpoint's certificate is known, PEM, for the CA to read.
    #[arg(
        long,
        value_name = "FILE",
        required_if_eq("profile", "https_web"),
        requires = "domain",
        conflicts_with = "endpoint_id"
    )]
    web_roots: Option<PathBuf>,
    /// Ends the relation with this domain at once: nothing of it is trusted any more.
    #[arg(long, value_name = "DOMAIN", value_parser = trust_domain, conflicts_with_all = ["domain", "fetch"])]
    remove: Option<TrustDomain>,
    /// Fetches the bundle of this domain now, and fails if that fails.
    #[arg(long, value_name = "DOMAIN", value_parser = trust_domain, conflicts_with = "domain")]
    fetch: Option<TrustDomain>,
    #[command(flatten)]
    ca: StewardArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Profiles of SPIFFE Federation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum EndpointProfile {
    /// By an SVID of its trust domain.
    HttpsSpiffe,
    /// By a certificate for its DNS name.
    HttpsWeb,
}

impl FederateArgs {
    /// The form that errors take.
    pub(super) fn format(&self) -> Format {
        self.output
    }
}

/// Runs it.
pub(super) fn run(args: &FederateArgs, output: &mut Output) -> Result<Exit, Fault> {
    let steward = Steward::find(&args.ca)?;
    let status = match (&args.domain, &args.remove, &args.fetch) {
        (Some(domain), _, _) => begin(&steward, domain, args, output)?,
        (None, Some(domain), _) => live::wait(steward.call(async |client| {
            let trust_domain = domain.to_string();
            client.unfederate(UnfederateRequest { trust_domain }).await
        }))?,
        (None, None, Some(domain)) => live::wait(fetch(&steward, domain))?,
        (None, None, None) => live::wait(steward.status())?,
    };
    let federation = status.federation.unwrap_or_default();
    output.value(args.output, &federation, |output, federation| {
        show(federation, args.output, output)
    })?;
    Ok(Exit::Ok)
}

async fn fetch(steward: &Steward, domain: &TrustDomain) -> Result<TrustStatus, Fault> {
    steward
        .call(async |client| {
            let trust_domain = domain.to_string();
            client
                .fetch_bundle(FetchBundleRequest { trust_domain })
                .await
        })
        .await
}

/// Begins a relation, and fetches once, so that whoever made it sees whether it works.
fn begin(
    steward: &Steward,
    domain: &TrustDomain,
    args: &FederateArgs,
    output: &mut Output,
) -> Result<TrustStatus, Fault> {
    let bundle_json = match &args.bundle {
        Some(file) => files::read_limited(file, FOREIGN_BUNDLE_BYTES_MAX as u64)
            .map_err(|error| Fault::usage(&error))?,
        None => Vec::new(),
    };
    let roots = match &args.web_roots {
        Some(file) => {
            let absolute = std::path::absolute(file)
                .map_err(|error| PlatformError::from_io("find", file, error));
            Some(absolute.map_err(|error| Fault::usage(&error))?)
        }
        None => None,
    };
    let request = FederateRequest {
        trust_domain: domain.to_string(),
        url: args.url.clone().unwrap_or_default(),
        profile: match (&args.endpoint_id, roots) {
            (Some(id), _) => Some(Proof::EndpointId(id.clone())),
            (None, Some(roots)) => Some(Proof::WebRoots(roots.display().to_string())),
            (None, None) => None,
        },
        bundle_json,
    };
    live::wait(async {
        let begun = steward
            .call(async |client| client.federate(request.clone()).await)
            .await?;
        match fetch(steward, domain).await {
            Ok(status) => Ok(status),
            Err(_) => {
                output.talk(
                    "the first fetch failed, and is tried again by itself; the relation stands",
                );
                steward.status().await.or(Ok(begun))
            }
        }
    })
}

/// Both directions, for people.
fn show(federation: &FederationStatus, format: Format, output: &mut Output) -> Result<(), Fault> {
    match &federation.endpoint {
        None => output.line("our bundle is served to nobody")?,
        Some(endpoint) => {
            let sequence = endpoint.sequence.map_or("-".to_owned(), |n| n.to_string());
            let who = endpoint.endpoint_id.as_ref();
            let who = who.map(|id| format!(" as {id}")).unwrap_or_default();
            let served = endpoint.served_at.as_ref();
            let served = served.map_or("never".to_owned(), ToString::to_string);
            output.line(format_args!(
                "our bundle is served at {} ({}){who}, sequence {sequence}, fetched last: {served}",
                endpoint.listen, endpoint.profile
            ))?;
        }
    }
    if federation.relations.is_empty() {
        return output.line("no other trust domain is federated with");
    }
    let mut table = Table::new(&[
        "TRUST DOMAIN",
        "PROFILE",
        "SEQUENCE",
        "ANCHORS",
        "AGE",
        "URL",
    ]);
    for relation in &federation.relations {
        let held = relation.held.as_ref();
        let sequence = held.and_then(|held| held.sequence);
        table.row([
            relation.trust_domain.to_string(),
            relation.profile.clone(),
            sequence.map_or("-".to_owned(), |n| n.to_string()),
            held.map_or(0, |held| held.anchors.len()).to_string(),
            held.map_or("-".to_owned(), age),
            relation.url.clone(),
        ]);
    }
    output.table(&table, format)?;
    federation
        .relations
        .iter()
        .try_for_each(|relation| failure(relation, output))
}

/// How long ago a bundle was fetched, or given.
fn age(held: &HeldStatus) -> String {
    let age = duration(held.age_secs);
    if held.given {
        format!("{age}, given")
    } else {
        age
    }
}

/// Why the last fetch failed, if it did.
fn failure(relation: &RelationStatus, output: &mut Output) -> Result<(), Fault> {
    let Some(error) = &relation.error else {
        return Ok(());
    };
    let failed = output.toned(Tone::Bad, "no new bundle");
    output.line(format_args!(
        "{failed} of {} (failed {} times): {} {}",
        relation.trust_domain, relation.failures, error.code, error.message
    ))?;
    match &error.hint {
        Some(hint) => output.line(format_args!("  {hint}")),
        None => Ok(()),
    }
}

/// One line for each relation, for `mesh trust status`.
pub(super) fn in_short(status: &TrustStatus, output: &mut Output) -> Result<(), Fault> {
    let Some(federation) = &status.federation else {
        return Ok(());
    };
    if let Some(endpoint) = &federation.endpoint {
        output.line(format_args!(
            "bundle served to other trust domains at {} ({})",
            endpoint.listen, endpoint.profile
        ))?;
    }
    for relation in &federation.relations {
        let state = match (&relation.held, &relation.error) {
            (None, _) => output.toned(Tone::Bad, "no bundle"),
            (Some(held), None) => format!("bundle {} old", duration(held.age_secs)),
            (Some(held), Some(_)) => {
                let old = format!("bundle {} old, no newer one", duration(held.age_secs));
                output.toned(Tone::Doubtful, &old)
            }
        };
        output.line(format_args!(
            "federated with {}: {state}",
            relation.trust_domain
        ))?;
        failure(relation, output)?;
    }
    Ok(())
}
