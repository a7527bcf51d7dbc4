//! Temporary.
use mesh_audits::chain::ChainState;
use mesh_audits::checkpoint::*;
use mesh_audits::entry::*;
use mesh_trust::Timestamp;
fn main() {
    let t = Timestamp::from_unix_secs(1_795_260_000);
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/");
    std::fs::create_dir_all(format!("{dir}audit_line")).unwrap();
    std::fs::create_dir_all(format!("{dir}checkpoint")).unwrap();
    let mut c = ChainState::genesis("shop.cart");
    let start = |v: &str| {
        Entry::Start(Start {
            time: t,
            origin: "shop.cart".into(),
            version: v.into(),
            torn_bytes: 0,
            missing_through: None,
        })
    };
    let l0 = c.append(start("0")).unwrap();
    let l1 = c
        .append(Entry::Gap(Gap {
            time: t,
            lost: 3,
            cause: GapCause::QueueFull,
        }))
        .unwrap();
    let l2 = c
        .append(Entry::Change(PolicyChange {
            time: t,
            generation: 7,
            digest: "ab".repeat(32),
            files: vec!["a.yaml".into()],
            workloads_changed: 1,
            errors: 0,
            warnings: 2,
        }))
        .unwrap();
    std::fs::write(
        format!("{dir}audit_line/log"),
        [l0.clone(), l1.clone(), l2.clone()].concat(),
    )
    .unwrap();
    std::fs::write(format!("{dir}audit_line/torn"), &l1[..l1.len() / 2]).unwrap();
    std::fs::write(format!("{dir}audit_line/reordered"), [l2, l0].concat()).unwrap();
    let key = CheckpointKey::from_seed(&[7; 32]).unwrap();
    std::fs::write(
        format!("{dir}checkpoint/signed"),
        key.sign("shop.cart", 2, c.head(), t).to_text(),
    )
    .unwrap();
    std::fs::write(format!("{dir}checkpoint/empty"), "{}").unwrap();
}
