//! Every grant of a snapshot, tried by the matcher and by Cedar on every combination of what it asks.
//!
//! A grant asks: is the client in this identity set (or: is there TLS), in this network set, did this route take the
//! request, is it before this instant. Each of these has two sides, so a grant has at most some dozens of cases; the
//! other grants do not matter for whether it holds, and what the grants that hold amount to is one table, tested by itself.

use crate::cedar::{self, Answer, PolicyRef};
use crate::compile::{Compiled, Port, Snapshot};
use crate::matcher::Asked;
use crate::original::Data;
use crate::question::{Asker, Question, RequestFacts, RouteFacts, Target, millis};
use crate::request::Headers;
use crate::snapshot::{Effect, Grant, Scope, Who};
use cedar_policy::Policy;
use mesh_trust::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// What is known of a snapshot's compiled form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "assurance", rename_all = "kebab-case")]
pub enum Assurance {
    /// Every grant was tried on every combination of what it asks: the matcher is Cedar.
    Exhaustive {
        /// Grants, counted once for each port they apply to.
        grants: u64,
        /// Questions that were put to both.
        questions: u64,
    },
    /// As many questions as were allowed were put to both, without a difference.
    Sampled {
        /// Grants that were tried in full.
        grants: u64,
        /// Grants that there are.
        of: u64,
        /// Questions that were put to both.
        questions: u64,
    },
    /// The two differ: nothing that this snapshot allows on the port may be trusted.
    Differs {
        /// The port; 0 stands for every port without policy of its own.
        port: u16,
        /// The grant.
        grant: String,
        /// In which case.
        case: String,
    },
}

/// Grants whose policies are there at one time: each takes some 10 KiB, and a proxy may have thousands.
const GRANTS_AT_ONCE: usize = 256;

/// Tries the grants of a snapshot one after the other, each on all of its ports, up to `questions_max` questions in all
/// (about 20 µs each).
pub fn check(snapshot: &Snapshot, questions_max: u64) -> Assurance {
    let (compiled, data) = (snapshot.compiled(), snapshot.data());
    let mut questions = 0;
    let (mut tried, mut all) = (0, 0);
    for (first, grants) in (0..)
        .step_by(GRANTS_AT_ONCE)
        .zip(data.grants.chunks(GRANTS_AT_ONCE))
    {
        let policies = match questions < questions_max {
            true => {
                let ids: Vec<String> = (first..).zip(grants).map(|(n, _)| n.to_string()).collect();
                cedar::checked(compiled.vocabulary, &data, grants, &ids)
            }
            false => Vec::new(),
        };
        for (number, port) in compiled.ports() {
            for &index in &port.policy.grants {
                let at = usize::try_from(index)
                    .ok()
                    .and_then(|at| at.checked_sub(first));
                let Some((at, grant)) = at.and_then(|at| Some((at, grants.get(at)?))) else {
                    continue;
                };
                all += 1;
                let Some(policy) = policies.get(at).filter(|_| questions < questions_max) else {
                    continue;
                };
                tried += 1;
                let trial = Trial {
                    compiled,
                    data: &data,
                    number,
                    port,
                    grant,
                    policy: policy.as_ref().ok(),
                };
                if let Err(case) = trial.run(&mut questions) {
                    return Assurance::Differs {
                        port: number,
                        grant: grant.id.clone(),
                        case,
                    };
                }
            }
        }
    }
    if tried == all {
        Assurance::Exhaustive {
            grants: all,
            questions,
        }
    } else {
        Assurance::Sampled {
            grants: tried,
            of: all,
            questions,
        }
    }
}

/// One grant on one port.
struct Trial<'a> {
    compiled: &'a Compiled,
    data: &'a Data,
    number: u16,
    port: &'a Port,
    grant: &'a Grant,
    /// `None`: it could not become a policy.
    policy: Option<&'a Policy>,
}

struct NoHeaders;

impl Headers for NoHeaders {
    fn for_each_value(&self, _name: &str, _each: &mut dyn FnMut(&[u8])) {}
}

