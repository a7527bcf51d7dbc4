//! Months of keys on a clock that is set, restarts in between, and files that are not as they were written.

use super::*;
use crate::signer::tests::in_process;
use crate::testing::{DAY, NOW, World, domain, id};
use mesh_trust::Timestamp;
use mesh_trust::jwt::JwtSvid;
use std::collections::BTreeSet;
use std::fs;

fn request(audience: &str) -> JwtRequest {
    JwtRequest {
        id: id("ns/shop/sa/cart"),
        audience: audience.to_owned(),
        lifetime_secs: None,
    }
}

fn open(dir: &Path, world: &Arc<World>) -> Result<Tokens, CaError> {
    open_with(dir, world, &crate::testing::signing(dir)?)
}

fn open_with(dir: &Path, world: &Arc<World>, signing: &Signing) -> Result<Tokens, CaError> {
    Tokens::open(dir, &domain(), None, signing, world.clone())
}

fn mint(tokens: &Tokens, request: &JwtRequest) -> Result<IssuedJwt, TokenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(tokens.mint(request))
}

fn check(token: &str, tokens: &Tokens, now: Timestamp) -> bool {
    let bundle = tokens.bundle().borrow().clone();
    JwtSvid::verify(
        token,
        "checkout",
        &bundles_with(&bundle, &Foreign::default()),
        now,
    )
    .is_ok()
}

fn private_halves(dir: &Path) -> usize {
    fs::read_dir(dir.join("jwt"))
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|end| end == "key")
        })
        .count()
}

#[test]
fn keys_change_each_week_over_restarts_and_no_token_is_orphaned() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut tokens = open(dir.path(), &world).unwrap();
    let mut signers = BTreeSet::new();
    let mut last: Option<(String, Timestamp)> = None;
    for step in 0..(60 * 24 * 4) {
        let now = NOW.plus_secs(step * 900);
        world.set(now);
        tokens.maintain().unwrap();
        if step % 97 == 0 {
            tokens = open(dir.path(), &world).unwrap();
        }
        if let Some((token, made)) = &last {
            assert!(
                check(token, &tokens, made.plus_secs(299)),
                "a token of {made} at {now}"
            );
        }
        let token = mint(&tokens, &request("checkout")).unwrap().token;
        assert!(check(&token, &tokens, now));
        signers.insert(tokens.signer(now).unwrap().0);
        assert!(
            (1..=2).contains(&private_halves(dir.path())),
            "old private halves are destroyed"
        );
        assert!(tokens.bundle().borrow().key_ids().count() <= 3);
        last = Some((token, now));
    }
    assert!((8..=9).contains(&signers.len()), "{signers:?}");
}

#[test]
fn verifiers_see_a_key_a_day_before_its_first_token() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let tokens = open(dir.path(), &world).unwrap();
    world.set(NOW.plus_secs(6 * DAY));
    tokens.maintain().unwrap();
    let early = tokens.bundle().borrow().clone();
    assert_eq!(early.key_ids().count(), 2);
    let later = NOW.plus_secs(7 * DAY);
    world.set(later);
    tokens.maintain().unwrap();
    let token = mint(&tokens, &request("checkout")).unwrap().token;
    assert!(
        JwtSvid::verify(
            &token,
            "checkout",
            &bundles_with(&early, &Foreign::default()),
            later
        )
        .is_ok(),
        "the bundle of yesterday verifies today's token"
    );
    assert_eq!(private_halves(dir.path()), 1);
}

#[test]
fn files_that_are_not_as_written_are_refused_with_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    drop(open(dir.path(), &world).unwrap());
    let folder = dir.path().join("jwt");
    let list = folder.join("keys.json");
    let good = fs::read_to_string(&list).unwrap();
    let key = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "key"))
        .unwrap();
    let good_key = fs::read(&key).unwrap();
    for bad in [
        String::new(),
        "{}".to_owned(),
        good.replacen("\"kid\"", "\"kld\"", 1),
        good.replacen("\"kid\": \"", "\"kid\": \"0", 1),
        good.replace("\"can_sign\": true", "\"can_sign\": 1"),
        good.replacen("\"public\": \"M", "\"public\": \"N", 1),
    ] {
        files_write(&list, bad.as_bytes());
        let error = open(dir.path(), &world).err().unwrap();
        assert!(
            matches!(&error, CaError::Corrupt { path, .. } if *path == list),
            "{bad}: {error}"
        );
    }
    files_write(&list, good.as_bytes());
    let other = crate::signer::generate().unwrap().0;
    files_write(
        &key,
        crate::pem::encode(crate::pem::PRIVATE_KEY, &other).as_bytes(),
    );
    assert!(
        matches!(open(dir.path(), &world), Err(CaError::Corrupt { .. })),
        "another key"
    );
    fs::remove_file(&key).unwrap();
    assert!(matches!(
        open(dir.path(), &world),
        Err(CaError::Incomplete { .. })
    ));
    files_write(&key, &good_key);
    assert!(open(dir.path(), &world).is_ok());
}

fn files_write(path: &Path, bytes: &[u8]) {
    mesh_platform::files::write_atomic(path, bytes, 0o600).unwrap();
}

#[test]
fn a_private_half_that_the_list_does_not_name_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    drop(open(dir.path(), &world).unwrap());
    let stray = dir.path().join("jwt/00112233.key");
    files_write(&stray, b"left by a power cut");
    drop(open(dir.path(), &world).unwrap());
    assert!(!stray.exists());
    assert_eq!(private_halves(dir.path()), 1);
}

