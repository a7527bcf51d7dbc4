//! Maps and sets for the names of a load.
//!
//! An index is built anew for each change, and looks up some ten thousand names of a few dozen bytes: the standard
//! library's hasher took a quarter of that. This one is seeded for each map; whoever could make names collide writes the
//! manifests, which are bounded.

use foldhash::fast::RandomState;

/// A map by a fast hash.
pub(crate) type HashMap<K, V> = hashbrown::HashMap<K, V, RandomState>;

/// A set by a fast hash.
pub(crate) type HashSet<K> = hashbrown::HashSet<K, RandomState>;
