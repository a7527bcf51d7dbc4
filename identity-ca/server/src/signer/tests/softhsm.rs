//! Keys in a token, with SoftHSM: made, used, renewed, found again; and all that can be wrong with one. Needs Debian's
//! `softhsm2`; without it the tests say so and pass.

use super::*;
use crate::ceremony::{self, IssuerWish, RootWish};
use crate::testing::Full;
use crate::trust::custody::Custody;
use mesh_issuance::adoption::preflight::{self, Adoptable, Demands};
use mesh_issuance::adoption::source::{self, IssuerKey};
use mesh_issuance::csr;
use mesh_trust::{Svid, TrustBundle, TrustBundles};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "1234";

/// A token in a folder of its own.
struct SoftHsm {
    dir: tempfile::TempDir,
}

impl SoftHsm {
    fn new() -> Option<Self> {
        if !Path::new(MODULE).exists() {
            println!("skipped: Debian's softhsm2 is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let text = format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            tokens.display()
        );
        let this = Self { dir };
        mesh_platform::files::write_atomic(&this.conf(), text.as_bytes(), 0o600).unwrap();
        pin_file(this.dir.path(), "1234\n");
        this.util(&[
            "--init-token",
            "--free",
            "--label",
            "mesh",
            "--pin",
            PIN,
            "--so-pin",
            "5678",
        ]);
        Some(this)
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("softhsm2.conf")
    }

    fn util(&self, arguments: &[&str]) {
        let output = Command::new("softhsm2-util")
            .args(arguments)
            .env("SOFTHSM2_CONF", self.conf())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// A signer with this token, each part of its configuration changed by `change`.
    fn start_with(&self, ca: &Path, change: impl FnOnce(&mut [String; 5])) -> SignerStart {
        let mut parts = [
            MODULE.to_owned(),
            "mesh".to_owned(),
            "ca of prod".to_owned(),
            self.dir.path().join("pin").display().to_string(),
            self.dir.path().display().to_string(),
        ];
        change(&mut parts);
        let variables = [
            (TOKEN, parts.join("\n")),
            ("SOFTHSM2_CONF", self.conf().display().to_string()),
        ];
        in_process(ca, &variables)
    }

    /// Halves of keys that are in the token.
    fn halves(&self) -> usize {
        let tokens = std::fs::read_dir(self.dir.path().join("tokens")).unwrap();
        let token = tokens.map(|entry| entry.unwrap().path()).next().unwrap();
        std::fs::read_dir(token)
            .unwrap()
            .filter(|entry| {
                let path = entry.as_ref().unwrap().path();
                path.extension().is_some_and(|end| end == "object")
                    && !path.ends_with("token.object")
            })
            .count()
    }

    fn start(&self, ca: &Path) -> Signing {
        Signing::start(self.start_with(ca, |_| {})).unwrap()
    }

    fn refused(&self, ca: &Path, change: impl FnOnce(&mut [String; 5])) -> SignerError {
        Signing::start(self.start_with(ca, change))
            .err()
            .expect("refused")
    }
}

use crate::SignerError;

fn code(error: &dyn Diagnostic) -> String {
    assert!(error.help().is_some(), "{error} has no hint");
    error.code().unwrap().to_string()
}

#[test]
fn root_and_issuer_in_a_token_issue_are_renewed_and_found_again() {
    let Some(hsm) = SoftHsm::new() else { return };
    let (ca, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let signing = hsm.start(ca.path());
    let mut desk = open_with(ca.path(), &world, &signing).unwrap();
    for name in ["root.key", "issuer.key"] {
        let text = std::fs::read_to_string(ca.path().join(name)).unwrap();
        assert!(
            text.starts_with("pkcs11:token=mesh;object=ca%20of%20prod;id=%"),
            "{text}"
        );
    }
    let verify = |desk: &mut Desk, now| {
        let chain = desk.issue(vec![request()]).remove(0).unwrap();
        let root = vec![desk.root().certificate().clone()];
        let bundle = TrustBundle::new(domain(), root).unwrap();
        let svid = Svid::parse(chain.whole()).unwrap();
        TrustBundles::from(bundle).verify(&svid, now).unwrap();
    };
    verify(&mut desk, NOW);
    assert_eq!(hsm.halves(), 4, "two keys, two halves each");
    let first = desk.issuer().serial().to_owned();
    let later = NOW.plus_secs(4 * DAY);
    world.set(later);
    desk.maintain().unwrap();
    assert_ne!(desk.issuer().serial(), first);
    assert_eq!(hsm.halves(), 4, "the key of the issuer before is destroyed");
    verify(&mut desk, later);
    drop(desk);
    drop(signing);
    // A start finds them by what the files name.
    let signing = hsm.start(ca.path());
    let mut desk = open_with(ca.path(), &world, &signing).unwrap();
    verify(&mut desk, later);
    // So does a signer that is started again.
    kill(&signing);
    issues_again(&mut desk);
}

#[test]
fn renewals_that_fail_leave_no_key_in_the_token() {
    let Some(hsm) = SoftHsm::new() else { return };
    let (ca, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let signing = hsm.start(ca.path());
    let mut desk = open_with(ca.path(), &world, &signing).unwrap();
    world.set(NOW.plus_secs(4 * DAY));
    let first = desk.issuer().serial().to_owned();
    let fails = |desk: &mut Desk, what: &str| {
        for _ in 0..2 {
            assert!(desk.maintain().is_err(), "{what}");
            assert_eq!(hsm.halves(), 4, "{what}");
        }
    };
    // Of the certificate, of the key, and of the move of the key to its place.
    for name in ["issuer.next.pem", "issuer.next.key", "issuer.key"] {
        let (path, aside) = (ca.path().join(name), ca.path().join("aside"));
        let moved = std::fs::rename(&path, &aside).is_ok();
        std::fs::create_dir(&path).unwrap();
        fails(&mut desk, name);
        std::fs::remove_dir(&path).unwrap();
        if moved {
            std::fs::rename(&aside, &path).unwrap();
        }
    }
    let mut desk = desk.map_recorder(|recorder| recorder.with_lines(|_| Box::new(Full)));
    fails(&mut desk, "the log is full");
    assert_eq!(desk.issuer().serial(), first);
    drop(desk);
    drop(signing);
    // One that nobody saved ends with a signer whose CA is gone.
    let mut signer = ByHand::start_as(hsm.start_with(ca.path(), |_| {}));
    let made = signer.ask(&Question::Make);
    assert!(matches!(made, Answer::Key { .. }));
    assert_eq!(hsm.halves(), 6);
    drop(signer.socket);
    assert_eq!(signer.child.wait().unwrap().code(), Some(0));
    assert_eq!(hsm.halves(), 4);
    let signing = hsm.start(ca.path());
    let mut desk = open_with(ca.path(), &world, &signing).unwrap();
    assert_ne!(desk.issuer().serial(), first, "renewed at last");
    assert_eq!(hsm.halves(), 4);
    desk.issue(vec![request()]).remove(0).unwrap();
}

#[test]
fn a_first_start_that_was_cut_off_leaves_no_key_in_the_token() {
    let Some(hsm) = SoftHsm::new() else { return };
    let (ca, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let signing = hsm.start(ca.path());
    let staging = ca.path().join("first-start");
    mesh_platform::files::create_dir_private(&staging).unwrap();
    for name in ["root.key", "issuer.key"] {
        signing.make().unwrap().save(&staging.join(name)).unwrap();
    }
    assert_eq!(hsm.halves(), 4);
    drop(open_with(ca.path(), &world, &signing).unwrap());
    assert_eq!(hsm.halves(), 4, "those of the start that came to its end");
}

/// An authority whose issuer has this key, in the token, and whose root is nowhere.
fn kept_elsewhere(key: &HeldKey, file: &Path, world: &World) -> Adoptable {
    let wish = RootWish {
        domain: domain(),
        shares: 2,
        threshold: 2,
        version: "test".to_owned(),
    };
    let made = ceremony::make(&wish, world).unwrap();
    let shares = made.shares.iter().map(|(name, text)| {
        let text = Zeroizing::new(text.as_bytes().to_vec());
        (name.clone(), text)
    });
    let wish = IssuerWish {
        request: ("issuer.csr".to_owned(), csr::make(key).unwrap()),
        days: 90,
        version: "test".to_owned(),
    };
    let root = ("root.pem", made.pem.as_bytes());
    let signed = ceremony::sign(&wish, root, &shares.collect::<Vec<_>>(), world).unwrap();
    let roots = source::roots_from_pem(signed.root.as_bytes()).unwrap();
    let key = IssuerKey::InFile {
        file: file.to_owned(),
        public: key.public_key().clone(),
    };
    let demands = Demands {
        roots: &roots,
        domain: &domain(),
        leaf_secs: 86_400,
        rotation_policy: None,
        now: NOW,
    };
    let issuer = source::issuer_of(signed.chain.as_bytes(), None, key).unwrap();
    preflight::check(issuer, demands).unwrap()
}

#[test]
fn a_key_that_others_keep_in_the_token_stays_there_when_its_authority_is_let_go() {
    let Some(hsm) = SoftHsm::new() else { return };
    let (ca, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let signing = hsm.start(ca.path());
    // The operator's: the file beside the certificate names it.
    let file = ca.path().join("tls.key");
    let key = signing.make().unwrap();
    key.save(&file).unwrap();
    let of = kept_elsewhere(&key, &file, &world);
    let mut custody = Custody::empty(ca.path(), &signing);
    let copies = || {
        let folders = std::fs::read_dir(ca.path().join("authorities")).unwrap();
        let copy = |folder: std::io::Result<std::fs::DirEntry>| {
            folder.unwrap().path().join("issuer.key").exists()
        };
        folders.map(copy).filter(|there| *there).count()
    };
    let id = custody.keep_copy(&domain(), &of).unwrap();
    assert_eq!(copies(), 1);
    custody.destroy(&id, &domain()).unwrap();
    assert_eq!((copies(), hsm.halves()), (0, 2), "after a rotation");
    let id = custody.keep_copy(&domain(), &of).unwrap();
    custody.forget(&id).unwrap();
    assert_eq!(
        (copies(), hsm.halves()),
        (0, 2),
        "after one that never began"
    );
    drop(key);
    assert!(signing.open_kept(&file).is_ok());
}

#[test]
fn a_ca_with_keys_in_files_gets_its_next_issuer_in_a_token_and_back() {
    let Some(hsm) = SoftHsm::new() else { return };
    let (ca, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let files = Signing::start(in_process(ca.path(), &[])).unwrap();
    drop(open_with(ca.path(), &world, &files).unwrap());
    drop(files);
    let read = |name: &str| std::fs::read_to_string(ca.path().join(name)).unwrap();
    let signing = hsm.start(ca.path());
    world.set(NOW.plus_secs(4 * DAY));
    let mut desk = open_with(ca.path(), &world, &signing).unwrap();
    assert!(read("issuer.key").starts_with("pkcs11:"));
    assert!(read("root.key").starts_with("-----BEGIN"));
    desk.issue(vec![request()]).remove(0).unwrap();
    drop(desk);
    drop(signing);
    // Without the token, what lies in it cannot be used, and the CA says which option is missing.
    let files = Signing::start(in_process(ca.path(), &[])).unwrap();
    let error = open_with(ca.path(), &world, &files).err().unwrap();
    assert_eq!(code(&error), "MESH-0225");
}

#[test]
fn what_is_wrong_with_module_token_or_pin_has_a_code_and_a_hint() {
    let Some(hsm) = SoftHsm::new() else { return };
    let ca = tempfile::tempdir().unwrap();
    let junk = hsm.dir.path().join("junk.so");
    mesh_platform::files::write_atomic(&junk, b"no library", 0o600).unwrap();
    let library = [
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/aarch64-linux-gnu/libm.so.6",
    ];
    let library = library.into_iter().find(|path| Path::new(path).exists());
    for module in [Some("/nowhere/module.so"), junk.to_str(), library]
        .into_iter()
        .flatten()
    {
        let error = hsm.refused(ca.path(), |parts| parts[0] = module.to_owned());
        assert_eq!(code(&error), "MESH-0226", "{module}: {error}");
    }
    let error = hsm.refused(ca.path(), |parts| parts[1] = "other".to_owned());
    assert_eq!(code(&error), "MESH-0227", "{error}");
    let pin = |text: &str, mode: u32| {
        let path = hsm.dir.path().join("pin");
        mesh_platform::files::write_atomic(&path, text.as_bytes(), mode).unwrap();
    };
    for (text, mode) in [("9999", 0o600), ("", 0o600), (PIN, 0o640), ("1", 0o600)] {
        pin(text, mode);
        let error = hsm.refused(ca.path(), |_| {});
        assert_eq!(code(&error), "MESH-0228", "{text:?} {mode:o}: {error}");
    }
    let error = hsm.refused(ca.path(), |parts| parts[3] = "/nowhere/pin".to_owned());
    assert_eq!(code(&error), "MESH-0228", "{error}");
    pin(PIN, 0o600);
    drop(hsm.start(ca.path()));
}

#[test]
fn keys_that_are_gone_of_another_curve_or_in_another_token_are_refused() {
    let Some(hsm) = SoftHsm::new() else { return };
    let (ca, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let signing = hsm.start(ca.path());
    drop(open_with(ca.path(), &world, &signing).unwrap());
    let path = ca.path().join("issuer.key");
    let good = std::fs::read_to_string(&path).unwrap();
    // P-521: SoftHSM has it, we do not sign with it.
    let curve = &aws_lc_rs::signature::ECDSA_P521_SHA512_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).unwrap();
    let file = hsm.dir.path().join("p521.pem");
    let text = crate::pem::encode(crate::pem::PRIVATE_KEY, pkcs8.as_ref());
    mesh_platform::files::write_atomic(&file, text.as_bytes(), 0o600).unwrap();
    let id = "0123456789ABCDEF0123456789ABCDEF";
    let file = file.display().to_string();
    hsm.util(&[
        "--import", &file, "--token", "mesh", "--label", "x", "--id", id, "--pin", PIN,
    ]);
    let named = |id: &str| {
        let octets: String = id
            .as_bytes()
            .chunks(2)
            .map(|pair| format!("%{}", std::str::from_utf8(pair).unwrap()))
            .collect();
        format!("pkcs11:token=mesh;object=x;id={octets}\n")
    };
    let absent = "FF".repeat(16);
    for (text, wanted) in [
        (named(id), "MESH-0229"),
        (named(&absent), "MESH-0229"),
        (good.replace("token=mesh", "token=other"), "MESH-0229"),
        (good.replace(";id=", ";key="), "MESH-0233"),
        (good.replace('\n', ""), "MESH-0233"),
        ("pkcs11:".to_owned(), "MESH-0233"),
    ] {
        mesh_platform::files::write_atomic(&path, text.as_bytes(), 0o600).unwrap();
        let error = open_with(ca.path(), &world, &signing).err().unwrap();
        assert_eq!(code(&error), wanted, "{text}: {error}");
    }
    mesh_platform::files::write_atomic(&path, good.as_bytes(), 0o600).unwrap();
    drop(open_with(ca.path(), &world, &signing).unwrap());
}

#[test]
fn keys_of_tokens_lie_in_files_also_where_other_keys_do_not() {
    let Some(token) = SoftHsm::new() else { return };
    let ca = tempfile::tempdir().unwrap();
    let signing = token.start(ca.path());
    let made = signing.make_in_file().unwrap();
    let path = ca.path().join("a.key");
    made.save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----"));
    let found = signing.open(&path).unwrap();
    assert_eq!(found.public_key(), made.public_key());
    found.sign(b"a message").unwrap();
}
