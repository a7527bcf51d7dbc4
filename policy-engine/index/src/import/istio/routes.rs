//! Paths and methods as routes.
//!
//! Istio's rules overlap: a request may match several, and one that allows is enough. Here one route takes a request, the
//! most specific one, and its grants decide. So the paths and methods that rules name cut requests into regions, each
//! taken by one match, and a region has the grants of every rule that covers it. That is exact, because paths and
//! prefixes of whole segments are nested or apart.

use std::collections::{BTreeMap, BTreeSet};

/// Regions of one Server: each is a match of a route. More are said in Cedar.
pub(crate) const REGIONS_MAX: usize = 512;

/// A path of a rule that routes can say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    /// Every path.
    All,
    /// `/a/*`: what is below `/a/`, and not `/a` itself. Holds `/a`.
    Below(String),
    Exact(String),
}

/// Some requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access {
    pub(crate) paths: BTreeSet<Path>,
    /// Empty: every method.
    pub(crate) methods: BTreeSet<String>,
}

/// How the path of a region is matched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// By whole segments; empty for every path.
    Prefix(String),
    Exact(String),
}

/// One match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Region {
    pub(crate) place: Place,
    /// `None`: every method that no other match of the place names.
    pub(crate) method: Option<String>,
}

/// Matches that the same accesses cover.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteSpec {
    pub(crate) regions: Vec<Region>,
    /// Places in the list of accesses.
    pub(crate) grants: BTreeSet<usize>,
}

type Chosen = BTreeMap<Region, BTreeSet<usize>>;

/// Cuts requests into routes. With `everything` every request finds a route, for grants that are not tied to routes.
/// `None` if there would be more than [`REGIONS_MAX`] regions.
pub(crate) fn routes(accesses: &[Access], everything: bool) -> Option<Vec<RouteSpec>> {
    let mut places: BTreeSet<Place> = BTreeSet::new();
    for path in accesses.iter().flat_map(|a| &a.paths) {
        match path {
            Path::All => _ = places.insert(Place::Prefix(String::new())),
            Path::Below(base) => {
                places.insert(Place::Prefix(base.clone()));
                places.insert(Place::Exact(base.clone()));
            }
            Path::Exact(path) => _ = places.insert(Place::Exact(path.clone())),
        }
    }
    if everything {
        places.insert(Place::Prefix(String::new()));
    }
    let methods: BTreeSet<&String> = accesses.iter().flat_map(|a| &a.methods).collect();
    if places.len() * (methods.len() + 1) > REGIONS_MAX {
        return None;
    }
    let methods: Vec<Option<String>> = methods
        .into_iter()
        .cloned()
        .map(Some)
        .chain([None])
        .collect();
    let mut all: Chosen = BTreeMap::new();
    for place in &places {
        for method in &methods {
            let region = Region {
                place: place.clone(),
                method: method.clone(),
            };
            let grants = accesses
                .iter()
                .enumerate()
                .filter(|(_, a)| a.covers(&region))
                .map(|(at, _)| at);
            all.insert(region.clone(), grants.collect());
        }
    }
    let chosen = pruned(&all, everything);
    let mut by_grants: BTreeMap<BTreeSet<usize>, Vec<Region>> = BTreeMap::new();
    for (region, grants) in chosen {
        by_grants.entry(grants).or_default().push(region);
    }
    let mut out: Vec<RouteSpec> = by_grants
        .into_iter()
        .map(|(grants, regions)| RouteSpec { regions, grants })
        .collect();
    out.sort();
    Some(out)
}

/// The regions without those whose requests would be taken by others with the same grants.
fn pruned(all: &Chosen, everything: bool) -> Chosen {
    let root = Region {
        place: Place::Prefix(String::new()),
        method: None,
    };
    let mut chosen = all.clone();
    // Which region takes the requests of each.
    let mut taken: BTreeMap<&Region, Option<Region>> =
        all.keys().map(|r| (r, Some(r.clone()))).collect();
    let mut order: Vec<&Region> = all.keys().collect();
    order.sort_by_key(|region| {
        (
            std::cmp::Reverse(region.place.depth()),
            region.method.is_none(),
        )
    });
    for region in order {
        if everything && *region == root {
            continue;
        }
        let Some(grants) = chosen.remove(region) else {
            continue;
        };
        let affected = taken
            .iter()
            .filter(|(_, by)| by.as_ref() == Some(region))
            .map(|(asked, _)| *asked);
        let others: Vec<(&Region, Option<Region>)> = affected
            .map(|asked| (asked, choose(&chosen, asked).cloned()))
            .collect();
        let same = |by: &Option<Region>| match by {
            Some(other) => chosen.get(other) == Some(&grants),
            // No route takes it: as good as one that grants nothing.
            None => grants.is_empty(),
        };
        if others.iter().all(|(_, by)| same(by)) {
            taken.extend(others);
        } else {
            chosen.insert(region.clone(), grants);
        }
    }
    chosen
}

/// The region that takes requests of another, by Gateway API's order: path, then method.
fn choose<'c>(chosen: &'c Chosen, asked: &Region) -> Option<&'c Region> {
    let takes = |region: &&Region| {
        region.place.takes(&asked.place)
            && (region.method.is_none() || region.method == asked.method)
    };
    chosen
        .keys()
        .filter(takes)
        .max_by_key(|r| (r.place.depth(), r.method.is_some()))
}

