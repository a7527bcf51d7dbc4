//! The SPIFFE Workload API: who a process is, whom it may trust, and tokens in its name.
//!
//! Streams are [`crate::agent`]'s. Clients do not try again after `InvalidArgument`, and do after `Unavailable` and
//! `PermissionDenied`.

use crate::agent::{Agent, Anchors, Caller, Mark, State, nobody};
use crate::error::coded;
use crate::jwt::{TokenError, bundles_with};
use crate::proto::spiffe_workload_api_server::SpiffeWorkloadApi;
use crate::proto::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse,
    X509svid, X509svidRequest, X509svidResponse,
};
use mesh_issuance::jwt::{JwtIssueError, JwtRequest};
use mesh_trust::path::PathError;
use mesh_trust::{Denied, JwtSvid, SpiffeId, TrustDomain};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Answers workloads.
pub(crate) struct WorkloadApi(pub(crate) Agent);

type Out<T> = mpsc::Sender<Result<T, Status>>;

const HEADER: &str = "workload.spiffe.io";

/// Keeps out requests that something else was tricked into sending (Workload Endpoint §3).
fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes() == b"true" => Ok(()),
        _ => Err(Status::invalid_argument(
            "security header missing from request",
        )),
    }
}

impl WorkloadApi {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        check_header(request)?;
        self.0.caller(request)
    }
}

pub(crate) async fn svids<T: From<X509svidResponse>>(
    caller: &Caller,
    out: &Out<T>,
) -> Result<(), Status> {
    let entitled = caller.attest().await?;
    let mut waits = caller.waits_with_svids(&entitled)?;
    let mut sent = None;
    loop {
        caller.recheck(&entitled)?;
        if let Some(state) = waits.state()?
            && sent.as_ref() != Some(&Mark::of(&state))
        {
            sent = Some(Mark::of(&state));
            if out.send(Ok(svid_response(&state).into())).await.is_err() {
                return Ok(());
            }
        }
        caller.wait(&mut waits, out).await?;
    }
}

pub(crate) async fn bundles<T: From<X509BundlesResponse>>(
    caller: &Caller,
    out: &Out<T>,
) -> Result<(), Status> {
    let entitled = caller.attest().await?;
    let mut waits = caller.waits();
    let mut sent = None;
    loop {
        caller.recheck(&entitled)?;
        let anchors = waits.anchors();
        if sent.as_ref() != Some(&anchors) {
            let response = X509BundlesResponse {
                crl: Vec::new(),
                bundles: by_domain(anchors.iter()),
            };
            sent = Some(anchors);
            if out.send(Ok(response.into())).await.is_err() {
                return Ok(());
            }
        }
        caller.wait(&mut waits, out).await?;
    }
}

pub(crate) async fn jwt_bundles<T: From<JwtBundlesResponse>>(
    caller: &Caller,
    out: &Out<T>,
) -> Result<(), Status> {
    let entitled = caller.attest().await?;
    let mut waits = caller.waits();
    let mut sent = None;
    loop {
        caller.recheck(&entitled)?;
        let held = waits.tokens();
        if sent.as_ref() != Some(&held) {
            let bundles = bundles_with(&held.0, &held.1)
                .iter()
                .map(|bundle| {
                    (
                        bundle.domain().id().to_string(),
                        bundle.to_json().into_bytes(),
                    )
                })
                .collect();
            sent = Some(held);
            let response = JwtBundlesResponse { bundles };
            if out.send(Ok(response.into())).await.is_err() {
                return Ok(());
            }
        }
        caller.wait(&mut waits, out).await?;
    }
}

pub(crate) async fn tokens(
    caller: &Caller,
    request: JwtsvidRequest,
) -> Result<JwtsvidResponse, Status> {
    let audience = match request.audience.as_slice() {
        [one] if !one.is_empty() => one.clone(),
        [] | [_] => return Err(Status::invalid_argument("an audience must be given")),
        _ => {
            return Err(Status::invalid_argument(
                "a token is for one audience; ask once for each",
            ));
        }
    };
    let entitled = caller.attest().await?;
    let wanted: Vec<SpiffeId> = if request.spiffe_id.is_empty() {
        entitled.iter().map(|one| one.identity.clone()).collect()
    } else {
        let id = SpiffeId::parse(&request.spiffe_id)
            .map_err(|error| Status::invalid_argument(coded(&error)))?;
        // The same words as for a stranger: who else there is, is nobody's business.
        if !entitled.iter().any(|one| one.identity == id) {
            return Err(nobody());
        }
        vec![id]
    };
    let mut svids = Vec::with_capacity(wanted.len());
    for id in wanted {
        let request = JwtRequest {
            id,
            audience: audience.clone(),
            lifetime_secs: None,
        };
        let minted = caller.agent.tokens.mint(&request).await;
        svids.push(Jwtsvid {
            spiffe_id: request.id.to_string(),
            svid: minted.map_err(|error| refused(&error))?,
            hint: String::new(),
        });
    }
    caller.recheck(&entitled)?;
    Ok(JwtsvidResponse { svids })
}

