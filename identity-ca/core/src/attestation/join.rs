//! Join tokens: with one, an operator lets one more machine in, once, within minutes.
//!
//! The text that the operator carries holds a secret and the hash of the CA's trust anchors: the new machine knows whom
//! to believe before it says the secret, so nobody in between can play the CA. The CA keeps only the hash of the secret.
//! Spending removes it from the list *before* anything is issued; whoever keeps the list must write it before it
//! answers. The token is in no identity and in no log.

use super::node::Workloads;
use crate::key::sha256;
use crate::limits::{
    JOIN_LIFETIME_SECS_MAX, JOIN_LIFETIME_SECS_MIN, JOIN_TOKENS_MAX, NODE_WORKLOADS_MAX, NODES_MAX,
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What a token's text begins with: a secret that a scanner of repositories can find.
const PREFIX: &str = "mesh-join-1";
/// What the path of a node's identity begins with.
const NODE_PATH: &str = "/mesh/node/";
/// Bytes of a node's name: a DNS label.
const NODE_BYTES_MAX: usize = 63;

/// A token as an operator carries it. Its text is a secret until it is spent.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; 32],
    /// SHA-256 of the trust bundle, as [`bundle_hash`] makes it.
    bundle: [u8; 32],
}

/// Tokens that were made and not spent, by the hash of their secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinTokens {
    open: BTreeMap<String, Open>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    node: String,
    /// For whom it will speak.
    workloads: Vec<Workloads>,
    expires: Timestamp,
}

/// Why no token is made, or one lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum JoinError {
    /// A name that cannot be part of an identity.
    #[error("a node cannot have this name: 1 to {NODE_BYTES_MAX} of a-z, 0-9 and `-`")]
    #[diagnostic(
        code("MESH-0278"),
        help("use the machine's host name, without its domain")
    )]
    Node,
    /// More than anybody needs.
    #[error("there are {JOIN_TOKENS_MAX} join tokens that were not spent")]
    #[diagnostic(
        code("MESH-0279"),
        help("they end by themselves within minutes; make tokens when machines are ready to join")
    )]
    TooMany,
    /// A node that would speak for nobody, or for a long list.
    #[error("a node speaks for 1 to {NODE_WORKLOADS_MAX} kinds of workloads, not for {found}")]
    #[diagnostic(
        code("MESH-0996"),
        help(
            "name those that will run there: `--workload NAMESPACE/SERVICE-ACCOUNT`, several times if need be"
        )
    )]
    Workloads {
        /// How many were named.
        found: usize,
    },
    /// More machines than one CA knows.
    #[error("{NODES_MAX} nodes have joined already")]
    #[diagnostic(
        code("MESH-0997"),
        help("remove those that are gone: `mesh node list`, `mesh node remove NAME`")
    )]
    TooManyNodes,
    /// Not the text of a token.
    #[error("this is no join token")]
    #[diagnostic(
        code("MESH-0286"),
        help("copy the whole line that `mesh node token` printed, from `mesh-join-1` on")
    )]
    Malformed,
    /// Unknown, spent or over: which one is nobody's business.
    #[error("the join token lets nobody in")]
    #[diagnostic(
        code("MESH-0285"),
        help(
            "it was used, or its minutes are over: make a new one. If nobody of yours used it, somebody else has: deny its node"
        )
    )]
    NotValid,
}

impl JoinToken {
    /// SHA-256 of the trust anchors that the joining machine must be shown.
    pub fn bundle(&self) -> &[u8; 32] {
        &self.bundle
    }

    /// The secret, as the joining machine shows it to the CA.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// The text that is carried.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secret, bundle) = (
            BASE64URL_NOPAD.encode(&self.secret),
            BASE64URL_NOPAD.encode(&self.bundle),
        );
        write!(f, "{PREFIX}.{secret}.{bundle}")
    }
}

impl FromStr for JoinToken {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<Self, JoinError> {
        let read = |text: &str| {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
            <[u8; 32]>::try_from(bytes).ok()
        };
        let mut parts = text.split('.');
        let token = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(PREFIX), Some(secret), Some(bundle), None) => read(secret)
                .zip(read(bundle))
                .map(|(secret, bundle)| Self { secret, bundle }),
            _ => None,
        };
        token.ok_or(JoinError::Malformed)
    }
}

