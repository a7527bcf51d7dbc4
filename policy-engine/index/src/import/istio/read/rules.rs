//! Rules of a policy: sources, operations, conditions, and the values of each.

use super::{One, source};
use crate::finding::Code;
use crate::import::istio::model::{Attribute, Clause, Rule, Want};
use crate::import::istio::values::{OPERATION, SOURCE, attribute_of, attribute_of_condition, want};
use crate::limits::RULE_PIECES_MAX;
use crate::manifest::read::Fields;
use crate::manifest::tree::{Node, Value};

impl One<'_> {
    pub(super) fn rule(&mut self, node: &Node, path: &str) -> Option<Rule> {
        let mut fields = self.reading.fields(node, path)?;
        let mut rule = Rule {
            source: self.at(node),
            from: Vec::new(),
            to: Vec::new(),
            when: Vec::new(),
        };
        for (key, inner, names) in [("from", "source", SOURCE), ("to", "operation", OPERATION)] {
            for (number, item) in self.some(&mut fields, key).iter().enumerate() {
                let path = format!("{path}.{key}[{number}]");
                let clauses = self.alternative(item, &path, inner, names);
                if key == "from" {
                    rule.from.extend(clauses);
                } else {
                    rule.to.extend(clauses);
                }
            }
        }
        for (number, item) in self.some(&mut fields, "when").iter().enumerate() {
            rule.when
                .extend(self.condition(item, &format!("{path}.when[{number}]")));
        }
        fields.finish(&mut self.reading);
        let pieces = rule.from.len().max(1) * rule.to.len().max(1);
        if pieces > RULE_PIECES_MAX {
            let message = format!(
                "`{path}` has {pieces} combinations of a source and an operation; the limit is {RULE_PIECES_MAX}"
            );
            self.reading.problem(node.at, Code::Limit, message);
        }
        Some(rule)
    }

    /// A list that may be missing, but not empty.
    pub(in crate::import::istio) fn some<'n>(
        &mut self,
        fields: &mut Fields<'n>,
        key: &'static str,
    ) -> &'n [Node] {
        let path = fields.path(key);
        let Some(node) = fields.optional(&mut self.reading, key) else {
            return &[];
        };
        let items = self.reading.list(node, &path).unwrap_or_default();
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            let message = format!("`{path}` is empty; remove it, or name what is meant");
            self.reading.problem(node.at, Code::BadValue, message);
        }
        items
    }

    /// One entry of `from` or `to`.
    fn alternative(
        &mut self,
        node: &Node,
        path: &str,
        inner: &'static str,
        names: &[(&'static str, &'static str)],
    ) -> Option<Vec<Clause>> {
        let mut outer = self.reading.fields(node, path)?;
        let mut fields = outer.required_fields(&mut self.reading, inner)?;
        let mut clauses = Vec::new();
        for (positive, negative) in names {
            let (path, at) = (fields.path(positive), fields.at);
            let (yes, no) = (
                self.some(&mut fields, positive),
                self.some(&mut fields, negative),
            );
            let attribute = attribute_of(positive);
            let source = yes
                .first()
                .or(no.first())
                .map_or_else(|| source(self.file, at, at.line), |n| self.at(n));
            let values = self.wants(&attribute, yes, &path);
            let not_values = self.wants(&attribute, no, &fields.path(negative));
            if yes.is_empty() && no.is_empty() {
                continue;
            }
            let path = if yes.is_empty() {
                fields.path(negative)
            } else {
                path
            };
            clauses.push(Clause {
                attribute,
                values,
                not_values,
                path,
                source,
            });
        }
        if fields.stands("serviceAccounts")
            && ["principals", "namespaces"]
                .iter()
                .any(|k| fields.stands(k))
        {
            let message = format!(
                "`{}` excludes `principals` and `namespaces`",
                fields.path("serviceAccounts")
            );
            self.reading.problem(fields.at, Code::Conflict, message);
        }
        let (at, empty) = (fields.at, clauses.is_empty());
        fields.finish(&mut self.reading);
        outer.finish(&mut self.reading);
        if empty {
            let message =
                format!("`{path}.{inner}` names nothing; remove the entry, or say what is meant");
            self.reading.problem(at, Code::BadValue, message);
        }
        Some(clauses)
    }

    /// One entry of `when`.
    fn condition(&mut self, node: &Node, path: &str) -> Option<Clause> {
        let mut fields = self.reading.fields(node, path)?;
        let key = fields.required_text(&mut self.reading, "key");
        let (yes, no) = (
            self.some(&mut fields, "values"),
            self.some(&mut fields, "notValues"),
        );
        let at = fields.at;
        fields.finish(&mut self.reading);
        let key = key?;
        let Some(attribute) = attribute_of_condition(key) else {
            let message = format!("`{path}.key: {key}` is no attribute that conditions know");
            self.reading.problem(at, Code::BadValue, message);
            return None;
        };
        if yes.is_empty() && no.is_empty() {
            let message = format!("`{path}` needs `values` or `notValues`");
            self.reading.problem(at, Code::Missing, message);
        }
        let values = self.wants(&attribute, yes, &format!("{path}.values"));
        let not_values = self.wants(&attribute, no, &format!("{path}.notValues"));
        Some(Clause {
            attribute,
            values,
            not_values,
            path: path.to_owned(),
            source: self.at(node),
        })
    }

    fn wants(&mut self, attribute: &Attribute, nodes: &[Node], path: &str) -> Vec<Want> {
        let mut out = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{number}]");
            let Some(text) = self.reading.text(node, &path) else {
                continue;
            };
            match want(attribute, text, &self.key.namespace) {
                Ok(want) => out.push(want),
                Err(why) => self.reading.problem(
                    node.at,
                    Code::BadValue,
                    format!("`{path}: {text}`: {why}"),
                ),
            }
        }
        out
    }
}
