//! Routes that are gone, or take more than they should.

use super::{Collector, List, take_out, valid};
use crate::manifest::resource::{Object, Resources, Route};
use mesh_policy::snapshot::{PathMatch, RouteMatch};

const ROUTES: List<Route> = |resources| &mut resources.routes;

pub(super) fn collect(resources: &Resources, out: &mut Collector) {
    for (at, route) in valid(&resources.routes) {
        out.without(route, at, ROUTES);
        if !route.spec.hostnames.is_empty() {
            out.with(route, at, ROUTES, "without its hostnames", |route| {
                route.spec.hostnames.clear();
            });
        }
        for (number, rule) in route.spec.rules.iter().enumerate() {
            if route.spec.rules.len() > 1 {
                let change = format!("without rule {number}");
                out.with(route, at, ROUTES, change, move |route| {
                    take_out(&mut route.spec.rules, number);
                });
            }
            for (place, one) in rule.matches.iter().enumerate() {
                matches(out, (at, route), (number, place), one, rule.matches.len());
            }
        }
    }
}

fn matches(
    out: &mut Collector,
    (at, route): (usize, &Object<Route>),
    place: (usize, usize),
    one: &RouteMatch,
    count: usize,
) {
    let name = format!("rule {}, match {}", place.0, place.1);
    let mut add = |change: String, edit: Box<dyn Fn(&mut RouteMatch)>| {
        let change = format!("in {name} {change}");
        out.with(route, at, ROUTES, change, move |route| {
            let rule = route.spec.rules.get_mut(place.0);
            if let Some(one) = rule.and_then(|rule| rule.matches.get_mut(place.1)) {
                edit(one);
            }
        });
    };
    for (change, path) in wider(&one.path) {
        add(change, Box::new(move |one| one.path = path.clone()));
    }
    let rpc = matches!(one.path, PathMatch::Rpc { .. });
    if let Some(method) = one.method.as_ref().filter(|_| !rpc) {
        let change = format!("takes every method, not {method} alone");
        add(change, Box::new(|one| one.method = None));
    }
    for (at, header) in one.headers.iter().enumerate() {
        let change = format!("does not look at header `{}`", header.name);
        add(change, Box::new(move |one| take_out(&mut one.headers, at)));
    }
    for (at, query) in one.query.iter().enumerate() {
        let change = format!("does not look at query parameter `{}`", query.name);
        add(change, Box::new(move |one| take_out(&mut one.query, at)));
    }
    if count > 1 {
        let change = format!("without match {} of rule {}", place.1, place.0);
        out.with(route, at, ROUTES, change, move |route| {
            if let Some(rule) = route.spec.rules.get_mut(place.0) {
                take_out(&mut rule.matches, place.1);
            }
        });
    }
}

/// Paths that take more.
fn wider(path: &PathMatch) -> Vec<(String, PathMatch)> {
    let all = || PathMatch::Prefix("/".to_owned());
    match path {
        PathMatch::Exact(text) => vec![(
            format!("takes all below {text}"),
            PathMatch::Prefix(text.clone()),
        )],
        PathMatch::Prefix(text) if text == "/" => Vec::new(),
        PathMatch::Prefix(text) => vec![(
            format!("takes every path, not those below {text} alone"),
            all(),
        )],
        PathMatch::Regex(text) => vec![(
            format!("takes every path, not those of {text} alone"),
            all(),
        )],
        PathMatch::Rpc { service, method } => {
            let mut out = Vec::new();
            if method.is_some() {
                let (service, method) = (service.clone(), None);
                let path = PathMatch::Rpc { service, method };
                out.push(("takes every method of the service".to_owned(), path));
            }
            if service.is_some() {
                let (service, method) = (None, method.clone());
                let path = PathMatch::Rpc { service, method };
                out.push(("takes every service".to_owned(), path));
            }
            out
        }
    }
}
