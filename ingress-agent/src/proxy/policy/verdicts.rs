//! `auth-cache-key`: what an external authority said, remembered for a while. Each worker has its own; a key never leads to what another Ingress
//! was told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Reply;
use super::external::Passed;
use crate::model::policy::ExternalAuth;

/// Answers that a worker remembers. When they are so many, those that are over go, and if there are none, all.
const MOST: usize = 10_000;
/// Bytes of a key: it is made of what clients send.
const KEY_MOST: usize = 4096;

#[derive(Default)]
pub(in crate::proxy) struct Verdicts(RefCell<HashMap<(*const ExternalAuth, String), Verdict>>);

struct Verdict {
    /// Keeps the address in the key from meaning another one.
    _auth: Arc<ExternalAuth>,
    until: Instant,
    said: Result<Passed, Reply>,
}

impl Verdicts {
    pub(super) fn find(&self, auth: &Arc<ExternalAuth>, key: &str, now: Instant) -> Option<Result<Passed, Reply>> {
        let known = self.0.borrow();
        let verdict = known.get(&(Arc::as_ptr(auth), key.to_owned()))?;
        (verdict.until > now).then(|| verdict.said.clone())
    }

    pub(super) fn remember(&self, auth: &Arc<ExternalAuth>, key: String, until: Instant, said: Result<Passed, Reply>) {
        if key.len() > KEY_MOST {
            return;
        }
        let mut known = self.0.borrow_mut();
        if known.len() >= MOST {
            let now = Instant::now();
            known.retain(|_, verdict| verdict.until > now);
            if known.len() >= MOST {
                known.clear();
            }
        }
        known.insert((Arc::as_ptr(auth), key), Verdict { _auth: Arc::clone(auth), until, said });
    }
}
