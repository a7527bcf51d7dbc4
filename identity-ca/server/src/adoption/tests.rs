//! Roots and issuers as cert-manager keeps them: begun with, taken over, staged, refused, and what that leaves on disk.

use super::files::KeptFiles;
use super::*;
use crate::testing::{DAY, Full, NOW, World, domain, in_thread, open, signing};
use crate::trust::tests::{Verifier, finish};
use crate::{CaConfig, inspect};
use mesh_issuance::Profile;
use mesh_issuance::adoption::source::{IssuerFiles, IssuerKey};
use mesh_trust::{Svid, TrustBundles};
use miette::Diagnostic;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};
use rustls_pki_types::CertificateDer;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

type Made = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str, secs: i64) -> CertificateParams {
    let at = |secs: i64| {
        let secs = u64::try_from(NOW.unix_secs() + secs).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs)
    };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (at(-3_600), at(secs));
    params
}

fn root(name: &str) -> Made {
    CertifiedIssuer::self_signed(params(name, 365 * DAY), KeyPair::generate().unwrap()).unwrap()
}

fn below_until(above: &Made, secs: i64) -> Made {
    let key = KeyPair::generate().unwrap();
    CertifiedIssuer::signed_by(params("issuer", secs), key, above).unwrap()
}

fn below(above: &Made) -> Made {
    below_until(above, 30 * DAY)
}

fn der(made: &Made) -> CertificateDer<'static> {
    made.der().clone()
}

fn offer(roots: &[&Made], chain: &[&Made]) -> Offer {
    Offer {
        roots: roots.iter().map(|root| der(root)).collect(),
        issuer: IssuerFiles {
            chain: chain.iter().map(|made| der(made)).collect(),
            key: IssuerKey::Pkcs8(chain[0].key().serialize_der().into()),
            hint_of_root: None,
        },
    }
}

fn adoptable(root: &Made, chain: &[&Made]) -> Adoptable {
    let Offer { roots, issuer } = offer(&[root], chain);
    let demands = Demands {
        roots: &roots,
        domain: &domain(),
        leaf_secs: 86_400,
        rotation_policy: None,
        now: NOW,
    };
    preflight::check(issuer, demands).unwrap()
}

/// A CA that began with a root that others keep.
struct Kept {
    dir: TempDir,
    world: Arc<World>,
    root: Made,
    issuer: Made,
}

