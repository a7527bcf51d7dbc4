//! Connections from one core to the proxies of servers, so that a server which is no longer trusted is left at once.
//!
//! The other direction is [`crate::live`]: who calls us.

use crate::live::{End, Kill};
use crate::roll::{Entered, Roll};
use mesh_trust::{Svid, Timestamp, TrustBundles};
use rustls_pki_types::CertificateDer;

/// What stands, by the chain that each server showed.
#[derive(Default)]
pub(crate) struct Remotes(Roll<Remote>);

/// The chain of a server, and what ends the connection.
type Remote = (Vec<CertificateDer<'static>>, Kill);

/// A connection's place; dropping it leaves.
pub(crate) struct Standing {
    _place: Entered<Remote>,
    kill: Kill,
}

impl Standing {
    /// What ends the connection. Borrowed from the whole place: a task that held this alone would have left it.
    pub(crate) fn kill(&self) -> &Kill {
        &self.kill
    }
}

impl Remotes {
    /// Enters a connection whose handshake is done.
    pub(crate) fn enter(&self, tls: &rustls::ClientConnection) -> Standing {
        let chain = tls.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        let kill = Kill::default();
        Standing {
            _place: self.0.enter((chain, kill.clone())),
            kill,
        }
    }

    /// Ends connections to servers that `bundles` would no longer trust; says how many.
    pub(crate) fn end_untrusted(&self, bundles: &TrustBundles, now: Timestamp) -> usize {
        let remotes = self.0.all();
        let untrusted = |chain: &Vec<CertificateDer<'static>>| {
            Svid::parse(chain.clone()).is_ok_and(|svid| bundles.verify(&svid, now).is_err())
        };
        let ended = remotes.iter().filter(|(_, (chain, _))| untrusted(chain));
        ended
            .map(|(_, (_, kill))| kill.end(End::PeerExpired))
            .count()
    }
}
