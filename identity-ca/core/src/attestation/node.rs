//! Machines that joined, and for whom their agents may speak.
//!
//! An agent attests the processes of its machine itself, so the CA believes it within bounds that an operator drew when
//! the join token was made: a machine that was taken over speaks for the workloads that run there, and for no other.

use super::join::{JoinError, JoinToken, JoinTokens, node_of};
use crate::limits::{NODE_WORKLOADS_MAX, NODES_MAX};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Workloads that a node may speak for: one service account, or all of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Workloads {
    namespace: String,
    /// None: all of the namespace.
    service_account: Option<String>,
}

/// Why a text names no workloads of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("`{text}` names no workloads: {why}")]
#[diagnostic(
    code("MESH-0995"),
    help("write NAMESPACE/SERVICE-ACCOUNT, or NAMESPACE/* for all of a namespace")
)]
pub struct WorkloadsError {
    text: String,
    why: &'static str,
}

impl FromStr for Workloads {
    type Err = WorkloadsError;

    fn from_str(text: &str) -> Result<Self, WorkloadsError> {
        let refuse = |why| WorkloadsError {
            text: text.chars().take(128).collect(),
            why,
        };
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| refuse("there is no `/` in it"))?;
        if !is_name(namespace) {
            return Err(refuse("the namespace is no name of a-z, 0-9 and `-`"));
        }
        let service_account = match name {
            "*" => None,
            name if is_name(name) => Some(name.to_owned()),
            _ => {
                return Err(refuse(
                    "the service account is no name of a-z, 0-9, `-` and `.`",
                ));
            }
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            service_account,
        })
    }
}

/// A name as Kubernetes has them (RFC 1123).
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| inner(byte) || matches!(byte, b'-' | b'.'))
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

impl TryFrom<String> for Workloads {
    type Error = WorkloadsError;

    fn try_from(text: String) -> Result<Self, WorkloadsError> {
        text.parse()
    }
}

impl From<Workloads> for String {
    fn from(workloads: Workloads) -> Self {
        workloads.to_string()
    }
}

impl fmt::Display for Workloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.service_account.as_deref().unwrap_or("*");
        write!(f, "{}/{name}", self.namespace)
    }
}

impl Workloads {
    /// Whether `id`, of whatever trust domain, is one of these.
    fn has(&self, id: &SpiffeId) -> bool {
        let mut segments = id.path().split('/').skip(1);
        let place = (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        );
        let (Some("ns"), Some(namespace), Some("sa"), Some(name), None) = place else {
            return false;
        };
        let named = self.service_account.as_deref();
        namespace == self.namespace && named.is_none_or(|wanted| wanted == name)
    }
}

/// A machine that joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// For whom its agent may speak.
    pub workloads: Vec<Workloads>,
    /// When it joined last.
    pub joined: Timestamp,
}

/// Open tokens, and the machines that spent one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    tokens: JoinTokens,
    joined: BTreeMap<String, Node>,
}

impl Nodes {
    /// Makes a token for `node` and its `workloads`; see [`JoinTokens::make`].
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn make_token(
        &self,
        node: (&str, Vec<Workloads>),
        (secret, bundle): ([u8; 32], [u8; 32]),
        lifetime_secs: u64,
        now: Timestamp,
    ) -> Result<(JoinToken, Self), JoinError> {
        let workloads = node.1.len();
        if workloads == 0 || workloads > NODE_WORKLOADS_MAX {
            return Err(JoinError::Workloads { found: workloads });
        }
        let (token, tokens) = self
            .tokens
            .make(node, (secret, bundle), lifetime_secs, now)?;
        let joined = self.joined.clone();
        Ok((token, Self { tokens, joined }))
    }

    /// Spends the token with this secret: its node has joined, and is what the token says from now on. The new book must
    /// be on disk before the node is told anything.
    ///
    /// # Errors
    /// [`JoinError::NotValid`], [`JoinError::TooManyNodes`].
    pub fn join(&self, secret: &[u8; 32], now: Timestamp) -> Result<(String, Self), JoinError> {
        let ((name, workloads), tokens) = self.tokens.spend(secret, now)?;
        let mut joined = self.joined.clone();
        if joined.len() >= NODES_MAX && !joined.contains_key(&name) {
            return Err(JoinError::TooManyNodes);
        }
        let node = Node {
            workloads,
            joined: now,
        };
        joined.insert(name.clone(), node);
        Ok((name, Self { tokens, joined }))
    }

    /// The book without the node `name`; none if it is not there. Tokens that were made for it are gone too.
    pub fn without(&self, name: &str) -> Option<Self> {
        let mut next = self.clone();
        let open = next.tokens.forget(name);
        let known = next.joined.remove(name).is_some();
        (open || known).then_some(next)
    }

    /// The node whose agent has the identity `id`.
    pub fn by_identity(&self, domain: &TrustDomain, id: &SpiffeId) -> Option<(&str, &Node)> {
        let found = self.joined.get_key_value(node_of(domain, id)?);
        found.map(|(name, node)| (name.as_str(), node))
    }

