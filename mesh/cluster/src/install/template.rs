//! As much of Helm's template language as the chart needs: values, `.Chart.AppVersion`, `quote`, `int`, `default`, and `if`
//! (of a value, or `eq` and `ne` of a value and a text), `else`, `end` on lines of their own. Anything else is an error, so that no template can mean one thing here and another
//! to Helm.

use super::{VERSION, Values};
use serde_json::Value;

/// What a template cannot do, with the place.
#[derive(Debug)]
pub(super) struct TemplateError(pub(super) String);

/// What templates may look at.
pub(super) struct Context(Value);

impl Context {
    pub(super) fn new(values: &Values) -> Self {
        Self(values.to_json())
    }

    fn value(&self, path: &str) -> Result<&Value, TemplateError> {
        let keys = path
            .strip_prefix(".Values.")
            .ok_or_else(|| TemplateError(format!("`{path}` is none of `.Values`")))?;
        let found = keys
            .split('.')
            .try_fold(&self.0, |value, key| value.get(key));
        found.ok_or_else(|| TemplateError(format!("there is no value `{path}`")))
    }
}

/// Where in `if` and `else` a line stands.
struct Branch {
    /// Whether the lines now are written.
    taken: bool,
    /// Whether `else` stood already.
    other: bool,
}

/// The text with all actions carried out.
pub(super) fn render(text: &str, context: &Context) -> Result<String, TemplateError> {
    let (mut out, mut branches) = (String::with_capacity(text.len()), Vec::<Branch>::new());
    for (index, line) in text.lines().enumerate() {
        let at = |TemplateError(why)| TemplateError(format!("line {}: {why}", index + 1));
        if let Some(action) = control(line) {
            step(action, context, &mut branches).map_err(at)?;
        } else if branches.iter().all(|branch| branch.taken) {
            substitute(line, context, &mut out).map_err(at)?;
            out.push('\n');
        }
    }
    if branches.is_empty() {
        Ok(out)
    } else {
        Err(TemplateError("an `if` without `end`".to_owned()))
    }
}

/// The action of a line that is nothing else: `{{- if .Values.x }}`.
fn control(line: &str) -> Option<&str> {
    Some(line.strip_prefix("{{- ")?.strip_suffix(" }}")?.trim())
}

fn step(action: &str, context: &Context, branches: &mut Vec<Branch>) -> Result<(), TemplateError> {
    let unmatched = || TemplateError(format!("`{action}` without `if`"));
    match action {
        "end" => branches.pop().map(drop).ok_or_else(unmatched),
        "else" => {
            let branch = branches
                .last_mut()
                .filter(|b| !b.other)
                .ok_or_else(unmatched)?;
            branch.taken = !branch.taken;
            branch.other = true;
            Ok(())
        }
        _ => {
            let asked = action
                .strip_prefix("if ")
                .ok_or_else(|| TemplateError(format!("unknown action `{action}`")))?;
            let taken = match asked.split_once(' ') {
                None => is_true(context.value(asked)?),
                Some((function, rest)) => compare(function, rest, context)?,
            };
            branches.push(Branch {
                taken,
                other: false,
            });
            Ok(())
        }
    }
}

/// `eq` or `ne` of a value and a text, both of type string: Helm does not compare others as we do.
fn compare(function: &str, rest: &str, context: &Context) -> Result<bool, TemplateError> {
    let unknown = || TemplateError(format!("unknown comparison `{function} {rest}`"));
    let (path, text) = rest.split_once(' ').ok_or_else(unknown)?;
    let wanted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .filter(|text| text.bytes().all(|b| b.is_ascii_alphanumeric()))
        .ok_or_else(unknown)?;
    let found = context.value(path)?.as_str().ok_or_else(unknown)?;
    match function {
        "eq" => Ok(found == wanted),
        "ne" => Ok(found != wanted),
        _ => Err(unknown()),
    }
}

