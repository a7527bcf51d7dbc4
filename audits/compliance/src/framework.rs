//! Frameworks as data: which control is held against which evidence, and what the mesh does not cover of it.
//!
//! The mappings are YAML, in `frameworks/` of this crate; others can be given in their place. They hold ids of controls
//! and words of our own: the texts of most frameworks belong to their publishers.

use crate::expression::Need;
use crate::limits::MAPPING_BYTES_MAX;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeSet;

/// A mapping, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framework {
    /// `nist-800-53`, `pci-dss-4.0.1` and the like.
    pub id: String,
    /// Its name.
    pub title: String,
    /// Version of the framework.
    pub version: String,
    /// Revision of this mapping.
    pub revision: u32,
    /// Where the framework itself is published, as a citation.
    pub source: String,
    /// Its controls, in their order.
    pub controls: Vec<Control>,
}

/// A control, requirement, criterion or function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its id in the framework.
    pub id: String,
    /// What it is about, in our words.
    pub title: String,
    /// What must hold for `satisfied`.
    pub needs: Vec<Need>,
    /// What must hold too, else it is `partial`.
    pub should: Vec<Need>,
    /// Stages of maturity, lowest first, in place of needs.
    pub stages: Vec<(String, Vec<Need>)>,
    /// Whether the mesh covers a part of it only, so that nothing above `partial` is ever said.
    pub part: bool,
    /// What the mesh does not cover.
    pub not_covered: String,
    /// Baseline it belongs to, where that matters.
    pub baseline: Option<String>,
}

/// Why a mapping is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum FrameworkError {
    /// No such framework.
    #[error("there is no framework `{asked}`")]
    #[diagnostic(
        code("MESH-0556"),
        help("there are: {known}; others can be given with `--mapping FILE`")
    )]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// A mapping that cannot be read.
    #[error("{file}:{line}:{column}: the mapping cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0557"),
        help("its fields are described in docs/guides/audit-reports.md")
    )]
    Form {
        /// The file.
        file: String,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What the reader says.
        why: String,
    },
    /// A mapping that says something without meaning.
    #[error("{file}:{line}: control `{control}`: {why}")]
    #[diagnostic(
        code("MESH-0558"),
        help("`mesh audit controls --metrics` lists what a control can be held against")
    )]
    Meaning {
        /// The file.
        file: String,
        /// From 1.
        line: u64,
        /// The control.
        control: String,
        /// What is wrong.
        why: String,
    },
}

const STAGES: [&str; 3] = ["initial", "advanced", "optimal"];

