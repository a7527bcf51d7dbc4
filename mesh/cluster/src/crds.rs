//! Custom resource definitions: our group, and Linkerd's kinds as this mesh reads them.
//!
//! The schemas say what docs/reference/resources.md says, as far as a schema can; `mesh authz lint`, the validating
//! webhook and the controller say the rest. Unknown fields are kept and not pruned: a misspelt condition that the API
//! server drops is a condition that is missing, and nobody would see it (docs/decisions/0020).
//!
//! - [`mesh`]: CedarPolicy, ClusterCedarPolicy, Invariant, Federation, HTTPFault, and the issuers
//! - [`linkerd`]: Server and whatever grants
//! - [`routes`]: HTTPRoute of the policy group
//! - [`checked`]: kinds of Linkerd that are checked, not enforced
//! - [`schema`]: the words that these are written in

mod checked;
mod linkerd;
mod mesh;
mod routes;
mod schema;

use crate::names::{PART_OF, PART_OF_LABEL};
use serde_json::{Value, json};

/// Which definitions are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Ours and Linkerd's.
    #[default]
    All,
    /// Ours alone: where Linkerd is installed, its definitions are its own.
    Own,
}

/// The definitions, in the order of their names.
pub fn all(which: Which) -> Vec<Value> {
    let own = mesh::kinds();
    let mut kinds = match which {
        Which::All => own
            .into_iter()
            .chain(linkerd::kinds())
            .chain(routes::kinds())
            .chain(checked::kinds())
            .collect(),
        Which::Own => own,
    };
    kinds.sort_by_key(Kind::full_name);
    kinds.iter().map(Kind::definition).collect()
}

/// One kind with all its versions.
pub(crate) struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    scope: Scope,
    versions: Vec<Version>,
    /// Columns of `kubectl get`, besides `Enforced` (of issuers: `Ready`) and `Age`.
    columns: Vec<Column>,
}

/// Whether objects have a namespace.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    Namespaced,
    Cluster,
}

/// One version: all are served, the last one is stored.
pub(crate) struct Version {
    name: &'static str,
    /// Schema of `spec`.
    spec: Value,
    /// Why not to use it any more.
    deprecated: Option<&'static str>,
}

/// A column of `kubectl get`: heading, JSON path, what it shows.
pub(crate) struct Column(&'static str, &'static str, &'static str);

impl Version {
    fn new(name: &'static str, spec: Value) -> Self {
        Self {
            name,
            spec,
            deprecated: None,
        }
    }

    fn deprecated(name: &'static str, spec: Value, why: &'static str) -> Self {
        Self {
            deprecated: Some(why),
            ..Self::new(name, spec)
        }
    }
}

impl Kind {
    fn full_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    fn definition(&self) -> Value {
        let mut names = json!({
            "kind": self.kind,
            "listKind": format!("{}List", self.kind),
            "plural": self.plural,
            "singular": self.kind.to_ascii_lowercase(),
            "categories": ["mesh-policy"],
        });
        if !self.short.is_empty()
            && let Some(names) = names.as_object_mut()
        {
            names.insert("shortNames".to_owned(), json!(self.short));
        }
        let stored = self.versions.len().saturating_sub(1);
        let versions = self.versions.iter().enumerate();
        let versions: Vec<Value> = versions
            .map(|(index, version)| self.version(version, index == stored))
            .collect();
        let scope = match self.scope {
            Scope::Namespaced => "Namespaced",
            Scope::Cluster => "Cluster",
        };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": self.full_name(),
                "labels": { PART_OF_LABEL: PART_OF },
                // Helm: deleting the chart must not delete everybody's policies.
                "annotations": { "helm.sh/resource-policy": "keep" },
            },
            "spec": { "group": self.group, "names": names, "scope": scope, "versions": versions },
        })
    }

    fn version(&self, version: &Version, stored: bool) -> Value {
        let mut columns: Vec<Value> = self.columns.iter().map(Column::definition).collect();
        columns.push(self.outcome().definition());
        columns.push(
            json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }),
        );
        let mut out = json!({ "name": version.name, "served": true, "storage": stored });
        if let (Some(why), Some(out)) = (version.deprecated, out.as_object_mut()) {
            out.insert("deprecated".to_owned(), true.into());
            out.insert("deprecationWarning".to_owned(), why.into());
        }
        if let Some(out) = out.as_object_mut() {
            out.insert("subresources".to_owned(), json!({ "status": {} }));
            out.insert("additionalPrinterColumns".to_owned(), columns.into());
            let root = schema::root(&version.spec, self.is_route());
            out.insert("schema".to_owned(), json!({ "openAPIV3Schema": root }));
        }
        out
    }

    /// The condition that says what became of the object.
    fn outcome(&self) -> Column {
        let enforced = r#".status.conditions[?(@.type=="Enforced")].status"#;
        let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
        match self.kind {
            "MeshIssuer" | "MeshClusterIssuer" => Column("Ready", ready, "Whether it signs."),
            _ => Column("Enforced", enforced, "Whether proxies apply it."),
        }
    }

    fn is_route(&self) -> bool {
        self.kind == "HTTPRoute"
    }
}

impl Column {
    fn definition(&self) -> Value {
        json!({ "name": self.0, "type": "string", "jsonPath": self.1, "description": self.2 })
    }
}

#[cfg(test)]
mod tests;