/// What Go's templates take for true.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn substitute(line: &str, context: &Context, out: &mut String) -> Result<(), TemplateError> {
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after
            .split_once("}}")
            .ok_or_else(|| TemplateError("`{{` without `}}`".to_owned()))?;
        out.push_str(before);
        out.push_str(&evaluate(action.trim(), context)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(())
}

/// `.Values.a.b`, through the functions behind it.
fn evaluate(action: &str, context: &Context) -> Result<String, TemplateError> {
    let mut parts = action.split('|').map(str::trim);
    let mut text = match parts.next().unwrap_or_default() {
        ".Chart.AppVersion" => VERSION.to_owned(),
        path => match context.value(path)? {
            Value::String(text) => text.clone(),
            value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
            _ => return Err(TemplateError(format!("`{action}` is no single value"))),
        },
    };
    for function in parts {
        text = match function {
            "quote" => Value::from(text).to_string(),
            // Helm reads numbers as floats; ours are whole already.
            "int" => text,
            "default .Chart.AppVersion" if text.is_empty() => VERSION.to_owned(),
            "default .Chart.AppVersion" => text,
            _ => return Err(TemplateError(format!("unknown function `{function}`"))),
        };
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        render(text, &Context::new(&Values::default())).map_err(|TemplateError(why)| why)
    }

    #[test]
    fn values_go_through_their_functions() {
        assert_eq!(
            rendered(
                "a: {{ .Values.proxy.uid | int }}\nb: {{ .Values.proxy.cpuLimit | quote }}\nc: \"{{ .Values.image.name }}:{{ .Values.image.tag | default .Chart.AppVersion }}\"\n"
            ),
            Ok(format!(
                "a: 15014\nb: \"\"\nc: \"localhost/mesh:{VERSION}\"\n"
            ))
        );
    }

    #[test]
    fn the_version_is_that_of_the_chart() {
        let text = "v: {{ .Chart.AppVersion | quote }}\n";
        assert_eq!(rendered(text), Ok(format!("v: \"{VERSION}\"\n")));
        assert!(rendered("{{ .Chart.Name }}").is_err());
    }

    #[test]
    fn one_branch_is_written() {
        let text = "{{- if .Values.highAvailability }}\na\n{{- if .Values.createNamespace }}\nb\n{{- end }}\n{{- else }}\nc\n{{- end }}\nd\n";
        assert_eq!(rendered(text), Ok("c\nd\n".to_owned()));
    }

    #[test]
    fn a_value_is_compared_with_a_text() {
        let text = "{{- if eq .Values.injector.by \"webhook\" }}\na\n{{- else }}\nb\n{{- end }}\n{{- if ne .Values.injector.by \"webhook\" }}\nc\n{{- end }}\n";
        assert_eq!(rendered(text), Ok("a\n".to_owned()));
    }

    #[test]
    fn what_helm_might_read_otherwise_is_refused() {
        for (text, why) in [
            ("{{ .Values.nothing }}", "no value"),
            ("{{ .Release.Name }}", "none of `.Values`"),
            ("{{ .Values.proxy }}", "no single value"),
            ("{{ .Values.trustDomain | upper }}", "unknown function"),
            ("{{- range .Values.x }}", "unknown action"),
            (
                "{{- if eq .Values.proxy.uid \"1\" }}\n{{- end }}",
                "unknown comparison",
            ),
            (
                "{{- if eq .Values.injector.by policy }}\n{{- end }}",
                "unknown comparison",
            ),
            (
                "{{- if eq .Values.injector.by \"a\" \"b\" }}\n{{- end }}",
                "unknown comparison",
            ),
            (
                "{{- if gt .Values.injector.by \"a\" }}\n{{- end }}",
                "unknown comparison",
            ),
            ("{{- if eq .Values.x.y \"a\" }}\n{{- end }}", "no value"),
            ("{{- if .Values.createNamespace }}\na", "without `end`"),
            ("{{- else }}", "without `if`"),
            (
                "{{- if .Values.createNamespace }}\n{{- else }}\n{{- else }}",
                "without `if`",
            ),
            ("{{- end }}", "without `if`"),
            ("a {{ b", "without `}}`"),
        ] {
            let error = rendered(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
