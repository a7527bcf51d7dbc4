//! What is settled once per connection: who the client is, which identity and network sets it is in, which grants hold
//! for it on a port.
//!
//! All that a grant asks, apart from route and time, is constant for a connection and a snapshot. So these atoms are
//! computed once; a request adds up what is remembered, and runs the policies that were written in Cedar.

use crate::cedar::{self, Answer};
use crate::compile::{Port, PortAt, Snapshot};
use crate::decide::heads::Heads;
use crate::limits::CEDAR_TEXTS_MAX;
use crate::matcher::{Asked, Held, Matcher, Tally};
use crate::question::{
    Asker, Question, RequestFacts, RouteFacts, Target, millis, unreadable_header,
};
use crate::request::{Client, canonical_ip};
use crate::snapshot::{Effect, IdentityPattern, SnapshotData};
use crate::texts::{Reason, Texts, TooLong};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// Identity sets, by who is in them. A set's place is its number in the order of the names.
#[derive(Default)]
pub(crate) struct IdentityIndex {
    any: Box<[u32]>,
    any_domains: HashSet<TrustDomain>,
    /// By SPIFFE ID.
    exact: SetsByName,
    /// By what the IDs of a namespace's service accounts begin with: `spiffe://<trust domain>/ns/<namespace>/`.
    namespaces: SetsByName,
}

/// Places of sets, by a name that they have in common.
#[derive(Default)]
struct SetsByName {
    names: Texts,
    /// Where the sets of each name end in `sets`.
    ends: Box<[u32]>,
    /// For each name, ascending.
    sets: Box<[u32]>,
}

impl IdentityIndex {
    /// # Errors
    /// [`TooLong`].
    pub(crate) fn build(data: &SnapshotData) -> Result<Self, TooLong> {
        let (mut any, mut exact, mut namespaces) = (Vec::new(), Vec::new(), Vec::new());
        for (place, set) in (0u32..).zip(data.identity_sets.values()) {
            for member in &set.members {
                match member {
                    IdentityPattern::Any => any.push(place),
                    IdentityPattern::Exact(exactly) => {
                        exact.push((Cow::Borrowed(exactly.as_str()), place));
                    }
                    IdentityPattern::Namespace {
                        trust_domain,
                        namespace,
                    } => {
                        let beginning = format!("spiffe://{trust_domain}/ns/{namespace}/");
                        namespaces.push((Cow::Owned(beginning), place));
                    }
                    IdentityPattern::Nobody(_) => {}
                }
            }
        }
        let own = std::iter::once(&data.trust_domain);
        Ok(Self {
            any: any.into(),
            any_domains: own.chain(&data.wildcard_domains).cloned().collect(),
            exact: SetsByName::of(exact)?,
            namespaces: SetsByName::of(namespaces)?,
        })
    }

    /// Places of the sets that `id` is in, ascending.
    pub(crate) fn sets_of(&self, id: &SpiffeId) -> Vec<u32> {
        let mut sets = Vec::new();
        if self.any_domains.contains(id.trust_domain()) {
            sets.extend(&self.any);
        }
        sets.extend(self.exact.get(id.as_str()));
        if let Some((_, account)) = id.service_account() {
            let beginning = id.as_str().strip_suffix(account);
            let beginning = beginning.and_then(|text| text.strip_suffix("sa/"));
            sets.extend(self.namespaces.get(beginning.unwrap_or_default()));
        }
        sets.sort_unstable();
        sets.dedup();
        sets
    }
}

