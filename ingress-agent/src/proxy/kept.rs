//! What was taken of a request's body, kept so that it can be sent again: to another backend, or with the question for an error page. Bounded:
//! of a longer body nothing is kept. The pieces are shared with what was sent, not copied.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use http::Method;

use super::upstream::idempotent;
use crate::model::policy::Policy;

/// Bytes of a body that may be kept.
const MOST: u64 = 64 * 1024;

pub(super) struct Kept {
    pieces: RefCell<Vec<Bytes>>,
    bytes: Cell<u64>,
    /// As the client announced it.
    pub(super) announced: Option<u64>,
    ended: Cell<bool>,
    over: Cell<bool>,
}

impl Kept {
    pub(super) fn new(announced: Option<u64>) -> Option<Rc<Self>> {
        if announced.is_some_and(|n| n > MOST) {
            return None;
        }
        let (pieces, bytes) = (RefCell::default(), Cell::new(0));
        Some(Rc::new(Self { pieces, bytes, announced, ended: Cell::new(false), over: Cell::new(false) }))
    }

    pub(super) fn keep(&self, piece: &Bytes) {
        let bytes = self.bytes.get() + piece.len() as u64;
        self.bytes.set(bytes);
        if bytes > MOST {
            self.over.set(true);
            self.pieces.borrow_mut().clear();
        } else if !self.over.get() {
            self.pieces.borrow_mut().push(piece.clone());
        }
    }

    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    pub(super) fn piece(&self, at: u32) -> Option<Bytes> {
        self.pieces.borrow().get(at as usize).cloned()
    }

    pub(super) fn count(&self) -> u32 {
        self.pieces.borrow().len() as u32
    }

    /// Everything that was taken is here.
    pub(super) fn can_begin_again(&self) -> bool {
        !self.over.get()
    }

    /// The whole body is here: its length.
    pub(super) fn whole(&self) -> Option<u64> {
        let all = self.ended.get() || self.announced == Some(self.bytes.get());
        (all && !self.over.get()).then(|| self.bytes.get())
    }
}

/// Whether somebody may want the body of such a request again.
pub(super) fn wanted(policy: &Policy, method: &Method) -> bool {
    let on = policy.retry_on;
    let tries = on.error || on.timeout || on.invalid_header || on.statuses != 0;
    (tries && (on.non_idempotent || idempotent(method))) || policy.errors.as_ref().is_some_and(|e| e.pool.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_whole_or_not_at_all() {
        let kept = Kept::new(Some(3)).expect("short");
        kept.keep(&Bytes::from_static(b"ab"));
        assert_eq!((kept.whole(), kept.count()), (None, 1));
        kept.keep(&Bytes::from_static(b"c"));
        assert_eq!((kept.whole(), kept.piece(1)), (Some(3), Some(Bytes::from_static(b"c"))));
        let long = Kept::new(None).expect("unknown");
        long.keep(&Bytes::from(vec![0; MOST as usize]));
        assert!(long.can_begin_again());
        long.keep(&Bytes::from_static(b"x"));
        long.end();
        assert_eq!((long.can_begin_again(), long.whole(), long.count()), (false, None, 0));
        assert!(Kept::new(Some(MOST + 1)).is_none());
    }
}
