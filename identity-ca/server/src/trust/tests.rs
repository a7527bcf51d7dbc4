//! Trust while the CA runs: whole rotations, crashes at every write, exchanged files, forged acknowledgments.

use super::error::TrustStateError;
use super::service::{TrustStreams, verify};
use super::{Requester, file};
use crate::issuing::{Chain, Desk, Issuing, Turn};
use crate::listen::Counts;
use crate::record::Lines;
use crate::registry::Registry;
use crate::testing::{NOW, World, domain, id, open};
use crate::{CaError, inspect, signer};
use mesh_api::proto::{TrustAcknowledgment, TrustUpdate};
use mesh_api::trust::{Outcome, Update};
use mesh_issuance::Profile;
use mesh_issuance::issue::Request;
use mesh_issuance::rotation::{Event, Holder, Phase};
use mesh_platform::{Platform, PlatformError, System, files};
use mesh_trust::tls::{TlsIdentity, check_chain};
use mesh_trust::{Svid, TrustBundles};
use miette::Diagnostic;
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A verifier that does what a proxy does, without sockets.
pub(crate) struct Verifier {
    requester: Requester,
    holder: Holder,
    stream: u64,
    identity: TlsIdentity,
    bundles: TrustBundles,
}

fn identity_of(chain: &Chain, key: &[u8]) -> TlsIdentity {
    let svid = chain.whole();
    let key = PrivatePkcs8KeyDer::from(key.to_vec()).into();
    TlsIdentity::new(Svid::parse(svid).unwrap(), key).unwrap()
}

fn issue(desk: &mut Desk, requester: &Requester, path: &str) -> Option<TlsIdentity> {
    let (pkcs8, key) = signer::generate().unwrap();
    let request = Request {
        id: id(path),
        key,
        lifetime_secs: None,
        backdate_secs_max: None,
    };
    let chain = desk.issue(vec![(request, requester.clone())]).remove(0);
    chain.ok().map(|chain| identity_of(&chain, &pkcs8))
}

impl Verifier {
    pub(crate) fn join(desk: &mut Desk, name: &str) -> Self {
        Self::try_join(desk, name).unwrap()
    }

    /// None if nothing is issued.
    pub(crate) fn try_join(desk: &mut Desk, name: &str) -> Option<Self> {
        let requester = Requester {
            evidence: "test".to_owned(),
            instance: Some(format!("machine {name}")),
            node: None,
        };
        let identity = issue(desk, &requester, &format!("ns/shop/sa/{name}"))?;
        let holder = Self::holder_of(name);
        Some(Self {
            stream: desk.trust.roster.opened(&holder).unwrap(),
            bundles: desk.trust.subscribe().borrow().bundles.clone(),
            requester,
            holder,
            identity,
        })
    }

    pub(crate) fn holder_of(name: &str) -> Holder {
        Holder {
            id: id(&format!("ns/shop/sa/{name}")),
            instance: format!("machine {name}"),
        }
    }

    pub(crate) fn serial(&self) -> &str {
        self.identity.svid().serial()
    }

    /// Applies what the CA sends, and signs what comes of it.
    fn answer(&mut self, desk: &mut Desk) -> TrustAcknowledgment {
        let update = desk.trust_update(&self.holder, self.stream).unwrap();
        self.answer_to(update, desk)
    }

    fn answer_to(&mut self, update: TrustUpdate, desk: &Desk) -> TrustAcknowledgment {
        let update = Update::read(update).unwrap();
        self.bundles = update.bundles.clone();
        let canary = check_chain(&self.bundles, update.canary.chain(), desk.now());
        let outcome = Outcome {
            identity: self.identity.clone(),
            canary: canary.map(drop).map_err(|why| why.to_string()),
            now: desk.now(),
            refused_handshakes: 0,
        };
        update.acknowledge(&outcome).unwrap()
    }

    pub(crate) fn acknowledge(&mut self, desk: &mut Desk) {
        assert!(self.try_acknowledge(desk));
    }

