//! Policies in Cedar of all Servers, gathered into few: what several Servers have in common is said once.
//!
//! A workload may have 256 of them, and each may be looked at for every request to any workload of its namespace. So a
//! rule becomes one policy for all Servers that it means the same for; and where a namespace has many, the rules of one
//! policy of Istio become alternatives of one.

use super::cedar::Statement;
use super::condition::Cond;
use super::fit::fit;
use super::plan::Origin;
use std::collections::{BTreeMap, BTreeSet};

/// Policies of a namespace past which rules are joined: half of what its workloads may have.
const PLENTY: usize = 128;

/// Servers of one policy, at about 60 bytes each.
const SERVERS_MAX: usize = 100;

/// A policy, and the rules that it comes from.
pub(crate) type Gathered = (BTreeSet<Origin>, Statement);

/// By namespace and place of the policy of Istio.
#[derive(Default)]
pub(crate) struct Gathering {
    all: BTreeMap<(String, usize), Vec<Gathered>>,
}

impl Gathering {
    /// Adds a policy for one Server.
    pub(crate) fn add(
        &mut self,
        namespace: &str,
        policy: usize,
        origin: Origin,
        statement: &Statement,
    ) {
        let list = self.all.entry((namespace.to_owned(), policy)).or_default();
        let same = |(origins, other): &&mut Gathered| {
            origins.contains(&origin)
                && other.servers.len() < SERVERS_MAX
                && other.says_the_same(statement)
                && other.cond == statement.cond
        };
        match list.iter_mut().find(same) {
            Some((_, known)) => known.servers.extend(statement.servers.iter().cloned()),
            None => list.push((BTreeSet::from([origin]), statement.clone())),
        }
    }

    /// Everything, each policy under an id of its own in its list.
    pub(crate) fn finish(mut self) -> BTreeMap<(String, usize), Vec<Gathered>> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for ((namespace, _), list) in &self.all {
            *counts.entry(namespace.clone()).or_default() += list.len();
        }
        for ((namespace, _), list) in &mut self.all {
            if counts.get(namespace).is_some_and(|count| *count > PLENTY) {
                *list = joined(std::mem::take(list));
            }
            name(list);
        }
        self.all
    }
}

/// Policies that differ in their conditions alone, as alternatives of one.
fn joined(list: Vec<Gathered>) -> Vec<Gathered> {
    let mut groups: Vec<(Gathered, Vec<Cond>)> = Vec::new();
    for (origins, statement) in list {
        let same = |((_, other), _): &&mut (Gathered, Vec<Cond>)| {
            other.says_the_same(&statement) && other.servers == statement.servers
        };
        match groups.iter_mut().find(same) {
            Some(((known, _), conds)) => {
                known.extend(origins);
                conds.push(statement.cond);
            }
            None => {
                let cond = statement.cond.clone();
                groups.push(((origins, statement), vec![cond]));
            }
        }
    }
    let mut out = Vec::new();
    for ((origins, statement), conds) in groups {
        let id = if conds.len() > 1 {
            "rules".to_owned()
        } else {
            statement.id.clone()
        };
        let alternatives = Statement {
            id,
            cond: Cond::any(conds),
            ..statement
        };
        // Each alternative fitted alone, so that cutting loses none.
        let (parts, _) = fit(alternatives);
        out.extend(parts.into_iter().map(|part| (origins.clone(), part)));
    }
    out
}

/// Gives each policy an id that no other of the list has.
fn name(list: &mut [Gathered]) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (_, statement) in list {
        let base = statement.id.clone();
        let mut number = 2;
        while !taken.insert(statement.id.clone()) {
            statement.id = format!("{base}-{number}");
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cedar::Action;
    use super::super::condition::Ask;
    use super::super::pattern::Text;
    use super::*;
    use cedar_policy::pst::Effect;

    fn statement(server: &str, path: &str) -> Statement {
        Statement {
            id: "rule-0".into(),
            effect: Effect::Forbid,
            action: Action::Requests,
            servers: BTreeSet::from([server.to_owned()]),
            verified: false,
            cond: Cond::Ask(Ask::Path(Text::Exact(path.into()))),
        }
    }

    fn origin(rule: usize) -> Origin {
        Origin::Rule { policy: 0, rule }
    }

    #[test]
    fn a_rule_is_one_policy_for_all_servers_that_it_means_the_same_for() {
        let mut gathering = Gathering::default();
        gathering.add("shop", 0, origin(0), &statement("shop/a", "/x"));
        gathering.add("shop", 0, origin(0), &statement("shop/b", "/x"));
        gathering.add("shop", 0, origin(0), &statement("shop/c", "/y"));
        let all = gathering.finish();
        let list = &all[&("shop".to_owned(), 0)];
        let seen: Vec<(&str, usize)> = list
            .iter()
            .map(|(_, s)| (s.id.as_str(), s.servers.len()))
            .collect();
        assert_eq!(seen, [("rule-0", 2), ("rule-0-2", 1)]);
        let text = list[0].1.text().unwrap();
        assert!(
            text.contains("resource in [Mesh::Server::\"shop/a\", Mesh::Server::\"shop/b\"]"),
            "{text}"
        );
    }

    #[test]
    fn rules_of_a_namespace_with_many_are_joined_and_none_is_lost() {
        let mut gathering = Gathering::default();
        for rule in 0..300 {
            gathering.add(
                "shop",
                0,
                origin(rule),
                &statement("shop/a", &format!("/p{rule}")),
            );
        }
        let all = gathering.finish();
        let list = &all[&("shop".to_owned(), 0)];
        assert!(list.len() < 10, "{}", list.len());
        let text: String = list.iter().map(|(_, s)| s.text().unwrap()).collect();
        assert!((0..300).all(|n| text.contains(&format!("\"/p{n}\""))));
        assert!(list.iter().all(|(origins, _)| origins.len() == 300));
    }
}
