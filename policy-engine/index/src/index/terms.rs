//! Grants that end, and broken glass: what a command needs to say which of them have expired, for nothing here knows
//! the time.

use super::{Index, NamedTerm};
use crate::manifest::resource::Object;
use crate::manifest::term::read_term;
use mesh_policy::snapshot::Term;
use std::sync::Arc;

/// The term of a grant, which is that of its object.
pub(crate) fn term_of<T>(object: &Object<T>) -> Term {
    read_term(&object.annotations, object.created).term
}

/// Every grant and policy in force that is no standing one, sorted by id.
pub(crate) fn terms(index: &Index) -> Vec<NamedTerm> {
    fn grants<'i, T, A>(
        objects: &'i [Arc<Object<T>>],
        authorities: &'i [Option<A>],
    ) -> impl Iterator<Item = NamedTerm> + 'i {
        let granting = objects.iter().zip(authorities).filter(|(_, a)| a.is_some());
        granting.map(|(object, _)| NamedTerm {
            id: grant_id(object),
            term: term_of(object),
            source: object.source.clone(),
        })
    }
    let (resources, authorities) = (&index.resources, &index.authorities);
    let mut out: Vec<NamedTerm> = grants(&resources.authorization_policies, &authorities.policies)
        .chain(grants(
            &resources.server_authorizations,
            &authorities.server_authorizations,
        ))
        .chain(index.cedar.all().map(|text| NamedTerm {
            id: text.id.clone(),
            term: text.term.clone(),
            source: text.source.clone(),
        }))
        .filter(|named| !named.term.is_standing())
        .collect();
    out.sort_by(|a, b| (&a.id, &a.source).cmp(&(&b.id, &b.source)));
    out
}

/// Id of the one grant of an AuthorizationPolicy or ServerAuthorization.
pub(crate) fn grant_id<T>(object: &Object<T>) -> String {
    format!(
        "{}/{}/{}/0",
        object.kind, object.key.namespace, object.key.name
    )
}