impl SetsByName {
    fn of(mut pairs: Vec<(Cow<'_, str>, u32)>) -> Result<Self, TooLong> {
        pairs.sort_unstable();
        pairs.dedup();
        let mut ends = Vec::new();
        for (end, names) in (1u32..).zip(pairs.windows(2)) {
            let [(name, _), (next, _)] = names else {
                continue;
            };
            if name != next {
                ends.push(end);
            }
        }
        ends.extend(
            (!pairs.is_empty()).then_some(u32::try_from(pairs.len()).map_err(|_| TooLong)?),
        );
        Ok(Self {
            names: Texts::of(pairs.iter().map(|(name, _)| &**name).collect())?,
            ends: ends.into(),
            sets: pairs.into_iter().map(|(_, set)| set).collect(),
        })
    }

    fn get(&self, name: &str) -> &[u32] {
        let range = || {
            let number = usize::try_from(self.names.find(name)?).ok()?;
            let start = match number.checked_sub(1) {
                None => 0,
                Some(before) => usize::try_from(*self.ends.get(before)?).ok()?,
            };
            let end = usize::try_from(*self.ends.get(number)?).ok()?;
            self.sets.get(start..end)
        };
        range().unwrap_or_default()
    }
}

/// A client as one snapshot sees it: the constant half of every decision on its connection.
///
/// Make it when the connection stands, and again for every new snapshot: answers are those of the snapshot it was made
/// of. Clones are the same atoms. They stay on their thread.
#[derive(Clone)]
pub struct ConnectionAtoms(Rc<Atoms>);

impl std::fmt::Debug for ConnectionAtoms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} under {:?}", self.0.client, self.0.snapshot)
    }
}

struct Atoms {
    snapshot: Snapshot,
    client: Client,
    /// Places of the sets that the client is in, ascending.
    identity_sets: Vec<u32>,
    network_sets: Vec<u32>,
    /// What holds on the ports that were asked for, by port. One or two on most connections.
    ports: RefCell<Vec<(u16, PortAt, Rc<Held>)>>,
    /// Heads that were read.
    heads: Heads,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The compiled matcher: the data path.
    Matcher,
    /// Cedar: what the matcher must be equal to.
    Cedar,
}

/// What the policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// At least one permit holds, no forbid does, nothing failed.
    Permitted {
        /// All permits that hold are audit ones.
        audit: bool,
        /// One of them is recorded at each use.
        break_glass: bool,
    },
    /// At least one forbid holds.
    Forbidden,
    /// Something could not be evaluated.
    Undecidable(Arc<str>),
    /// Silence is no.
    NoPermit,
}

/// Where the reasons of an answer are read, once somebody wants them.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reasons {
    /// There are none.
    #[default]
    None,
    /// They are listed here, sorted.
    Listed(Arc<[Arc<str>]>),
    /// They are the policies that hold.
    Held(HeldPolicies),
}

/// The policies of an effect that hold for a question.
#[derive(Clone, Debug)]
pub(crate) struct HeldPolicies {
    port: u16,
    asked: Asked,
    now: Timestamp,
    /// Before this (ms since the epoch) no grant that holds ends.
    until: i64,
    effect: Effect,
    written: Marks,
}

impl Reasons {
    /// Whether these are the same policies as `earlier`, which the same atoms gave. False if that cannot be told without
    /// listing them.
    pub(crate) fn are_still(&self, earlier: &Self) -> bool {
        match (earlier, self) {
            (Self::None, Self::None) => true,
            (Self::Held(earlier), Self::Held(held)) => {
                earlier.port == held.port
                    && earlier.asked == held.asked
                    && earlier.effect == held.effect
                    && earlier.written == held.written
                    && (millis(earlier.now)..earlier.until).contains(&millis(held.now))
            }
            _ => false,
        }
    }
}

/// Which of the policies written in Cedar held, by their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks([u64; CEDAR_TEXTS_MAX / 64]);

impl Marks {
    fn set(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn has(&self, place: usize) -> bool {
        self.0
            .get(place / 64)
            .is_some_and(|word| word & (1 << (place % 64)) != 0)
    }
}

/// One question of a request to the policies of a port.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) asked: Asked,
    pub(crate) route: Option<RouteFacts<'a>>,
    pub(crate) request: Option<RequestFacts<'a>>,
    pub(crate) now: Timestamp,
}