    /// All of them, by name.
    pub fn joined(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.joined.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// The last moment of a token that was not spent.
    pub fn token_ends(&self, token: &JoinToken) -> Option<Timestamp> {
        self.tokens.ends(token)
    }

    /// Tokens that still count.
    pub fn open_tokens(&self, now: Timestamp) -> usize {
        self.tokens.len(now)
    }
}

impl Node {
    /// Whether its agent may ask for SVIDs of `id`, of the mesh's trust domain `domain`.
    pub fn speaks_for(&self, domain: &TrustDomain, id: &SpiffeId) -> bool {
        id.trust_domain() == domain && self.workloads.iter().any(|workloads| workloads.has(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    fn domain() -> TrustDomain {
        TrustDomain::parse("cluster.local").unwrap()
    }

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    fn workloads(texts: &[&str]) -> Vec<Workloads> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn joined(texts: &[&str]) -> Nodes {
        let of_token = ("worker-1", workloads(texts));
        let secrets = ([1; 32], [9; 32]);
        let (token, book) = Nodes::default()
            .make_token(of_token, secrets, 60, NOW)
            .unwrap();
        let (name, book) = book.join(token.secret(), NOW).unwrap();
        assert_eq!(name, "worker-1");
        book
    }

    #[test]
    fn a_node_speaks_for_what_its_token_says_and_nobody_else() {
        let book = joined(&["shop/web", "batch/*"]);
        let (_, node) = book
            .by_identity(&domain(), &id("spiffe://cluster.local/mesh/node/worker-1"))
            .unwrap();
        for may in ["ns/shop/sa/web", "ns/batch/sa/a", "ns/batch/sa/web"] {
            let id = id(&format!("spiffe://cluster.local/{may}"));
            assert!(node.speaks_for(&domain(), &id), "{id}");
        }
        for not in [
            "spiffe://cluster.local/ns/shop/sa/payments",
            "spiffe://cluster.local/ns/shop/sa/web2",
            "spiffe://cluster.local/ns/shop2/sa/web",
            "spiffe://cluster.local/ns/batch2/sa/a",
            "spiffe://cluster.local/ns/shop/sa/web/more",
            "spiffe://cluster.local/ns/batch",
            "spiffe://cluster.local/x/ns/batch/sa/a",
            "spiffe://cluster.local/mesh/node/worker-1",
            "spiffe://cluster.local/mesh/node/worker-2",
            "spiffe://cluster.local",
            "spiffe://other.example/ns/shop/sa/web",
        ] {
            assert!(!node.speaks_for(&domain(), &id(not)), "{not}");
        }
    }

    #[test]
    fn only_an_agents_own_identity_is_a_node() {
        let book = joined(&["shop/web"]);
        for stranger in [
            "spiffe://cluster.local/mesh/node/worker-2",
            "spiffe://cluster.local/mesh/node/worker-1/x",
            "spiffe://other.example/mesh/node/worker-1",
            "spiffe://cluster.local/ns/shop/sa/web",
        ] {
            assert_eq!(book.by_identity(&domain(), &id(stranger)), None);
        }
    }

    #[test]
    fn texts_that_could_mean_more_than_they_say_are_refused() {
        for text in [
            "",
            "/",
            "shop",
            "shop/",
            "/web",
            "*/web",
            "*/*",
            "*",
            "shop/web/x",
            "shop/w*",
            "Shop/web",
            "shop/..",
            "../web",
            "shop/we b",
            "shop/-web",
            " shop/web",
            "shop/web\n",
            "ns/shop/sa/web",
        ] {
            assert!(text.parse::<Workloads>().is_err(), "{text:?}");
        }
        for text in ["shop/web", "shop/*", "kube-system/a.b"] {
            assert_eq!(text.parse::<Workloads>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn joining_again_says_anew_for_whom_the_node_speaks() {
        let book = joined(&["shop/web"]);
        let of_token = ("worker-1", workloads(&["shop/cart"]));
        let (token, book) = book
            .make_token(of_token, ([2; 32], [9; 32]), 60, NOW)
            .unwrap();
        let web = id("spiffe://cluster.local/ns/shop/sa/web");
        let node = |book: &Nodes| book.joined().next().unwrap().1.clone();
        assert!(
            node(&book).speaks_for(&domain(), &web),
            "not before it is spent"
        );
        let (_, book) = book.join(token.secret(), NOW).unwrap();
        assert!(!node(&book).speaks_for(&domain(), &web));
        assert_eq!(book.join(token.secret(), NOW), Err(JoinError::NotValid));
    }

    #[test]
    fn a_node_that_was_removed_is_nobody_and_its_open_tokens_let_nobody_in() {
        let book = joined(&["shop/web"]);
        let of_token = ("worker-1", workloads(&["shop/web"]));
        let (token, book) = book
            .make_token(of_token, ([2; 32], [9; 32]), 60, NOW)
            .unwrap();
        let book = book.without("worker-1").unwrap();
        assert_eq!(book.joined().count(), 0);
        assert_eq!(book.join(token.secret(), NOW), Err(JoinError::NotValid));
        assert_eq!(book.without("worker-1"), None);
    }

    #[test]
    fn the_book_is_bounded_and_reads_back() {
        let none = Nodes::default().make_token(("a", vec![]), ([1; 32], [9; 32]), 60, NOW);
        assert_eq!(none, Err(JoinError::Workloads { found: 0 }));
        let many = vec!["shop/web".parse().unwrap(); NODE_WORKLOADS_MAX + 1];
        let found = many.len();
        let many = Nodes::default().make_token(("a", many), ([1; 32], [9; 32]), 60, NOW);
        assert_eq!(many, Err(JoinError::Workloads { found }));
        let book = joined(&["shop/web", "batch/*"]);
        let text = serde_json::to_string(&book).unwrap();
        assert_eq!(serde_json::from_str::<Nodes>(&text).unwrap(), book);
        let wider = text.replace("batch/*", "*/*");
        assert!(serde_json::from_str::<Nodes>(&wider).is_err());
    }
}
