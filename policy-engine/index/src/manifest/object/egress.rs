//! EgressNetworks among the objects: what an unreadable document closes that may have been one.

use super::cedar::namespace_node;
use super::{Input, Loader, source};
use crate::finding::{Code, finding};
use crate::manifest::policy_kinds::POLICY_GROUP;
use crate::manifest::resource::Closed;
use crate::manifest::tree::Node;

impl Loader {
    /// A document whose kind cannot be told: was it an EgressNetwork?
    pub(super) fn maybe_egress(&mut self, input: &Input<'_>, api: Option<&str>, why: &str) {
        let may = match api {
            Some(api) => api.split('/').next() == Some(POLICY_GROUP),
            None => input.names_egress,
        };
        if may {
            let namespace = namespace_node(input).and_then(Node::as_text);
            self.close_egress(input, namespace, why);
        }
    }

    /// Closes what leaves the cluster from a namespace, or from all.
    pub(super) fn close_egress(&mut self, input: &Input<'_>, namespace: Option<&str>, why: &str) {
        let source = source(input.file, input.root.at, input.root.end_line);
        let whose = namespace.map_or_else(
            || "every namespace".to_owned(),
            |namespace| format!("namespace `{namespace}`"),
        );
        let message = format!(
            "{why}, and it may be an EgressNetwork: {whose} reaches nothing outside of the cluster until it is mended"
        );
        let found = finding(Code::EgressCloses, message, None, source.clone());
        self.findings.push(found);
        self.resources.egress_closed.push(Closed {
            namespace: namespace.map(str::to_owned),
            why: why.to_owned(),
            source,
        });
    }
}