#[test]
fn what_cannot_be_destroyed_keeps_no_key_out_of_the_bundle_and_goes_at_the_next_upkeep() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let tokens = open(dir.path(), &world).unwrap();
    // No signer unlinks a folder.
    let stuck = dir.path().join("jwt/00112233.key");
    fs::create_dir(&stuck).unwrap();
    world.set(NOW.plus_secs(6 * DAY));
    tokens.maintain().unwrap();
    assert_eq!(tokens.bundle().borrow().key_ids().count(), 2);
    fs::remove_dir(&stuck).unwrap();
    files_write(&stuck, b"left by a signer that was away");
    // Nothing else is due.
    tokens.maintain().unwrap();
    assert!(!stuck.exists());
    assert_eq!(private_halves(dir.path()), 2);
    // What is on the disk is what was in force.
    let again = open(dir.path(), &world).unwrap();
    assert_eq!(*again.bundle().borrow(), *tokens.bundle().borrow());
}

#[test]
fn one_identity_gets_two_hundred_tokens_at_once_and_others_are_not_limited() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let tokens = open(dir.path(), &world).unwrap();
    let got = (0..300)
        .filter(|_| mint(&tokens, &request("checkout")).is_ok())
        .count();
    assert_eq!(got, 200);
    assert!(matches!(
        mint(&tokens, &request("checkout")),
        Err(TokenError::RateLimited { .. })
    ));
    let other = JwtRequest {
        id: id("ns/shop/sa/web"),
        ..request("checkout")
    };
    mint(&tokens, &other).unwrap();
}

#[test]
fn the_keys_of_tokens_are_in_the_signers_process_and_come_back_with_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let signing = Signing::start(in_process(dir.path(), &[])).unwrap();
    let tokens = open_with(dir.path(), &world, &signing).unwrap();
    let first = mint(&tokens, &request("checkout")).unwrap().token;
    assert!(check(&first, &tokens, NOW));
    let bundle = tokens.bundle().borrow().clone();
    for _ in 0..2 {
        let pid = signing.pid().unwrap();
        mesh_platform::process::PidFd::open(pid)
            .unwrap()
            .kill()
            .unwrap();
        // The CA has nothing to sign with until there is another signer.
        let error = mint(&tokens, &request("checkout")).unwrap_err();
        let code = miette::Diagnostic::code(&error).unwrap().to_string();
        assert_eq!(code, "MESH-0215", "{error}");
        let again = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            mint(&tokens, &request("checkout")).ok()
        });
        assert!(check(&again.expect("it signs again").token, &tokens, NOW));
        assert_eq!(*tokens.bundle().borrow(), bundle, "the same keys");
    }
}

#[test]
fn a_key_that_was_replaced_on_the_disk_signs_nothing_after_the_signer_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let signing = Signing::start(in_process(dir.path(), &[])).unwrap();
    let tokens = open_with(dir.path(), &world, &signing).unwrap();
    let kid = tokens.signer(NOW).unwrap().0;
    let path = dir.path().join(format!("jwt/{kid}.key"));
    let good = fs::read(&path).unwrap();
    let other = crate::signer::generate().unwrap().0;
    files_write(
        &path,
        crate::pem::encode(crate::pem::PRIVATE_KEY, &other).as_bytes(),
    );
    let before = signing.lives();
    let pid = signing.pid().unwrap();
    mesh_platform::process::PidFd::open(pid)
        .unwrap()
        .kill()
        .unwrap();
    while signing.lives() == before {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for _ in 0..5 {
        assert!(mint(&tokens, &request("checkout")).is_err());
    }
    files_write(&path, &good);
    assert!(check(
        &mint(&tokens, &request("checkout")).unwrap().token,
        &tokens,
        NOW
    ));
}

#[test]
fn many_that_ask_at_once_get_tokens_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let signing = Signing::start(in_process(dir.path(), &[])).unwrap();
    let tokens = open_with(dir.path(), &world, &signing).unwrap();
    let requests: Vec<_> = (0..1_000)
        .map(|n| JwtRequest {
            id: id(&format!("ns/shop/sa/w{n}")),
            ..request("checkout")
        })
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let minted = runtime.block_on(futures_util::future::join_all(
        requests.iter().map(|request| tokens.mint(request)),
    ));
    let bundle = tokens.bundle().borrow().clone();
    let bundles = bundles_with(&bundle, &Foreign::default());
    let mut numbers = BTreeSet::new();
    for (issued, request) in minted.into_iter().zip(&requests) {
        let issued = issued.unwrap();
        let svid = JwtSvid::verify(&issued.token, "checkout", &bundles, NOW).unwrap();
        assert_eq!(*svid.id(), request.id);
        assert!(numbers.insert(issued.token_id));
    }
}

#[test]
fn the_longest_token_is_signed_and_a_longer_one_refused_before_the_signer_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let signing = crate::testing::signing(dir.path()).unwrap();
    let longest = |issuer: &str| {
        let tokens = Tokens::open(dir.path(), &domain(), Some(issuer), &signing, world.clone());
        let request = JwtRequest {
            id: id(&format!("ns/shop/sa/{}", "w".repeat(2_000))),
            audience: "\"".repeat(2_048),
            lifetime_secs: None,
        };
        mint(&tokens.unwrap(), &request)
    };
    let issued = longest(&format!("https://{}", "i".repeat(2_000))).unwrap();
    assert!(issued.token.len() > 10_000);
    let error = longest(&format!("https://{}", "i".repeat(4_000))).unwrap_err();
    assert!(matches!(error, TokenError::Issue(_)), "{error}");
    assert_eq!(signing.lives(), 1, "the signer did not hang up");
}
