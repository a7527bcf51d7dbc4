//! Which uses of policy are new: of allows a proxy records a sample, but each first use of a grant, so that whoever reads
//! the log sees every grant that is in use, and by whom.
//!
//! A use is a client's identity, the first grant that allows it, and the route that took it, on a port. It is new once an
//! hour, so that a part of a log tells it too. Memory is bounded: uses beyond [`USES_MAX`] are as if they were known,
//! and only sampled.

use foldhash::quality::RandomState;
use mesh_policy::Reason;
use mesh_policy::route::RouteTaken;
use mesh_trust::{SpiffeId, Timestamp};
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};

/// Uses that one core tells apart in an hour. Some 20 bytes each; and what a log may grow by for them.
pub const USES_MAX: usize = 4_096;

const HOUR_MICROS: i64 = 3_600_000_000;

/// The uses of this hour.
#[derive(Debug, Default)]
pub struct FirstUses {
    hour: i64,
    /// Hashes: two uses with the same one are taken for one, once in 10^12 pairs at worst.
    seen: HashSet<u64, RandomState>,
    hasher: RandomState,
}

/// One use of policy.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// Identity of the client.
    pub client: Option<&'a SpiffeId>,
    /// Port of the workload.
    pub port: u16,
    /// The first of the grants that allow it.
    pub grant: Option<Reason<'a>>,
    /// The route that took the request; `None` for bytes.
    pub route: Option<&'a RouteTaken>,
}

impl FirstUses {
    /// Whether `one` is the first of its kind in the hour of `now`; it is not from then on.
    pub fn is_first(&mut self, one: &Use<'_>, now: Timestamp) -> bool {
        let hour = hour(now);
        if hour != self.hour {
            self.hour = hour;
            self.seen.clear();
        }
        let hash = self.hash(one);
        if self.seen.len() >= USES_MAX {
            return false;
        }
        self.seen.insert(hash)
    }

    fn hash(&self, one: &Use<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        one.client.map(SpiffeId::as_str).hash(&mut hasher);
        hasher.write_u16(one.port);
        one.grant.hash(&mut hasher);
        let route = |route: &RouteTaken| {
            (&route.kind, &route.namespace, &route.name, route.rule).hash(&mut hasher);
        };
        one.route.map(route);
        hasher.finish()
    }
}

/// The hour in which a use is new once, counted from the epoch.
pub fn hour(now: Timestamp) -> i64 {
    now.unix_micros().div_euclid(HOUR_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policy::snapshot::Source;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
    }

    fn route(name: &str, rule: u32) -> RouteTaken {
        RouteTaken {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            rule,
            filters: Vec::new(),
            source: Source::BuiltIn("test".to_owned()),
        }
    }

    const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

    #[test]
    fn each_use_is_new_once_and_any_other_is_another() {
        let (web, api, all, admin) = (id("web"), id("api"), route("all", 0), route("all", 1));
        let one = Use {
            client: Some(&web),
            port: 80,
            grant: Some(Reason::whole("a")),
            route: Some(&all),
        };
        let mut uses = FirstUses::default();
        for other in [
            one,
            Use {
                client: Some(&api),
                ..one
            },
            Use {
                client: None,
                ..one
            },
            Use { port: 81, ..one },
            Use {
                grant: Some(Reason::whole("b")),
                ..one
            },
            Use { grant: None, ..one },
            Use {
                route: Some(&admin),
                ..one
            },
            Use { route: None, ..one },
        ] {
            assert!(uses.is_first(&other, NOW), "{other:?}");
            assert!(!uses.is_first(&other, NOW.plus_secs(3_599)), "{other:?}");
        }
    }

    #[test]
    fn an_hour_later_a_use_is_new_again() {
        let web = id("web");
        let one = Use {
            client: Some(&web),
            port: 80,
            grant: None,
            route: None,
        };
        let mut uses = FirstUses::default();
        let told = [0, 1, 3_600, 7_199, 7_200];
        let told = told.map(|secs| uses.is_first(&one, NOW.plus_secs(secs)));
        assert_eq!(told, [true, false, true, false, true]);
    }

    #[test]
    fn there_is_an_end_to_what_is_told_apart() {
        let mut uses = FirstUses::default();
        let new = (0..6_000).filter(|number| {
            let client = id(&format!("c{number}"));
            let one = Use {
                client: Some(&client),
                port: 80,
                grant: None,
                route: None,
            };
            uses.is_first(&one, NOW)
        });
        assert_eq!(new.count(), USES_MAX);
    }
}
