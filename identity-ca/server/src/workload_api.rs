//! The SPIFFE Workload API: who a process is, and whom it may trust.
//!
//! Each stream is one task that says everything anew whenever anything changes, and asks the [`Registry`] before each
//! message whether the process is still who it was. When it is not, the stream ends with `PermissionDenied`: what the
//! client holds is no longer its own (redaction). Clients do not try again after `InvalidArgument`, and do after
//! `Unavailable` and `PermissionDenied`; the words "no identity issued" are known to client libraries.

use crate::launch::coded;
use crate::limits::{ATTESTATION_WAIT, STREAMS_PER_PROCESS_MAX};
use crate::listen::{Counted, Counts, Peer};
use crate::proto::spiffe_workload_api_server::SpiffeWorkloadApi;
use crate::proto::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
    X509svidResponse,
};
use crate::registry::{Entitlement, Registry};
use crate::svids::{Material, Owner, Slot, Svids};
use mesh_platform::process::PidFd;
use mesh_trust::TrustDomain;
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Anchors by trust domain, ours among them.
pub(crate) type Anchors = std::collections::BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>;

/// Answers workloads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WorkloadApi {
    pub(crate) registry: Registry,
    pub(crate) svids: Svids,
    pub(crate) anchors: watch::Receiver<Arc<Anchors>>,
    pub(crate) streams: Counts,
    /// True once the CA ends.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A stream that was let in.
struct Caller {
    api: WorkloadApi,
    peer: Peer,
    _counted: Counted,
}

const HEADER: &str = "workload.spiffe.io";

fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes() == b"true" => Ok(()),
        _ => Err(Status::invalid_argument(
            "security header missing from request",
        )),
    }
}

fn nobody() -> Status {
    Status::permission_denied("no identity issued")
}

fn stopping() -> Status {
    Status::unavailable("the CA is stopping")
}

impl WorkloadApi {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        check_header(request)?;
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(nobody)?;
        let counted = self
            .streams
            .take(peer.0.pid, STREAMS_PER_PROCESS_MAX, usize::MAX)
            .ok_or_else(|| {
                Status::resource_exhausted(format!(
                    "more than {STREAMS_PER_PROCESS_MAX} streams of one process"
                ))
            })?;
        Ok(Caller {
            api: self.clone(),
            peer,
            _counted: counted,
        })
    }
}

impl Caller {
    /// Who the caller is, waiting a little for its launch record.
    async fn attest(&self) -> Result<Vec<Entitlement>, Status> {
        let mut changes = self.api.registry.changes();
        let search = async {
            loop {
                changes.mark_unchanged();
                let found = self.api.registry.entitlements(&self.peer.0);
                if !found.is_empty() {
                    return found;
                }
                if changes.changed().await.is_err() {
                    return Vec::new();
                }
            }
        };
        match tokio::time::timeout(ATTESTATION_WAIT, search).await {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => {
                tracing::info!(
                    pid = self.peer.0.pid,
                    uid = self.peer.0.uid,
                    "a process asked for an identity and has none"
                );
                Err(nobody())
            }
        }
    }

    /// Whether the caller is still who it was.
    fn recheck(&self, before: &[Entitlement]) -> Result<(), Status> {
        let now = self.api.registry.entitlements(&self.peer.0);
        let same = now.len() == before.len()
            && now
                .iter()
                .zip(before)
                .all(|(now, before)| now.identity == before.identity);
        if same { Ok(()) } else { Err(nobody()) }
    }

    /// Waits until something may have changed, the CA stops or the caller has gone.
    async fn wait<T>(
        &self,
        waits: &mut Waits,
        out: &mpsc::Sender<Result<T, Status>>,
    ) -> Result<(), Status> {
        let Some(process) = self.peer.0.pidfd.as_ref() else {
            return Err(nobody());
        };
        tokio::select! {
            changed = waits.registry.changed() => changed.map_err(|_| stopping()),
            changed = waits.anchors.changed() => changed.map_err(|_| stopping()),
            () = any_changed(&mut waits.svids) => Ok(()),
            _ = waits.stopping.wait_for(|stopping| *stopping) => Err(stopping()),
            _ = process.exited() => Err(nobody()),
            () = out.closed() => Err(Status::cancelled("the client has gone")),
        }
    }

    fn waits(&self, svids: Vec<watch::Receiver<Slot>>) -> Waits {
        Waits {
            registry: self.api.registry.changes(),
            anchors: self.api.anchors.clone(),
            stopping: self.api.stopping.clone(),
            svids,
        }
    }

