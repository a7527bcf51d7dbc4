//! RequestAuthentication: who carries a token that is not valid is refused by Istio.
//!
//! This mesh checks no tokens of end users. So requests that may carry one are denied where Istio would have checked it,
//! and those with a header that Istio makes of a token, for nobody else may write it. Without a token such workloads may
//! be asked as before: Istio lets these requests through, too.

use super::model::{Attribute, Clause, Policy, Rule, Want};
use super::pattern::Text;
use super::read::One;
use crate::finding::Code;
use crate::import::TokenAction;
use crate::manifest::read::Fields;
use crate::manifest::route_match::is_token;
use crate::manifest::tree::Node;
use mesh_policy::snapshot::Source;

/// The parameter of the query that Istio looks at where a rule names no place.
const DEFAULT_PARAMETER: &str = "access_token";

/// Reads `jwtRules`: each place of a token becomes a rule that denies.
pub(super) fn read(
    one: &mut One<'_>,
    spec: &mut Fields<'_>,
    policy: &mut Policy,
    action: TokenAction,
) {
    let rules = spec.optional_list(&mut one.reading, "jwtRules");
    for (number, node) in rules.unwrap_or_default().iter().enumerate() {
        let path = format!("spec.jwtRules[{number}]");
        let Some(mut fields) = one.reading.fields(node, &path) else {
            continue;
        };
        fields.required_text(&mut one.reading, "issuer");
        // What makes a token valid: here none is.
        fields.ignore(&[
            "audiences",
            "jwksUri",
            "jwks",
            "forwardOriginalToken",
            "timeout",
            "spaceDelimitedClaims",
        ]);
        let mut places = Places {
            path: &path,
            source: one.at(node),
            action,
            policy,
            found: false,
        };
        places.tokens(one, &mut fields);
        places.claims(one, &mut fields);
        fields.finish(&mut one.reading);
    }
}

/// The places of one rule that may hold a token, or what was made of it.
struct Places<'p> {
    path: &'p str,
    source: Source,
    action: TokenAction,
    policy: &'p mut Policy,
    /// Whether the rule names a place itself.
    found: bool,
}

impl Places<'_> {
    fn tokens(&mut self, one: &mut One<'_>, fields: &mut Fields<'_>) {
        for (number, node) in one.some(fields, "fromHeaders").iter().enumerate() {
            let path = format!("{}.fromHeaders[{number}]", self.path);
            self.found = true;
            let Some(mut header) = one.reading.fields(node, &path) else {
                continue;
            };
            let name = header.required_text(&mut one.reading, "name");
            header.optional_text(&mut one.reading, "prefix");
            header.finish(&mut one.reading);
            if let Some(name) = name {
                self.header(one, node, name, path);
            }
        }
        for node in one.some(fields, "fromCookies") {
            self.found = true;
            let path = format!("{}.fromCookies", self.path);
            self.deny(Attribute::Header("cookie".to_owned()), path, one.at(node));
        }
        for (number, node) in one.some(fields, "fromParams").iter().enumerate() {
            self.found = true;
            let path = format!("{}.fromParams[{number}]", self.path);
            if let Some(name) = one.reading.text(node, &path) {
                self.parameter(name, path, one.at(node));
            }
        }
        if !self.found {
            let (path, source) = (self.path.to_owned(), self.source.clone());
            let header = Attribute::Header("authorization".to_owned());
            self.deny(header, path.clone(), source.clone());
            self.parameter(DEFAULT_PARAMETER, path, source);
        }
    }

    /// Headers that Istio writes: what a client says in them must not be taken for what a token said.
    fn claims(&mut self, one: &mut One<'_>, fields: &mut Fields<'_>) {
        let key = "outputPayloadToHeader";
        if let Some(node) = fields.optional(&mut one.reading, key) {
            let path = format!("{}.{key}", self.path);
            if let Some(name) = one.reading.text(node, &path) {
                self.header(one, node, name, path);
            }
        }
        for (number, node) in one.some(fields, "outputClaimToHeaders").iter().enumerate() {
            let path = format!("{}.outputClaimToHeaders[{number}]", self.path);
            let Some(mut claim) = one.reading.fields(node, &path) else {
                continue;
            };
            let name = claim.required_text(&mut one.reading, "header");
            claim.required_text(&mut one.reading, "claim");
            claim.finish(&mut one.reading);
            if let Some(name) = name {
                self.header(one, node, name, path);
            }
        }
    }

    fn header(&mut self, one: &mut One<'_>, node: &Node, name: &str, path: String) {
        if !is_token(name) {
            let message = format!("`{path}`: `{name}` is no name of a header");
            one.reading.problem(node.at, Code::BadValue, message);
            return;
        }
        let header = Attribute::Header(name.to_ascii_lowercase());
        self.deny(header, path, one.at(node));
    }

    /// Policies do not see the query: where a token may stand in it, every request may carry one.
    fn parameter(&mut self, name: &str, path: String, source: Source) {
        match (self.action, &mut self.policy.tokens) {
            (TokenAction::InHeaders, Some(tokens)) => _ = tokens.unseen.insert(name.to_owned()),
            _ => {
                let query = Attribute::Foreign(format!("query parameter {name}"), true);
                self.deny(query, path, source);
            }
        }
    }

    fn deny(&mut self, attribute: Attribute, path: String, source: Source) {
        let clause = Clause {
            attribute,
            values: vec![Want::Text(Text::Present)],
            not_values: Vec::new(),
            path,
            source: source.clone(),
        };
        self.policy.rules.push(Rule {
            source,
            from: Vec::new(),
            to: Vec::new(),
            when: vec![clause],
        });
    }
}
