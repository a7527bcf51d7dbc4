//! Tokens as the verifier of `mesh-trust` reads them, and requests that get none.

use super::*;
use crate::testing::{NOW, TestKey, World};
use mesh_trust::jwt::{JwtBundle, JwtBundles, JwtError, JwtKey, JwtSvid};

const KID: &str = "k1";

fn request(world: &World, audience: &str, lifetime_secs: Option<u64>) -> JwtRequest {
    JwtRequest {
        id: world.request("ns/shop/sa/cart").id,
        audience: audience.to_owned(),
        lifetime_secs,
    }
}

fn bundles(world: &World, key: &TestKey) -> JwtBundles {
    let key = JwtKey::from_p256_point(key.public.point()).unwrap();
    JwtBundles::from_iter([JwtBundle::new(world.domain.clone()).with_key(KID, key)])
}

fn make(world: &World, key: &TestKey, request: &JwtRequest) -> Result<IssuedJwt, JwtIssueError> {
    sign(request, &world.domain, None, (KID, key), [7; 16], NOW)
}

#[test]
fn a_token_is_believed_by_its_audience_until_its_end() {
    let (world, key) = (World::new(), TestKey::new());
    // Often, because the numbers of a signature have different lengths.
    for n in 0..200_u8 {
        let request = request(&world, "checkout", None);
        let made = sign(&request, &world.domain, None, (KID, &key), [n; 16], NOW).unwrap();
        let bundles = bundles(&world, &key);
        let check = |audience, now| JwtSvid::verify(&made.token, audience, &bundles, now);
        let svid = check("checkout", NOW).unwrap();
        assert_eq!(
            (svid.id(), svid.expires()),
            (&request.id, NOW.plus_secs(300))
        );
        assert_eq!(svid.claims()["jti"], made.token_id);
        assert!(!svid.claims().contains_key("iss"));
        assert!(check("checkout", NOW.plus_secs(299)).is_ok());
        assert!(matches!(
            check("checkout", NOW.plus_secs(300)),
            Err(JwtError::NotInForce { .. })
        ));
        assert!(matches!(check("web", NOW), Err(JwtError::Audience { .. })));
    }
}

#[test]
fn no_token_lives_longer_than_five_minutes() {
    let (world, key) = (World::new(), TestKey::new());
    for (wish, granted) in [
        (None, 300),
        (Some(0), 10),
        (Some(60), 60),
        (Some(301), 300),
        (Some(u64::MAX), 300),
    ] {
        let made = make(&world, &key, &request(&world, "checkout", wish)).unwrap();
        assert_eq!(made.expires, NOW.plus_secs(granted), "{wish:?}");
    }
}

#[test]
fn the_address_of_the_keys_is_named_if_there_is_one() {
    let (world, key) = (World::new(), TestKey::new());
    let iss = Some("https://oidc.example");
    let request = request(&world, "checkout", None);
    let made = sign(&request, &world.domain, iss, (KID, &key), [7; 16], NOW).unwrap();
    let svid = JwtSvid::verify(&made.token, "checkout", &bundles(&world, &key), NOW).unwrap();
    assert_eq!(svid.claims()["iss"], "https://oidc.example");
}

#[test]
fn audiences_that_are_none_get_no_token() {
    let (world, key) = (World::new(), TestKey::new());
    for audience in ["", "a\nb", "a\0", &"x".repeat(AUDIENCE_BYTES_MAX + 1)] {
        let got = make(&world, &key, &request(&world, audience, None));
        assert!(
            matches!(got, Err(JwtIssueError::Audience { .. })),
            "{audience:?}: {got:?}"
        );
    }
}

#[test]
fn only_workloads_of_the_own_domain_get_a_token() {
    let (world, key) = (World::new(), TestKey::new());
    for id in [
        "spiffe://cluster.local",
        "spiffe://other.example/ns/shop/sa/cart",
    ] {
        let request = JwtRequest {
            id: SpiffeId::parse(id).unwrap(),
            ..request(&world, "checkout", None)
        };
        let got = make(&world, &key, &request);
        assert!(
            matches!(got, Err(JwtIssueError::Issue(IssueError::Identity { .. }))),
            "{id}: {got:?}"
        );
    }
}

/// Signs with whatever it is told.
struct Odd(TestKey, Result<Vec<u8>, SignerFailed>);

impl Signer for Odd {
    fn public_key(&self) -> &crate::PublicKey {
        &self.0.public
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        self.1.clone()
    }
}

#[test]
fn a_signature_that_is_no_pair_of_numbers_makes_no_token() {
    let world = World::new();
    for answer in [
        Err(SignerFailed("no".into())),
        Ok(vec![]),
        Ok(vec![0x30, 0]),
        Ok(vec![0x30, 6, 2, 1, 1, 2, 1]),
        Ok(vec![0x30, 6, 2, 1, 1, 2, 1, 1, 0]),
        Ok([&[0x30, 38, 2, 33][..], &[1; 33], &[2, 1]].concat()),
        Ok([&[0x30, 39, 2, 33][..], &[1; 33], &[2, 1, 1]].concat()),
    ] {
        let odd = Odd(TestKey::new(), answer.clone());
        let request = request(&world, "checkout", None);
        let got = sign(&request, &world.domain, None, (KID, &odd), [7; 16], NOW);
        assert!(
            matches!(got, Err(JwtIssueError::Issue(IssueError::Signer(_)))),
            "{answer:?}: {got:?}"
        );
    }
}
