//! A mesh of manifests, taken from bytes.

use crate::objects;
use mesh_policy::fuzzing::choices::Choices;
use mesh_policy_index::{Index, IndexConfig, Mode, load};
use mesh_trust::id::IdError;
use mesh_trust::{Timestamp, TrustDomain};
use serde_json::Value;

/// When requests are made: 2026-01-01T00:00:00Z. Grants with an end, end at this instant or a second later.
pub const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

/// Our trust domain.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// The namespaces before renaming.
pub const NAMESPACES: [&str; 2] = ["bank", "shop"];

/// What namespaces are called: a prefix, so that renaming them keeps their order, which breaks ties between routes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    /// Before the name of every namespace.
    pub prefix: &'static str,
}

impl Names {
    /// A namespace, by its number.
    pub fn namespace(&self, number: usize) -> String {
        let name = NAMESPACES.get(number % NAMESPACES.len());
        format!("{}{}", self.prefix, name.copied().unwrap_or_default())
    }

    /// The SPIFFE ID of a service account.
    pub fn id(&self, namespace: usize, account: &str) -> String {
        let namespace = self.namespace(namespace);
        format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}")
    }
}

/// Manifests, one object each.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Objects, as their YAML would be read.
    pub objects: Vec<Value>,
    /// Default policy of the installation.
    pub default_policy: Mode,
}

/// What a mesh is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Linkerd's kinds, which the plain reading covers.
    WithoutCedar,
    /// Policies written in Cedar too.
    WithCedar,
}

impl Mesh {
    /// A mesh of the bytes. `soundness`: about one object in so many is broken; 0: none.
    pub fn of(data: &[u8], names: Names, make: Make, soundness: usize) -> Self {
        let mut choices = Choices::of(data);
        let default_policy = match choices.below(4) {
            0 => Mode::AllAuthenticated,
            1 => Mode::ClusterUnauthenticated,
            _ => Mode::Deny,
        };
        let mut objects = Vec::new();
        for namespace in 0..NAMESPACES.len() {
            let mut place = objects::Place::new(namespace, names, &mut choices);
            objects.extend(place.all(make));
        }
        if make == Make::WithCedar {
            objects.extend(objects::guard_rails(names, &mut choices));
        }
        if soundness > 0 {
            for object in &mut objects {
                if choices.once_in(soundness) {
                    objects::break_it(object, &mut choices);
                }
            }
        }
        Self {
            objects,
            default_policy,
        }
    }

    /// The manifests as files: JSON is YAML. Objects are dealt out to `files` of them in turn.
    pub fn files(&self, files: usize) -> Vec<(String, Vec<u8>)> {
        let mut texts = vec![String::new(); files.max(1)];
        let count = texts.len();
        for (place, object) in self.objects.iter().enumerate() {
            if let Some(text) = texts.get_mut(place % count) {
                text.push_str("---\n");
                text.push_str(&object.to_string());
                text.push('\n');
            }
        }
        let named = texts.into_iter().enumerate();
        named
            .map(|(number, text)| (format!("{number}.yaml"), text.into_bytes()))
            .collect()
    }

    /// All manifests as one text, for reports.
    pub fn text(&self) -> String {
        let files = self.files(1);
        let texts = files
            .iter()
            .map(|(_, bytes)| String::from_utf8_lossy(bytes));
        texts.collect()
    }

    /// Reads the manifests as the controller would.
    ///
    /// # Errors
    /// Never: our own trust domain is one.
    pub fn index(&self, files: usize) -> Result<Index, IdError> {
        let config = IndexConfig {
            default_policy: self.default_policy,
            ..IndexConfig::new(TrustDomain::parse(TRUST_DOMAIN)?)
        };
        Ok(Index::build(&load(self.files(files)), &config))
    }
}