/// The hash of trust anchors, whatever their order.
pub fn bundle_hash<'a>(anchors: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hashes: Vec<[u8; 32]> = anchors.into_iter().map(sha256).collect();
    hashes.sort_unstable();
    hashes.dedup();
    sha256(&hashes.concat())
}

/// The identity of a node's agent.
///
/// # Errors
/// [`JoinError::Node`].
pub fn node_identity(domain: &TrustDomain, node: &str) -> Result<SpiffeId, JoinError> {
    check_node(node)?;
    SpiffeId::parse(&format!("{}{NODE_PATH}{node}", domain.id())).map_err(|_| JoinError::Node)
}

/// The node whose agent has this identity; none if it is no node's.
pub(super) fn node_of<'a>(domain: &TrustDomain, id: &'a SpiffeId) -> Option<&'a str> {
    let name = id.path().strip_prefix(NODE_PATH)?;
    (id.trust_domain() == domain && check_node(name).is_ok()).then_some(name)
}

fn check_node(node: &str) -> Result<(), JoinError> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = node.starts_with('-') || node.ends_with('-');
    if (1..=NODE_BYTES_MAX).contains(&node.len()) && node.bytes().all(letters) && !edges {
        Ok(())
    } else {
        Err(JoinError::Node)
    }
}

impl JoinTokens {
    /// Makes a token for `node`, which will speak for `workloads`, out of a `secret` drawn for it, and the list that knows
    /// it. A wish for its life is clamped to 30 s..=600 s.
    ///
    /// # Errors
    /// [`JoinError::Node`], [`JoinError::TooMany`].
    pub fn make(
        &self,
        (node, workloads): (&str, Vec<Workloads>),
        (secret, bundle): ([u8; 32], [u8; 32]),
        lifetime_secs: u64,
        now: Timestamp,
    ) -> Result<(JoinToken, Self), JoinError> {
        check_node(node)?;
        let mut next = self.without_ended(now);
        if next.open.len() >= JOIN_TOKENS_MAX {
            return Err(JoinError::TooMany);
        }
        let secs = lifetime_secs.clamp(JOIN_LIFETIME_SECS_MIN, JOIN_LIFETIME_SECS_MAX);
        let open = Open {
            node: node.to_owned(),
            workloads,
            expires: now.plus_secs(i64::try_from(secs).unwrap_or(0)),
        };
        next.open.insert(HEXLOWER.encode(&sha256(&secret)), open);
        Ok((JoinToken { secret, bundle }, next))
    }

    /// Spends the token with this secret: its node and for whom that speaks, and the list without it, which must be on
    /// disk before the node is told anything. Looked up by its hash, so how long it takes says nothing about the secret.
    ///
    /// # Errors
    /// [`JoinError::NotValid`].
    pub fn spend(
        &self,
        secret: &[u8; 32],
        now: Timestamp,
    ) -> Result<((String, Vec<Workloads>), Self), JoinError> {
        let mut next = self.without_ended(now);
        let spent = next.open.remove(&HEXLOWER.encode(&sha256(secret)));
        spent
            .map(|open| ((open.node, open.workloads), next))
            .ok_or(JoinError::NotValid)
    }

    /// The last moment of a token that was not spent.
    pub fn ends(&self, token: &JoinToken) -> Option<Timestamp> {
        let open = self.open.get(&HEXLOWER.encode(&sha256(&token.secret)))?;
        Some(open.expires)
    }

    /// Forgets the tokens of `node`, and says whether there were any.
    pub fn forget(&mut self, node: &str) -> bool {
        let before = self.open.len();
        self.open.retain(|_, open| open.node != node);
        self.open.len() != before
    }

    /// How many there are that still count.
    pub fn len(&self, now: Timestamp) -> usize {
        self.without_ended(now).open.len()
    }

    /// Whether there is none that still counts.
    pub fn is_empty(&self, now: Timestamp) -> bool {
        self.len(now) == 0
    }