/// The mappings that this crate brings: names and texts.
const BUILT_IN: &[(&str, &str)] = &[
    (
        "nist-800-53",
        include_str!("../frameworks/nist-800-53.yaml"),
    ),
    (
        "nist-800-207",
        include_str!("../frameworks/nist-800-207.yaml"),
    ),
    (
        "nist-800-204a",
        include_str!("../frameworks/nist-800-204a.yaml"),
    ),
    (
        "nist-800-204b",
        include_str!("../frameworks/nist-800-204b.yaml"),
    ),
    (
        "pci-dss-4.0.1",
        include_str!("../frameworks/pci-dss-4.0.1.yaml"),
    ),
    ("soc2", include_str!("../frameworks/soc2.yaml")),
    ("hipaa", include_str!("../frameworks/hipaa.yaml")),
    (
        "iso-27001-2022",
        include_str!("../frameworks/iso-27001-2022.yaml"),
    ),
    (
        "cis-kubernetes",
        include_str!("../frameworks/cis-kubernetes.yaml"),
    ),
    (
        "nsa-cisa-hardening",
        include_str!("../frameworks/nsa-cisa-hardening.yaml"),
    ),
    (
        "cisa-ztmm-2.0",
        include_str!("../frameworks/cisa-ztmm-2.0.yaml"),
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameworkFile {
    framework: Spanned<String>,
    title: String,
    version: String,
    revision: u32,
    source: String,
    controls: Vec<ControlFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlFile {
    id: Spanned<String>,
    title: String,
    #[serde(default)]
    needs: Vec<Spanned<String>>,
    #[serde(default)]
    should: Vec<Spanned<String>>,
    stages: Option<StagesFile>,
    #[serde(default)]
    part: bool,
    not_covered: String,
    baseline: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StagesFile {
    initial: Vec<Spanned<String>>,
    advanced: Vec<Spanned<String>>,
    optimal: Vec<Spanned<String>>,
}

/// Names of the frameworks that this crate brings.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// A framework of this crate.
///
/// # Errors
/// [`FrameworkError::Unknown`].
pub fn built_in(name: &str) -> Result<Framework, FrameworkError> {
    match BUILT_IN.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => parse(&format!("<built in>/{name}.yaml"), text),
        None => Err(FrameworkError::Unknown {
            asked: name.to_owned(),
            known: names().collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Reads a mapping.
///
/// # Errors
/// [`FrameworkError`] with the place of the first fault.
pub fn parse(file: &str, text: &str) -> Result<Framework, FrameworkError> {
    let form = |line: u64, column: u64, why: String| FrameworkError::Form {
        file: file.to_owned(),
        line,
        column,
        why,
    };
    if text.len() > MAPPING_BYTES_MAX {
        return Err(form(
            1,
            1,
            format!("it has more than {MAPPING_BYTES_MAX} bytes"),
        ));
    }
    let read: FrameworkFile = serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((1, 1), |at| (at.line(), at.column()));
        let why = error.without_snippet().to_string();
        let why = why.lines().next().unwrap_or_default().to_owned();
        form(line, column, why)
    })?;
    let mut controls = Vec::with_capacity(read.controls.len());
    let mut seen = BTreeSet::new();
    for control in &read.controls {
        if !seen.insert(control.id.value.clone()) {
            return Err(meaning(
                file,
                &control.id,
                control,
                "it stands twice".to_owned(),
            ));
        }
        controls.push(control_of(file, control)?);
    }
    let token = |id: &str| {
        !id.is_empty()
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if !token(&read.framework.value) || controls.is_empty() {
        let (line, column) = place(&read.framework);
        let why = "a framework has a name of letters, digits, `-`, `.` and `_`, and controls";
        return Err(form(line, column, why.to_owned()));
    }
    Ok(Framework {
        id: read.framework.value,
        title: read.title,
        version: read.version,
        revision: read.revision,
        source: read.source,
        controls,
    })
}

fn control_of(file: &str, read: &ControlFile) -> Result<Control, FrameworkError> {
    let all = |texts: &[Spanned<String>]| -> Result<Vec<Need>, FrameworkError> {
        texts
            .iter()
            .map(|text| Need::parse(&text.value).map_err(|why| meaning(file, text, read, why)))
            .collect()
    };
    let stages = match &read.stages {
        None => Vec::new(),
        Some(stages) => {
            let needs = [&stages.initial, &stages.advanced, &stages.optimal];
            let pairs = STAGES.iter().zip(needs);
            pairs
                .map(|(name, needs)| Ok(((*name).to_owned(), all(needs)?)))
                .collect::<Result<Vec<_>, FrameworkError>>()?
        }
    };
    let (needs, should) = (all(&read.needs)?, all(&read.should)?);
    let wrong = if read.not_covered.trim().is_empty() {
        Some("`not_covered` must say what the mesh does not cover")
    } else if stages.is_empty() && needs.is_empty() {
        Some("it needs nothing, so it would always hold")
    } else if !(stages.is_empty() || needs.is_empty() && should.is_empty()) {
        Some("it has stages and needs: it may have one of them")
    } else if stages.iter().any(|(_, needs)| needs.is_empty()) {
        Some("one of its stages needs nothing")
    } else {
        None
    };
    if let Some(why) = wrong {
        return Err(meaning(file, &read.id, read, why.to_owned()));
    }
    Ok(Control {
        id: read.id.value.clone(),
        title: read.title.clone(),
        needs,
        should,
        stages,
        part: read.part,
        not_covered: read
            .not_covered
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        baseline: read.baseline.clone(),
    })
}

impl Control {
    /// Everything that it asks of metrics.
    pub fn all_needs(&self) -> impl Iterator<Item = &Need> {
        let staged = self.stages.iter().flat_map(|(_, needs)| needs);
        self.needs.iter().chain(&self.should).chain(staged)
    }

    /// Evidence that it is held against, `E1` to `E12`, in order.
    pub fn evidence(&self) -> Vec<String> {
        let numbers = self.all_needs().filter_map(|need| {
            let number = need.metric.id.strip_prefix('e')?.split_once('.')?.0;
            number.parse().ok()
        });
        let sorted: BTreeSet<u32> = numbers.collect();
        sorted
            .into_iter()
            .map(|number| format!("E{number}"))
            .collect()
    }
}

fn place(text: &Spanned<String>) -> (u64, u64) {
    let at = text.referenced;
    (at.line(), at.column())
}

fn meaning(file: &str, at: &Spanned<String>, control: &ControlFile, why: String) -> FrameworkError {
    FrameworkError::Meaning {
        file: file.to_owned(),
        line: place(at).0,
        control: control.id.value.clone(),
        why,
    }
}

#[cfg(test)]
mod tests;
