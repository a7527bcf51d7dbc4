//! SVIDs that the CA issues to itself, for doors that it keeps: the network, the bundle endpoint.

use crate::issuing::{Issuing, Turn};
use crate::limits::{CLOCK_CHECK, OWN_SVID_RETRY};
use crate::signer;
use crate::trust::Requester;
use mesh_issuance::issue::Request;
use mesh_issuance::renewal::{Event, Renewal};
use mesh_platform::Platform;
use mesh_trust::tls::TlsIdentity;
use mesh_trust::{SpiffeId, Svid};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Who the CA is at one of its doors.
#[derive(Clone)]
pub(crate) struct OwnSvid {
    pub(crate) issuing: Issuing,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) identity: SpiffeId,
    /// What it is for: `the network`, `its bundle endpoint`.
    pub(crate) door: &'static str,
}

impl OwnSvid {
    /// Keeps what a door shows in force, as long as somebody looks at it: `make` makes it of an SVID, and `in_force` is
    /// called each time.
    pub(crate) async fn keep(
        self,
        make: impl Fn(&TlsIdentity) -> Result<Arc<ServerConfig>, String> + Send,
        settings: watch::Sender<Option<Arc<ServerConfig>>>,
        in_force: impl Fn() + Send,
    ) {
        let shown = move |tls: &TlsIdentity| {
            settings.send_replace(Some(make(tls)?));
            in_force();
            Ok(())
        };
        self.keep_shown(shown).await;
    }

    /// Keeps an SVID in force, and gives each to `shown`.
    pub(crate) async fn keep_identity(self, shown: impl Fn(&TlsIdentity) + Send) {
        let shown = move |tls: &TlsIdentity| {
            shown(tls);
            Ok(())
        };
        self.keep_shown(shown).await;
    }

    async fn keep_shown(self, shown: impl Fn(&TlsIdentity) -> Result<(), String> + Send) {
        // Each step of a rotation may move us to another authority, like everybody else.
        let mut trust = self.issuing.published();
        loop {
            let seen = trust.borrow_and_update().state.clone();
            let made = self.issue().await;
            match made.and_then(|(tls, renewal)| shown(&tls).map(|()| renewal)) {
                Ok(renewal) => {
                    tokio::select! {
                        () = self.until_due(renewal) => {}
                        stepped = trust.wait_for(|now| now.state != seen) => if stepped.is_err() { return },
                    }
                }
                Err(why) => {
                    tracing::error!(why, identity = %self.identity, "the CA has no certificate of its own for {}; trying again", self.door);
                    tokio::time::sleep(OWN_SVID_RETRY).await;
                }
            }
        }
    }

    /// An SVID with a fresh key, and when it is to be renewed.
    async fn issue(&self) -> Result<(TlsIdentity, Renewal), String> {
        let (pkcs8, key) = signer::generate().map_err(|error| error.to_string())?;
        let request = Request {
            id: self.identity.clone(),
            key,
            lifetime_secs: None,
            backdate_secs_max: None,
        };
        let requester = Requester {
            evidence: format!("the CA's own, for {}", self.door),
            // It verifies nobody for whom a rotation should wait.
            instance: None,
            node: None,
        };
        let chain = self.issuing.issue(request, requester, Turn::Renewal);
        let chain = chain.await.map_err(|error| error.to_string())?;
        let not_after = chain.leaf.validity().not_after;
        let svid = Svid::parse(chain.whole()).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let tls = TlsIdentity::new(svid, key).map_err(|error| error.to_string())?;
        let renewal = Renewal::issued(self.platform.wall_clock(), not_after, self.platform.dice());
        Ok((tls, renewal))
    }

    /// Sleeps until an SVID is to be renewed, in pieces: the wall clock may jump.
    async fn until_due(&self, mut renewal: Renewal) {
        loop {
            let now = self.platform.wall_clock();
            renewal = renewal.step(Event::Tick, now, self.platform.dice());
            if renewal.is_due(now) {
                return;
            }
            let micros = renewal.wake_at().unix_micros() - now.unix_micros();
            let nap = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
            tokio::time::sleep(nap.min(CLOCK_CHECK)).await;
        }
    }
}
