//! Tables with two answers: what Linkerd says, what this mesh says, and why they differ.
//!
//! Linkerd's answer is not only written down: [`crate::linkerd_model`] computes it, and the row must agree. A row names
//! a difference exactly if there is one. `cargo test -- --nocapture` prints the tables.

use crate::linkerd_model::{Linkerd, Says};
use crate::why::Why;
use crate::world::{Ask, World, config};
use mesh_policy::snapshot::Severity;
use mesh_policy_index::{Mode, load};

/// A question, what Linkerd says, what this mesh says ([`World::answer`]), why they differ.
pub(crate) type Row = (Ask, Says, &'static str, Why);

/// The same manifests in a cluster with Linkerd and in this mesh.
pub(crate) struct Scene {
    pub(crate) linkerd: Linkerd,
    pub(crate) world: World,
}

impl Scene {
    /// With default policy `deny` on both sides, so that what is not the subject stays out of the table.
    pub(crate) fn of(parts: &[&str]) -> Self {
        Self::default_policy(Mode::Deny, parts)
    }

    pub(crate) fn default_policy(mode: Mode, parts: &[&str]) -> Self {
        Self::new(
            Linkerd::new(mode.as_str()),
            World::default_policy(mode, parts),
            parts,
        )
    }

    /// With what each side does when it is told nothing.
    pub(crate) fn untold(parts: &[&str]) -> Self {
        let linkerd = Linkerd::new("all-unauthenticated");
        Self::new(linkerd, World::with(&config(), parts), parts)
    }

    /// As [`Scene::of`], with Linkerd's webhook away.
    pub(crate) fn without_webhook(parts: &[&str]) -> Self {
        let linkerd = Linkerd::new("deny").without_webhook();
        Self::new(linkerd, World::of(parts), parts)
    }

    fn new(mut linkerd: Linkerd, world: World, parts: &[&str]) -> Self {
        parts.iter().for_each(|part| linkerd.apply(part));
        Self { linkerd, world }
    }

    /// The manifests after a change: Linkerd refuses or takes each write, this mesh reads what stands now.
    pub(crate) fn becomes(mut self, parts: &[&str]) -> Self {
        parts.iter().for_each(|part| self.linkerd.apply(part));
        let settings = self.world.index.config().clone();
        Self {
            world: World::with(&settings, parts),
            ..self
        }
    }

    /// The manifests without one object.
    pub(crate) fn without(mut self, kind: &str, name: &str, rest: &[&str]) -> Self {
        self.linkerd.delete(kind, name);
        let settings = self.world.index.config().clone();
        Self {
            world: World::with(&settings, rest),
            ..self
        }
    }

    /// Asks every question of a table of both.
    pub(crate) fn answers(&self, rows: &[Row]) {
        for (ask, linkerd, ours, why) in rows {
            let (model, answer) = (self.linkerd.says(ask), self.world.answer(ask));
            let what = ask.describe();
            println!(
                "{what:<52} Linkerd {linkerd:<8} ours {ours:<12} {}",
                why.map_or("", |w| w.because)
            );
            assert_eq!(model, *linkerd, "{what}: Linkerd, by its model");
            assert_eq!(answer, *ours, "{what}: this mesh");
            let differ = seen(ours) != *linkerd;
            assert_eq!(
                why.is_some(),
                differ,
                "{what}: a difference has a reason, and nothing else has"
            );
        }
    }
}

/// What the client sees of an answer of ours.
fn seen(answer: &str) -> Says {
    match answer.split(' ').next_back().unwrap() {
        "allow" => Says::Allow,
        "403" => Says::Forbidden,
        "404" => Says::NotFound,
        "400" => Says::BadRequest,
        "-" => Says::Closed,
        other => panic!("no answer: {other}"),
    }
}

/// An object, whether Linkerd admits it, whether it is valid here, why they differ.
pub(crate) type Admission<'a> = (&'a str, bool, bool, Why);

/// Looks at every object of a table in both ways; `whole` makes a document of what the rows hold.
pub(crate) fn admissions(whole: impl Fn(&str) -> String, rows: &[Admission<'_>]) {
    for (part, linkerd, ours, why) in rows {
        let document = whole(part);
        let model = Linkerd::admits(&document);
        println!(
            "{part:<90} Linkerd {linkerd:<6} ours {ours:<6} {}",
            why.map_or("", |w| w.because)
        );
        assert_eq!(
            model.is_ok(),
            *linkerd,
            "{part}: Linkerd, by its model: {model:?}"
        );
        let codes = refusals(&document);
        assert_eq!(codes.is_empty(), *ours, "{part}: this mesh: {codes:?}");
        assert_eq!(
            why.is_some(),
            linkerd != ours,
            "{part}: a difference has a reason, and nothing else has"
        );
    }
}

/// Codes of what makes a document invalid.
pub(crate) fn refusals(document: &str) -> Vec<String> {
    let loaded = load([("one.yaml".to_owned(), document.as_bytes().to_vec())]);
    let errors = loaded
        .findings
        .into_iter()
        .filter(|f| f.severity == Severity::Error);
    errors.map(|f| f.code).collect()
}
