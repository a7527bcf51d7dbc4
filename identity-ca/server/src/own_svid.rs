//! SVIDs that the CA issues to itself, for doors that it keeps: the network, the bundle endpoint.

use crate::issuing::{Issuing, Turn};
use crate::limits::CLOCK_CHECK;
use crate::signer;
use crate::trust::Requester;
use mesh_issuance::issue::Request;
use mesh_issuance::renewal::{Event, Renewal};
use mesh_platform::Platform;
use mesh_trust::tls::TlsIdentity;
use mesh_trust::{SpiffeId, Svid};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::Duration;

/// Who the CA is at one of its doors.
#[derive(Clone)]
pub(crate) struct OwnSvid {
    pub(crate) issuing: Issuing,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) identity: SpiffeId,
    /// For the log.
    pub(crate) purpose: &'static str,
}

impl OwnSvid {
    /// An SVID with a fresh key, and when it is to be renewed.
    pub(crate) async fn issue(&self) -> Result<(TlsIdentity, Renewal), String> {
        let (pkcs8, key) = signer::generate().map_err(|error| error.to_string())?;
        let request = Request {
            id: self.identity.clone(),
            key,
            lifetime_secs: None,
        };
        let requester = Requester {
            evidence: self.purpose.to_owned(),
            // It verifies nobody for whom a rotation should wait.
            instance: None,
        };
        let chain = self.issuing.issue(request, requester, Turn::Renewal);
        let chain = chain.await.map_err(|error| error.to_string())?;
        let not_after = chain.leaf.validity().not_after;
        let svid = Svid::parse(chain.whole()).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let tls = TlsIdentity::new(svid, key).map_err(|error| error.to_string())?;
        let renewal = Renewal::issued(self.platform.wall_clock(), not_after, self.dice());
        Ok((tls, renewal))
    }

    /// Sleeps until an SVID is to be renewed, in pieces: the wall clock may jump.
    pub(crate) async fn until_due(&self, mut renewal: Renewal) {
        loop {
            let now = self.platform.wall_clock();
            renewal = renewal.step(Event::Tick, now, self.dice());
            if renewal.is_due(now) {
                return;
            }
            let micros = renewal.wake_at().unix_micros() - now.unix_micros();
            let nap = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
            tokio::time::sleep(nap.min(CLOCK_CHECK)).await;
        }
    }

    fn dice(&self) -> u64 {
        let mut bytes = [0; 8];
        self.platform.fill_random(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}