    /// False if the CA can send nothing: its disk is full.
    fn try_acknowledge(&mut self, desk: &mut Desk) -> bool {
        let Ok(update) = desk.trust_update(&self.holder, self.stream) else {
            return false;
        };
        let ack = self.answer_to(update, desk);
        let bundles = desk.trust.subscribe().borrow().bundles.clone();
        let (signer, ack) = verify(&ack, &bundles, desk.now()).unwrap();
        assert_eq!(*signer.id(), self.holder.id);
        desk.acknowledge(&self.holder, &ack).unwrap();
        true
    }

    /// Connects again, to a CA that was started again.
    pub(crate) fn reopen(&mut self, desk: &mut Desk) {
        self.stream = desk.trust.roster.opened(&self.holder).unwrap();
    }

    /// What it shows.
    pub(crate) fn svid(&self) -> &Svid {
        self.identity.svid()
    }

    /// Renews its SVID, and says so.
    pub(crate) fn follow(&mut self, desk: &mut Desk) {
        assert!(self.try_follow(desk));
    }

    /// False if nothing is issued.
    pub(crate) fn try_follow(&mut self, desk: &mut Desk) -> bool {
        let path = self.holder.id.path().trim_start_matches('/').to_owned();
        match issue(desk, &self.requester, &path) {
            Some(identity) => self.identity = identity,
            None => return false,
        }
        self.try_acknowledge(desk)
    }
}

/// Moves a rotation on until it ends, as verifiers do what they are told.
pub(crate) fn finish(desk: &mut Desk, verifiers: &mut [Verifier]) {
    desk.trust.drain_secs = 0;
    for _ in 0..20 {
        for verifier in verifiers.iter_mut() {
            verifier.follow(desk);
        }
        while desk.trust_event(&Event::Tick).unwrap() {}
        if matches!(desk.trust.state.phase, Phase::Steady { .. }) {
            return;
        }
    }
    panic!("it does not end: {:?}", desk.trust_status());
}

fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(crate::record::LOG_FILE)).unwrap()
}

#[test]
fn a_rotation_leaves_one_root_destroys_the_old_keys_and_outlives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    let first = desk.root().clone();
    let mut verifiers = ["a", "b", "c"].map(|name| Verifier::join(&mut desk, name));
    desk.rotate().unwrap();
    assert!(!desk.trust_event(&Event::Tick).unwrap(), "gate 1 is closed");
    assert_eq!(
        desk.root(),
        &first,
        "nothing is signed under the new root yet"
    );
    finish(&mut desk, &mut verifiers);
    let second = desk.root().clone();
    assert_ne!(first, second);
    assert_eq!(
        (desk.trust.state.generation, desk.trust.state.anchors.len()),
        (3, 1)
    );
    for key in ["root.key", "issuer.key"] {
        assert!(!dir.path().join(key).exists(), "{key} is left");
    }
    let log = log_of(dir.path());
    for step in [
        "gate 1: 3 verifiers",
        "wave 1",
        "gate 2",
        "were destroyed",
        r#""kind":"trust""#,
    ] {
        assert!(log.contains(step), "no `{step}` in the log");
    }
    drop(desk);
    let mut desk = open(dir.path(), &world).unwrap();
    assert_eq!(desk.root(), &second);
    let status = inspect(dir.path());
    assert_eq!(status.problems, []);
    assert_eq!(status.root.unwrap().serial, second.serial());
    // And once more: the authority that goes now lies in a folder of its own.
    let mut verifiers = ["d"].map(|name| Verifier::join(&mut desk, name));
    for name in ["a", "b", "c"] {
        // They are gone: what a restarted CA knows of them is their leaves.
        let named = format!("spiffe://cluster.local/ns/shop/sa/{name}");
        desk.trust.roster.ended(&Holder {
            id: id(&format!("ns/shop/sa/{name}")),
            instance: format!("machine {name}"),
        });
        assert!(desk.trust_event(&Event::Waive { name: named }).is_err());
    }
    desk.rotate().unwrap();
    finish(&mut desk, &mut verifiers);
    assert_eq!(desk.trust.state.generation, 5);
}

