//! A snapshot's JSON in pieces, of which those that many workloads have in common are in memory once.
//!
//! Pods of one Server have the same grants, those of a mesh the same Cedar policies; of ten kilobytes a few hundred bytes
//! are a pod's own. The text is cut where its large fields begin and end, and equal pieces are one ([`Pieces`]). Whoever
//! is sent it gets the pieces joined, which is the text that was cut: nothing is written in another way than before.

use mesh_policy::snapshot::SnapshotData;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Bytes from which on a field is a piece of its own: below, what a piece costs by itself is no longer little beside it.
const FIELD_BYTES_MIN: usize = 256;

/// How deep fields are looked at: those of the snapshot, and those of its ports (`ports`, a port, its `routes`).
const DEPTH_MAX: usize = 3;

/// JSON of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded(Box<[Arc<[u8]>]>);

impl Encoded {
    /// Writes `data`; pieces that are in `known` are taken from there.
    pub(crate) fn of(data: &SnapshotData, known: &mut Pieces) -> Self {
        Self::cut(&super::json(data), known)
    }

    fn cut(json: &[u8], known: &mut Pieces) -> Self {
        let mut rest = json;
        let mut pieces = Vec::new();
        for length in lengths(json) {
            let (piece, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after;
            pieces.push(match length < FIELD_BYTES_MIN {
                true => Arc::from(piece),
                false => known.text(piece),
            });
        }
        Self(pieces.into())
    }

    /// All of it.
    pub(crate) fn json(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// Bytes of all of it.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }

    #[cfg(test)]
    pub(crate) fn pieces(&self) -> &[Arc<[u8]>] {
        &self.0
    }
}

/// Lengths of the pieces of a JSON text, which together are all of it: large fields, and what stands between them.
fn lengths(json: &[u8]) -> Vec<usize> {
    let (mut out, mut begun) = (Vec::new(), 0);
    let mut cut = |from: usize, to: usize| {
        if to - from >= FIELD_BYTES_MIN {
            // What stands between the last large field and this one, if anything, is a piece too.
            out.extend(
                [from - begun, to - from]
                    .into_iter()
                    .filter(|some| *some > 0),
            );
            begun = to;
        }
    };
    // Where the field begins that is being looked at, the depth, and whether that is within a text.
    let (mut field, mut depth, mut quoted, mut escaped) = (0, 0usize, false, false);
    // Only below `ports` fields are looked at more closely: elements of a list are too small to be pieces.
    let mut ports = false;
    for (at, byte) in json.iter().enumerate() {
        if quoted {
            quoted = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => {
                depth += 1;
                if depth == 2 {
                    ports = json
                        .get(field..at)
                        .is_some_and(|key| key.ends_with(b"\"ports\":"));
                }
                if depth == 1 || (ports && depth <= DEPTH_MAX) {
                    field = at + 1;
                }
            }
            b'}' | b']' => {
                if depth == 1 || (ports && depth <= DEPTH_MAX) {
                    cut(field, at);
                    field = at;
                }
                depth = depth.saturating_sub(1);
            }
            b',' if depth == 1 || (ports && depth <= DEPTH_MAX) => {
                cut(field, at);
                field = at;
            }
            _ => {}
        }
    }
    let begun: usize = out.iter().sum();
    out.extend(Some(json.len() - begun).filter(|some| *some > 0));
    out
}

/// What encodings have in common, and names of objects: each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    texts: HashSet<Arc<[u8]>>,
    names: HashSet<Arc<BTreeSet<String>>>,
}

impl Pieces {
    fn text(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        if let Some(known) = self.texts.get(bytes) {
            return Arc::clone(known);
        }
        let new: Arc<[u8]> = Arc::from(bytes);
        self.texts.insert(Arc::clone(&new));
        new
    }

    /// These names, in the one place where they are kept.
    pub(crate) fn names(&mut self, names: BTreeSet<String>) -> Arc<BTreeSet<String>> {
        if let Some(known) = self.names.get(&names) {
            return Arc::clone(known);
        }
        let new = Arc::new(names);
        self.names.insert(Arc::clone(&new));
        new
    }

    /// Lets go of what nobody has any more but these and those of `before`, from whom they were copied.
    pub(crate) fn forget_unused(&mut self, before: Option<&Self>) {
        // Of two that have it, one is this; the other is `before`, or somebody who needs it.
        let needed = |count: usize, there: &dyn Fn(&Self) -> bool| match count {
            2 => !before.is_some_and(there),
            _ => count > 2,
        };
        let texts =
            |one: &Arc<[u8]>| needed(Arc::strong_count(one), &|before| before.texts.contains(one));
        self.texts.retain(texts);
        let names = |one: &Arc<BTreeSet<String>>| {
            needed(Arc::strong_count(one), &|before| before.names.contains(one))
        };
        self.names.retain(names);
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.texts.len(), self.names.len())
    }
}

#[cfg(test)]
mod tests;
