//! The Launch service: the CA's own parent says which process is which workload. Nobody else is heard.

use crate::error::coded;
use crate::listen::Peer;
use crate::registry::{LaunchError, Launched, Registry};
use mesh_api::proto::launch_server::Launch;
use mesh_api::proto::{LaunchRecord, RegisterReply, UnregisterReply, UnregisterRequest};
use mesh_platform::process::{PeerProcess, PidFd};
use mesh_trust::{SpiffeId, TrustDomain};
use std::path::PathBuf;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The one process whose launch records count, held by pidfd.
#[derive(Clone, Debug)]
pub(crate) struct Launcher(Arc<PidFd>);

impl Launcher {
    pub(crate) fn new(pidfd: PidFd) -> Self {
        Self(Arc::new(pidfd))
    }

    /// Whether `peer` is this process, of our own user.
    pub(crate) fn is(&self, peer: &PeerProcess) -> bool {
        peer.pid == self.0.pid()
            && peer.uid == rustix::process::geteuid().as_raw()
            && peer.pidfd.as_ref().is_some_and(PidFd::is_alive)
            // Last: alive now means that it was alive all the time, so nobody else can have had its pid.
            && self.0.is_alive()
    }
}

/// Answers the launcher.
#[derive(Debug)]
pub(crate) struct LaunchService {
    pub(crate) launcher: Launcher,
    pub(crate) registry: Registry,
    pub(crate) domain: TrustDomain,
}

impl LaunchService {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match request.extensions().get::<Peer>() {
            Some(Peer(peer)) if self.launcher.is(peer) => Ok(()),
            _ => Err(Status::permission_denied(
                "only the process that started the CA may register launches",
            )),
        }
    }

    fn launched(&self, record: LaunchRecord) -> Result<Launched, LaunchError> {
        let LaunchRecord {
            pid,
            start_time_ticks,
            uid,
            executable,
            namespace,
            service_account,
            workload,
            descendants,
        } = record;
        let identity = SpiffeId::for_service_account(&self.domain, &namespace, &service_account)
            .map_err(|why| LaunchError::Identity {
                namespace,
                service_account,
                why: why.to_string(),
            })?;
        let executable = (!executable.is_empty()).then(|| PathBuf::from(executable));
        // Shown in logs only.
        let workload = workload
            .chars()
            .filter(|c| !c.is_control())
            .take(256)
            .collect();
        Ok(Launched {
            pid,
            start_time_ticks,
            uid,
            executable,
            descendants,
            identity,
            workload,
        })
    }
}

#[tonic::async_trait]
impl Launch for LaunchService {
    async fn register(
        &self,
        request: Request<LaunchRecord>,
    ) -> Result<Response<RegisterReply>, Status> {
        self.check(&request)?;
        let outcome = self
            .launched(request.into_inner())
            .and_then(|launched| self.registry.register(launched));
        outcome.map_err(|error| {
            let text = coded(&error);
            match error {
                LaunchError::NoProcess { .. } => Status::failed_precondition(text),
                LaunchError::Identity { .. } => Status::invalid_argument(text),
                LaunchError::TooMany => Status::resource_exhausted(text),
            }
        })?;
        Ok(Response::new(RegisterReply {}))
    }

    async fn unregister(
        &self,
        request: Request<UnregisterRequest>,
    ) -> Result<Response<UnregisterReply>, Status> {
        self.check(&request)?;
        self.registry.remove(request.into_inner().pid, None);
        Ok(Response::new(UnregisterReply {}))
    }
}
