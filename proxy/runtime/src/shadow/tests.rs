//! What a candidate may cost, and what becomes of one that fails.

use super::*;
use mesh_policy::decide::{Verdict, decide};
use mesh_policy::request::Client;
use mesh_policy::snapshot::{Source, WorkloadInfo};
use mesh_trust::TrustDomain;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;

fn closed() -> Snapshot {
    let workload = WorkloadInfo {
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
        owner: None,
        service_account: "cart".to_owned(),
        ips: Vec::new(),
        node_ip: None,
        source: Source::BuiltIn("test".to_owned()),
    };
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    Snapshot::deny_all(workload, domain).expect("a policy")
}

fn decided(snapshot: &Snapshot) -> Decision {
    let client = Client {
        id: None,
        ip: Ipv4Addr::LOCALHOST.into(),
        tls: false,
        serial: None,
        expires: None,
    };
    decide(snapshot, 80, &client, &Call::Tcp, Timestamp::default())
}

fn panics() -> Decision {
    resume_unwind(Box::new("a defect of the candidate"))
}

#[test]
fn a_candidate_that_panics_is_not_asked_again_and_another_one_is() {
    let (trials, one, other) = (Trials::default(), closed(), closed());
    let attempt = |of: &Snapshot, decide: &dyn Fn() -> Decision| {
        let decided = trials.attempt(of, || 0, decide);
        decided.map(|decision| decision.verdict)
    };
    assert_eq!(attempt(&one, &|| decided(&one)), Ok(Verdict::Deny));
    assert_eq!(attempt(&one, &panics), Err(FAILED));
    assert_eq!(attempt(&one, &|| decided(&one)), Err(SKIPPED));
    assert_eq!(attempt(&other, &|| decided(&other)), Ok(Verdict::Deny));
}

#[test]
fn a_slow_candidate_has_a_tenth_of_the_time_and_a_fast_one_all() {
    let (trials, one) = (Trials::default(), closed());
    let clock = Cell::new(1_000_u64);
    let attempt = |takes_us: u64| {
        let decide = || {
            clock.set(clock.get() + takes_us);
            decided(&one)
        };
        trials.attempt(&one, || clock.get(), decide).is_ok()
    };
    assert!(attempt(100) && attempt(100), "fast ones do not rest");
    assert!(attempt(5_000));
    let rested = (0..).take_while(|_| {
        clock.set(clock.get() + 1_000);
        !attempt(0)
    });
    assert_eq!(rested.count(), 44, "45 ms after one of 5 ms");
    assert!(attempt(0));
}

#[test]
fn a_use_is_first_once_an_hour_for_each_candidate() {
    let (trials, one, other) = (Trials::default(), closed(), closed());
    let first = |of: &Snapshot, at_secs: i64| {
        let decision = decided(of);
        let of = Use {
            client: None,
            port: decision.port,
            grant: decision.first_reason(),
            route: decision.route.as_deref(),
        };
        trials.is_first(&decision, &of, Timestamp::from_unix_secs(at_secs))
    };
    let told = [
        (&one, 0),
        (&one, 1),
        (&one, 3_600),
        (&other, 3_601),
        (&other, 3_602),
    ];
    let told = told.map(|(of, at)| first(of, at));
    assert_eq!(told, [true, false, true, true, false]);
}
