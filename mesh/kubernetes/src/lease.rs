//! One of several does it: a Lease says who.
//!
//! A holder renews its Lease; one that was not renewed for its duration is anybody's. How long that is each measures by its
//! own clock, from when it saw the Lease change: clocks of two machines are never compared (as client-go does it).
//!
//! A holder that cannot renew stops before others may take over. Still this is no lock: what the holder writes must be
//! harmless when two do it.

use crate::error::KubernetesError;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a Lease holds without being renewed.
const DURATION: Duration = Duration::from_secs(15);

/// Pause between renewals, and between looks at somebody else's: a write in 5 seconds for the whole installation.
const PAUSE: Duration = Duration::from_secs(5);

/// A holder that could not renew for so long stops, well before others may take over.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Which Lease, and who wants it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are; no two candidates share it.
    pub holder: String,
}

/// `spec` of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<u64>,
}

/// A Lease as it was found.
#[derive(Clone, Debug)]
struct Found {
    version: String,
    spec: Spec,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Write this: we hold it then.
    Write(Spec),
    /// Somebody else holds it.
    Wait,
}

/// What was seen of the Lease, and when by our own clock.
#[derive(Debug)]
struct Election {
    holder: String,
    seen: Option<(String, Instant)>,
}

impl Election {
    fn step(&mut self, found: Option<&Found>, now: Instant, wall_clock: &str) -> Step {
        let time = || Some(wall_clock.to_owned());
        let ours = |acquired, transitions| {
            Step::Write(Spec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: Some(DURATION.as_secs()),
                acquire_time: acquired,
                renew_time: time(),
                lease_transitions: Some(transitions),
            })
        };
        let Some(found) = found else {
            return ours(time(), 0);
        };
        let spec = &found.spec;
        let transitions = spec.lease_transitions.unwrap_or(0);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder == self.holder {
            return ours(spec.acquire_time.clone(), transitions);
        }
        let duration = spec
            .lease_duration_seconds
            .map_or(DURATION, Duration::from_secs);
        let over = match &self.seen {
            Some((version, since)) if *version == found.version => {
                now.duration_since(*since) >= duration
            }
            _ => false,
        };
        if over || holder.is_empty() {
            return ours(time(), transitions.saturating_add(1));
        }
        if self
            .seen
            .as_ref()
            .is_none_or(|(version, _)| *version != found.version)
        {
            self.seen = Some((found.version.clone(), now));
        }
        Step::Wait
    }
}

/// Takes the Lease whenever it can be had, and tells whether we hold it; ends when nobody listens. `wall_clock` gives the
/// time as RFC 3339 with six digits of a second.
pub async fn hold(
    client: Client,
    lease: Lease,
    wall_clock: impl Fn() -> String,
    tell: watch::Sender<bool>,
) {
    let mut election = Election {
        holder: lease.holder.clone(),
        seen: None,
    };
    let mut renewed = None;
    while !tell.is_closed() {
        let begun = Instant::now();
        let turn = tokio::time::timeout(PAUSE, turn(&client, &lease, &mut election, &wall_clock));
        match turn.await {
            Ok(Ok(true)) => renewed = Some(begun),
            Ok(Ok(false)) => renewed = None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the Lease could not be read or written; trying again")
            }
            Err(_elapsed) => {
                tracing::warn!("the API server does not answer about the Lease; trying again")
            }
        }
        let holds = renewed.is_some_and(|at: Instant| at.elapsed() < GIVE_UP);
        tell.send_if_modified(|old| std::mem::replace(old, holds) != holds);
        tokio::time::sleep(PAUSE).await;
    }
}

