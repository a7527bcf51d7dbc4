//! Policy made wrong on purpose: one change each, of the kind that people make. Tests that are worth their place notice.
//!
//! Changes are made in the objects as they were read, and the index is built anew: what a change means is said by the
//! same code as what the manifests mean. Objects that are invalid grant nothing already and are left alone.

mod grants;
mod routes;
mod servers;

use crate::manifest::Loaded;
use crate::manifest::resource::{Object, Resources};
use mesh_policy::snapshot::ObjectRef;
use std::fmt;
use std::sync::Arc;

type Edit = Box<dyn Fn(&mut Resources)>;

/// One change.
pub struct Mutant {
    /// The object that is changed, with its place.
    pub object: ObjectRef,
    /// What is changed, as the end of a sentence about the object.
    pub change: String,
    edit: Edit,
}

impl fmt::Debug for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectRef {
            kind,
            namespace,
            name,
            ..
        } = &self.object;
        write!(f, "{kind} {namespace}/{name} {}", self.change)
    }
}

impl Mutant {
    /// The objects with this change.
    pub fn apply(&self, loaded: &Loaded) -> Loaded {
        let mut changed = loaded.clone();
        (self.edit)(&mut changed.resources);
        changed
    }
}

/// Every change, by kind and place.
pub fn mutants(loaded: &Loaded) -> Vec<Mutant> {
    let mut out = Collector(Vec::new());
    let resources = &loaded.resources;
    servers::collect(resources, &mut out);
    routes::collect(resources, &mut out);
    grants::collect(resources, &mut out);
    out.0
}

/// Where a kind of objects stands.
type List<T> = fn(&mut Resources) -> &mut Vec<Arc<Object<T>>>;

struct Collector(Vec<Mutant>);

impl Collector {
    /// The object is not there.
    fn without<T: 'static>(&mut self, object: &Object<T>, at: usize, list: List<T>) {
        self.0.push(Mutant {
            object: object.reference(),
            change: "dropped".to_owned(),
            edit: Box::new(move |resources| {
                let list = list(resources);
                if at < list.len() {
                    list.remove(at);
                }
            }),
        });
    }

    /// The object with something in it changed.
    fn with<T: Clone + 'static>(
        &mut self,
        object: &Object<T>,
        at: usize,
        list: List<T>,
        change: impl Into<String>,
        edit: impl Fn(&mut Object<T>) + 'static,
    ) {
        self.0.push(Mutant {
            object: object.reference(),
            change: change.into(),
            edit: Box::new(move |resources| {
                if let Some(object) = list(resources).get_mut(at) {
                    edit(Arc::make_mut(object));
                }
            }),
        });
    }
}

/// Valid objects with their places.
fn valid<T>(objects: &[Arc<Object<T>>]) -> impl Iterator<Item = (usize, &Object<T>)> {
    objects
        .iter()
        .map(Arc::as_ref)
        .enumerate()
        .filter(|(_, object)| object.invalid.is_none())
}

/// Takes the item at a place out of a list that may be shorter.
fn take_out<T>(list: &mut Vec<T>, at: usize) {
    if at < list.len() {
        list.remove(at);
    }
}

#[cfg(test)]
mod tests;
