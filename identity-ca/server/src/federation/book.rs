//! Relations with other trust domains, on disk and in force.
//!
//! A change is written before anybody learns of it. Each relation has a number of its own, so that a fetch that was begun
//! for one which ended meanwhile changes nothing.

use super::error::{FederationError, FetchError};
use super::{FOLDER, Foreign};
use crate::error::{CaError, IssuanceError};
use mesh_api::error::CodedError;
use mesh_api::federation::{HeldStatus, RelationStatus};
use mesh_issuance::federation::{EndpointUrl, News, Profile, Relation, judge, refresh_secs};
use mesh_issuance::limits::RELATIONS_MAX;
use mesh_platform::{Platform, files};
use mesh_trust::bundle::WholeBundle;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Name of the file below [`FOLDER`].
const FILE: &str = "relations.json";
/// Bytes of it: relations of the largest number, with bundles of the largest size, escaped.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Form of the file.
const VERSION: u32 = 1;

/// All relations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Federation {
    own: TrustDomain,
    file: PathBuf,
    platform: Arc<dyn Platform>,
    book: Arc<Mutex<Book>>,
    foreign: Arc<watch::Sender<Arc<Foreign>>>,
    numbers: Arc<watch::Sender<Vec<u64>>>,
}

#[derive(Clone, Default)]
struct Book {
    entries: BTreeMap<TrustDomain, Entry>,
    /// Number of the relation made last.
    last: u64,
}

#[derive(Clone)]
struct Entry {
    number: u64,
    relation: Relation,
    held: Option<Held>,
    failures: u32,
    tried_at: Option<Timestamp>,
    error: Option<CodedError>,
}

/// A bundle in force.
#[derive(Clone)]
struct Held {
    bundle: WholeBundle,
    /// Since when its content is.
    since: Timestamp,
    /// When it was last fetched, or given.
    confirmed_at: Timestamp,
    /// Whether a person gave it, and nothing was fetched since.
    given: bool,
}