/// One look at the Lease; whether we hold it now.
async fn turn(
    client: &Client,
    lease: &Lease,
    election: &mut Election,
    wall_clock: &impl Fn() -> String,
) -> Result<bool, KubernetesError> {
    let kind = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
    let resource = ApiResource::from_gvk_with_plural(&kind, "leases");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &lease.namespace, &resource);
    let title = format!("Lease {}/{}", lease.namespace, lease.name);
    let found = api
        .get_opt(&lease.name)
        .await
        .map_err(|error| KubernetesError::of(format!("read {title}"), &error))?;
    let known = found.as_ref().map(|object| Found {
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        // What cannot be read is held by nobody that we know; its version tells when it changes.
        spec: serde_json::from_value(object.data.get("spec").cloned().unwrap_or_default())
            .unwrap_or_else(|_| Spec {
                holder_identity: Some("?".to_owned()),
                ..Spec::default()
            }),
    });
    let spec = match election.step(known.as_ref(), Instant::now(), &wall_clock()) {
        Step::Wait => return Ok(false),
        Step::Write(spec) => spec,
    };
    let mut object = found.unwrap_or_else(|| DynamicObject::new(&lease.name, &resource));
    object.data = serde_json::json!({ "spec": spec });
    let parameters = PostParams::default();
    let written = if object.metadata.resource_version.is_some() {
        api.replace(&lease.name, &parameters, &object).await
    } else {
        api.create(&parameters, &object).await
    };
    match written {
        Ok(_) => Ok(true),
        // Another was quicker.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(KubernetesError::of(format!("write {title}"), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn election(holder: &str) -> Election {
        Election {
            holder: holder.to_owned(),
            seen: None,
        }
    }

    fn held(by: &str, version: &str) -> Found {
        Found {
            version: version.to_owned(),
            spec: Spec {
                holder_identity: Some(by.to_owned()),
                lease_duration_seconds: Some(15),
                acquire_time: Some("then".to_owned()),
                renew_time: Some("later".to_owned()),
                lease_transitions: Some(4),
            },
        }
    }

    fn written(step: Step) -> Spec {
        match step {
            Step::Write(spec) => spec,
            Step::Wait => panic!("it waits"),
        }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken() {
        let now = Instant::now();
        let spec = written(election("a").step(None, now, "now"));
        assert_eq!(spec.holder_identity.as_deref(), Some("a"));
        assert_eq!(spec.acquire_time, spec.renew_time);
        assert_eq!(spec.lease_transitions, Some(0));
        let spec = written(election("a").step(Some(&held("", "1")), now, "now"));
        assert_eq!(spec.lease_transitions, Some(5));
    }

    #[test]
    fn our_own_is_renewed_and_was_acquired_when_it_was() {
        let spec = written(election("a").step(Some(&held("a", "1")), Instant::now(), "now"));
        assert_eq!(spec.acquire_time.as_deref(), Some("then"));
        assert_eq!(spec.renew_time.as_deref(), Some("now"));
        assert_eq!(spec.lease_transitions, Some(4));
    }

    #[test]
    fn another_ones_is_taken_only_after_it_stood_still_for_its_duration() {
        let begun = Instant::now();
        let at = |secs| begun + Duration::from_secs(secs);
        let mut election = election("a");
        // However old its times say that it is: they are of another clock.
        assert_eq!(
            election.step(Some(&held("b", "1")), at(0), "now"),
            Step::Wait
        );
        assert_eq!(
            election.step(Some(&held("b", "1")), at(14), "now"),
            Step::Wait
        );
        assert_eq!(
            election.step(Some(&held("b", "2")), at(15), "now"),
            Step::Wait
        );
        assert_eq!(
            election.step(Some(&held("b", "2")), at(29), "now"),
            Step::Wait
        );
        let spec = written(election.step(Some(&held("b", "2")), at(30), "now"));
        assert_eq!(spec.holder_identity.as_deref(), Some("a"));
        assert_eq!(spec.lease_transitions, Some(5));
    }

    #[test]
    fn a_holder_gives_up_before_another_may_take_over() {
        assert!(GIVE_UP + PAUSE <= DURATION);
    }
}