#[test]
fn a_restarted_ca_remembers_who_holds_what_and_waits_for_everybody_anew() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    let mut verifiers = ["a", "b"].map(|name| Verifier::join(&mut desk, name));
    desk.rotate().unwrap();
    verifiers[0].acknowledge(&mut desk);
    verifiers[1].acknowledge(&mut desk);
    drop(desk);
    let mut desk = open(dir.path(), &world).unwrap();
    assert_eq!(desk.trust.state.phase.name(), "proving");
    assert!(
        !desk.trust_event(&Event::Tick).unwrap(),
        "nobody was heard of since the start"
    );
    let kinds: Vec<_> = desk
        .trust_status()
        .blockers
        .into_iter()
        .map(|blocker| blocker.kind)
        .collect();
    assert_eq!(kinds, ["away", "away"]);
    for verifier in &mut verifiers {
        verifier.stream = desk.trust.roster.opened(&verifier.holder).unwrap();
    }
    finish(&mut desk, &mut verifiers);
    assert_eq!(desk.trust.state.anchors.len(), 1);
}

#[test]
fn an_abort_returns_to_the_old_root_and_destroys_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = open(dir.path(), &World::at(NOW)).unwrap();
    let first = desk.root().clone();
    let mut verifiers = ["a", "b"].map(|name| Verifier::join(&mut desk, name));
    desk.rotate().unwrap();
    verifiers
        .iter_mut()
        .for_each(|verifier| verifier.acknowledge(&mut desk));
    assert!(desk.trust_event(&Event::Tick).unwrap());
    verifiers
        .iter_mut()
        .for_each(|verifier| verifier.follow(&mut desk));
    desk.trust_event(&Event::Abort).unwrap();
    finish(&mut desk, &mut verifiers);
    assert_eq!(desk.root(), &first);
    assert!(dir.path().join("root.key").exists());
    let folders: Vec<_> = std::fs::read_dir(dir.path().join("authorities"))
        .unwrap()
        .collect();
    let folder = folders[0].as_ref().unwrap().path();
    assert!(folder.join("root.pem").exists() && !folder.join("root.key").exists());
}

#[test]
fn distrust_says_first_what_breaks_and_then_leaves_the_new_root_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = open(dir.path(), &World::at(NOW)).unwrap();
    let mut verifiers = ["a", "b"].map(|name| Verifier::join(&mut desk, name));
    let before = (desk.trust.state.clone(), log_of(dir.path()));
    let radius = desk.distrust("", false).unwrap();
    assert_eq!(radius.len(), 4, "two verifiers, two leaves");
    assert_eq!(
        before,
        (desk.trust.state.clone(), log_of(dir.path())),
        "nothing happened"
    );
    for name in ["1234567", "ffffffffffffffff"] {
        let error = desk.distrust(name, true).unwrap_err();
        assert_eq!(error.code().unwrap().to_string(), "MESH-0927", "{name}");
    }
    let old = verifiers[0].identity.svid().clone();
    desk.distrust("", true).unwrap();
    assert!(
        !dir.path().join("root.key").exists(),
        "its key is gone at once"
    );
    let bundles = desk.trust.subscribe().borrow().bundles.clone();
    bundles.verify(&old, NOW).unwrap_err();
    finish(&mut desk, &mut verifiers);
    bundles.verify(verifiers[0].identity.svid(), NOW).unwrap();
    drop(desk);
    assert!(open(dir.path(), &World::at(NOW)).is_ok());
}

