//! The plan as manifests: one file for each namespace, sorted, each object with where it comes from.

mod form;

use super::gather::Gathering;
use super::model::Objects;
use super::plan::{Origin, Plan, ServerPlan, source_of};
use super::protocol::Protocol;
use super::routes::{Region, RouteSpec, routes};
use super::scope::{Class, Scopes, name_part};
use super::who::{Block, Ids, Who};
use crate::import::report::{FactPlace, Written};
use crate::import::yaml::Yaml;
use cedar_policy::pst::Effect;
use form::{Kind, grpc_match, http_match, selector, slug};
use mesh_trust::TrustDomain;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Rules of one route, and matches of one rule, as Gateway API's own CRDs bound them.
const RULES_MAX: usize = 16;
const MATCHES_MAX: usize = 8;

/// Bytes and policies of one CedarPolicy, below what the index takes.
const CEDAR_OBJECT_BYTES_MAX: usize = 48 * 1024;
const CEDAR_OBJECT_POLICIES_MAX: usize = 200;

const POLICY: &str = "policy.linkerd.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// Everything that was written.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// By file name.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) written: Vec<Written>,
    /// Titles of the objects that an origin became.
    pub(crate) became: BTreeMap<Origin, BTreeSet<String>>,
    /// Titles of the Servers of each class.
    pub(crate) servers: BTreeMap<usize, BTreeSet<String>>,
}

/// Writes a plan.
///
/// # Errors
/// A condition that Cedar does not take: a mistake of ours, never of the input.
pub(crate) fn write(
    objects: &Objects,
    scopes: &Scopes,
    plan: &Plan,
    trust_domain: &TrustDomain,
) -> Result<Output, String> {
    let mut writer = Writer {
        objects,
        trust_domain,
        names: BTreeSet::new(),
        identities: BTreeMap::new(),
        networks: BTreeMap::new(),
        documents: BTreeMap::new(),
        cedar: Gathering::default(),
        output: Output::default(),
    };
    for server in &plan.servers {
        if let Some(class) = scopes.classes.get(server.class) {
            writer.server(class, server);
        }
    }
    writer.cedar_policies()?;
    Ok(writer.finish())
}

/// An object to be written.
struct Document {
    annotations: Vec<(String, String)>,
    spec: Yaml,
    from: BTreeSet<FactPlace>,
}

/// Namespace, kind, name.
type DocumentKey = (String, Kind, String);

struct Writer<'a> {
    objects: &'a Objects,
    trust_domain: &'a TrustDomain,
    names: BTreeSet<DocumentKey>,
    /// Names of authentications by namespace and content.
    identities: BTreeMap<(String, Ids), String>,
    networks: BTreeMap<(String, Vec<Block>), String>,
    documents: BTreeMap<DocumentKey, Document>,
    /// Policies in Cedar of all Servers.
    cedar: Gathering,
    output: Output,
}

/// Characters of a name before its number: 63 are a label (RFC 1123), and a file has less than 100,000 objects.
const NAME_CHARS_MAX: usize = 57;