impl ConnectionAtoms {
    /// Looks a client up in all identity and network sets of a snapshot.
    pub fn of(snapshot: &Snapshot, client: &Client) -> Self {
        let compiled = snapshot.compiled();
        let client = Client {
            ip: canonical_ip(client.ip),
            ..client.clone()
        };
        let identity_sets = client
            .id
            .as_ref()
            .map(|id| compiled.identities.sets_of(id))
            .unwrap_or_default();
        Self(Rc::new(Atoms {
            identity_sets,
            network_sets: compiled.networks.sets_of(client.ip),
            snapshot: snapshot.clone(),
            client,
            ports: RefCell::default(),
            heads: Heads::default(),
        }))
    }

    /// Whether these are the very same atoms: of one connection, under one snapshot.
    pub(crate) fn are(&self, others: &Self) -> bool {
        Rc::ptr_eq(&self.0, &others.0)
    }

    /// The snapshot that decides.
    pub fn snapshot(&self) -> &Snapshot {
        &self.0.snapshot
    }

    /// The client, its address in canonical form.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Whether the client is in an identity set of the snapshot.
    pub fn in_identity_set(&self, set: &str) -> bool {
        let place = self.0.snapshot.data().names().identity_place(set);
        place.is_some_and(|place| self.0.identity_sets.binary_search(&place).is_ok())
    }

    /// Whether the client's address is in a network set of the snapshot.
    pub fn in_network_set(&self, set: &str) -> bool {
        self.in_network_at(self.0.snapshot.data().names().network_place(set))
    }

    /// As [`ConnectionAtoms::in_network_set`], by the place of the set; nobody is in a set that there is not.
    pub(crate) fn in_network_at(&self, place: Option<u32>) -> bool {
        place.is_some_and(|place| self.0.network_sets.binary_search(&place).is_ok())
    }

    pub(crate) fn heads(&self) -> &Heads {
        &self.0.heads
    }

    /// Where the policy of a port is, found once per connection.
    pub(crate) fn port_at(&self, port: u16) -> PortAt {
        let known = self
            .0
            .ports
            .borrow()
            .iter()
            .find(|(p, ..)| *p == port)
            .map(|(_, at, _)| *at);
        known.unwrap_or_else(|| self.hold(port).0)
    }

    /// What holds on a port.
    fn held(&self, port: u16) -> Rc<Held> {
        let known = self
            .0
            .ports
            .borrow()
            .iter()
            .find(|(p, ..)| *p == port)
            .map(|(_, _, held)| Rc::clone(held));
        known.unwrap_or_else(|| self.hold(port).1)
    }

    fn hold(&self, port: u16) -> (PortAt, Rc<Held>) {
        let snapshot = &self.0.snapshot;
        let at = snapshot.port_at(port);
        let matcher = &snapshot.compiled().port(at).matcher;
        let rules = matcher.held_by(
            &self.0.identity_sets,
            &self.0.network_sets,
            self.0.client.tls,
        );
        let held = Rc::new(Held::new(matcher, rules));
        let mut ports = self.0.ports.borrow_mut();
        if ports.len() >= REMEMBERED_PORTS_MAX {
            ports.clear();
        }
        ports.push((port, at, Rc::clone(&held)));
        (at, held)
    }

    /// What the policies of a port say, and why.
    pub(crate) fn ask(
        &self,
        number: u16,
        port: &Port,
        query: &Query<'_>,
        by: By,
        reasons: &mut Reasons,
    ) -> Says {
        let compiled = self.0.snapshot.compiled();
        if !compiled.headers.is_empty()
            && let Some(head) = &query.request
            && let Some(name) = unreadable_header(head.headers, &compiled.headers)
        {
            let why = format!("a value of header `{name}`, which a policy looks at, is not UTF-8");
            return Says::Undecidable(why.into());
        }
        match by {
            By::Matcher => self.ask_matcher(number, port, query, reasons),
            By::Cedar => {
                let (says, listed) = listed(self.ask_cedar(number, port, query));
                *reasons = listed;
                says
            }
        }
    }