#[test]
fn acknowledgments_that_are_forged_or_passed_on_open_no_gate() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = open(dir.path(), &World::at(NOW)).unwrap();
    let [mut honest, mut thief] = ["honest", "thief"].map(|name| Verifier::join(&mut desk, name));
    desk.rotate().unwrap();
    let good = honest.answer(&mut desk);
    let of_thief = thief.answer(&mut desk);
    let bundles = desk.trust.subscribe().borrow().bundles.clone();
    let mut attempt = |holder: &Holder, ack: TrustAcknowledgment| -> Result<(), String> {
        let code = |error: &dyn Diagnostic| error.code().unwrap().to_string();
        let (signer, ack) = verify(&ack, &bundles, NOW).map_err(|error| code(&error))?;
        // As the service does: the process by the kernel, the identity by the signature.
        let holder = Holder {
            id: signer.id().clone(),
            instance: holder.instance.clone(),
        };
        desk.acknowledge(&holder, &ack)
            .map_err(|error| code(&error))
    };
    let with = |change: &dyn Fn(&mut TrustAcknowledgment)| {
        let mut ack = good.clone();
        change(&mut ack);
        ack
    };
    for (what, who, ack, want) in [
        (
            "another generation",
            &honest,
            with(&|ack| ack.generation = 3),
            "MESH-0915",
        ),
        (
            "another clock",
            &honest,
            with(&|ack| ack.clock_unix_micros += 1),
            "MESH-0915",
        ),
        (
            "a refusal taken out",
            &honest,
            with(&|ack| ack.canary_refusal = "no".into()),
            "MESH-0915",
        ),
        (
            "another challenge",
            &honest,
            with(&|ack| ack.challenge = of_thief.challenge.clone()),
            "MESH-0915",
        ),
        (
            "no signature",
            &honest,
            with(&|ack| ack.signature.clear()),
            "MESH-0915",
        ),
        (
            "another's signature",
            &honest,
            with(&|ack| ack.signature = of_thief.signature.clone()),
            "MESH-0915",
        ),
        (
            "another's SVID",
            &honest,
            with(&|ack| ack.chain = of_thief.chain.clone()),
            "MESH-0915",
        ),
        (
            "no SVID",
            &honest,
            with(&|ack| ack.chain.clear()),
            "MESH-0924",
        ),
        (
            "an SVID without its issuer",
            &honest,
            with(&|ack| ack.chain.truncate(1)),
            "MESH-0925",
        ),
        (
            "passed on by another process",
            &thief,
            good.clone(),
            "MESH-0910",
        ),
    ] {
        assert_eq!(attempt(&who.holder, ack), Err(want.to_owned()), "{what}");
    }
    assert_eq!(attempt(&honest.holder, good.clone()), Ok(()));
    assert_eq!(
        attempt(&honest.holder, good),
        Ok(()),
        "doubled, and without effect"
    );
    assert_eq!(desk.trust_status().verifiers.acknowledged, 1);
}

