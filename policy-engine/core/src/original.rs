//! The data that a snapshot was compiled from, kept beside it: as it is, or packed.
//!
//! A decision needs the compiled form alone. The data is asked for when Cedar decides again, when somebody wants an
//! explanation or the policy itself: seldom, and then whole. A proxy therefore packs it once its policy is in force
//! (about a twentieth of its size in memory) and has it read again when it is asked for; what was read is dropped with the
//! last that looks at it. Commands that explain all the time leave it as it is.

use crate::question::SetNames;
use crate::snapshot::SnapshotData;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The data of a snapshot, for as long as somebody holds this.
#[derive(Debug)]
pub struct Data(Arc<Original>);

#[derive(Debug)]
struct Original {
    data: SnapshotData,
    names: SetNames,
}

impl Data {
    pub(crate) fn new(data: SnapshotData) -> Self {
        let names = SetNames::of(&data);
        Self(Arc::new(Original { data, names }))
    }

    fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// What the places of its sets stand for.
    pub(crate) fn names(&self) -> &SetNames {
        &self.0.names
    }
}

impl Deref for Data {
    type Target = SnapshotData;
    fn deref(&self) -> &SnapshotData {
        &self.0.data
    }
}

impl PartialEq<SnapshotData> for Data {
    fn eq(&self, other: &SnapshotData) -> bool {
        self.0.data == *other
    }
}

/// Where the data is.
pub(crate) struct Kept(Mutex<State>);

enum State {
    AsItIs(Data),
    Packed {
        packed: Packed,
        /// What was read of it last, if somebody still looks at that.
        read: Weak<Original>,
    },
}

impl Kept {
    pub(crate) fn new(data: Data) -> Self {
        Self(Mutex::new(State::AsItIs(data)))
    }

    /// The data; read again if it is packed (about 6 µs a grant) and nobody looks at it already.
    pub(crate) fn data(&self) -> Data {
        match &mut *self.state() {
            State::AsItIs(data) => data.share(),
            State::Packed { packed, read } => match read.upgrade() {
                Some(known) => Data(known),
                None => {
                    let data = packed.read();
                    *read = Arc::downgrade(&data.0);
                    data
                }
            },
        }
    }

    /// Packs the data, unless it would not be the same when it is read again. Says whether it is packed now.
    pub(crate) fn pack(&self) -> bool {
        let data = match &*self.state() {
            State::Packed { .. } => return true,
            State::AsItIs(data) => data.share(),
        };
        // Without the lock: who asks meanwhile gets what is there.
        let Some(packed) = Packed::of(&data) else {
            return false;
        };
        let read = Arc::downgrade(&data.0);
        *self.state() = State::Packed { packed, read };
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fastest level: names compress by what they share, and further search finds little more.
const LEVEL: u8 = 1;

/// Data as compressed JSON. INVARIANT: it was read back once, and was equal.
struct Packed {
    bytes: Box<[u8]>,
    json_bytes: usize,
}

impl Packed {
    fn of(data: &SnapshotData) -> Option<Self> {
        let json = serde_json::to_vec(data).ok()?;
        let packed = Self {
            bytes: compress_to_vec(&json, LEVEL).into(),
            json_bytes: json.len(),
        };
        drop(json);
        (packed.unpacked()? == *data).then_some(packed)
    }

    fn unpacked(&self) -> Option<SnapshotData> {
        let json = decompress_to_vec_with_limit(&self.bytes, self.json_bytes).ok()?;
        serde_json::from_slice(&json).ok()
    }

    #[expect(
        clippy::expect_used,
        reason = "it was read back when it was packed and nothing changes it since: a broken invariant"
    )]
    fn read(&self) -> Data {
        Data::new(self.unpacked().expect("packed data reads as it did"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::snapshot::Who;

    fn world() -> SnapshotData {
        let mut world = World::http();
        for index in 0..500 {
            let id = format!("AuthorizationPolicy/shop/g{index}/0");
            world = world.grant(grant(&id, on_server("http"), Who::AnyTls));
        }
        world.0
    }

    #[test]
    fn packed_data_is_read_again_as_it_was_and_dropped_after() {
        let kept = Kept::new(Data::new(world()));
        assert!(kept.pack() && kept.pack());
        let (one, other) = (kept.data(), kept.data());
        assert!(one == world());
        assert!(
            Arc::ptr_eq(&one.0, &other.0),
            "read once for all who look at it"
        );
        let still = Arc::downgrade(&one.0);
        drop((one, other));
        assert!(still.upgrade().is_none(), "nobody looks at it any more");
        assert!(kept.data() == world());
    }

    #[test]
    fn packing_takes_a_fraction() {
        let json = serde_json::to_vec(&world()).unwrap();
        let packed = Packed::of(&world()).unwrap();
        assert!(packed.bytes.len() * 10 < json.len());
    }

    #[test]
    fn data_that_would_not_be_the_same_stays_as_it_is() {
        let mut odd = world();
        // A time that JSON gives in whole microseconds is equal; text that is written with an escape is equal: only
        // bytes that another wrote would differ, as here.
        let packed = Packed::of(&odd).unwrap();
        odd.generation.0 += 1;
        assert!(packed.unpacked().unwrap() != odd);
        let broken = Packed {
            bytes: packed.bytes[..packed.bytes.len() / 2].into(),
            ..packed
        };
        assert!(broken.unpacked().is_none());
    }
}
