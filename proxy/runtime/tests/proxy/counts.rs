//! What the log says of allows that it does not record one by one, and what happens when it takes nothing (threats AU4,
//! AU5).

use super::world::*;

/// A request with this method; the answer.
async fn ask(world: &World, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n");
    raw(world.web_to_cart(), request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn au5_every_allow_is_counted_exactly_by_class_and_no_denial_is() {
    let mut world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    for number in 0..20 {
        let answer = ask(&world, "GET", &format!("/items/{number}")).await;
        assert_eq!(status(&answer), "200", "{answer}");
    }
    for _ in 0..7 {
        assert_eq!(status(&ask(&world, "DELETE", "/items").await), "200");
    }
    // Without identity: denied, and recorded one by one.
    assert_eq!(status(&get(world.cart_plain(), "/items").await), "403");
    let counts = world.entries("cart", "counts");
    let mut classes: Vec<(String, u64)> = counts
        .iter()
        .flat_map(|counts| counts["classes"].as_array().expect("classes"))
        .map(|class| {
            assert_eq!(class["client"], WEB);
            assert_eq!(class["tls"], true);
            assert_eq!(class["server"]["name"], "cart-http");
            assert_eq!(class["reasons"][0], "AuthorizationPolicy/shop/callers/0");
            let method = class["method"].as_str().expect("a method").to_owned();
            (method, class["count"].as_u64().expect("a count"))
        })
        .collect();
    classes.sort();
    assert_eq!(
        classes,
        [("DELETE".to_owned(), 7), ("GET".to_owned(), 20)],
        "{counts:?}"
    );
    assert!(counts.iter().all(|counts| counts["other"] == 0));
    assert_eq!(world.entries("cart", "start")[0]["allow_sample"], 1.0);
}

/// A world where the log of `cart` is on the kernel's own full device.
fn on_a_full_disk(audit: &'static str) -> World {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    world.audit = audit;
    std::fs::create_dir_all(world.path("cart")).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", world.path("cart/cart.jsonl")).expect("a link");
    world.start_cart();
    world.start_web();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn au4_a_strict_log_that_takes_nothing_lets_nothing_through() {
    let world = on_a_full_disk(", whenFull: strict");
    let _app = mirror(world.cart_app()).await;
    for _ in 0..3 {
        let answer = get(world.web_to_cart(), "/items").await;
        assert_eq!(status(&answer), "503", "{answer}");
        assert!(answer.contains("MESH-0539"), "{answer}");
    }
    // What policy denies stays denied, and is no trouble of the disk.
    assert_eq!(status(&get(world.cart_plain(), "/items").await), "403");
}

#[tokio::test(flavor = "multi_thread")]
async fn au4_a_counting_log_that_takes_nothing_stops_nobody() {
    let world = on_a_full_disk("");
    let _app = mirror(world.cart_app()).await;
    for _ in 0..3 {
        assert_eq!(status(&get(world.web_to_cart(), "/items").await), "200");
    }
}