impl Kept {
    fn new() -> (Self, Desk) {
        let root = root("root");
        let issuer = below(&root);
        let (dir, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
        let first = adoptable(&root, &[&issuer]);
        let kept = Self {
            dir,
            world,
            root,
            issuer,
        };
        let desk = kept.open(Some(&first));
        (kept, desk)
    }

    fn open(&self, first: Option<&Adoptable>) -> Desk {
        let profile = Profile::leaf(86_400).unwrap();
        let world = self.world.clone();
        let signing = signing(self.dir.path()).unwrap();
        let with = (&signing, first, None);
        let mut desk = Desk::open_with(self.dir.path(), &domain(), profile, world, with).unwrap();
        desk.kept_in("the test".to_owned()).unwrap();
        desk
    }

    fn same(&self) -> Offer {
        offer(&[&self.root], &[&self.issuer])
    }
}

/// Codes of what is said of what is kept elsewhere.
fn said(desk: &Desk) -> Vec<String> {
    let status = desk.adoption_status().unwrap();
    status
        .findings
        .into_iter()
        .map(|finding| finding.code)
        .collect()
}

fn bundles(desk: &Desk) -> TrustBundles {
    desk.trust.subscribe().borrow().bundles.clone()
}

fn trusted(desk: &Desk, svid: &Svid) -> bool {
    bundles(desk).verify(svid, desk.now()).is_ok()
}

fn put(path: &Path, text: &str) {
    disk::write_atomic(path, text.as_bytes(), 0o600).unwrap();
}

fn below_dir(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below_dir(&path));
        } else {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn a_ca_begins_with_what_others_keep_and_never_has_the_roots_key() {
    let (kept, mut desk) = Kept::new();
    let one = Verifier::join(&mut desk, "a");
    assert_eq!(one.svid().chain()[1], der(&kept.issuer));
    assert_eq!(
        bundles(&desk).get(&domain()).unwrap().anchors(),
        [der(&kept.root)]
    );
    assert!(trusted(&desk, one.svid()));
    desk.adopt(Ok(kept.same())).unwrap();
    assert_eq!(said(&desk), [""; 0]);
    drop(desk);
    let status = inspect(kept.dir.path());
    assert_eq!(status.problems, []);
    assert!(status.issuer.unwrap().subject.contains("issuer"));
    assert!(!below_dir(kept.dir.path()).contains(&"root.key".to_owned()));
    // Its keeper is away: the copy goes on.
    let mut desk = kept.open(None);
    let two = Verifier::join(&mut desk, "b");
    assert_eq!(two.svid().chain()[1], der(&kept.issuer));
    let gone = KeeperError::Unreadable {
        what: "the Secret".into(),
        why: "no answer".into(),
    };
    desk.adopt(Err(coded(&gone))).unwrap();
    assert_eq!(said(&desk), ["MESH-0953"]);
    assert!(Verifier::try_join(&mut desk, "c").is_some());
}

#[test]
fn a_renewed_issuer_signs_at_once_and_what_the_old_one_signed_stays_good() {
    let (kept, mut desk) = Kept::new();
    let before = Verifier::join(&mut desk, "a");
    let next = below(&kept.root);
    desk.adopt(Ok(offer(&[&kept.root], &[&next, &kept.root])))
        .unwrap();
    let after = Verifier::join(&mut desk, "b");
    assert_eq!(after.svid().chain().len(), 2, "the root is not shown");
    assert_eq!(after.svid().chain()[1], der(&next));
    assert!(trusted(&desk, before.svid()) && trusted(&desk, after.svid()));
    assert_eq!(desk.trust.state.generation, 1, "nobody had to be told");
    drop(desk);
    let log = std::fs::read_to_string(kept.dir.path().join("issuance.log")).unwrap();
    assert!(log.contains("an issuer of root"), "it is recorded");
    let mut desk = kept.open(None);
    assert_eq!(Verifier::join(&mut desk, "c").svid().chain()[1], der(&next));
}

#[test]
fn the_same_key_again_is_taken_and_said_once_it_shows() {
    let (kept, mut desk) = Kept::new();
    let key = KeyPair::try_from(kept.issuer.key().serialize_der()).unwrap();
    let again = CertifiedIssuer::signed_by(params("issuer", 60 * DAY), key, &kept.root).unwrap();
    desk.adopt(Ok(offer(&[&kept.root], &[&again]))).unwrap();
    assert_eq!(said(&desk), ["MESH-0952"]);
    assert_eq!(
        Verifier::join(&mut desk, "a").svid().chain()[1],
        der(&again)
    );
    desk.adopt(Ok(offer(&[&kept.root], &[&again]))).unwrap();
    assert_eq!(said(&desk), ["MESH-0952"], "for as long as that key signs");
    desk.adopt(Ok(offer(&[&kept.root], &[&below(&kept.root)])))
        .unwrap();
    assert_eq!(said(&desk), [""; 0]);
}

#[test]
fn a_new_root_is_proved_before_its_issuer_signs_anything() {
    let (kept, mut desk) = Kept::new();
    let mut verifiers = ["a", "b"].map(|name| Verifier::join(&mut desk, name));
    let (root, next) = {
        let root = root("second");
        let next = below(&root);
        (root, next)
    };
    let offered = || offer(&[&kept.root, &root], &[&next]);
    desk.adopt(Ok(offered())).unwrap();
    assert_eq!(desk.trust.state.phase.name(), "proving");
    for _ in 0..3 {
        desk.adopt(Ok(offered())).unwrap();
        assert!(
            !desk.trust_event(&Event::Tick).unwrap(),
            "nobody has acknowledged"
        );
    }
    let meanwhile = Verifier::join(&mut desk, "c");
    assert_eq!(meanwhile.svid().chain()[1], der(&kept.issuer));
    assert!(trusted(&desk, meanwhile.svid()));
    desk.trust.roster.ended(&Verifier::holder_of("c"));
    // Killed in the middle: the old issuer is still there.
    drop(desk);
    let mut desk = kept.open(None);
    desk.adopt(Ok(offered())).unwrap();
    desk.trust.roster.ended(&Verifier::holder_of("c"));
    verifiers
        .iter_mut()
        .for_each(|verifier| verifier.reopen(&mut desk));
    finish(&mut desk, &mut verifiers);
    assert_eq!(desk.root().certificate(), root.der());
    for verifier in &verifiers {
        assert_eq!(verifier.svid().chain()[1], der(&next));
        assert!(trusted(&desk, verifier.svid()));
    }
    desk.adopt(Ok(offered())).unwrap();
    assert_eq!(said(&desk), [""; 0]);
    let keys = below_dir(kept.dir.path())
        .into_iter()
        .filter(|name| name == "issuer.key");
    assert_eq!(
        keys.count(),
        1,
        "the copy of the old issuer's key is destroyed"
    );
    // The old root does not come back by itself, though somebody restores it from a backup.
    desk.adopt(Ok(kept.same())).unwrap();
    assert_eq!(said(&desk), ["MESH-0951", "MESH-0950"]);
    assert_eq!(desk.trust.state.phase.name(), "steady");
    desk.rotate().unwrap();
    assert_eq!(
        desk.trust.state.phase.name(),
        "proving",
        "unless somebody says so"
    );
}

#[test]
fn a_rotation_that_was_taken_back_is_not_begun_again_also_after_a_restart() {
    let (kept, mut desk) = Kept::new();
    let mut verifiers = ["a"].map(|name| Verifier::join(&mut desk, name));
    let root = root("second");
    let next = below(&root);
    let offered = || offer(&[&kept.root, &root], &[&next]);
    desk.adopt(Ok(offered())).unwrap();
    desk.adopt(Ok(offered())).unwrap();
    desk.trust_event(&Event::Abort).unwrap();
    finish(&mut desk, &mut verifiers);
    desk.adopt(Ok(offered())).unwrap();
    assert_eq!(
        (desk.trust.state.phase.name(), said(&desk)),
        ("steady", vec!["MESH-0950".into()])
    );
    drop(desk);
    let mut desk = kept.open(None);
    desk.adopt(Ok(offered())).unwrap();
    assert_eq!(
        (desk.trust.state.phase.name(), said(&desk)),
        ("steady", vec!["MESH-0950".into()])
    );
    assert_eq!(
        Verifier::join(&mut desk, "b").svid().chain()[1],
        der(&kept.issuer)
    );
}

#[test]
fn what_does_not_fit_is_named_and_the_issuer_in_force_goes_on() {
    let (kept, mut desk) = Kept::new();
    let stranger = root("stranger");
    let of_stranger = below(&stranger);
    let mut wrong_key = kept.same();
    wrong_key.issuer.chain = vec![der(&below(&kept.root))];
    for (what, offered, want) in [
        (
            "an intermediate in the bundle",
            offer(&[&kept.root, &kept.issuer], &[&kept.issuer]),
            "MESH-0947",
        ),
        (
            "a root that is not there",
            offer(&[&kept.root], &[&of_stranger]),
            "MESH-0938",
        ),
        ("a key of another renewal", wrong_key, "MESH-0936"),
        (
            "the root itself",
            offer(&[&kept.root], &[&kept.root]),
            "MESH-0948",
        ),
        (
            "an issuer that ended",
            offer(&[&kept.root], &[&below_until(&kept.root, -1)]),
            "MESH-0944",
        ),
        (
            "an issuer that ends tomorrow",
            offer(&[&kept.root], &[&below_until(&kept.root, DAY)]),
            "MESH-0945",
        ),
    ] {
        desk.adopt(Ok(offered)).unwrap();
        assert_eq!(said(&desk), [want], "{what}");
        assert_eq!(desk.trust.state.generation, 1, "{what}");
        let issued = Verifier::join(&mut desk, "a");
        assert_eq!(issued.svid().chain()[1], der(&kept.issuer), "{what}");
    }
    desk.adopt(Ok(kept.same())).unwrap();
    assert_eq!(said(&desk), [""; 0], "mended");
}

#[test]
fn an_ended_issuer_signs_nothing_says_so_and_its_successor_heals_it() {
    let (kept, mut desk) = Kept::new();
    kept.world.set(NOW.plus_secs(29 * DAY));
    desk.adopt(Ok(kept.same())).unwrap();
    assert_eq!(said(&desk), ["MESH-0942"]);
    let late = Verifier::join(&mut desk, "a");
    assert!(
        late.svid().not_after() <= NOW.plus_secs(30 * DAY),
        "no leaf outlives it"
    );
    kept.world.set(NOW.plus_secs(30 * DAY));
    desk.adopt(Ok(kept.same())).unwrap();
    assert_eq!(said(&desk), ["MESH-0941"]);
    assert!(Verifier::try_join(&mut desk, "a").is_none());
    desk.maintain().unwrap();
    drop(desk);
    // A restart does not make it better, and does not fail either: whoever waits for the successor must run.
    let mut desk = kept.open(None);
    assert!(Verifier::try_join(&mut desk, "a").is_none());
    let next = below_until(&kept.root, 60 * DAY);
    desk.adopt(Ok(offer(&[&kept.root], &[&next]))).unwrap();
    let joined = Verifier::join(&mut desk, "a");
    assert!(trusted(&desk, joined.svid()));
}

#[test]
fn a_chain_of_authorities_is_shown_whole_and_bounds_its_leaves() {
    let root = root("root");
    let middle = CertifiedIssuer::signed_by(
        params("middle", 3 * DAY),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        &root,
    )
    .unwrap();
    let issuer = CertifiedIssuer::signed_by(
        params("issuer", 30 * DAY),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        &middle,
    )
    .unwrap();
    let (dir, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let first = adoptable(&root, &[&issuer, &middle, &root]);
    let kept = Kept {
        dir,
        world,
        root,
        issuer,
    };
    let mut desk = kept.open(Some(&first));
    let one = Verifier::join(&mut desk, "a");
    assert_eq!(one.svid().chain().len(), 3);
    assert!(trusted(&desk, one.svid()));
    drop(desk);
    kept.world.set(NOW.plus_secs(3 * DAY - 3_600));
    let mut desk = kept.open(None);
    let late = Verifier::join(&mut desk, "a");
    assert!(
        late.svid().not_after() < NOW.plus_secs(3 * DAY),
        "{}",
        late.svid().not_after()
    );
}

#[test]
fn a_ca_with_a_root_of_its_own_moves_to_one_that_others_keep() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    drop(open(dir.path(), &world).unwrap());
    let root = root("corporate");
    let issuer = below(&root);
    let kept = Kept {
        dir,
        world,
        root,
        issuer,
    };
    let mut desk = kept.open(None);
    let mut verifiers = ["a", "b"].map(|name| Verifier::join(&mut desk, name));
    desk.adopt(Ok(kept.same())).unwrap();
    finish(&mut desk, &mut verifiers);
    assert_eq!(desk.root().certificate(), kept.root.der());
    assert!(!kept.dir.path().join("root.key").exists());
    drop(desk);
    assert_eq!(inspect(kept.dir.path()).problems, []);
    let mut desk = kept.open(None);
    let joined = Verifier::join(&mut desk, "c");
    assert!(trusted(&desk, joined.svid()));
}

#[test]
fn nobody_rotates_to_a_root_of_our_own_beside_the_keepers_back() {
    let (kept, mut desk) = Kept::new();
    desk.adopt(Ok(kept.same())).unwrap();
    for error in [
        desk.rotate().unwrap_err(),
        desk.distrust("", true).unwrap_err(),
    ] {
        assert_eq!(error.code().unwrap().to_string(), "MESH-0940");
    }
    assert_eq!(desk.trust.state.generation, 1);
}

#[test]
fn a_takeover_that_cannot_be_recorded_does_not_happen() {
    let (kept, desk) = Kept::new();
    let mut desk = desk.map_recorder(|recorder| recorder.with_lines(|_| Box::new(Full)));
    desk.adopt(Ok(offer(&[&kept.root], &[&below(&kept.root)])))
        .unwrap_err();
    assert_eq!(said(&desk), ["MESH-0240"]);
    drop(desk);
    let mut desk = kept.open(None);
    assert_eq!(
        Verifier::join(&mut desk, "a").svid().chain()[1],
        der(&kept.issuer)
    );
}

/// Keeps what it is given, and never says that it changed.
struct Silent(Mutex<Offer>);

#[tonic::async_trait]
impl Keeper for Silent {
    fn place(&self) -> String {
        "the test".to_owned()
    }

    fn may_come(&self) -> bool {
        true
    }

    async fn read(&self, _: &Signing) -> Result<Offer, KeeperError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_never_comes_is_made_good_by_reading_again() {
    let (kept, desk) = Kept::new();
    let issuing = Issuing::new(desk);
    let keeper = Arc::new(Silent(Mutex::new(kept.same())));
    let following = tokio::spawn(follow(
        keeper.clone(),
        signing(kept.dir.path()).unwrap(),
        issuing.clone(),
    ));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let next = below(&kept.root);
    *keeper.0.lock().unwrap() = offer(&[&kept.root], &[&next]);
    tokio::time::sleep(KEEPER_REREAD + Duration::from_secs(1)).await;
    // The desk works on threads that the paused clock does not wait for.
    let mut found = false;
    for _ in 0..500 {
        let wanted = der(&next);
        let issuer = |desk: &mut Desk| desk.issuer().certificate().clone();
        found = issuing.with_desk(issuer).await.unwrap() == wanted;
        if found {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(found, "the old issuer still signs");
    following.abort();
}

/// Whether the keeper says within so many seconds that something may have changed.
async fn says_changed(files: &KeptFiles, secs: u64) -> bool {
    let within = Duration::from_secs(secs);
    tokio::time::timeout(within, files.changed()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn files_that_stand_still_are_not_read_again_and_those_that_change_are() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| put(&dir.path().join(name), text);
    let root = root("root");
    let (issuer, next) = (below(&root), below(&root));
    let files = KeptFiles::new(dir.path(), None);
    let keys = signing(dir.path()).unwrap();
    write("ca.crt", &root.pem());
    write("tls.crt", &issuer.pem());
    assert!(files.read(&keys).await.is_err(), "there is no key");
    assert!(!says_changed(&files, 29).await, "and still none");
    write("tls.key", &issuer.key().serialize_pem());
    assert!(says_changed(&files, 2).await);
    files.read(&keys).await.unwrap();
    assert!(!says_changed(&files, 29).await);
    for (name, text) in [
        ("tls.crt", next.pem()),
        // Of the key, which is not read here, it is seen that it is another file.
        ("tls.key", next.key().serialize_pem()),
        (
            "ca.crt",
            format!("{}{}", root.pem(), self::root("other").pem()),
        ),
    ] {
        write(name, &text);
        assert!(says_changed(&files, 2).await, "{name}");
        files.read(&keys).await.unwrap();
        assert!(!says_changed(&files, 29).await, "{name}");
    }
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    assert!(says_changed(&files, 2).await, "it is gone");
    // What the signer did not open is tried again at once: the key may be there a moment later.
    write("tls.key", "junk");
    assert!(files.read(&keys).await.is_err());
    assert!(says_changed(&files, 2).await);
}

#[tokio::test]
async fn files_are_read_as_a_secret_is_mounted_and_a_ca_refuses_to_begin_with_wrong_ones() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| put(&dir.path().join(name), text);
    let (root, now) = (root("root"), mesh_platform::System::new());
    let issuer = below(&root);
    let files = KeptFiles::new(dir.path(), None);
    let keys = signing(dir.path()).unwrap();
    let refused = async |files: &KeptFiles| {
        first((files, &keys), &domain(), 86_400, || NOW, |_| {})
            .await
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&files).await.contains("MESH-0953"));
    write("ca.crt", &root.pem());
    assert!(refused(&files).await.contains("MESH-0906"));
    write("tls.crt", &issuer.pem());
    write("tls.key", &below(&root).key().serialize_pem());
    assert!(refused(&files).await.contains("MESH-0936"));
    write("tls.key", &issuer.key().serialize_pem());
    let read = first((&files, &keys), &domain(), 86_400, || NOW, |_| {})
        .await
        .unwrap();
    assert_eq!(
        (read.root, read.issuer.chain),
        (der(&root), vec![der(&issuer)])
    );
    // A bundle of its own is the one that counts.
    let bundle = dir.path().join("bundle.pem");
    put(&bundle, &self::root("other").pem());
    let files = KeptFiles::new(dir.path(), Some(&bundle));
    assert!(refused(&files).await.contains("MESH-0938"));
    put(
        &bundle,
        &format!("{}{}", root.pem(), root.key().serialize_pem()),
    );
    assert!(refused(&files).await.contains("MESH-0908"));
    // And the CA itself says so when it starts, with its directory as it was.
    let state = tempfile::tempdir().unwrap();
    let config = CaConfig {
        keeper: Some(Arc::new(files)),
        harden: false,
        ..CaConfig::new(
            &state.path().join("ca"),
            domain(),
            &state.path().join("api"),
            in_thread(&state.path().join("ca")),
            now,
        )
    };
    let error = crate::run(config, std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(error.code().unwrap().to_string(), "MESH-0954");
    assert!(
        !below_dir(&state.path().join("ca"))
            .iter()
            .any(|name| name.ends_with(".key"))
    );
}
