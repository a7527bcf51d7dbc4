//! What stands on one core now: entered, and gone when its place is dropped.

use slab::Slab;
use std::cell::{Ref, RefCell};
use std::rc::Rc;

/// Everything of one kind that stands. Clones are the same roll.
pub(crate) struct Roll<T>(Rc<RefCell<Slab<T>>>);

/// A place in a [`Roll`]; dropping it leaves.
pub(crate) struct Entered<T> {
    roll: Roll<T>,
    key: usize,
}

impl<T> Roll<T> {
    pub(crate) fn enter(&self, one: T) -> Entered<T> {
        let key = self.0.borrow_mut().insert(one);
        Entered {
            roll: self.clone(),
            key,
        }
    }

    /// Whatever stands. Nothing may enter or leave meanwhile.
    pub(crate) fn all(&self) -> Ref<'_, Slab<T>> {
        self.0.borrow()
    }
}

impl<T> Drop for Entered<T> {
    fn drop(&mut self) {
        self.roll.0.borrow_mut().try_remove(self.key);
    }
}

impl<T> Clone for Roll<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Roll<T> {
    fn default() -> Self {
        Self(Rc::default())
    }
}