impl Trial<'_> {
    fn run(&self, questions: &mut u64) -> Result<(), String> {
        let names = self.data.names();
        let identity = match &self.grant.who {
            Who::Identities(set) => names.identity_place(set),
            Who::Anyone | Who::AnyTls => None,
        };
        let network = self
            .grant
            .networks
            .as_ref()
            .and_then(|set| names.network_place(set));
        for in_identity in sides(identity) {
            for in_network in sides(network) {
                for tls in [true, false] {
                    // An identity without TLS is refused before any policy is asked.
                    if !in_identity.is_empty() && !tls {
                        continue;
                    }
                    for now in self.times() {
                        for asked in self.objects() {
                            *questions += 1;
                            self.compare(&in_identity, &in_network, tls, now, asked)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Before the end of the grant and at it; any time if it has no end.
    fn times(&self) -> Vec<Timestamp> {
        match self.grant.term.expires {
            None => vec![Timestamp::default()],
            Some(end) => {
                let end = Timestamp::from_unix_micros(millis(end).saturating_mul(1_000));
                let before = Timestamp::from_unix_micros(end.unix_micros().saturating_sub(1_000));
                vec![before, end]
            }
        }
    }

    /// Bytes, the built-in routes, the first route, and those that the grant names.
    fn objects(&self) -> Vec<Asked> {
        let mut objects = vec![Asked::Bytes, Asked::DefaultRoute, Asked::ProbeRoute];
        let routes = (0u32..).zip(&self.port.policy.routes);
        objects.extend(
            routes
                .filter(|(index, route)| {
                    *index == 0
                        || matches!(&self.grant.scope, Scope::Route { kind, namespace, name }
                            if (kind, namespace, name) == (&route.kind, &route.namespace, &route.name))
                })
                .map(|(route, _)| Asked::Rule { route, rule: 0 }),
        );
        objects
    }

    fn compare(
        &self,
        identity_sets: &[u32],
        network_sets: &[u32],
        tls: bool,
        now: Timestamp,
        asked: Asked,
    ) -> Result<(), String> {
        let matcher = self.port.matcher.grant_holds(
            &self.grant.id,
            (identity_sets, network_sets, tls),
            asked,
            millis(now),
        );
        let cedar = self.cedar(identity_sets, network_sets, tls, now, asked)?;
        if matcher == cedar {
            return Ok(());
        }
        Err(format!(
            "matcher: {matcher}, Cedar: {cedar}, with identity sets {identity_sets:?}, network sets {network_sets:?}, \
             tls {tls}, {asked:?}, at {now}"
        ))
    }

    fn cedar(
        &self,
        identity_sets: &[u32],
        network_sets: &[u32],
        tls: bool,
        now: Timestamp,
        asked: Asked,
    ) -> Result<bool, String> {
        let Some(policy) = self.policy else {
            return Ok(false);
        };
        let data = self.data;
        let id = SpiffeId::for_service_account(&data.trust_domain, "any", "one").ok();
        let route = self.route(asked);
        let question = Question {
            asker: Asker {
                id: id.as_ref().filter(|_| !identity_sets.is_empty()),
                ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                tls,
                cert_not_after: None,
                identity_sets,
                network_sets,
            },
            target: Target {
                trust_domain: &data.trust_domain,
                namespace: &self.port.policy.server.namespace,
                server: self.port.named().map(|(_, name)| name),
                port: self.number,
                route,
            },
            request: route.map(|_| RequestFacts {
                method: "GET",
                path: "/",
                host: None,
                headers: &NoHeaders,
                grpc: false,
            }),
            now,
        };
        // A forbid is asked as what it is: it holds exactly if Cedar names it.
        let reference = PolicyRef::of(self.grant);
        let one = [(policy, &reference)].into_iter();
        match cedar::answer(
            self.compiled.vocabulary,
            &self.compiled.setting_of(data.names()),
            &question,
            one,
        ) {
            Answer::Permitted { .. } => Ok(self.grant.effect == Effect::Permit),
            Answer::Forbidden { .. } => Ok(self.grant.effect == Effect::Forbid),
            Answer::NoPermit => Ok(false),
            Answer::Undecidable { why } => Err(format!("Cedar cannot decide: {why}")),
        }
    }

    fn route(&self, asked: Asked) -> Option<RouteFacts<'_>> {
        let built_in = |name| RouteFacts {
            kind: "default",
            namespace: "",
            name,
            rule: 0,
        };
        match asked {
            Asked::Bytes => None,
            Asked::DefaultRoute => Some(built_in("default")),
            Asked::ProbeRoute => Some(built_in("probe")),
            Asked::Rule { route, rule } => {
                let route = self.port.policy.routes.get(usize::try_from(route).ok()?)?;
                Some(RouteFacts {
                    kind: &route.kind,
                    namespace: &route.namespace,
                    name: &route.name,
                    rule,
                })
            }
        }
    }
}

/// Both sides of a membership: in the set, and not; nothing to vary if there is no set.
fn sides(set: Option<u32>) -> Vec<Vec<u32>> {
    match set {
        Some(place) => vec![vec![place], Vec::new()],
        None => vec![Vec::new()],
    }
}
