//! TLS that is begun for requests in plaintext: to whom, by which roots, and the connections that stand.
//!
//! One core keeps its connections by address, server name and manner: what was begun for one host never carries a request
//! to another, and what was begun under other roots carries none at all.

use crate::answer::Trouble;
use crate::app::{App, Begin};
use crate::core::Core;
use crate::limits::{ORIGINS_MAX, SYSTEM_ROOTS_AGE};
use crate::onward::NotBegun;
use mesh_policy::egress::{Origination, TlsOrigin, TlsRoots, TlsVersion};
use mesh_trust::tls::{OutsideRoots, outside_client_config};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// Where systems keep the roots that they trust: Debian and Alpine, Fedora, SUSE, others.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The connections of one core to servers outside of the mesh in TLS of its own.
#[derive(Default)]
pub(crate) struct Origins(RefCell<All>);

#[derive(Default)]
struct All {
    manners: Vec<Manner>,
    /// How many there have been.
    made: u64,
    servers: HashMap<Server, Rc<App>>,
}

/// A server, and the number of the manner in which it is spoken to.
#[derive(PartialEq, Eq, Hash)]
struct Server {
    to: SocketAddr,
    name: String,
    manner: u64,
}

/// How TLS is begun.
struct Manner {
    number: u64,
    origin: Arc<TlsOrigin>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    since: Instant,
}

impl Origins {
    /// Connections to the server of a request that was to go to `to`.
    ///
    /// # Errors
    /// [`Trouble::TlsNotBegun`] if there are no roots, or its name is none.
    pub(super) fn server(
        &self,
        core: &Core,
        to: SocketAddr,
        tls: &Origination,
    ) -> Result<Rc<App>, Trouble> {
        let to = SocketAddr::new(to.ip(), tls.origin.port);
        let not_begun = |why: NotBegun| {
            core.meter.tls_begun(why.word());
            Trouble::TlsNotBegun {
                to,
                server_name: tls.server_name.clone(),
                why,
            }
        };
        let mut all = self.0.borrow_mut();
        let manner = all.manner(core, &tls.origin).map_err(not_begun)?;
        let (number, http1, http2) = (manner.number, manner.http1.clone(), manner.http2.clone());
        let server = Server {
            to,
            name: tls.server_name.clone(),
            manner: number,
        };
        if let Some(app) = all.servers.get(&server) {
            return Ok(app.clone());
        }
        let name = ServerName::try_from(tls.server_name.clone())
            .map_err(|_| not_begun(NotBegun::BadName))?;
        let app = App::outside(
            to,
            Begin {
                name,
                shown: tls.server_name.clone(),
                http1,
                http2,
            },
        );
        if all.servers.len() >= ORIGINS_MAX {
            all.make_room();
        }
        // Past the bound its connections end with the request.
        if all.servers.len() < ORIGINS_MAX {
            all.servers.insert(server, app.clone());
        }
        Ok(app)
    }

    /// Closes connections that were idle for too long, and forgets who has none. Called now and then.
    pub(crate) fn sweep(&self) {
        let mut all = self.0.borrow_mut();
        all.make_room();
        let All {
            manners, servers, ..
        } = &mut *all;
        servers.retain(|_, app| {
            app.sweep();
            let in_use = is_in_use(app);
            if !in_use {
                app.rest();
            }
            in_use || !app.is_idle()
        });
        manners.retain(|manner| servers.keys().any(|server| server.manner == manner.number));
    }
}

/// Whether a request or its answer is under way.
fn is_in_use(app: &Rc<App>) -> bool {
    Rc::strong_count(app) > 1
}

impl All {
    /// Forgets servers in manners in which none is spoken to any more.
    fn make_room(&mut self) {
        let Self {
            manners, servers, ..
        } = self;
        let is_current = |server: &Server| manners.iter().any(|one| one.number == server.manner);
        servers.retain(|server, app| is_current(server) || is_in_use(app));
    }

    fn manner(&mut self, core: &Core, origin: &Arc<TlsOrigin>) -> Result<&Manner, NotBegun> {
        // Each snapshot has its own copy of the same thing.
        let same = |one: &Manner| Arc::ptr_eq(&one.origin, origin) || one.origin == *origin;
        let fresh = |one: &Manner| {
            origin.roots != TlsRoots::System || one.since.elapsed() <= SYSTEM_ROOTS_AGE
        };
        let found = self.manners.iter().position(|one| same(one) && fresh(one));
        let at = match found {
            Some(at) => at,
            None => {
                let made = Manner::new(core, self.made, origin)?;
                self.made += 1;
                self.manners.retain(|one| !same(one));
                self.manners.push(made);
                self.manners.len() - 1
            }
        };
        let manner = self.manners.get_mut(at);
        let manner = manner.ok_or_else(|| NotBegun::Other("it was lost".to_owned()))?;
        manner.origin = origin.clone();
        Ok(manner)
    }
}

