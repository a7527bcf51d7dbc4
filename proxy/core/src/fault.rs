//! Which fault is injected into one allowed request: drawn by its share, for the clients that it names, until its end.
//!
//! Asked after the decision and after rate limits, and of allowed requests alone. What it says changes when and by whom a
//! request is answered, never whether it was allowed.

use crate::route::below;
use mesh_policy::record::RecordFault;
use mesh_policy::snapshot::Fault;
use mesh_trust::{SpiffeId, Timestamp};
use std::time::Duration;

/// What is done to one request. At least one of its parts stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// `namespace/name` of the HTTPFault.
    pub fault: String,
    /// It waits so long before anything else is done with it.
    pub delay: Option<Duration>,
    /// It is answered with this HTTP status, or code of gRPC, by the proxy.
    pub abort: Option<u16>,
    /// The body of its answer is held to this rate, in bytes per second; never 0.
    pub bytes_per_second: Option<u32>,
}

impl Injection {
    /// As a record has it.
    pub fn record(&self) -> RecordFault {
        let millis = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        RecordFault {
            name: format!("HTTPFault/{}", self.fault),
            delay_ms: self.delay.map(millis),
            abort: self.abort,
            bytes_per_second: self.bytes_per_second,
        }
    }

    /// What is done, as a metric counts it.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let delay = self.delay.map(|_| "delay");
        // Who is answered by the proxy gets nothing slowly.
        let rest = match (self.abort, self.bytes_per_second) {
            (Some(_), _) => Some("abort"),
            (None, Some(_)) => Some("bandwidth"),
            (None, None) => None,
        };
        delay.into_iter().chain(rest)
    }
}

/// Draws what is done to a request of `client` at `now`; `None`: nothing. The first fault of which any part is drawn counts
/// alone. `random` gives 64 fresh random bits.
pub fn drawn(
    faults: &[Fault],
    client: Option<&SpiffeId>,
    grpc: bool,
    now: Timestamp,
    mut random: impl FnMut() -> u64,
) -> Option<Injection> {
    let client = client?;
    let meant = faults
        .iter()
        .filter(|fault| now < fault.until && fault.clients.contains(client));
    for fault in meant {
        let mut happens = |percent: u8| below(random(), 100) < u64::from(percent);
        let delay = fault.delay.filter(|delay| happens(delay.percent));
        let abort = fault.abort.filter(|abort| happens(abort.percent));
        let bandwidth = fault.bandwidth.filter(|rate| happens(rate.percent));
        let abort = abort.and_then(|abort| match grpc {
            true => abort.grpc_status.map(u16::from),
            false => abort.status,
        });
        let one = Injection {
            fault: format!("{}/{}", fault.namespace, fault.name),
            delay: delay.map(|delay| Duration::from_millis(delay.ms)),
            abort,
            bytes_per_second: bandwidth.map(|rate| rate.bytes_per_second.max(1)),
        };
        if one.kinds().next().is_some() {
            return Some(one);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policy::snapshot::{FaultAbort, FaultBandwidth, FaultDelay, Source};
    use proptest::prelude::*;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn fault(name: &str) -> Fault {
        Fault {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            clients: vec![id("tester")],
            until: at("2027-01-01T00:00:00Z"),
            delay: None,
            abort: None,
            bandwidth: None,
            source: Source::BuiltIn("test".to_owned()),
        }
    }

    fn aborting(percent: u8) -> Fault {
        Fault {
            abort: Some(FaultAbort {
                percent,
                status: Some(503),
                grpc_status: Some(14),
            }),
            ..fault("abort")
        }
    }

    const BEFORE: &str = "2026-12-31T23:59:59.999Z";

    fn abort_of(faults: &[Fault], client: Option<&SpiffeId>, grpc: bool, now: &str) -> Option<u16> {
        drawn(faults, client, grpc, at(now), || 0)?.abort
    }

    #[test]
    fn only_named_clients_are_disturbed_and_only_until_the_end() {
        let faults = [aborting(100)];
        let tester = id("tester");
        assert_eq!(abort_of(&faults, Some(&tester), false, BEFORE), Some(503));
        assert_eq!(abort_of(&faults, Some(&tester), true, BEFORE), Some(14));
        let end = "2027-01-01T00:00:00Z";
        assert_eq!(abort_of(&faults, Some(&tester), false, end), None);
        assert_eq!(abort_of(&faults, Some(&id("web")), false, BEFORE), None);
        assert_eq!(abort_of(&faults, None, false, BEFORE), None, "no identity");
        let elsewhere = SpiffeId::parse("spiffe://other.example/ns/shop/sa/tester").unwrap();
        assert_eq!(abort_of(&faults, Some(&elsewhere), false, BEFORE), None);
        assert_eq!(abort_of(&[], Some(&tester), false, BEFORE), None);
    }

    #[test]
    fn an_abort_that_names_the_other_protocol_lets_pass_and_the_next_fault_counts() {
        let mut grpc_only = aborting(100);
        grpc_only.abort.as_mut().unwrap().status = None;
        let slow = Fault {
            delay: Some(FaultDelay {
                percent: 100,
                ms: 70,
            }),
            bandwidth: Some(FaultBandwidth {
                percent: 100,
                bytes_per_second: 10,
            }),
            ..fault("slow")
        };
        let both = [grpc_only, slow];
        let tester = id("tester");
        let http = drawn(&both, Some(&tester), false, at(BEFORE), || 0).unwrap();
        assert_eq!(http.fault, "shop/slow");
        assert_eq!(http.kinds().collect::<Vec<_>>(), ["delay", "bandwidth"]);
        let record = http.record();
        assert_eq!(
            (&*record.name, record.delay_ms, record.bytes_per_second),
            ("HTTPFault/shop/slow", Some(70), Some(10))
        );
        let grpc = drawn(&both, Some(&tester), true, at(BEFORE), || 0).unwrap();
        assert_eq!((&*grpc.fault, grpc.abort), ("shop/abort", Some(14)));
    }

    proptest! {
        /// The share is exact over all the bits that can be drawn.
        #[test]
        fn a_share_is_met_by_exactly_its_part_of_all_draws(percent in 1_u8..=100) {
            let faults = [aborting(percent)];
            let tester = id("tester");
            let hit = |bits: u64| drawn(&faults, Some(&tester), false, at(BEFORE), || bits).is_some();
            let first_out = (u128::from(percent) << 64).div_ceil(100);
            prop_assert!(hit(0));
            prop_assert!(hit(u64::try_from(first_out - 1).unwrap()));
            if percent < 100 {
                prop_assert!(!hit(u64::try_from(first_out).unwrap()));
                prop_assert!(!hit(u64::MAX));
            }
        }
    }
}
