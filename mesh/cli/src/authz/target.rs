//! `--from` and `--to`: who asks, and where.

use mesh_policy::request::TargetRecord;
use mesh_trust::{SpiffeId, TrustDomain};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Nobody known: no verified identity.
    Nobody,
    /// The service account `namespace/name` of the mesh's own trust domain.
    ServiceAccount(String, String),
    /// A SPIFFE ID, as given; one that is malformed is a denial, as on the wire.
    Id(String),
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct To {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name of a workload, a pod or a Service.
    pub(crate) name: String,
    /// Whether only a Service is meant (`namespace/svc/name:port`).
    pub(crate) service_only: bool,
    /// Port.
    pub(crate) port: u16,
}

impl From {
    /// Reads `none`, `namespace/account` or a SPIFFE ID.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Nobody);
        }
        if text.contains("://") {
            return Ok(Self::Id(text.to_owned()));
        }
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::ServiceAccount(namespace.to_owned(), name.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is nobody: write `namespace/serviceaccount`, a `spiffe://` ID, or `none`"
            )),
        }
    }

    /// The identity, as a request record has it.
    pub(crate) fn spiffe_id(&self, trust_domain: &TrustDomain) -> Option<String> {
        match self {
            Self::Nobody => None,
            Self::Id(text) => Some(text.clone()),
            Self::ServiceAccount(namespace, name) => {
                let id = SpiffeId::for_service_account(trust_domain, namespace, name);
                // A name that no SPIFFE ID can have is judged as it would be on the wire.
                Some(id.map_or_else(
                    |_| format!("spiffe://{trust_domain}/ns/{namespace}/sa/{name}"),
                    |id| id.to_string(),
                ))
            }
        }
    }
}

impl To {
    /// Reads `namespace/name:port`, or `namespace/svc/name:port` where a Service is meant and a pod has its name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no target: write `namespace/workload:port` or `namespace/svc/service:port`"
            )
        };
        let (place, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)?;
        let (namespace, name) = place.split_once('/').ok_or_else(wrong)?;
        let (service_only, name) = match name.split_once('/') {
            Some(("svc" | "service", name)) => (true, name),
            Some(_) => return Err(wrong()),
            None => (false, name),
        };
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(wrong());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            service_only,
            port,
        })
    }

    /// The target as a pod.
    pub(crate) fn pod(&self) -> TargetRecord {
        let (namespace, pod) = (self.namespace.clone(), Some(self.name.clone()));
        TargetRecord {
            namespace,
            pod,
            service: None,
            port: self.port,
        }
    }

    /// The target as a Service.
    pub(crate) fn service(&self) -> TargetRecord {
        let (namespace, service) = (self.namespace.clone(), Some(self.name.clone()));
        TargetRecord {
            namespace,
            pod: None,
            service,
            port: self.port,
        }
    }

    /// What it can mean, in the order of trying: a workload first, as the port of a pod is what is judged.
    pub(crate) fn readings(&self) -> Vec<TargetRecord> {
        if self.service_only {
            vec![self.service()]
        } else {
            vec![self.pod(), self.service()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_read_in_three_forms() {
        let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
        for (text, want) in [
            ("none", Some(None)),
            (
                "shop/web",
                Some(Some("spiffe://cluster.local/ns/shop/sa/web")),
            ),
            (
                "spiffe://other.example/x",
                Some(Some("spiffe://other.example/x")),
            ),
            ("web", None),
            ("/web", None),
            ("shop/", None),
            ("a/b/c", None),
            ("", None),
        ] {
            let read = From::parse(text).ok().map(|from| from.spiffe_id(&domain));
            assert_eq!(read, want.map(|id| id.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn targets_need_namespace_name_and_port() {
        for (text, want) in [
            ("shop/orders:8080", Some((false, 8080))),
            ("shop/svc/orders:80", Some((true, 80))),
            ("shop/orders", None),
            ("orders:8080", None),
            ("shop/orders:0", None),
            ("shop/orders:99999", None),
            ("shop/pod/orders:80", None),
            ("shop/:80", None),
        ] {
            assert_eq!(
                To::parse(text).ok().map(|to| (to.service_only, to.port)),
                want,
                "{text}"
            );
        }
    }
}
