//! How fast a month of traffic replays; run with `--ignored --nocapture`.

use crate::world::{Ask, MESHED, NOW, SERVER, SHOP, World, policy, route};
use mesh_policy_index::replay::Replay;

#[test]
#[ignore = "prints a rate, asserts nothing"]
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement needs the real clock"
)]
fn replayed_records_per_second() {
    let grants: Vec<String> = (0..100)
        .map(|n| {
            policy(
                &format!("p{n}"),
                "Server cart",
                &[&format!("ServiceAccount c{n}")],
            )
        })
        .collect();
    let world = World::of(&[
        SHOP,
        SERVER,
        MESHED,
        &route("a", "{value: /a}"),
        &route("b", "{value: /b}"),
        &grants.concat(),
    ]);
    let mut replay = Replay::new(&world.index, NOW);
    let asks: Vec<Ask> = (0..200)
        .map(|n| {
            Ask::meshed(&format!("shop/c{n}")).path(if n % 2 == 0 { "/a/x" } else { "/b/y?z" })
        })
        .collect();
    let start = std::time::Instant::now();
    let mut allowed = 0usize;
    for _ in 0..500 {
        for ask in &asks {
            allowed += usize::from(!replay.decide(&ask.0).reasons.is_empty());
        }
    }
    println!(
        "{allowed} allowed, {:.0} records/s",
        100_000.0 / start.elapsed().as_secs_f64()
    );
}

#[test]
#[ignore = "prints a time, asserts nothing"]
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement needs the real clock"
)]
fn cedar_policies_read_per_second() {
    let one = |n: usize| {
        let text = format!(
            "@id(\"p{n}\")\nforbid(principal, action == Mesh::Action::\"request\", resource in Mesh::Server::\"shop/cart\")\nwhen {{ context.req.path like \"/p{n}/*\" && principal has ns && principal.ns == \"n{n}\" }}\nunless {{ context.req.headers.hasTag(\"x\") && context.req.headers.getTag(\"x\").contains(\"y\") }};"
        );
        let meta = format!("name: c{n}, namespace: shop");
        crate::raw_cedar::object("CedarPolicy", &meta, "", &text)
    };
    let many: Vec<String> = (0..1_000).map(one).collect();
    let text = [SHOP, SERVER, &many.join("---\n")].join("\n---\n");
    let start = std::time::Instant::now();
    let load = || mesh_policy_index::load([("all.yaml".to_owned(), text.clone().into_bytes())]);
    load();
    let first = start.elapsed();
    let start = std::time::Instant::now();
    let loaded = load();
    let again = start.elapsed();
    let index = mesh_policy_index::Index::build(&loaded, &crate::world::config());
    println!(
        "1,000 policies: {first:?} to read, {again:?} to read again, {:?} for the index, {} findings",
        start.elapsed() - again,
        index.findings().len()
    );
}