impl Manner {
    fn new(core: &Core, number: u64, origin: &Arc<TlsOrigin>) -> Result<Self, NotBegun> {
        let no_roots = |why: String| NotBegun::NoRoots(why);
        let roots = match &origin.roots {
            TlsRoots::Pem(pem) => {
                OutsideRoots::chosen(pem.as_bytes()).map_err(|why| no_roots(why.to_string()))?
            }
            TlsRoots::System => system_roots(core).map_err(no_roots)?,
        };
        let tls_1_2 = origin.min_version == TlsVersion::V1_2;
        let config = |alpn: &[u8]| {
            let made = outside_client_config(&roots, tls_1_2, alpn);
            made.map_err(|why| NotBegun::Other(why.to_string()))
        };
        Ok(Self {
            number,
            origin: origin.clone(),
            http1: config(b"http/1.1")?,
            http2: config(b"h2")?,
            since: Instant::now(),
        })
    }
}

fn system_roots(core: &Core) -> Result<OutsideRoots, String> {
    let platform = &core.shared.platform;
    let mut found = SYSTEM_ROOTS
        .iter()
        .filter_map(|path| Some((path, platform.read_file(Path::new(path)).ok()?)));
    let Some((path, pem)) = found.next() else {
        let places = SYSTEM_ROOTS.join("`, `");
        return Err(format!("the system of the proxy has none at `{places}`"));
    };
    OutsideRoots::of_system(&pem).map_err(|why| format!("`{path}`: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::over_h2;
    use crate::limits::APP_IDLE;

    fn server(name: &str) -> Server {
        Server {
            to: SocketAddr::from(([203, 0, 113, 9], 443)),
            name: name.to_owned(),
            manner: 0,
        }
    }

    fn manner() -> Manner {
        let path = rcgen::generate_simple_self_signed(["root.example".to_owned()]).unwrap();
        let roots = OutsideRoots::chosen(path.cert.pem().as_bytes()).unwrap();
        let config = |alpn: &[u8]| outside_client_config(&roots, false, alpn).unwrap();
        Manner {
            number: 0,
            origin: Arc::new(TlsOrigin {
                port: 443,
                roots: TlsRoots::System,
                min_version: TlsVersion::V1_3,
            }),
            http1: config(b"http/1.1"),
            http2: config(b"h2"),
            since: Instant::now(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_nobody_calls_are_forgotten() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let origins = Origins::default();
                let (called, _one) = over_h2().await;
                let (quiet, _other) = over_h2().await;
                {
                    let mut all = origins.0.borrow_mut();
                    all.manners.push(manner());
                    all.servers.insert(server("called"), called.clone());
                    all.servers.insert(server("quiet"), quiet);
                }
                origins.sweep();
                assert_eq!(origins.0.borrow().servers.len(), 2);
                tokio::time::advance(2 * APP_IDLE).await;
                origins.sweep();
                let names = |origins: &Origins| {
                    let all = origins.0.borrow();
                    let names = all.servers.keys().map(|server| server.name.clone());
                    names.collect::<Vec<_>>()
                };
                assert_eq!(names(&origins), ["called"], "whose answer is under way");
                assert!(!called.is_idle());
                drop(called);
                origins.sweep();
                assert!(names(&origins).is_empty());
                assert!(origins.0.borrow().manners.is_empty());
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn servers_in_a_manner_of_before_make_room() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let (app, _other) = over_h2().await;
                let mut all = All::default();
                all.manners.push(manner());
                all.servers.insert(server("now"), app.clone());
                for number in 0..ORIGINS_MAX {
                    let before = Server {
                        manner: 7,
                        ..server(&format!("n{number}"))
                    };
                    all.servers.insert(before, App::new(server("").to, 443));
                }
                all.make_room();
                assert_eq!(all.servers.len(), 1);
                all.manners.clear();
                all.make_room();
                assert_eq!(all.servers.len(), 1, "it is in use");
                drop(app);
                all.make_room();
                assert!(all.servers.is_empty());
            })
            .await;
    }
}
