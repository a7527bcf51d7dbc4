//! Codes of what can be wrong with manifests; `docs/errors.md` has an entry for each.

use mesh_policy::snapshot::{Finding, ObjectRef, Severity, Source};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $severity:ident, $hint:literal;)*) => {
        /// What kind of thing is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// The stable code.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How bad it is.
            pub(crate) fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What to do, unless the finding knows better.
            pub(crate) fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

codes! {
    /// A text that Cedar cannot read.
    CedarSyntax = "MESH-0320", Error, "mend the policy at this place; `docs/guides/raw-cedar.md` shows the form";
    /// A Cedar text past a bound of [`crate::limits`].
    CedarLimit = "MESH-0321", Error, "split the policy, or the object; long alternatives become flat with brackets around groups of them, or with a set";
    /// A policy with slots.
    CedarTemplate = "MESH-0322", Error, "write the entity itself where the slot stands";
    /// A policy that does not pass strict validation.
    CedarInvalid = "MESH-0323", Error, "compare with the schema in `docs/guides/raw-cedar.md`; an optional attribute or a header must be asked for first, with `has` or `hasTag`";
    /// A policy that no request satisfies.
    CedarImpossible = "MESH-0324", Error, "correct the condition, or remove the policy";
    /// What the validator warns of.
    CedarDoubt = "MESH-0325", Warning, "write names and strings in one script, without invisible characters";
    /// A policy that mentions a set that is not there.
    CedarReference = "MESH-0326", Error, "create or mend the MeshTLSAuthentication or NetworkAuthentication: the id of its set is `<kind>/<namespace>/<name>`";
    /// An annotation of a policy that cannot be used.
    CedarAnnotation = "MESH-0327", Error, "an `@id` is lower-case letters, digits and inner hyphens, and unique in its object; `@audit` is \"true\" or \"false\"";
    /// A cluster-wide permit that nobody asked for.
    CedarPermit = "MESH-0328", Error, "move the permit to a CedarPolicy of its namespace, or set `spec.allowPermits: true` if it is meant for every namespace";
    /// An unreadable Cedar object that closes what it might forbid.
    CedarCloses = "MESH-0329", Error, "mend the object; until then everything is denied that it might forbid";
    /// A term that cannot be read.
    BadTerm = "MESH-0330", Error, "`mesh.internal/expires` is a time like `2027-01-31T18:00:00Z`; `mesh.internal/break-glass` gives a reason and needs an end within 24 hours of the object's creation";
    /// A break-glass grant whose age is not known.
    UndatedBreakGlass = "MESH-0331", Warning, "apply it through an API server, which sets `metadata.creationTimestamp`";
    /// An invariant that cannot be proved.
    BadInvariant = "MESH-0332", Error, "mend the invariant; until then it counts as not proved";
    /// A policy that mentions what is not there, or not its own.
    CedarElsewhere = "MESH-0333", Warning, "correct the name; a CedarPolicy speaks only about the Servers of its own namespace";
    /// A forbid that may fail when it is evaluated.
    CedarMayFail = "MESH-0334", Warning, "compare without arithmetic; where the forbid fails, the request is denied";
    /// An entity id that none of its type can have.
    CedarEntity = "MESH-0335", Error, "write the id in full: `Mesh::Namespace::\"<trust domain>/<namespace>\"`, `Mesh::Server::\"<namespace>/<name>\"`";
    /// An EgressNetwork, or a route on one, that lets out more than it seems to.
    WideEgress = "MESH-0337", Warning, "take `169.254.0.0/16` out with `except`, or close it with an EgressNetwork of its own; write wildcards below a domain that belongs to somebody";
    /// An object that is part of one set of policy alone.
    Shadowed = "MESH-0338", Info, "remove the annotation from what is to come into force, and delete what is to go";
    /// An annotation that says which set of policy an object is part of, and cannot be used.
    BadShadow = "MESH-0339", Error, "`mesh.internal/shadow` is `add` or `remove`, on a Server, a grant, an authentication, an HTTPRoute or GRPCRoute, a rate limit, a Federation or a policy in Cedar; until then a policy object grants nothing, and closes what it closes";
    /// A policy of Istio that asks an external provider.
    CustomAction = "MESH-0340", Error, "turn its rules into ALLOW and DENY, or let what it would be asked about be denied: `--custom deny`";
    /// The text is no YAML.
    Syntax = "MESH-0350", Error, "mend the syntax at this place; the other documents of the file are read as they are";
    /// A bound of [`crate::limits`] is passed.
    Limit = "MESH-0351", Error, "split the file or the document, or write it with less nesting";
    /// A key stands twice in one mapping.
    DuplicateKey = "MESH-0352", Error, "keep one of the two; neither is used while both stand";
    /// YAML that manifests have no use for.
    Refused = "MESH-0353", Error, "write plain strings, numbers, lists and mappings; aliases may only point backwards";
    /// The document is no Kubernetes object.
    NotAnObject = "MESH-0354", Error, "an object is a mapping with `apiVersion`, `kind` and `metadata.name`";
    /// Version or kind is unknown in a group of ours.
    UnknownVersion = "MESH-0355", Error, "see `docs/reference/resources.md` for the kinds and versions that are read";
    /// A value of the wrong type.
    WrongType = "MESH-0356", Error, "write a value of the type that is expected";
    /// A field that must stand is missing.
    Missing = "MESH-0357", Error, "add the field";
    /// A field that this kind and version does not have.
    UnknownField = "MESH-0358", Error, "correct the name of the field, remove it, or raise the object's `apiVersion`";
    /// A value that the field does not take.
    BadValue = "MESH-0359", Error, "write a value that the field takes";
    /// Fields that may not stand together, or may not both be absent.
    Conflict = "MESH-0360", Error, "keep one of the fields";
    /// The same object twice.
    DuplicateObject = "MESH-0361", Error, "remove or rename one of them; neither is used while both stand";
    /// An invalid default-policy annotation.
    BadDefault = "MESH-0362", Error, "one of all-authenticated, all-unauthenticated, cluster-authenticated, cluster-unauthenticated, deny, audit";
    /// An invalid list of ports in an annotation.
    BadPortList = "MESH-0363", Error, "ports, ranges and names of container ports, with commas: `8080,9000-9010,admin`";
    /// A reference to what does not exist.
    Dangling = "MESH-0364", Error, "create the object or correct the reference; names are compared exactly";
    /// A reference to an invalid object.
    InvalidReferent = "MESH-0365", Error, "mend the object that is referred to";
    /// A policy that asks for no authentication, and does not say that it means it.
    NoAuthentication = "MESH-0366", Error, "require an authentication, or say why everyone may come in with the annotation `mesh.internal/allow-unauthenticated: \"<reason>\"`";
    /// A policy that lets everyone in, with a reason.
    Unauthenticated = "MESH-0367", Warning, "review the reason that the annotation gives";
    /// A Server that lost its port to an older one.
    ShadowedServer = "MESH-0368", Warning, "give the Servers different selectors or ports, or remove one";
    /// A Server that closes its namespace because it cannot be read.
    NamespaceClosed = "MESH-0369", Error, "mend selector and port of this Server; until then the default policy of the namespace is `deny`";
    /// A Server without effect.
    IdleServer = "MESH-0370", Warning, "compare the Server's selector and port with the labels and ports of the pods";
    /// A route without effect.
    IdleRoute = "MESH-0371", Warning, "attach the route to a Server whose protocol takes it";
    /// A port of UDP or SCTP.
    OtherProtocol = "MESH-0414", Warning, "speak TCP where policy is wanted; ports of UDP that are to pass without any are named by `mesh.internal/skip-udp-ports`";
    /// A less protected route can win over a more protected one.
    RouteShadow = "MESH-0372", Warning, "grant both routes alike, or make the protected one the more specific one";
    /// A rate limit without effect.
    IdleRateLimit = "MESH-0373", Warning, "keep one rate limit per Server, on a Server that speaks HTTP";
    /// A policy that every identity satisfies.
    Wildcard = "MESH-0374", Info, "name identities, ServiceAccounts or a Namespace if not everyone is meant";
    /// A policy that asks for networks only.
    NetworkOnly = "MESH-0375", Warning, "addresses are no identities: require a MeshTLSAuthentication too";
    /// A block with host bits set.
    MaskedCidr = "MESH-0376", Warning, "write the block as it is used";
    /// A ServiceAccount that no manifest declares.
    UnknownServiceAccount = "MESH-0377", Warning, "check namespace and name; the reference works as soon as such a workload exists";
    /// An identity that nobody has.
    MatchesNobody = "MESH-0378", Warning, "identities are `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`";
    /// A kind that is read and checked, but not enforced.
    NotEnforced = "MESH-0379", Info, "this version only checks its form";
    /// A fault that proxies inject.
    FaultInjected = "MESH-0449", Info, "delete the object to end it; `until` ends it in any case";
    /// A fault without effect.
    IdleFault = "MESH-0458", Warning, "name a Server that speaks HTTP, and clients as `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`";
    /// A path that no request can have.
    DeadPath = "MESH-0380", Warning, "write the path in canonical form, or keep escapes with the annotation on the Server";
    /// A probe that stays closed.
    DeadProbe = "MESH-0381", Warning, "give the probe a plain HTTP path in canonical form on a port of its container";
    /// A kind of ours in a group that is not ours.
    LooksLikePolicy = "MESH-0382", Warning, "correct the group in `apiVersion` if it is meant for this mesh";
    /// An invalid Server that denies everything on its port.
    ServerDenies = "MESH-0383", Error, "mend the Server; until then nothing is allowed on the ports that it selects";
    /// A document that might have been anything.
    UnknownDocument = "MESH-0384", Error, "mend the document; until then every namespace's default policy is `deny`, for it might hold a Server";
    /// Access that depends on no Server.
    NoServer = "MESH-0385", Warning, "write a Server for the ports of this namespace, or remove the policy";
    /// Ours and Linkerd's annotation for one setting, with different values.
    TwoAnnotations = "MESH-0391", Warning, "keep one of the two annotations, or give both the same value";
    /// A grant that another one includes.
    RedundantGrant = "MESH-0393", Info, "remove it, or the wider one if that is too wide";
    /// A route that other routes leave nothing to.
    DeadRoute = "MESH-0394", Warning, "give the two different matches, or remove the one that never applies";
    /// A backend that is not there.
    BackendMissing = "MESH-0775", Error, "create the Service or correct the reference; until then the backend's share of the requests is answered with 500";
    /// A backend of another namespace, which did not agree.
    BackendNotPermitted = "MESH-0776", Error, "a ReferenceGrant in the backend's namespace permits it: `from` names group, kind and namespace of the route, `to` the Service; until then the backend's share of the requests is answered with 500";
    /// A backend that is no Service.
    BackendKind = "MESH-0777", Error, "a backend is a Service: leave `group` and `kind` out; until then the backend's share of the requests is answered with 500";
    /// A route on a Service that does not take it.
    NotAttached = "MESH-0778", Error, "correct name, namespace and port of the parent; until then requests go as if the route were not there";
    /// An annotation about retries, timeouts or breakers that cannot be read.
    BadPatience = "MESH-0779", Error, "correct the annotation; until then it counts as if it did not stand";
    /// A rule that sends requests nowhere.
    NoBackend = "MESH-0780", Warning, "give a backend a weight, or leave `backendRefs` out: requests then go to the Service itself";
    /// An unreadable document that may be an EgressNetwork.
    EgressCloses = "MESH-0398", Error, "mend the document; until then everything is denied that leaves the cluster";
    /// A route on an EgressNetwork that changes nothing there.
    IdleEgressRoute = "MESH-0399", Warning, "a route opens a port of an EgressNetwork whose traffic policy is `Deny`; of HTTPRoute and GRPCRoute, TLSRoute, TCPRoute the first kind that is attached to a port counts there";
    /// An annotation that has TLS begun, and cannot be used.
    BadOrigin = "MESH-0407", Error, "on an HTTPRoute or GRPCRoute of an EgressNetwork: `mesh.internal/originate-tls` a port, `mesh.internal/tls-roots` `system` or certificates in PEM, `mesh.internal/tls-min-version` 1.2 or 1.3";
    /// An EgressNetwork that covers addresses of the cluster.
    EgressOverlap = "MESH-0392", Error, "take the cluster networks out with `except`, or leave `networks` out to mean everything else";
}

/// A finding in its public form.
pub(crate) fn finding(
    code: Code,
    message: impl Into<String>,
    object: Option<ObjectRef>,
    source: Source,
) -> Finding {
    Finding {
        code: code.text().to_owned(),
        severity: code.severity(),
        message: message.into(),
        hint: Some(code.hint().to_owned()),
        object,
        source,
    }
}