#[test]
fn a_state_that_was_exchanged_stops_the_start_and_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let path = dir.path().join(file::STATE_FILE);
    let mut desk = open(dir.path(), &world).unwrap();
    let old = std::fs::read(&path).unwrap();
    let mut verifiers = ["a"].map(|name| Verifier::join(&mut desk, name));
    desk.rotate().unwrap();
    finish(&mut desk, &mut verifiers);
    drop(desk);
    let good = std::fs::read(&path).unwrap();
    let refused = |want: fn(&TrustStateError) -> bool, what: &str| match open(dir.path(), &world) {
        Err(CaError::Trust(error)) => assert!(want(&error), "{what}: {error}"),
        other => panic!("{what}: {:?}", other.map(drop)),
    };
    files::write_atomic(&path, &old, 0o600).unwrap();
    refused(
        |error| matches!(error, TrustStateError::Stale { generation: 3, .. }),
        "an older copy",
    );
    assert_eq!(std::fs::read(&path).unwrap(), old);
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        files::write_atomic(&path, &changed, 0o600).unwrap();
        let known = |error: &TrustStateError| {
            matches!(
                error,
                TrustStateError::Damaged { .. } | TrustStateError::Stale { .. }
            )
        };
        refused(known, &format!("octet {at}"));
    }
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        files::write_atomic(&path, &good[..length], 0o600).unwrap();
        refused(
            |error| !matches!(error, TrustStateError::Missing { .. }),
            &format!("cut to {length}"),
        );
    }
    std::fs::remove_file(&path).unwrap();
    // The first authority's keys are gone as well, which is noticed first.
    assert!(open(dir.path(), &world).is_err(), "deleted");
    files::write_atomic(&path, &good, 0o600).unwrap();
    let folder = std::fs::read_dir(dir.path().join("authorities"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::rename(&folder, dir.path().join("elsewhere")).unwrap();
    refused(
        |error| matches!(error, TrustStateError::NoAuthority { .. }),
        "no authority",
    );
    std::fs::rename(dir.path().join("elsewhere"), &folder).unwrap();
    assert!(open(dir.path(), &world).is_ok(), "mended");
}

/// A disk that is full from one step on.
struct Full {
    inner: Box<dyn Lines>,
    left: usize,
}

impl Full {
    fn check(&mut self) -> Result<(), PlatformError> {
        if self.left == 0 {
            return Err(PlatformError::NoSpace {
                doing: "append to",
                path: "issuance.log".into(),
            });
        }
        self.left -= 1;
        Ok(())
    }
}

impl Lines for Full {
    fn append(&mut self, line: &[u8]) -> Result<(), PlatformError> {
        self.check()?;
        self.inner.append(line)
    }

    fn sync(&mut self) -> Result<(), PlatformError> {
        self.check()?;
        self.inner.sync()
    }
}

#[test]
fn a_log_that_fails_at_any_step_of_a_rotation_leaves_a_state_that_starts_again() {
    for left in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let world = World::at(NOW);
        let mut desk = open(dir.path(), &world).unwrap();
        let mut verifier = Verifier::join(&mut desk, "a");
        desk.trust.drain_secs = 0;
        let generation = desk.trust.state.generation;
        let mut desk = desk
            .map_recorder(|recorder| recorder.with_lines(|inner| Box::new(Full { inner, left })));
        let mut published = desk.trust.subscribe();
        // As far as it goes; whatever was told to others must be on disk.
        let _ = desk.rotate();
        for _ in 0..8 {
            if !verifier.try_follow(&mut desk) {
                break;
            }
            let _ = desk.trust_event(&Event::Tick);
        }
        let told = published.borrow_and_update().state.clone();
        drop(desk);
        let mut desk =
            open(dir.path(), &world).unwrap_or_else(|error| panic!("after {left}: {error}"));
        let state = &desk.trust.state;
        assert!(
            state.generation >= told.generation && told.generation >= generation,
            "after {left}"
        );
        let bundles = desk.trust.subscribe().borrow().bundles.clone();
        bundles
            .verify(verifier.identity.svid(), NOW)
            .unwrap_or_else(|error| panic!("after {left}: {error}"));
        verifier.stream = desk.trust.roster.opened(&verifier.holder).unwrap();
        if matches!(desk.trust.state.phase, Phase::Steady { .. }) {
            desk.rotate().unwrap();
        }
        finish(&mut desk, std::slice::from_mut(&mut verifier));
    }
}