    async fn svids(
        &self,
        out: &mpsc::Sender<Result<X509svidResponse, Status>>,
    ) -> Result<(), Status> {
        let entitled = self.attest().await?;
        let process = self.process()?;
        let start_time_ticks = process.start_time_ticks().ok_or_else(nobody)?;
        let owner = |identity| Owner {
            pid: self.peer.0.pid,
            start_time_ticks,
            identity,
        };
        let slots = entitled
            .iter()
            .map(|entitlement| {
                self.api.svids.follow(
                    owner(entitlement.identity.clone()),
                    &entitlement.evidence,
                    &process,
                )
            })
            .collect();
        let mut waits = self.waits(slots);
        let mut sent = None;
        loop {
            self.recheck(&entitled)?;
            let state = waits.state()?;
            if let Some((svids, anchors)) = state
                && sent.as_ref() != Some(&identity_of(&svids, &anchors))
            {
                sent = Some(identity_of(&svids, &anchors));
                if out.send(Ok(svid_response(&svids, &anchors))).await.is_err() {
                    return Ok(());
                }
            }
            self.wait(&mut waits, out).await?;
        }
    }

    async fn bundles(
        &self,
        out: &mpsc::Sender<Result<X509BundlesResponse, Status>>,
    ) -> Result<(), Status> {
        let entitled = self.attest().await?;
        let mut waits = self.waits(Vec::new());
        let mut sent = None;
        loop {
            self.recheck(&entitled)?;
            let anchors = waits.anchors.borrow_and_update().clone();
            if sent.as_ref() != Some(&anchors) {
                let bundles = anchors
                    .iter()
                    .map(|(domain, roots)| (domain.id().to_string(), concatenated(roots)))
                    .collect();
                sent = Some(anchors);
                if out
                    .send(Ok(X509BundlesResponse {
                        crl: Vec::new(),
                        bundles,
                    }))
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
            self.wait(&mut waits, out).await?;
        }
    }

    /// The caller's process, for those who outlive this stream.
    fn process(&self) -> Result<Arc<PidFd>, Status> {
        let held = self.peer.0.pidfd.as_ref().ok_or_else(nobody)?;
        let again = PidFd::open(held.pid()).map_err(|_| nobody())?;
        // Alive after the second was opened: both are the same process.
        if held.is_alive() {
            Ok(Arc::new(again))
        } else {
            Err(nobody())
        }
    }
}

/// What a stream waits for.
struct Waits {
    registry: watch::Receiver<u64>,
    anchors: watch::Receiver<Arc<Anchors>>,
    stopping: watch::Receiver<bool>,
    svids: Vec<watch::Receiver<Slot>>,
}

type State = (Vec<Arc<Material>>, Arc<Anchors>);

impl Waits {
    /// Everything there is to say, or nothing while something is still being issued.
    fn state(&mut self) -> Result<Option<State>, Status> {
        let mut ready = Vec::with_capacity(self.svids.len());
        for slot in &mut self.svids {
            match &*slot.borrow_and_update() {
                Slot::Pending => return Ok(None),
                Slot::Ready(material) => ready.push(Arc::clone(material)),
                Slot::Unavailable(error) => return Err(Status::unavailable(coded(error))),
            }
        }
        Ok(Some((ready, self.anchors.borrow_and_update().clone())))
    }
}

/// Ready once one of `slots` changed; never, if there are none.
async fn any_changed(slots: &mut [watch::Receiver<Slot>]) {
    if slots.is_empty() {
        std::future::pending::<()>().await;
    }
    let waits = slots.iter_mut().map(|slot| {
        Box::pin(async move {
            // A sender that went leaves its last word, which `state` reads.
            if slot.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    futures_util::future::select_all(waits).await;
}

/// What tells one message from another: serials and anchors.
fn identity_of(svids: &[Arc<Material>], anchors: &Arc<Anchors>) -> (Vec<String>, Arc<Anchors>) {
    (
        svids.iter().map(|svid| svid.serial.clone()).collect(),
        Arc::clone(anchors),
    )
}

fn concatenated(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    certificates
        .iter()
        .flat_map(|certificate| certificate.iter().copied())
        .collect()
}

fn svid_response(svids: &[Arc<Material>], anchors: &Anchors) -> X509svidResponse {
    let own = svids
        .first()
        .map(|svid| svid.identity.trust_domain().clone());
    let bundle = |domain: &TrustDomain| {
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
                x509_svid: svid.chain.clone(),
                x509_svid_key: svid.key.to_vec(),
                bundle: bundle(svid.identity.trust_domain()),
                hint: String::new(),
            })
            .collect(),
        crl: Vec::new(),
        federated_bundles: anchors
            .iter()
            .filter(|(domain, _)| Some(*domain) != own.as_ref())
            .map(|(domain, roots)| (domain.id().to_string(), concatenated(roots)))
            .collect::<HashMap<_, _>>(),
    }
}

/// A stream fed by a task that ends with a status.
macro_rules! answer {
    ($caller:expr, $method:ident) => {{
        let caller = $caller;
        // One message may wait; a client that does not read gets the newest state when it does.
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = caller.$method(&out).await {
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
        check_header(&request)?;
        Err(Status::unimplemented("JWT-SVIDs are not issued"))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        check_header(&request)?;
        Err(Status::unimplemented("JWT-SVIDs are not issued"))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        check_header(&request)?;
        Err(Status::unimplemented("JWT-SVIDs are not issued"))
    }
}
