//! Copies of requests: sent beside the request, never waited for, their answers thrown away. They are bounded in number
//! and bytes, and what finds no room is dropped and counted: a copy must never cost the request anything.

use super::send::{Failed, Passage, Reply};
use super::{By, Listener};
use crate::body::Body;
use crate::core::Core;
use crate::limits::{MIRROR_BYTES_MAX, MIRROR_LIMIT, MIRRORS_MAX};
use bytes::Bytes;
use http::request::Parts;
use http_body_util::BodyExt;
use mesh_proxy_core::http_hygiene::Admitted;
use std::cell::Cell;
use std::rc::Rc;
use tokio::time::timeout;

/// Copies under way on one core.
#[derive(Default)]
pub(crate) struct Mirrors {
    count: Cell<usize>,
    bytes: Cell<usize>,
}

/// Room that one copy takes; dropping it gives it back.
struct Place {
    of: Rc<Mirrors>,
    bytes: usize,
}

impl Mirrors {
    fn enter(self: &Rc<Self>, bytes: usize) -> Option<Place> {
        let (count, all) = (self.count.get() + 1, self.bytes.get() + bytes);
        if count > MIRRORS_MAX || all > MIRROR_BYTES_MAX {
            return None;
        }
        self.count.set(count);
        self.bytes.set(all);
        Some(Place {
            of: self.clone(),
            bytes,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.count.set(self.of.count.get() - 1);
        self.of.bytes.set(self.of.bytes.get() - self.bytes);
    }
}

/// The head of a copy, until its body is there.
pub(super) struct Copy {
    core: Rc<Core>,
    to: Rc<Listener>,
    admitted: Admitted,
    head: Parts,
}

impl Copy {
    pub(super) fn new(core: &Rc<Core>, to: Rc<Listener>, admitted: Admitted, head: Parts) -> Self {
        Self {
            core: core.clone(),
            to,
            admitted,
            head,
        }
    }

    /// Sends it; `None`: it has no body.
    pub(super) fn send(self, body: Option<Bytes>) {
        let bytes = body.as_ref().map_or(0, Bytes::len);
        let Some(place) = self.core.mirrors.enter(bytes) else {
            return self.dropped("full");
        };
        self.core.meter.mirrored(None);
        tokio::task::spawn_local(async move {
            let body = body.map_or(Body::Empty, Body::text);
            let done = timeout(MIRROR_LIMIT, self.exchange(body)).await;
            if !matches!(done, Ok(Ok(()))) {
                tracing::debug!(to = self.to.name, "a copy of a request was not answered");
            }
            drop(place);
        });
    }

    /// It cannot be sent.
    pub(super) fn dropped(self, why: &'static str) {
        self.core.meter.mirrored(Some(why));
    }

    async fn exchange(&self, body: Body) -> Result<(), Failed> {
        let passage = Passage {
            core: &self.core,
            to: &self.to,
            grpc: self.admitted.grpc,
            due: None,
            by: By::Load,
            picked: None,
            account: None,
            origin: None,
        };
        let sent = passage.send(self.head.clone(), body, &self.admitted, None);
        let Reply {
            parts,
            mut body,
            held,
            ..
        } = sent.await?;
        if let Some(measure) = &held.measure {
            measure.answered_with(parts.status);
        }
        while let Some(Ok(_)) = body.frame().await {} // read to its end, as a client would
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_in_number_and_bytes() {
        let mirrors = Rc::new(Mirrors::default());
        let many: Vec<_> = (0..MIRRORS_MAX).map(|_| mirrors.enter(0)).collect();
        assert!(many.iter().all(Option::is_some));
        assert!(mirrors.enter(0).is_none());
        drop(many);
        let large = mirrors.enter(MIRROR_BYTES_MAX);
        assert!(large.is_some() && mirrors.enter(1).is_none());
        drop(large);
        assert!(mirrors.enter(1).is_some(), "given back");
    }
}