impl Place {
    /// More specific is greater.
    fn depth(&self) -> (bool, usize) {
        match self {
            Self::Prefix(text) => (false, text.len()),
            Self::Exact(text) => (true, text.len()),
        }
    }

    /// Whether a match here takes the requests of another place, if nothing more specific does.
    fn takes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(a), Self::Exact(b) | Self::Prefix(b)) => a == b || is_below(b, a),
        }
    }
}

impl Access {
    fn covers(&self, region: &Region) -> bool {
        let method = self.methods.is_empty()
            || region
                .method
                .as_ref()
                .is_some_and(|m| self.methods.contains(m));
        method && self.paths.iter().any(|path| path.covers(&region.place))
    }
}

impl Path {
    fn covers(&self, place: &Place) -> bool {
        match (self, place) {
            (Self::All, _) => true,
            (Self::Exact(a), Place::Exact(b)) => a == b,
            (Self::Exact(_), Place::Prefix(_)) => false,
            (Self::Below(base), Place::Exact(path)) => is_below(path, base),
            // The region of a prefix never holds its own path: there is one for that beside it.
            (Self::Below(base), Place::Prefix(prefix)) => prefix == base || is_below(prefix, base),
        }
    }
}

fn is_below(path: &str, base: &str) -> bool {
    path.strip_prefix(base)
        .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn access(paths: &[&str], methods: &[&str]) -> Access {
        let path = |text: &&str| match (*text, text.strip_suffix("/*")) {
            ("*", _) => Path::All,
            (_, Some(base)) => Path::Below(base.to_owned()),
            (exact, None) => Path::Exact(exact.to_owned()),
        };
        Access {
            paths: paths.iter().map(path).collect(),
            methods: methods.iter().map(|m| (*m).to_owned()).collect(),
        }
    }

    /// As the rules mean it, without regions.
    fn meant(accesses: &[Access], path: &str, method: &str) -> BTreeSet<usize> {
        let holds = |access: &Access| {
            let path = access.paths.iter().any(|p| match p {
                Path::All => true,
                Path::Below(base) => path.starts_with(&format!("{base}/")),
                Path::Exact(exact) => exact == path,
            });
            path && (access.methods.is_empty() || access.methods.contains(method))
        };
        accesses
            .iter()
            .enumerate()
            .filter(|(_, a)| holds(a))
            .map(|(at, _)| at)
            .collect()
    }

    /// As routes decide it, with the order of Gateway API written out again.
    fn routed(specs: &[RouteSpec], path: &str, method: &str) -> Option<BTreeSet<usize>> {
        let rank = |region: &Region| {
            let path = match &region.place {
                Place::Exact(exact) if exact == path => Some((1, exact.len())),
                Place::Prefix(prefix)
                    if path == prefix || path.starts_with(&format!("{prefix}/")) =>
                {
                    Some((0, prefix.len()))
                }
                _ => None,
            }?;
            match &region.method {
                Some(m) if m == method => Some((path, 1)),
                Some(_) => None,
                None => Some((path, 0)),
            }
        };
        let all = specs
            .iter()
            .flat_map(|s| s.regions.iter().map(move |r| (r, &s.grants)));
        all.filter_map(|(r, grants)| rank(r).map(|rank| (rank, grants)))
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, g)| g.clone())
    }

    const PATHS: [&str; 8] = ["*", "/a", "/a/*", "/a/b", "/a/b/*", "/c", "/a/", "/c/*"];
    const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
    const ASKED: [&str; 10] = [
        "/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/x", "/c", "/c/x", "/ax",
    ];

    #[test]
    fn a_prefix_with_slash_does_not_hold_its_own_path() {
        let specs = routes(&[access(&["/a/*"], &[])], true).unwrap();
        assert_eq!(routed(&specs, "/a", "GET"), Some(BTreeSet::new()));
        assert_eq!(routed(&specs, "/a/b", "GET"), Some(BTreeSet::from([0])));
        assert_eq!(routed(&specs, "/ab", "GET"), Some(BTreeSet::new()));
    }

    #[test]
    fn what_no_rule_names_needs_no_route() {
        let specs = routes(&[access(&["/a"], &["GET"])], false).unwrap();
        let region = Region {
            place: Place::Exact("/a".into()),
            method: Some("GET".into()),
        };
        assert_eq!(
            specs,
            [RouteSpec {
                regions: vec![region],
                grants: BTreeSet::from([0])
            }]
        );
    }

    #[test]
    fn too_many_regions_are_refused() {
        let paths: Vec<String> = (0..=REGIONS_MAX).map(|n| format!("/{n}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        assert!(routes(&[access(&paths, &[])], false).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn routes_grant_what_rules_mean(
            rules in prop::collection::vec((prop::sample::subsequence(&PATHS[..], 1..4), prop::sample::subsequence(&METHODS[..], 0..3)), 0..5),
            everything in any::<bool>(),
        ) {
            let accesses: Vec<Access> = rules.iter().map(|(p, m)| access(p, m)).collect();
            let specs = routes(&accesses, everything).unwrap();
            for path in ASKED {
                for method in ["GET", "POST", "PUT", "HEAD"] {
                    let found = routed(&specs, path, method);
                    prop_assert!(!everything || found.is_some(), "{path} {method} finds no route");
                    prop_assert_eq!(found.unwrap_or_default(), meant(&accesses, path, method), "{} {}", path, method);
                }
            }
        }
    }
}
