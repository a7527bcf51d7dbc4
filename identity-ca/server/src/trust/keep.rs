//! What happens by itself: a rotation moves on when its facts allow it.

use crate::issuing::Issuing;
use crate::limits::{CLOCK_CHECK, ROTATION_TICK};
use mesh_issuance::rotation::{Event, Phase};

/// Moves rotations on. Never ends.
pub(crate) async fn move_on(issuing: Issuing) {
    loop {
        let steady = matches!(
            issuing.published().borrow().state.phase,
            Phase::Steady { .. }
        );
        let pause = if steady { CLOCK_CHECK } else { ROTATION_TICK };
        // Whatever moved since the last look is looked at together.
        let _ = tokio::time::timeout(pause, issuing.trust_has_moved()).await;
        let stepped = issuing.with_desk(|desk| {
            // At most one wave, one gate at a time: each step gives the next its facts.
            while desk.trust_event(&Event::Tick)? {}
            Ok::<_, super::error::TrustError>(())
        });
        if let Ok(Err(error)) = stepped.await {
            tracing::warn!(%error, "a rotation could not move on");
        }
    }
}