    fn ask_matcher(
        &self,
        number: u16,
        port: &Port,
        query: &Query<'_>,
        reasons: &mut Reasons,
    ) -> Says {
        let compiled = self.0.snapshot.compiled();
        let held = self.held(number);
        let broken = held.matcher().broken_forbid();
        if let Some(why) = broken.or(compiled.broken_text.as_ref()) {
            return Says::Undecidable(Arc::clone(why));
        }
        let (mut tally, until) = held.tally(query.asked, millis(query.now));
        let mut written = Marks::default();
        if !compiled.texts.is_empty() {
            let question = self.question(number, port, query);
            if let Err(why) = self.run_texts(&question, &mut tally, &mut written) {
                return Says::Undecidable(why);
            }
        }
        let (says, effect) = match tally {
            Tally { forbid: true, .. } => (Says::Forbidden, Effect::Forbid),
            Tally { permit: true, .. } => {
                let says = Says::Permitted {
                    audit: !tally.plain_permit,
                    break_glass: tally.break_glass,
                };
                (says, Effect::Permit)
            }
            Tally { .. } => return Says::NoPermit,
        };
        *reasons = Reasons::Held(HeldPolicies {
            port: number,
            asked: query.asked,
            now: query.now,
            until,
            effect,
            written,
        });
        says
    }

    /// Evaluates the policies that were written in Cedar.
    fn run_texts(
        &self,
        question: &Question<'_>,
        tally: &mut Tally,
        written: &mut Marks,
    ) -> Result<(), Arc<str>> {
        let compiled = self.0.snapshot.compiled();
        for (place, text) in compiled.texts.iter().enumerate() {
            let Some(sound) = text.policy() else { continue };
            let holds = match text.program() {
                Some(program) => program.holds(question).map_err(|error| {
                    Arc::from(format!("{}: {error}", text.reference.id).as_str())
                })?,
                None => {
                    let setting = compiled.setting();
                    match cedar::answer(
                        compiled.vocabulary,
                        &setting,
                        question,
                        [sound].into_iter(),
                    ) {
                        Answer::Permitted { .. } | Answer::Forbidden { .. } => true,
                        Answer::NoPermit => false,
                        Answer::Undecidable { why } => return Err(why),
                    }
                }
            };
            if holds {
                written.set(place);
                let reference = &text.reference;
                tally.add(reference.effect, reference.audit, reference.break_glass);
            }
        }
        Ok(())
    }

    /// The same question to Cedar, membership in sets looked up plainly.
    pub(crate) fn ask_cedar(&self, number: u16, port: &Port, query: &Query<'_>) -> Answer {
        let compiled = self.0.snapshot.compiled();
        let data = self.0.snapshot.data();
        let (identity_sets, network_sets) = plain_membership(&data, &self.0.client);
        let mut question = self.question(number, port, query);
        question.asker.identity_sets = &identity_sets;
        question.asker.network_sets = &network_sets;
        #[cfg(test)]
        cedar::model::tests::watch(&self.0.snapshot, number, &question);
        cedar::ask(
            compiled.vocabulary,
            &compiled.setting_of(data.names()),
            &question,
            (&data, &port.policy.grants),
            &compiled.texts,
        )
    }

