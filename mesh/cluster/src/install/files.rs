//! Files below `charts/` that are made from code: the chart of the definitions, the template of the
//! admission policies, and the kustomize base. They are committed,
//! and a test compares; `mesh charts DIR` writes them anew.

use super::{InstallError, Values, render, render_crds};
use crate::crds::{self, Which};
use crate::inject::policy;
use crate::yaml;
use serde_json::Value;

/// Each file: its path below `charts/`, and its content.
///
/// # Errors
/// As [`render`].
pub fn made() -> Result<Vec<(String, String)>, InstallError> {
    let own: Vec<String> = crds::all(Which::Own).iter().map(name).collect();
    let mut out: Vec<(String, String)> = crds::all(Which::All)
        .iter()
        .map(|crd| {
            let (name, text) = (name(crd), yaml::write(crd));
            let text = if own.contains(&name) {
                format!("{HEAD}{text}")
            } else {
                format!("{HEAD}{{{{- if eq .Values.which \"all\" }}}}\n{text}{{{{- end }}}}\n")
            };
            (format!("mesh-crds/templates/{name}.yaml"), text)
        })
        .collect();
    out.push((
        "mesh/templates/policies.yaml".to_owned(),
        policy::template(),
    ));
    out.push((
        "kustomize/crds.yaml".to_owned(),
        format!("{HEAD}{}", render_crds(Which::All)),
    ));
    out.push((
        "kustomize/mesh.yaml".to_owned(),
        format!("{HEAD}{}", render(&Values::default())?),
    ));
    out.push((
        "kustomize/kustomization.yaml".to_owned(),
        KUSTOMIZATION.to_owned(),
    ));
    Ok(out)
}

/// First line of the files.
const HEAD: &str = "# Made by `mesh charts`; a test compares.\n";

const KUSTOMIZATION: &str = "\
# Made by `mesh charts`; a test compares. What `mesh install` prints, as a base for kustomize.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- crds.yaml
- mesh.yaml
";

fn name(crd: &Value) -> String {
    crd.pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
