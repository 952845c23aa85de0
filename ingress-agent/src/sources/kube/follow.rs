//! One list and watch, for ever: everything of a kind, or of it in one namespace, or one object.
//!
//! The same protocol as kube's `watcher`, which is not used because it keeps silent when a broken watch is taken up again:
//! then nobody could say whether the facts are of now or of an hour ago. Here each answer is told.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource as _, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::guard::Guarded;
use super::kinds::{Kind, Seen, read};
use super::versions;
use crate::apiserver::backoff::{Backoff, chance};
use crate::apiserver::failure::{Failure, Resource};
use crate::model::snapshot::ObjectName;
use crate::sources::SourceOptions;
use crate::sources::document::Read;

/// Until the first byte of an answer. A slow etcd takes seconds; a server that died takes for ever.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a watch lives before it is renewed where it was, in seconds: between these, by chance, so that a hundred nodes
/// do not renew at one moment.
const LIFE: (f64, f64) = (200.0, 285.0);
/// A watch that ends sooner than this did not end by itself, whatever the server says.
const SHORT: Duration = Duration::from_secs(1);
/// A connection that lasted this long was a good one: the next wait is a first one again.
const STEADY: Duration = Duration::from_secs(5);
/// Objects a page where lists are not streamed: client-go's number.
const PAGE: u32 = 500;

/// Names one list and watch for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct WatchId(pub(super) u64);

/// What a watch has to tell.
pub(super) enum News {
    /// The API server answers.
    Answers,
    /// A list begins: what is not in it by its completion is gone.
    Begun,
    Listed(Box<Read>),
    Complete,
    Changed(Box<Read>),
    Gone(ObjectName),
    Fails(Trouble),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) text: String,
    /// Until somebody grants the verb, or has the API server know the kind.
    pub(super) stays: bool,
}

/// What is followed, and who is told.
pub(super) struct Watch<K: 'static> {
    pub(super) id: WatchId,
    pub(super) kind: &'static Kind<K>,
    pub(super) api: Api<Guarded<K>>,
    pub(super) resource: Resource,
    /// Label selector, as the API server reads it.
    pub(super) labels: Option<String>,
    pub(super) options: Arc<SourceOptions>,
    pub(super) tell: mpsc::Sender<(WatchId, News)>,
    /// Changes when a connection that seems to be there had better be made anew.
    pub(super) doubt: watch::Receiver<u64>,
}