    pub(crate) fn question<'a>(
        &'a self,
        number: u16,
        port: &'a Port,
        query: &Query<'a>,
    ) -> Question<'a> {
        let atoms = &*self.0;
        Question {
            asker: Asker {
                id: atoms.client.id.as_ref(),
                ip: atoms.client.ip,
                tls: atoms.client.tls,
                cert_not_after: atoms.client.expires,
                identity_sets: &atoms.identity_sets,
                network_sets: &atoms.network_sets,
            },
            target: Target {
                trust_domain: &atoms.snapshot.compiled().trust_domain,
                namespace: &port.policy.server.namespace,
                server: port.named().map(|(_, name)| name),
                port: number,
                route: query.route,
            },
            request: query.request,
            now: query.now,
        }
    }

    /// The first of [`ConnectionAtoms::reasons`].
    pub(crate) fn first_reason<'a>(&'a self, reasons: &'a Reasons) -> Option<Reason<'a>> {
        match reasons {
            Reasons::None => None,
            Reasons::Listed(list) => Some(Reason::whole(list.first()?)),
            Reasons::Held(held) => {
                let rules = self.held(held.port);
                let rule = rules
                    .holding(held.asked, millis(held.now), held.effect)
                    .next();
                let granted = rule.and_then(|rule| self.matcher(held.port).reason(rule));
                granted.into_iter().chain(self.written(held)).min()
            }
        }
    }

    /// The reasons of an answer that these atoms gave; sorted, each once.
    pub(crate) fn reasons(&self, reasons: &Reasons) -> Vec<Arc<str>> {
        match reasons {
            Reasons::None => Vec::new(),
            Reasons::Listed(list) => list.to_vec(),
            Reasons::Held(held) => {
                let (rules, matcher) = (self.held(held.port), self.matcher(held.port));
                let granted = rules
                    .holding(held.asked, millis(held.now), held.effect)
                    .filter_map(|rule| matcher.reason(rule));
                let mut all: Vec<Reason<'_>> = granted.chain(self.written(held)).collect();
                all.sort_unstable();
                all.dedup();
                all.into_iter().map(Arc::from).collect()
            }
        }
    }

    fn matcher(&self, port: u16) -> &Matcher {
        &self.0.snapshot.compiled().port(self.port_at(port)).matcher
    }

    /// Ids of the policies written in Cedar that held.
    fn written<'a>(&'a self, held: &'a HeldPolicies) -> impl Iterator<Item = Reason<'a>> {
        let texts = self.0.snapshot.compiled().texts.iter().enumerate();
        texts
            .filter(|(place, text)| {
                held.written.has(*place) && text.reference.effect == held.effect
            })
            .map(|(_, text)| Reason::whole(&text.reference.id))
    }
}

/// Ports that one connection remembers. Only a client that tries many at once meets it.
const REMEMBERED_PORTS_MAX: usize = 16;

fn listed(answer: Answer) -> (Says, Reasons) {
    let list = |reasons: BTreeSet<Arc<str>>| Reasons::Listed(reasons.into_iter().collect());
    match answer {
        Answer::Permitted {
            reasons,
            audit,
            break_glass,
        } => (Says::Permitted { audit, break_glass }, list(reasons)),
        Answer::Forbidden { reasons } => (Says::Forbidden, list(reasons)),
        Answer::Undecidable { why } => (Says::Undecidable(why), Reasons::None),
        Answer::NoPermit => (Says::NoPermit, Reasons::None),
    }
}

/// Membership by trying every member of every set: slow and plain, so that Cedar does not rest on the indexes that it
/// is there to check.
fn plain_membership(data: &SnapshotData, client: &Client) -> (Vec<u32>, Vec<u32>) {
    let is = |id: &SpiffeId, pattern: &IdentityPattern| match pattern {
        IdentityPattern::Any => {
            *id.trust_domain() == data.trust_domain
                || data.wildcard_domains.contains(id.trust_domain())
        }
        IdentityPattern::Exact(exact) => exact == id,
        IdentityPattern::Namespace {
            trust_domain,
            namespace,
        } => {
            id.trust_domain() == trust_domain
                && id.service_account().is_some_and(|(of, _)| of == namespace)
        }
        IdentityPattern::Nobody(_) => false,
    };
    let identity = (0u32..)
        .zip(data.identity_sets.values())
        .filter(|(_, set)| {
            let id = client.id.as_ref();
            id.is_some_and(|id| set.members.iter().any(|pattern| is(id, pattern)))
        });
    let network = (0u32..).zip(data.network_sets.values()).filter(|(_, set)| {
        set.networks.iter().any(|network| {
            network.cidr.contains(&client.ip)
                && !network.except.iter().any(|hole| hole.contains(&client.ip))
        })
    });
    (
        identity.map(|(place, _)| place).collect(),
        network.map(|(place, _)| place).collect(),
    )
}