/// A thousand verifiers, each a task; none may ever meet a leaf whose root it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_verifiers_follow_a_rotation_within_a_minute_and_refuse_nobody() {
    const COUNT: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let platform = System::new();
    let profile = Profile::leaf(86_400).unwrap();
    let mut desk = Desk::open(dir.path(), &domain(), profile, platform.clone()).unwrap();
    desk.trust.drain_secs = 1;
    let issuing = Issuing::new(desk);
    let (_stop, stopping) = watch::channel(false);
    let streams = TrustStreams {
        registry: Registry::new(Vec::new(), &domain()).unwrap(),
        issuing: issuing.clone(),
        platform: platform.clone(),
        streams: Counts::default(),
        stopping,
    };
    // What everybody shows now.
    let shown: Arc<Vec<Mutex<Option<Svid>>>> =
        Arc::new((0..COUNT).map(|_| Mutex::default()).collect());
    let refused = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..COUNT)
        .map(|number| {
            tokio::spawn(live(
                number,
                issuing.clone(),
                streams.clone(),
                shown.clone(),
                refused.clone(),
            ))
        })
        .collect();
    let moving = tokio::spawn(super::keep::move_on(issuing.clone()));
    let acknowledged = |issuing: Issuing| async move {
        loop {
            let status = issuing.with_desk(|desk| desk.trust_status()).await.unwrap();
            if status.verifiers.acknowledged == COUNT as u64 {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    acknowledged(issuing.clone()).await;
    let begun = tokio::time::Instant::now();
    issuing
        .with_desk(|desk| desk.rotate())
        .await
        .unwrap()
        .unwrap();
    issuing.trust_moved();
    let mut published = issuing.published();
    let ended = published.wait_for(|published| {
        published.state.generation == 3 && matches!(published.state.phase, Phase::Steady { .. })
    });
    let ended = tokio::time::timeout(Duration::from_secs(300), ended).await;
    assert!(ended.is_ok_and(|ended| ended.is_ok()), "it does not end");
    let took = begun.elapsed();
    println!("{COUNT} verifiers: {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(60), "{took:?}");
    let status = acknowledged(issuing.clone()).await;
    assert_eq!(
        (status.roots.len(), status.roots[0].leaves),
        (1, COUNT as u64)
    );
    assert_eq!(*refused.lock().unwrap(), Vec::<String>::new());
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    moving.abort();
}

/// One verifier: keeps its SVID under the right authority, applies bundles, tries its neighbours, acknowledges.
async fn live(
    number: usize,
    issuing: Issuing,
    streams: TrustStreams,
    shown: Arc<Vec<Mutex<Option<Svid>>>>,
    refused: Arc<Mutex<Vec<String>>>,
) {
    let requester = Requester {
        evidence: "simulated".to_owned(),
        instance: Some(format!("machine {number}")),
        node: None,
    };
    let spiffe_id = id(&format!("ns/shop/sa/w{number}"));
    let holder = requester.holder(&spiffe_id).unwrap();
    let mut published = issuing.published();
    let (mut identity, mut stream, mut under): (Option<TlsIdentity>, u64, _) = (None, 0, None);
    loop {
        let state = published.borrow_and_update().state.clone();
        let wanted = state.authority_for(&holder).clone();
        if under.as_ref() != Some(&wanted) {
            let (pkcs8, key) = signer::generate().unwrap();
            let request = Request {
                id: spiffe_id.clone(),
                key,
                lifetime_secs: None,
                backdate_secs_max: None,
            };
            let Ok(chain) = issuing.issue(request, requester.clone(), Turn::First).await else {
                // Too much to do: as a client that tries again.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            under = Some(chain.authority.clone());
            let fresh = identity_of(&chain, &pkcs8);
            *shown[number].lock().unwrap() = Some(fresh.svid().clone());
            identity = Some(fresh);
        }
        let asked = holder.clone();
        let update = issuing.with_desk(move |desk| {
            if stream == 0 {
                stream = desk.trust.roster.opened(&asked).unwrap();
            }
            (stream, desk.trust_update(&asked, stream).unwrap())
        });
        let (opened, update) = update.await.unwrap();
        stream = opened;
        let update = Update::read(update).unwrap();
        let now = System::new().wall_clock();
        for step in [1, 17, 401] {
            let other = (number + step) % shown.len();
            let neighbour = shown[other].lock().unwrap().clone();
            if let Some(svid) = neighbour
                && let Err(why) = update.bundles.verify(&svid, now)
            {
                refused
                    .lock()
                    .unwrap()
                    .push(format!("{number} refuses {other}: {why}"));
            }
        }
        let outcome = Outcome {
            identity: identity.clone().unwrap(),
            canary: check_chain(&update.bundles, update.canary.chain(), now)
                .map(drop)
                .map_err(|why| why.to_string()),
            now,
            refused_handshakes: 0,
        };
        let ack = update.acknowledge(&outcome).unwrap();
        // One that was overtaken is refused; the next update is on its way.
        let _ = streams.answer(holder.instance.clone(), &ack).await;
        if published.changed().await.is_err() {
            return;
        }
    }
}
