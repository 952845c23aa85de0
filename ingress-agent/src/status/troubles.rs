//! What is in the way of reporting, for the one who can remove it: told to the log once, and to `/readyz` while it lasts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::apiserver::failure::{Failure, Resource};

/// One text for each thing that is done, so that ten thousand objects that cannot be written are one line.
#[derive(Clone, Debug)]
pub(super) struct Troubles {
    texts: Rc<RefCell<BTreeMap<Key, (String, Instant)>>>,
    tell: watch::Sender<Vec<String>>,
    of: Of,
}

type Key = (Of, String);

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Node,
    Writer,
}

impl Troubles {
    pub(super) fn new(tell: watch::Sender<Vec<String>>) -> Self {
        Self { texts: Rc::default(), tell, of: Of::Node }
    }

    /// The same, of what only a writer does: over when it is one no longer.
    pub(super) fn of_writer(&self) -> Self {
        Self { of: Of::Writer, ..self.clone() }
    }

    /// The writer does nothing any more, and nothing is in its way.
    pub(super) fn writer_ended(&self) {
        self.texts.borrow_mut().retain(|(of, _), _| *of != Of::Writer);
        self.publish();
    }

    /// Doing `what` fails for this reason.
    pub(super) fn appeared(&self, what: &str, text: &str) {
        let now = (text.to_owned(), Instant::now());
        let before = self.texts.borrow_mut().insert((self.of, what.to_owned()), now);
        if before.is_none_or(|(before, _)| before != text) {
            warn!("status: {text}");
            self.publish();
        }
    }

    /// Doing `what` has gone well, or is not done any more.
    pub(super) fn gone(&self, what: &str) {
        let removed = self.texts.borrow_mut().remove(&(self.of, what.to_owned()));
        if let Some((text, _)) = removed {
            info!("status: no longer: {text}");
            self.publish();
        }
    }

    /// A watch says when it fails, again and again; that it works again it says only with the next object. One that has
    /// been silent since `before` works. Returns whether any is in trouble.
    pub(super) fn watches_silent_since(&self, before: Instant) -> bool {
        let is_watch = |what: &str| what.starts_with("watch ") || what.starts_with("list ");
        let texts = self.texts.borrow();
        let watches = texts.iter().filter(|((of, what), _)| *of == Of::Writer && is_watch(what));
        let (over, left): (Vec<_>, Vec<_>) = watches.partition(|(_, (_, at))| *at < before);
        let over: Vec<String> = over.into_iter().map(|((_, what), _)| what.clone()).collect();
        let left = !left.is_empty();
        drop(texts);
        for what in over {
            self.gone(&what);
        }
        left
    }

    /// A request failed. The text names the rule that is missing where RBAC has refused it.
    pub(super) fn failed(&self, verb: &str, resource: &Resource, e: &kube::Error) {
        let failure = Failure::of(verb, resource, e);
        let text = failure.words(verb, resource).unwrap_or_else(|| format!("cannot {verb} {}: {e}", resource.words()));
        self.appeared(&what(verb, resource), &text);
    }

    pub(super) fn no_answer(&self, verb: &str, resource: &Resource, waited: Duration) {
        let text = format!("cannot {verb} {}: no answer in {} s", resource.words(), waited.as_secs());
        self.appeared(&what(verb, resource), &text);
    }

    pub(super) fn is_told_of(&self, verb: &str, resource: &Resource) -> bool {
        self.texts.borrow().contains_key(&(self.of, what(verb, resource)))
    }

    pub(super) fn worked(&self, verb: &str, resource: &Resource) {
        self.gone(&what(verb, resource));
    }

    fn publish(&self) {
        let texts: Vec<String> = self.texts.borrow().values().map(|(text, _)| text.clone()).collect();
        self.tell.send_if_modified(|before| {
            let changed = *before != texts;
            *before = texts;
            changed
        });
    }
}

fn what(verb: &str, resource: &Resource) -> String {
    format!("{verb} {}", resource.words())
}

/// A resource as RBAC names it; `namespace` is empty for all.
pub(super) fn resource(group: &str, plural: &str, namespace: &str) -> Resource {
    Resource { plural: plural.into(), group: group.into(), namespace: namespace.into(), name: String::new() }
}