impl Writer<'_> {
    /// A name that no other object of the kind and namespace has; as long as a label of DNS may be, its number included.
    fn name(&mut self, namespace: &str, kind: Kind, wanted: &str) -> String {
        let cut: String = wanted.chars().take(NAME_CHARS_MAX).collect();
        let wanted = cut.trim_end_matches('-');
        let mut name = wanted.to_owned();
        let mut number = 2;
        while !self
            .names
            .insert((namespace.to_owned(), kind, name.clone()))
        {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        name
    }

    fn document(
        &mut self,
        namespace: &str,
        kind: Kind,
        name: &str,
        spec: Yaml,
        from: BTreeSet<FactPlace>,
    ) {
        let document = Document {
            annotations: Vec::new(),
            spec,
            from,
        };
        self.documents
            .insert((namespace.to_owned(), kind, name.to_owned()), document);
    }

    fn places(&self, origins: &BTreeSet<Origin>) -> BTreeSet<FactPlace> {
        let sources = origins
            .iter()
            .filter_map(|origin| source_of(self.objects, *origin));
        sources.map(|(_, source)| FactPlace::from(source)).collect()
    }

    fn class_places(&self, class: &Class) -> BTreeSet<FactPlace> {
        let policies = class.policies.iter().chain(&class.closed);
        let policies = policies
            .filter_map(|at| self.objects.policies.get(*at))
            .map(|p| &p.source);
        let peers = class
            .peers
            .iter()
            .filter_map(|at| self.objects.peers.get(*at))
            .map(|p| &p.source);
        policies.chain(peers).map(FactPlace::from).collect()
    }

    fn became(&mut self, origins: &BTreeSet<Origin>, kind: Kind, namespace: &str, name: &str) {
        for origin in origins {
            let title = format!("{} {namespace}/{name}", kind.name());
            self.output.became.entry(*origin).or_default().insert(title);
        }
    }

    fn server(&mut self, class: &Class, server: &ServerPlan) {
        let namespace = class.namespace.as_str();
        let spec = Yaml::Map(vec![
            ("podSelector", selector(class)),
            ("port", Yaml::Number(server.port.into())),
            ("proxyProtocol", Yaml::text(server.protocol.name())),
        ]);
        let from = self.class_places(class);
        self.document(namespace, Kind::Server, &server.name, spec, from);
        let title = format!("Server {namespace}/{}", server.name);
        self.output
            .servers
            .entry(server.class)
            .or_default()
            .insert(title);
        for (who, origins) in &server.whole {
            // Without a policy that allows, the words are those of all that bear on the workload.
            let from = if origins.contains(&Origin::NoAllowPolicy) {
                self.class_places(class)
            } else {
                self.places(origins)
            };
            self.authorization(
                namespace,
                (POLICY, "Server", &server.name),
                who,
                origins,
                from,
            );
        }
        self.routes(namespace, server);
        for (policy, origin, statement) in &server.statements {
            self.cedar.add(namespace, *policy, *origin, statement);
        }
    }

    fn routes(&mut self, namespace: &str, server: &ServerPlan) {
        let permits = server
            .statements
            .iter()
            .any(|(_, _, s)| s.effect == Effect::Permit);
        let everything = permits || !server.whole.is_empty();
        let accesses: Vec<_> = server.requests.iter().map(|r| r.access.clone()).collect();
        if accesses.is_empty() {
            return;
        }
        // The plan has no more than routes can take.
        for spec in routes(&accesses, everything).iter().flatten() {
            for part in spec.regions.chunks(RULES_MAX * MATCHES_MAX) {
                self.route(namespace, server, spec, part);
            }
        }
    }

    fn route(
        &mut self,
        namespace: &str,
        server: &ServerPlan,
        spec: &RouteSpec,
        regions: &[Region],
    ) {
        let grpc = server.protocol == Protocol::Grpc;
        let kind = if grpc {
            Kind::GrpcRoute
        } else {
            Kind::HttpRoute
        };
        let slug = regions.first().map(slug).unwrap_or_default();
        let name = self.name(namespace, kind, &format!("{}-{slug}", server.name));
        let rules = regions.chunks(MATCHES_MAX).map(|matches| {
            let matches = matches.iter().filter_map(|r| {
                if grpc {
                    grpc_match(r)
                } else {
                    Some(http_match(r))
                }
            });
            let matches: Vec<Yaml> = matches.collect();
            let fields = if matches.is_empty() {
                Vec::new()
            } else {
                vec![("matches", Yaml::List(matches))]
            };
            Yaml::Map(fields)
        });
        let parent = Yaml::Map(vec![
            ("group", Yaml::text(POLICY)),
            ("kind", Yaml::text("Server")),
            ("name", Yaml::text(&server.name)),
        ]);
        let yaml = Yaml::Map(vec![
            ("parentRefs", Yaml::List(vec![parent])),
            ("rules", Yaml::List(rules.collect())),
        ]);
        let grants: Vec<_> = spec
            .grants
            .iter()
            .filter_map(|at| server.requests.get(*at))
            .collect();
        let mut by_who: BTreeMap<&Who, BTreeSet<Origin>> = BTreeMap::new();
        for grant in grants {
            by_who.entry(&grant.who).or_default().insert(grant.origin);
        }
        // A route that grants nothing keeps its requests from one that does: it comes from all of them.
        let mut origins: BTreeSet<Origin> = by_who.values().flatten().copied().collect();
        if origins.is_empty() {
            origins = server.requests.iter().map(|r| r.origin).collect();
        }
        let from = self.places(&origins);
        self.document(namespace, kind, &name, yaml, from);
        for (who, origins) in by_who {
            self.became(&origins, kind, namespace, &name);
            let from = self.places(&origins);
            self.authorization(
                namespace,
                (GATEWAY, kind.name(), &name),
                who,
                &origins,
                from,
            );
        }
    }

    /// An AuthorizationPolicy on a target, with the authentications that it requires.
    fn authorization(
        &mut self,
        namespace: &str,
        target: (&'static str, &'static str, &str),
        who: &Who,
        origins: &BTreeSet<Origin>,
        from: BTreeSet<FactPlace>,
    ) {
        let mut refs = Vec::new();
        let reference = |kind: Kind, name: String| {
            Yaml::Map(vec![
                ("group", Yaml::text(POLICY)),
                ("kind", Yaml::text(kind.name())),
                ("name", Yaml::text(name)),
            ])
        };
        let mut word = "anyone".to_owned();
        if who.ids != Ids::Anyone {
            let name = self.identity(namespace, &who.ids, origins, &from);
            word.clone_from(&name);
            refs.push(reference(Kind::MeshTls, name));
        }
        if let Some(blocks) = &who.networks {
            let name = self.network(namespace, blocks, origins, &from);
            word = if who.ids == Ids::Anyone {
                name.clone()
            } else {
                format!("{word}-{name}")
            };
            refs.push(reference(Kind::Network, name));
        }
        let (group, kind, target_name) = target;
        let name = self.name(
            namespace,
            Kind::AuthorizationPolicy,
            &format!("{target_name}-{word}"),
        );
        let open = refs.is_empty();
        let spec = Yaml::Map(vec![
            (
                "targetRef",
                Yaml::Map(vec![
                    ("group", Yaml::text(group)),
                    ("kind", Yaml::text(kind)),
                    ("name", Yaml::text(target_name)),
                ]),
            ),
            ("requiredAuthenticationRefs", Yaml::List(refs)),
        ]);
        let reason = self.reason(origins);
        self.document(namespace, Kind::AuthorizationPolicy, &name, spec, from);
        let key = (
            namespace.to_owned(),
            Kind::AuthorizationPolicy,
            name.clone(),
        );
        if let Some(document) = self.documents.get_mut(&key)
            && open
        {
            document
                .annotations
                .push(("mesh.internal/allow-unauthenticated".to_owned(), reason));
        }
        self.became(origins, Kind::AuthorizationPolicy, namespace, &name);
    }

    /// Why everyone may come in.
    fn reason(&self, origins: &BTreeSet<Origin>) -> String {
        let rules = origins.iter().filter_map(|origin| {
            let (policy, _) = source_of(self.objects, *origin)?;
            let Origin::Rule { rule, .. } = origin else {
                return None;
            };
            Some(format!(
                "{}/{} rule {rule}",
                policy.key.namespace, policy.key.name
            ))
        });
        let rules: Vec<String> = rules.collect();
        if rules.is_empty() {
            "imported: no ALLOW policy of Istio selects these pods, and mTLS is not STRICT"
                .to_owned()
        } else {
            format!(
                "imported: Istio asks for no source in AuthorizationPolicy {}, and mTLS is not STRICT",
                rules.join(", ")
            )
        }
    }

    fn identity(
        &mut self,
        namespace: &str,
        ids: &Ids,
        origins: &BTreeSet<Origin>,
        from: &BTreeSet<FactPlace>,
    ) -> String {
        let key = (namespace.to_owned(), ids.clone());
        if let Some(name) = self.identities.get(&key).cloned() {
            self.come_too(namespace, Kind::MeshTls, &name, from);
            self.became(origins, Kind::MeshTls, namespace, &name);
            return name;
        }
        let (texts, word): (Vec<String>, String) = match ids {
            Ids::Anyone | Ids::Verified => (vec!["*".to_owned()], "verified".to_owned()),
            Ids::Members(members) => {
                let word = match members.first() {
                    Some(only) if members.len() == 1 => name_part(&only.word()),
                    _ => self.rule_word(origins, "clients"),
                };
                (
                    members
                        .iter()
                        .filter_map(|m| m.text(self.trust_domain))
                        .collect(),
                    word,
                )
            }
        };
        let name = self.name(namespace, Kind::MeshTls, &word);
        let identities = texts.into_iter().map(Yaml::Text).collect();
        let spec = Yaml::Map(vec![("identities", Yaml::List(identities))]);
        self.document(namespace, Kind::MeshTls, &name, spec, from.clone());
        self.became(origins, Kind::MeshTls, namespace, &name);
        self.identities.insert(key, name.clone());
        name
    }

    fn network(
        &mut self,
        namespace: &str,
        blocks: &[Block],
        origins: &BTreeSet<Origin>,
        from: &BTreeSet<FactPlace>,
    ) -> String {
        let key = (namespace.to_owned(), blocks.to_vec());
        if let Some(name) = self.networks.get(&key).cloned() {
            self.come_too(namespace, Kind::Network, &name, from);
            self.became(origins, Kind::Network, namespace, &name);
            return name;
        }
        let word = self.rule_word(origins, "networks");
        let name = self.name(namespace, Kind::Network, &word);
        let networks = blocks.iter().map(|block| {
            let mut fields = vec![("cidr", Yaml::text(block.cidr.to_string()))];
            if !block.except.is_empty() {
                let except = block
                    .except
                    .iter()
                    .map(|e| Yaml::text(e.to_string()))
                    .collect();
                fields.push(("except", Yaml::List(except)));
            }
            Yaml::Map(fields)
        });
        let spec = Yaml::Map(vec![("networks", Yaml::List(networks.collect()))]);
        self.document(namespace, Kind::Network, &name, spec, from.clone());
        self.became(origins, Kind::Network, namespace, &name);
        self.networks.insert(key, name.clone());
        name
    }

    /// Notes that an object that stands already has one more origin.
    fn come_too(&mut self, namespace: &str, kind: Kind, name: &str, from: &BTreeSet<FactPlace>) {
        if let Some(document) =
            self.documents
                .get_mut(&(namespace.to_owned(), kind, name.to_owned()))
        {
            document.from.extend(from.iter().cloned());
        }
    }

    /// A name after the first rule that something comes from.
    fn rule_word(&self, origins: &BTreeSet<Origin>, what: &str) -> String {
        let first = origins.iter().find_map(|origin| match origin {
            Origin::Rule { policy, rule } => self.objects.policies.get(*policy).map(|p| (p, rule)),
            Origin::NoAllowPolicy => None,
        });
        first.map_or(what.to_owned(), |(policy, rule)| {
            format!("{}-rule-{rule}-{what}", name_part(&policy.key.name))
        })
    }

    fn cedar_policies(&mut self) -> Result<(), String> {
        for ((namespace, policy), gathered) in std::mem::take(&mut self.cedar).finish() {
            let Some(policy) = self.objects.policies.get(policy) else {
                continue;
            };
            let mut texts = Vec::new();
            for (origins, statement) in gathered {
                texts.push((origins, statement.text()?));
            }
            for part in parts(&texts) {
                let name = self.name(&namespace, Kind::CedarPolicy, &name_part(&policy.key.name));
                let text: Vec<&str> = part.iter().map(|(_, text)| text.as_str()).collect();
                let spec = Yaml::Map(vec![("cedar", Yaml::Lines(text.join("\n")))]);
                let origins: BTreeSet<Origin> = part.iter().flat_map(|(o, _)| o).copied().collect();
                let from = self.places(&origins);
                self.document(&namespace, Kind::CedarPolicy, &name, spec, from);
                self.became(&origins, Kind::CedarPolicy, &namespace, &name);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Output {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for ((namespace, kind, name), document) in std::mem::take(&mut self.documents) {
            let file = format!("{namespace}.yaml");
            let text = files.entry(file.clone()).or_insert_with(|| HEAD.to_owned());
            text.push_str("---\n");
            for place in &document.from {
                let _ = writeln!(text, "# from {place}");
            }
            let mut metadata = vec![
                ("name", Yaml::text(&name)),
                ("namespace", Yaml::text(&namespace)),
            ];
            if !document.annotations.is_empty() {
                metadata.push(("annotations", Yaml::Labels(document.annotations)));
            }
            let object = Yaml::Map(vec![
                ("apiVersion", Yaml::text(kind.api_version())),
                ("kind", Yaml::text(kind.name())),
                ("metadata", Yaml::Map(metadata)),
                ("spec", document.spec),
            ]);
            text.push_str(&object.print());
            self.output.written.push(Written {
                file,
                kind: kind.name().to_owned(),
                namespace,
                name,
                from: document.from.iter().map(ToString::to_string).collect(),
            });
        }
        self.output.files = files.into_iter().collect();
        self.output
    }
}

/// The text of a policy, and the rules that it comes from.
type Text = (BTreeSet<Origin>, String);

/// Policies in parts that one object can hold.
fn parts(texts: &[Text]) -> Vec<&[Text]> {
    let mut out = Vec::new();
    let (mut rest, mut end, mut bytes) = (texts, 0, 0);
    while let Some((_, text)) = rest.get(end) {
        if end > 0
            && (bytes + text.len() > CEDAR_OBJECT_BYTES_MAX || end >= CEDAR_OBJECT_POLICIES_MAX)
        {
            let (part, others) = rest.split_at(end);
            out.push(part);
            (rest, end, bytes) = (others, 0, 0);
            continue;
        }
        bytes += text.len() + 1;
        end += 1;
    }
    if !rest.is_empty() {
        out.push(rest);
    }
    out
}

/// What stands on top of each file.
const HEAD: &str =
    "# Made by `mesh authz import --from istio`. What could not be kept stands in its report.\n";