/// Why a turn ended before its time.
pub(super) enum End {
    /// Nobody listens any more.
    Unheard,
    Failed(&'static str, Failure),
}

impl<K> Watch<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    /// Returns when nobody listens any more.
    pub(super) async fn follow(&self) {
        let mut place = Place { version: None, streaming: true };
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let ended = self.turn(&mut place).await;
            if began.elapsed() >= STEADY {
                backoff.reset();
            }
            let (verb, failure) = match ended {
                Ok(()) if began.elapsed() >= SHORT => continue,
                Ok(()) => ("watch", Failure::Other(format!("{}: the watch ends at once", self.resource.words()))),
                Err(End::Unheard) => return,
                Err(End::Failed(_, Failure::NoStreaming)) => {
                    place.streaming = false;
                    continue;
                }
                Err(End::Failed(verb, failure)) => (verb, failure),
            };
            let pause = place.pause(&failure, &mut backoff, chance());
            if self.failed(verb, &failure).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells why it does not go on for the moment.
    pub(super) async fn failed(&self, verb: &'static str, failure: &Failure) -> Result<(), End> {
        if *failure == Failure::NotFound && self.kind.optional {
            if let Some(trouble) = self.in_other_versions().await {
                return self.tell(News::Fails(trouble)).await;
            }
            self.tell(News::Answers).await?;
            self.tell(News::Begun).await?;
            return self.tell(News::Complete).await;
        }
        let stays = matches!(failure, Failure::Forbidden(_));
        match failure.words(verb, &self.resource) {
            Some(text) => self.tell(News::Fails(Trouble { text, stays })).await,
            None => Ok(()),
        }
    }

    /// Why what the API server does not know may still be there.
    async fn in_other_versions(&self) -> Option<Trouble> {
        let (words, ours) = (self.resource.words(), K::version(&()));
        match versions::served(&self.api.clone().into_client(), &self.resource).await {
            Ok(None) => None,
            Ok(Some(served)) => Some(Trouble {
                text: format!(
                    "cannot watch {words}: this agent knows {ours} of {}, and the API server serves {served}; what was read before stays",
                    self.resource.group
                ),
                stays: true,
            }),
            Err(text) => Some(Trouble { text, stays: false }),
        }
    }

    /// From one connection to its end.
    async fn turn(&self, place: &mut Place) -> Result<(), End> {
        if place.version.is_none() && !place.streaming {
            place.version = Some(self.list().await?);
        }
        let mut listing = place.version.is_none();
        let mut doubt = self.doubt.clone();
        doubt.mark_unchanged();
        let life = (LIFE.0 + (LIFE.1 - LIFE.0) * chance()) as u32;
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.selector(),
            timeout: Some(life),
            bookmarks: true,
            send_initial_events: listing,
        };
        // "0": whatever the server has in its cache. Asking for the newest would cost etcd a quorum read from each node.
        let version = place.version.clone().unwrap_or_else(|| "0".to_owned());
        let stream = answered("watch", timeout(ANSWER, self.api.watch(&params, &version)).await, &self.resource)?;
        let mut stream = pin!(stream);
        self.tell(News::Answers).await?;
        if listing {
            self.tell(News::Begun).await?;
        }
        let silence = Duration::from_secs(u64::from(life) + 10);
        loop {
            let event = tokio::select! {
                event = timeout(silence, stream.next()) => event,
                Ok(()) = doubt.changed() => break,
            };
            let Ok(Some(event)) = event else { break };
            let event = event.map_err(|e| End::Failed("watch", Failure::of("watch", &self.resource, &e)))?;
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    place.passed(listing, object.resource_version());
                    self.seen(object, listing).await?;
                }
                WatchEvent::Deleted(object) => {
                    place.passed(listing, object.resource_version());
                    self.gone(&object).await?;
                }
                WatchEvent::Bookmark(mark) => {
                    if listing && mark.metadata.annotations.contains_key("k8s.io/initial-events-end") {
                        listing = false;
                        self.tell(News::Complete).await?;
                    }
                    place.passed(listing, Some(mark.metadata.resource_version));
                }
                WatchEvent::Error(status) => {
                    return Err(End::Failed("watch", Failure::of_status("watch", &self.resource, &status)));
                }
            }
        }
        if listing {
            let text = format!("the list of {} ended before it was complete", self.resource.words());
            return Err(End::Failed("watch", Failure::Other(text)));
        }
        Ok(())
    }

    /// In pages, for servers that do not stream. Gives the version to watch from.
    async fn list(&self) -> Result<String, End> {
        // Without a version: a server that is asked for one in its cache ("0") takes no notice of the limit.
        let first = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.selector(),
            ..ListParams::default()
        }
        .limit(PAGE);
        let mut params = first.clone();
        let mut begun = false;
        loop {
            let page = answered("list", timeout(ANSWER, self.api.list(&params)).await, &self.resource)?;
            if !std::mem::replace(&mut begun, true) {
                self.tell(News::Answers).await?;
                self.tell(News::Begun).await?;
            }
            for object in page.items {
                self.seen(object, true).await?;
            }
            if let Some(token) = page.metadata.continue_.filter(|t| !t.is_empty()) {
                params = first.clone().continue_token(&token);
                continue;
            }
            self.tell(News::Complete).await?;
            return Ok(page.metadata.resource_version.unwrap_or_default());
        }
    }

    /// Once, without a watch: for a single object.
    pub(super) async fn look(&self) -> Result<(), End> {
        let name = &self.resource.name;
        let object = match answered("get", timeout(ANSWER, self.api.get(name)).await, &self.resource) {
            Ok(object) => Some(object),
            Err(End::Failed(_, Failure::NotFound)) => None,
            Err(end) => return Err(end),
        };
        self.tell(News::Answers).await?;
        self.tell(News::Begun).await?;
        if let Some(object) = object {
            self.seen(object, true).await?;
        }
        self.tell(News::Complete).await
    }

    async fn seen(&self, object: Guarded<K>, listing: bool) -> Result<(), End> {
        match read(self.kind, object, &self.options) {
            Seen::Read(read) if listing => self.tell(News::Listed(read)).await,
            Seen::Read(read) => self.tell(News::Changed(read)).await,
            Seen::Ignored(name) => self.tell(News::Gone(name)).await,
            Seen::Nameless(rejection) => {
                tracing::warn!("the API server gave an object without a usable name: {rejection}");
                Ok(())
            }
        }
    }

    async fn gone(&self, object: &Guarded<K>) -> Result<(), End> {
        let metadata = object.meta();
        let namespace = if self.kind.namespaced { metadata.namespace.clone() } else { None };
        let name = ObjectName::new(namespace.unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        self.tell(News::Gone(name)).await
    }

    fn selector(&self) -> Option<String> {
        (!self.resource.name.is_empty()).then(|| format!("metadata.name={}", self.resource.name))
    }

    async fn tell(&self, news: News) -> Result<(), End> {
        self.tell.send((self.id, news)).await.map_err(|_| End::Unheard)
    }
}

/// How far a watch has come.
struct Place {
    /// Everything up to here was seen. `None`: the list has to come first.
    version: Option<String>,
    /// Whether the server streams lists.
    streaming: bool,
}

impl Place {
    /// Before the next turn, when one has failed. A version that has grown too old: all is listed again, while what was known stays, and soon,
    /// since the server is there, and what changed while it was not has waited for long enough.
    fn pause(&mut self, failure: &Failure, backoff: &mut Backoff, chance: f64) -> Duration {
        if *failure == Failure::Gone && self.version.take().is_some() {
            backoff.reset();
        }
        backoff.next(chance)
    }

    /// A version from the middle of a list is none to go on from.
    fn passed(&mut self, listing: bool, version: Option<String>) {
        if let Some(version) = version.filter(|v| !listing && !v.is_empty()) {
            self.version = Some(version);
        }
    }
}

fn answered<T>(
    verb: &'static str,
    answer: Result<kube::Result<T>, tokio::time::error::Elapsed>,
    resource: &Resource,
) -> Result<T, End> {
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(End::Failed(verb, Failure::of(verb, resource, &e))),
        Err(_) => {
            let text = format!("cannot {verb} {}: no answer in {} s", resource.words(), ANSWER.as_secs());
            Err(End::Failed(verb, Failure::Other(text)))
        }
    }
}

#[cfg(test)]
mod tests;