/// What a fetch needs to know.
#[derive(Clone)]
pub(crate) struct Errand {
    pub(crate) relation: Relation,
    pub(crate) held: Option<WholeBundle>,
    pub(crate) failures: u32,
    /// Code of the error that the last fetch ended with.
    pub(crate) last_error: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    relations: Vec<EntryForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EntryForm {
    trust_domain: TrustDomain,
    url: EndpointUrl,
    endpoint: Profile,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<HeldForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct HeldForm {
    bundle: String,
    since: Timestamp,
    confirmed_at: Timestamp,
    given: bool,
}

impl Federation {
    /// Reads the relations of the CA in `dir`.
    ///
    /// # Errors
    /// [`CaError::Corrupt`] if they are not as they were written: they are left as they are.
    pub(crate) fn open(
        dir: &Path,
        own: &TrustDomain,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, CaError> {
        let file = dir.join(FOLDER).join(FILE);
        let book = match files::read_limited(&file, FILE_BYTES_MAX) {
            Ok(bytes) => Book::read(own, &bytes).map_err(|why| CaError::Corrupt {
                path: file.clone(),
                why,
            })?,
            Err(error) if error.is_not_found() => Book::default(),
            Err(error) => return Err(error.into()),
        };
        let (foreign, numbers) = (book.foreign(0), book.numbers());
        Ok(Self {
            own: own.clone(),
            file,
            platform,
            book: Arc::new(Mutex::new(book)),
            foreign: Arc::new(watch::Sender::new(Arc::new(foreign))),
            numbers: Arc::new(watch::Sender::new(numbers)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Whoever panicked in between left whole values: a book is replaced, never changed in place.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our own domain.
    pub(crate) fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// What is held of other domains, as it changes.
    pub(crate) fn foreign(&self) -> watch::Receiver<Arc<Foreign>> {
        self.foreign.subscribe()
    }

    /// Numbers of the relations that there are, as they change.
    pub(crate) fn numbers(&self) -> watch::Receiver<Vec<u64>> {
        self.numbers.subscribe()
    }

    /// The number of the relation with `domain`.
    pub(crate) fn number_of(&self, domain: &TrustDomain) -> Option<u64> {
        Some(self.lock().entries.get(domain)?.number)
    }

    /// What a fetch for this relation needs; none if it has ended.
    pub(crate) fn errand(&self, number: u64) -> Option<Errand> {
        let book = self.lock();
        let entry = book.entries.values().find(|entry| entry.number == number)?;
        Some(Errand {
            relation: entry.relation.clone(),
            held: entry.held.as_ref().map(|held| held.bundle.clone()),
            failures: entry.failures,
            last_error: entry.error.as_ref().map(|error| error.code.clone()),
        })
    }

    /// Begins a relation; `given` is the bundle to begin with.
    pub(crate) async fn add(
        &self,
        relation: Relation,
        given: Option<WholeBundle>,
    ) -> Result<(), FederationError> {
        let now = self.platform.wall_clock();
        self.change(move |book| book.add(relation, given, now))
            .await
    }

    /// Ends a relation, and forgets what was held of it.
    pub(crate) async fn remove(&self, domain: &TrustDomain) -> Result<(), FederationError> {
        let domain = domain.clone();
        self.change(move |book| match book.entries.remove(&domain) {
            Some(_) => Ok(()),
            None => Err(FederationError::Unknown { domain }),
        })
        .await
    }

    /// Takes what a fetch gave. What is refused is remembered as such, and what was held stays in force.
    pub(crate) async fn note(
        &self,
        number: u64,
        fetched: Result<WholeBundle, FederationError>,
    ) -> Result<News, FederationError> {
        let now = self.platform.wall_clock();
        self.change(move |book| Ok(book.note(number, fetched, now)))
            .await?
    }

    /// Changes the book, writes it, and tells everybody.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Book) -> Result<T, FederationError> + Send + 'static,
    ) -> Result<T, FederationError> {
        let this = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let mut book = this.lock();
            let mut next = book.clone();
            let outcome = work(&mut next)?;
            let bytes = next.bytes();
            if bytes != book.bytes() {
                if let Some(folder) = this.file.parent() {
                    files::create_dir_private(folder)?;
                }
                files::write_atomic(&this.file, &bytes, 0o600)?;
            }
            *book = next;
            this.publish(&book);
            Ok(outcome)
        });
        changed
            .await
            .unwrap_or(Err(FederationError::Desk(IssuanceError::Stopped)))
    }

    fn publish(&self, book: &Book) {
        self.foreign.send_if_modified(|held| {
            let fresh = book.foreign(held.revision);
            let changes = fresh != **held;
            if changes {
                let revision = held.revision.saturating_add(1);
                *held = Arc::new(Foreign { revision, ..fresh });
            }
            changes
        });
        self.numbers.send_if_modified(|held| {
            let fresh = book.numbers();
            let changes = fresh != *held;
            *held = fresh;
            changes
        });
    }

    /// How the relations stand.
    pub(crate) fn status(&self) -> Vec<RelationStatus> {
        let now = self.platform.wall_clock();
        let book = self.lock();
        book.entries
            .values()
            .map(|entry| entry.status(now))
            .collect()
    }
}

impl Book {
    fn read(own: &TrustDomain, bytes: &[u8]) -> Result<Self, String> {
        let form: Form = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if form.version != VERSION {
            return Err(format!("it has version {}", form.version));
        }
        let mut book = Self::default();
        for form in form.relations {
            let domain = form.trust_domain.clone();
            let entry = Entry::read(own, form).map_err(|why| format!("`{domain}`: {why}"))?;
            book.insert(entry).map_err(|error| error.to_string())?;
        }
        Ok(book)
    }

    /// The octets of the file.
    fn bytes(&self) -> Vec<u8> {
        let form = Form {
            version: VERSION,
            relations: self.entries.values().map(Entry::form).collect(),
        };
        // Strings, numbers and lists always have a JSON form.
        let mut bytes = serde_json::to_vec_pretty(&form).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn insert(&mut self, entry: Entry) -> Result<(), FederationError> {
        let domain = entry.relation.domain().clone();
        if self.entries.contains_key(&domain) {
            return Err(FederationError::Exists { domain });
        }
        if self.entries.len() >= RELATIONS_MAX {
            return Err(FederationError::TooMany);
        }
        self.last = self.last.saturating_add(1);
        let number = self.last;
        self.entries.insert(domain, Entry { number, ..entry });
        Ok(())
    }

    fn add(
        &mut self,
        relation: Relation,
        given: Option<WholeBundle>,
        now: Timestamp,
    ) -> Result<(), FederationError> {
        let anchors = given
            .as_ref()
            .map_or(0, |given| given.x509().anchors().len());
        if matches!(relation.profile(), Profile::HttpsSpiffe { .. }) && anchors == 0 {
            let domain = relation.domain().clone();
            return Err(FetchError::NoAnchors { domain }.into());
        }
        self.insert(Entry::new(
            relation,
            given.map(|bundle| Held {
                bundle,
                since: now,
                confirmed_at: now,
                given: true,
            }),
        ))
    }

    fn note(
        &mut self,
        number: u64,
        fetched: Result<WholeBundle, FederationError>,
        now: Timestamp,
    ) -> Result<News, FederationError> {
        let found = self
            .entries
            .values_mut()
            .find(|entry| entry.number == number);
        let Some(entry) = found else {
            // It ended meanwhile: nobody waits for what came of it.
            return Ok(News::Same);
        };
        entry.tried_at = Some(now);
        match fetched.and_then(|bundle| entry.take(bundle, now)) {
            Ok(news) => {
                entry.failures = 0;
                entry.error = None;
                Ok(news)
            }
            Err(error) => {
                entry.failures = entry.failures.saturating_add(1);
                entry.error = Some(CodedError::from(&error as &dyn miette::Diagnostic));
                Err(error)
            }
        }
    }

    fn foreign(&self, revision: u64) -> Foreign {
        let held = || {
            self.entries
                .values()
                .filter_map(|entry| entry.held.as_ref())
        };
        let x509 = held().map(|held| held.bundle.x509());
        let jwt = held().map(|held| held.bundle.jwt());
        Foreign {
            revision,
            x509: x509
                .filter(|bundle| !bundle.anchors().is_empty())
                .cloned()
                .collect(),
            jwt: jwt
                .filter(|bundle| bundle.key_ids().next().is_some())
                .cloned()
                .collect(),
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.entries.values().map(|entry| entry.number).collect()
    }
}

impl Entry {
    fn new(relation: Relation, held: Option<Held>) -> Self {
        Self {
            number: 0,
            relation,
            held,
            failures: 0,
            tried_at: None,
            error: None,
        }
    }

    fn read(own: &TrustDomain, form: EntryForm) -> Result<Self, String> {
        let held = form.held.map(|held| {
            let bundle = WholeBundle::from_json(form.trust_domain.clone(), held.bundle.as_bytes())?;
            Ok(Held {
                bundle,
                since: held.since,
                confirmed_at: held.confirmed_at,
                given: held.given,
            })
        });
        let held = held
            .transpose()
            .map_err(|error: mesh_trust::bundle::WholeBundleError| error.to_string())?;
        let relation = Relation::new(own, form.trust_domain, form.url, form.endpoint)
            .map_err(|error| error.to_string())?;
        Ok(Self::new(relation, held))
    }

    fn form(&self) -> EntryForm {
        EntryForm {
            trust_domain: self.relation.domain().clone(),
            url: self.relation.url().clone(),
            endpoint: self.relation.profile().clone(),
            held: self.held.as_ref().map(|held| HeldForm {
                bundle: held.bundle.to_json(),
                since: held.since,
                confirmed_at: held.confirmed_at,
                given: held.given,
            }),
        }
    }

    fn take(&mut self, bundle: WholeBundle, now: Timestamp) -> Result<News, FederationError> {
        let before = self.held.as_ref();
        let news = judge(before.map(|held| &held.bundle), &bundle)?;
        let since = before.filter(|held| held.bundle.trusts_the_same(&bundle));
        self.held = Some(Held {
            since: since.map_or(now, |held| held.since),
            bundle,
            confirmed_at: now,
            given: false,
        });
        Ok(news)
    }

    fn status(&self, now: Timestamp) -> RelationStatus {
        let (endpoint_id, web_roots) = match self.relation.profile() {
            Profile::HttpsSpiffe { endpoint_id } => (Some(endpoint_id.clone()), None),
            Profile::HttpsWeb { roots } => (None, Some(roots.clone())),
        };
        let hint = self.held.as_ref();
        let hint = hint.and_then(|held| held.bundle.x509().refresh_hint_secs());
        RelationStatus {
            trust_domain: self.relation.domain().clone(),
            url: self.relation.url().to_string(),
            profile: self.relation.profile().name().to_owned(),
            endpoint_id,
            web_roots,
            held: self.held.as_ref().map(|held| held.status(now)),
            refresh_secs: refresh_secs(hint),
            failures: self.failures,
            tried_at: self.tried_at,
            error: self.error.clone(),
        }
    }
}

impl Held {
    fn status(&self, now: Timestamp) -> HeldStatus {
        let fingerprint = |der: &[u8]| {
            data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, der).as_ref())
        };
        let anchors = self.bundle.x509().anchors().iter();
        HeldStatus {
            sequence: self.bundle.sequence(),
            anchors: anchors.map(|der| fingerprint(der)).collect(),
            jwt_keys: self.bundle.jwt().key_ids().map(str::to_owned).collect(),
            since: self.since,
            confirmed_at: self.confirmed_at,
            age_secs: self.confirmed_at.secs_until(now),
            given: self.given,
        }
    }
}

/// Reads what an operator asks for, and the bundle that comes with it.
///
/// # Errors
/// [`FederationError`]: names, address, profile or bundle that cannot be.
pub(crate) fn read_request(
    own: &TrustDomain,
    request: mesh_api::proto::FederateRequest,
) -> Result<(Relation, Option<WholeBundle>), FederationError> {
    use mesh_api::proto::federate_request::Profile as Wire;
    let domain = TrustDomain::parse(&request.trust_domain)?;
    let profile = match request.profile {
        Some(Wire::EndpointId(id)) => Profile::HttpsSpiffe {
            endpoint_id: SpiffeId::parse_config(&id)?,
        },
        Some(Wire::WebRoots(path)) => Profile::HttpsWeb { roots: path.into() },
        None => return Err(FederationError::NoProfile),
    };
    let url = EndpointUrl::parse(&request.url)?;
    let relation = Relation::new(own, domain.clone(), url, profile)?;
    let given = match request.bundle_json.as_slice() {
        [] => None,
        document => Some(super::fetch::read_bundle(&relation, document)?),
    };
    Ok((relation, given))
}