    fn without_ended(&self, now: Timestamp) -> Self {
        let mut next = self.clone();
        // A clock that was set back makes no token live longer than it may.
        let latest = now.plus_secs(i64::try_from(JOIN_LIFETIME_SECS_MAX).unwrap_or(0));
        next.open
            .retain(|_, open| open.expires > now && open.expires <= latest);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    fn web() -> Vec<Workloads> {
        vec!["shop/web".parse().unwrap()]
    }

    fn make(tokens: &JoinTokens, node: &str, secret: u8) -> (JoinToken, JoinTokens) {
        tokens
            .make((node, web()), ([secret; 32], [9; 32]), 600, NOW)
            .unwrap()
    }

    #[test]
    fn ca8_a_token_is_spent_once_and_names_its_node() {
        let (first, tokens) = make(&JoinTokens::default(), "worker-1", 1);
        let (second, tokens) = make(&tokens, "worker-2", 2);
        let ((node, workloads), left) = tokens.spend(second.secret(), NOW).unwrap();
        assert_eq!((node.as_str(), left.len(NOW)), ("worker-2", 1));
        assert_eq!(workloads, web());
        assert_eq!(left.spend(second.secret(), NOW), Err(JoinError::NotValid));
        assert_eq!(left.spend(first.secret(), NOW).unwrap().0.0, "worker-1");
    }

    #[test]
    fn ca8_a_token_ends_within_ten_minutes_whatever_the_clock_does() {
        for (wish, lives) in [(0, 30), (60, 60), (600, 600), (601, 600), (u64::MAX, 600)] {
            let (token, tokens) = JoinTokens::default()
                .make(("worker-1", web()), ([1; 32], [9; 32]), wish, NOW)
                .unwrap();
            assert!(
                tokens
                    .spend(token.secret(), NOW.plus_secs(lives - 1))
                    .is_ok(),
                "{wish}"
            );
            for late in [
                NOW.plus_secs(lives),
                NOW.plus_secs(86_400),
                NOW.plus_secs(-3_600),
            ] {
                assert_eq!(
                    tokens.spend(token.secret(), late),
                    Err(JoinError::NotValid),
                    "{wish} {late}"
                );
                assert!(tokens.is_empty(late));
            }
        }
    }

    #[test]
    fn the_list_holds_no_secret_and_reads_back() {
        let (token, tokens) = make(&JoinTokens::default(), "worker-1", 0xa5);
        let text = serde_json::to_string(&tokens).unwrap();
        let secret = BASE64URL_NOPAD.encode(token.secret());
        assert!(
            !text.contains(&secret) && !text.contains("a5a5a5a5"),
            "{text}"
        );
        assert!(!format!("{token:?}").contains(&secret));
        assert_eq!(serde_json::from_str::<JoinTokens>(&text).unwrap(), tokens);
        assert!(serde_json::from_str::<JoinTokens>(r#"{"open":{},"more":1}"#).is_err());
    }

    #[test]
    fn the_text_is_read_as_it_was_printed_or_not_at_all() {
        let (token, _) = make(&JoinTokens::default(), "worker-1", 1);
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token));
        for cut in 0..text.len() {
            assert_eq!(
                text[..cut].parse::<JoinToken>(),
                Err(JoinError::Malformed),
                "{cut}"
            );
        }
        for bad in [
            format!("{text}."),
            format!(" {text}"),
            format!("{text}="),
            text.replace("mesh-join-1", "mesh-join-2"),
            text.replacen('.', "", 1),
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(JoinError::Malformed), "{bad}");
        }
    }

    #[test]
    fn nodes_are_dns_labels_and_tokens_are_bounded() {
        for node in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "..",
            "a b",
            &"a".repeat(64),
        ] {
            let made = JoinTokens::default().make((node, web()), ([1; 32], [9; 32]), 60, NOW);
            assert_eq!(made, Err(JoinError::Node), "{node}");
        }
        let mut tokens = JoinTokens::default();
        for n in 0..JOIN_TOKENS_MAX {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&n.to_be_bytes());
            tokens = tokens
                .make(("worker-1", web()), (secret, [9; 32]), 60, NOW)
                .unwrap()
                .1;
        }
        let more = tokens.make(("worker-1", web()), ([0xff; 32], [9; 32]), 60, NOW);
        assert_eq!(more, Err(JoinError::TooMany));
        let later = NOW.plus_secs(61);
        assert!(
            tokens
                .make(("worker-1", web()), ([0xff; 32], [9; 32]), 60, later)
                .is_ok()
        );
    }

    #[test]
    fn a_bundle_has_one_hash_whatever_its_order() {
        let hash = |anchors: &[&[u8]]| bundle_hash(anchors.iter().copied());
        assert_eq!(hash(&[b"one", b"two"]), hash(&[b"two", b"one", b"one"]));
        assert_ne!(hash(&[b"one", b"two"]), hash(&[b"onetwo"]));
        assert_ne!(hash(&[b"one"]), hash(&[b"two"]));
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let id = node_identity(&domain, "worker-1").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/mesh/node/worker-1");
    }
}
