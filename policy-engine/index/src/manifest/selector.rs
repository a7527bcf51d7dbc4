//! Label selectors: `matchLabels` and `matchExpressions`.

use super::read::Reading;
use super::resource::{Expression, Operator, Selector};
use super::tree::Node;
use crate::finding::Code;

/// Reads a label selector. `None` if any part is unreadable: half a selector would select other pods.
pub(crate) fn read_selector(reading: &mut Reading, node: &Node, path: &str) -> Option<Selector> {
    let mut fields = reading.fields(node, path)?;
    let before = (reading.problems.len(), std::mem::take(&mut reading.spoiled));
    let mut selector = Selector::default();
    let labels = fields.optional(reading, "matchLabels");
    if let Some(labels) = labels.and_then(|n| reading.text_map(n, &format!("{path}.matchLabels"))) {
        selector.labels = labels;
    }
    for (index, item) in fields
        .optional_list(reading, "matchExpressions")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}.matchExpressions[{index}]");
        selector
            .expressions
            .extend(read_expression(reading, item, &path));
    }
    fields.finish(reading);
    let whole = reading.problems.len() == before.0 && !reading.spoiled;
    reading.spoiled |= before.1;
    whole.then_some(selector)
}

fn read_expression(reading: &mut Reading, node: &Node, path: &str) -> Option<Expression> {
    let mut fields = reading.fields(node, path)?;
    let key = fields.required_text(reading, "key").map(str::to_owned);
    if !fields.stands("operator") {
        reading.problem(
            node.at,
            Code::Missing,
            format!("`{path}.operator` is missing"),
        );
    }
    let operator = match fields.choice(
        reading,
        "operator",
        &["In", "NotIn", "Exists", "DoesNotExist"],
    ) {
        Some("In") => Some(Operator::In),
        Some("NotIn") => Some(Operator::NotIn),
        Some("Exists") => Some(Operator::Exists),
        Some("DoesNotExist") => Some(Operator::DoesNotExist),
        _ => None,
    };
    let mut values = Vec::new();
    for (index, value) in fields
        .optional_list(reading, "values")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        values.extend(
            reading
                .text(value, &format!("{path}.values[{index}]"))
                .map(str::to_owned),
        );
    }
    let wants_values = matches!(operator, Some(Operator::In | Operator::NotIn));
    if operator.is_some() && wants_values == values.is_empty() {
        let message = if wants_values {
            format!("`{path}.values` must not be empty for this operator")
        } else {
            format!("`{path}.values` must be absent for this operator")
        };
        reading.problem(node.at, Code::Conflict, message);
    }
    fields.finish(reading);
    Some(Expression {
        key: key?,
        operator: operator?,
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn expressions_hold_as_in_kubernetes() {
        let on = |operator, values: &[&str]| Selector {
            labels: BTreeMap::new(),
            expressions: vec![Expression {
                key: "tier".into(),
                operator,
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            }],
        };
        let (front, none) = (labels(&[("tier", "front")]), labels(&[("app", "cart")]));
        for (operator, values, with, without) in [
            (Operator::In, &["front", "back"][..], true, false),
            (Operator::In, &["back"], false, false),
            (Operator::NotIn, &["back"], true, true),
            (Operator::NotIn, &["front"], false, true),
            (Operator::Exists, &[], true, false),
            (Operator::DoesNotExist, &[], false, true),
        ] {
            let selector = on(operator, values);
            assert_eq!(
                selector.matches(&front),
                with,
                "{operator:?} {values:?} with the label"
            );
            assert_eq!(
                selector.matches(&none),
                without,
                "{operator:?} {values:?} without the label"
            );
        }
    }

    #[test]
    fn an_empty_selector_matches_every_pod() {
        assert!(Selector::default().matches(&labels(&[])));
    }
}