/// What a client is told of a token that it does not get.
pub(crate) fn refused(error: &TokenError) -> Status {
    let text = coded(error);
    match error {
        TokenError::Issue(JwtIssueError::Audience { .. }) => Status::invalid_argument(text),
        TokenError::RateLimited { .. } => Status::resource_exhausted(text),
        TokenError::Issue(_)
        | TokenError::NoKey
        | TokenError::Elsewhere(_)
        | TokenError::NotSigned(_) => Status::unavailable(text),
    }
}

async fn validate(
    caller: &Caller,
    request: ValidateJwtsvidRequest,
) -> Result<ValidateJwtsvidResponse, Status> {
    if request.audience.is_empty() || request.svid.is_empty() {
        return Err(Status::invalid_argument(
            "an audience and a token must be given",
        ));
    }
    let entitled = caller.attest().await?;
    let (own, foreign) = caller.waits().tokens();
    let bundles = bundles_with(&own, &foreign);
    let now = caller.agent.platform.wall_clock();
    let svid = JwtSvid::verify(&request.svid, &request.audience, &bundles, now)
        .map_err(|error| Status::invalid_argument(coded(&error)))?;
    if caller.agent.denials.borrow().denies_identity(svid.id()) {
        let denied = PathError::Denied {
            id: svid.id().clone(),
            by: Denied::Identity(svid.id().clone()),
        };
        return Err(Status::invalid_argument(coded(&denied)));
    }
    caller.recheck(&entitled)?;
    Ok(ValidateJwtsvidResponse {
        spiffe_id: svid.id().to_string(),
        claims: Some(as_struct(svid.claims())),
    })
}

fn as_struct(members: &serde_json::Map<String, serde_json::Value>) -> Struct {
    let fields = members
        .iter()
        .map(|(name, value)| (name.clone(), as_value(value)))
        .collect();
    Struct { fields }
}

/// Depth is bounded by the reader of the token's JSON.
fn as_value(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(as_value).collect(),
        }),
        Json::Object(members) => Kind::StructValue(as_struct(members)),
    };
    Value { kind: Some(kind) }
}

/// Certificates one after the other, as this API has them.
fn concatenated(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    certificates
        .iter()
        .flat_map(|certificate| certificate.iter().copied())
        .collect()
}

fn by_domain<'a>(
    anchors: impl Iterator<Item = (&'a TrustDomain, &'a Vec<CertificateDer<'static>>)>,
) -> HashMap<String, Vec<u8>> {
    anchors
        .map(|(domain, roots)| (domain.id().to_string(), concatenated(roots)))
        .collect()
}

fn svid_response((svids, anchors): &State) -> X509svidResponse {
    let own = svids.first().map(|svid| svid.identity.trust_domain());
    let bundle = |anchors: &Anchors, domain: &TrustDomain| {
        anchors
            .get(domain)
            .map(|roots| concatenated(roots))
            .unwrap_or_default()
    };
    X509svidResponse {
        svids: svids
            .iter()
            .map(|svid| X509svid {
                spiffe_id: svid.identity.to_string(),
                x509_svid: concatenated(&svid.chain),
                x509_svid_key: svid.key.to_vec(),
                bundle: bundle(anchors, svid.identity.trust_domain()),
                hint: String::new(),
            })
            .collect(),
        crl: Vec::new(),
        federated_bundles: by_domain(anchors.iter().filter(|(domain, _)| Some(*domain) != own)),
    }
}

/// A stream fed by a task that ends with a status.
macro_rules! answer {
    ($caller:expr, $method:ident) => {{
        let caller = $caller;
        // One message may wait; a client that does not read gets the newest state when it does.
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = $method(&caller, &out).await {
                // Nobody listens: nothing to say.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }};
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = ReceiverStream<Result<X509svidResponse, Status>>;
    type FetchX509BundlesStream = ReceiverStream<Result<X509BundlesResponse, Status>>;
    type FetchJWTBundlesStream = ReceiverStream<Result<JwtBundlesResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        answer!(self.caller(&request)?, svids)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        answer!(self.caller(&request)?, bundles)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let caller = self.caller(&request)?;
        tokens(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        answer!(self.caller(&request)?, jwt_bundles)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let caller = self.caller(&request)?;
        validate(&caller, request.into_inner())
            .await
            .map(Response::new)
    }
}
