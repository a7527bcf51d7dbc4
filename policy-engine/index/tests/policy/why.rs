//! Where this mesh differs from Linkerd, and why: each difference once, by name.
//!
//! The tables of the other modules name a difference in each row that has one. The book prints them
//! (`docs/reference/linkerd.md`); [`crate::complete`] compares.

/// One difference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) linkerd: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) because: &'static str,
}

/// The difference that a row shows; `None`: both say the same.
pub(crate) type Why = Option<&'static Difference>;

/// Both say the same.
pub(crate) const SAME: Why = None;

macro_rules! differences {
    ($($name:ident: $linkerd:literal, $ours:literal, $because:literal;)*) => {
        $(pub(crate) const $name: Why = Some(&Difference { linkerd: $linkerd, ours: $ours, because: $because });)*
        /// All of them, by the name of their constant.
        pub(crate) const ALL: &[(&str, Why)] = &[$((stringify!($name), $name)),*];
    };
}

differences! {
    DEFAULT_DENY: "an installation that was told nothing lets everyone in", "denies", "silence is no (reading 1)";
    BAD_DEFAULT: "an invalid default-policy annotation is passed over for the next looser level", "means `deny`", "a typing error must not open (reading 1)";
    BAD_PORT_LIST: "an unreadable list of ports that require identity is empty", "means every port", "a typing error must not open (reading 1)";
    EMPTY_REFS: "an empty `requiredAuthenticationRefs` admits everyone from everywhere", "grants nothing without `mesh.internal/allow-unauthenticated: \"<reason>\"`", "the world is admitted on purpose or not at all (reading 2)";
    CANONICAL_PATH: "matches the path as it came", "judges and forwards the canonical form", "`/public/../private` is not public (reading 3)";
    REFUSED_HEAD: "routes and grants any head", "answers 400 to what can be read in two ways", "two readers, two meanings: that is the way around a grant (reading 3)";
    INVALID_SERVER: "an invalid Server is refused, or passed over: the default policy speaks", "its ports deny everything until it is mended", "an invalid object never opens (reading 6)";
    INVALID_ROUTE: "an invalid route is refused: its requests fall to wider routes or none", "it takes what can be read of it, and denies", "a mistake in a narrow route must not hand its requests to a wider one (reading 6)";
    INVALID_UPDATE: "an invalid update is refused or logged, and the old grant stays", "takes the grant away", "what the author no longer says must not hold (reading 6)";
    MISSED_DELETION: "a deletion could go unseen, and the grant stayed (linkerd2#15548)", "policy is built from what stands, never patched", "a revocation that is missed is none";
    UNCHECKED: "without its webhook an invalid object counts in part", "checks everything again, and an invalid object grants nothing", "admission is a convenience, not the gate (reading 6)";
    UNKNOWN_FIELD: "drops unknown fields", "they make policies and routes invalid", "a misspelt condition is a missing condition (reading 6)";
    NEWER_FIELD: "reads fields in any version of a kind", "a field newer than the version makes the object invalid", "the author and the reader must mean the same schema (readings 6, 14)";
    LOCALHOST: "127.0.0.1 and ::1 are always allowed", "no standing permit", "a process beside the application is not the application (reading 7)";
    ROUTE_ORDER: "ranks by the length of the matched path, whatever its kind", "exact, then longest prefix, then regular expression", "a broad expression must not take over a narrow, stricter route (reading 8)";
    METHOD_ORDER: "ranks header matches before a method match", "method first, as Gateway API has it", "the order that authors read about is the one that holds (reading 8)";
    SPIFFE_WILDCARD: "`*` and the authenticated modes never match a SPIFFE URI", "`*` is any verified identity of our trust domain and of federations that say so", "an identity is an identity, whatever its spelling (reading 9)";
    SPIFFE_OWN: "a workload of the mesh has a DNS name, so its SPIFFE ID matches nothing", "the SPIFFE ID is the workload's identity", "our workloads carry SPIFFE IDs (reading 9)";
    SPIFFE_NAMESPACE: "`spiffe://td/ns/x/*` is refused", "means the service accounts of namespace x in that trust domain", "a namespace of a federated mesh needs a name (reading 9)";
    SPIFFE_UPPER_CASE: "a trust domain in upper case is refused", "read in lower case", "trust domains are compared without case; certificates must have them in lower case";
    SPIFFE_DOMAIN_ALONE: "`spiffe://td` is accepted", "refused", "a trust domain alone is no workload";
    CONTROL_PLANE: "a DNS form names the namespace of its control plane", "any control-plane namespace, in our trust domain only", "it says where a certificate came from, not whose it is (reading 9)";
    SUFFIX: "`*.x` matches every DNS name that ends so", "only `*.<ns>.serviceaccount.identity.<any>.<our trust domain>` matches anybody", "a suffix must not reach further than a namespace (reading 9)";
    RAW_ON_ROUTES: "bytes that are no HTTP need the Server's grants alone, routes or not", "refused on a port that has routes or rate limits", "who stalls or fragments must not skip the routes (reading 11)";
    PROBES_STAY: "probes are closed as soon as a route is attached", "declared probes stay open beside routes", "a kubelet cannot authenticate, and a route is no reason to kill a pod (reading 12)";
    PROBE_SOURCE: "a probe path is open to everyone", "only from the node, where its address is known", "an exemption is for whom it was made (reading 12)";
    PROBE_KINDS: "httpGet probes alone are known", "gRPC health checks and empty TCP connections too", "each probe that Kubernetes has (reading 12)";
    HEADER_VALUES: "one value of a header suffices for a match", "every value must match", "the application may read the other one (reading 13)";
    EXACT_NAMES: "routes are referred to without regard to case", "all references are exact", "one rule, and lint says what was nearly meant";
}
