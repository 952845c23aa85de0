//! The Secrets and ConfigMaps that Ingresses, settings and options name, and no other. A task each, which ends with the last reference.
//!
//! Each is watched by itself (`fieldSelector metadata.name`), so that nothing is read that nobody named, and RBAC may
//! restrict it: cluster-wide `get, list, watch`, a Role in some namespaces, or `resourceNames`. Each watch is a connection
//! here and a goroutine there, which does not carry to ten thousand certificates on a hundred nodes. So the first few are
//! watched and the others are fetched, then looked at again from time to time: a certificate is renewed weeks before it
//! expires.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::follow::{End, Watch, WatchId};
use super::kinds::Kind;
use super::references::Referred;
use super::starter::{Scope, Starter};
use super::tables::Tables;
use crate::apiserver::backoff::{Backoff, chance};
use crate::model::snapshot::ObjectName;

/// Objects of a kind that are watched.
const WATCHED: usize = 32;
/// Objects that are fetched at one time.
const FETCHED: usize = 8;
/// Between two looks at an object that is not watched, at least.
const LOOK: Duration = Duration::from_secs(30);
/// All of them together take at most one request in this time: 10,000 are seen every 17 minutes.
const PACE: Duration = Duration::from_millis(100);

pub(super) struct Followed<K: 'static> {
    referred: Referred,
    kind: &'static Kind<K>,
    tasks: HashMap<ObjectName, (WatchId, JoinHandle<()>)>,
    shared: Rc<Shared>,
}

struct Shared {
    watched: Semaphore,
    fetched: Semaphore,
    /// How many there are.
    count: Cell<u32>,
}

impl<K> Followed<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + 'static,
{
    pub(super) fn new(referred: Referred, kind: &'static Kind<K>) -> Self {
        let (watched, fetched) = (Semaphore::new(WATCHED), Semaphore::new(FETCHED));
        let shared = Rc::new(Shared { watched, fetched, count: Cell::new(0) });
        Self { referred, kind, tasks: HashMap::new(), shared }
    }

    /// Begins or ends to follow what came into use or went out of it.
    pub(super) fn settle_all(&mut self, starter: &mut Starter, tables: &mut Tables) {
        for (name, in_use) in tables.touched(self.referred) {
            self.settle(&name, in_use, starter, tables);
        }
    }

    fn settle(&mut self, name: &ObjectName, in_use: bool, starter: &mut Starter, tables: &mut Tables) {
        match (in_use, self.tasks.contains_key(name)) {
            // What options name is followed anyway.
            (true, false) if starter.follows(self.referred, name) => {}
            (true, false) => {
                let (namespace, object) = (name.namespace.clone(), name.name.clone());
                let scope = Scope { namespace, object, ..Scope::default() };
                let watch = starter.namespaced(self.kind, &scope, tables);
                let id = watch.id;
                tables.referred(id);
                let task = tokio::task::spawn_local(follow(watch, Rc::clone(&self.shared)));
                self.tasks.insert(name.clone(), (id, task));
            }
            (false, true) => {
                if let Some((id, task)) = self.tasks.remove(name) {
                    task.abort();
                    tables.drop_watch(id);
                }
            }
            _ => {}
        }
        self.shared.count.set(u32::try_from(self.tasks.len()).unwrap_or(u32::MAX));
    }
}

async fn follow<K>(watch: Watch<K>, shared: Rc<Shared>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut backoff = Backoff::default();
    loop {
        if let Ok(_place) = shared.watched.try_acquire() {
            // Boxed: it is large, and most of ten thousand tasks never come here.
            Box::pin(watch.follow()).await;
            return;
        }
        let looked = {
            let Ok(_turn) = shared.fetched.acquire().await else { return };
            Box::pin(watch.look()).await
        };
        let wait = match looked {
            Ok(()) => {
                backoff.reset();
                LOOK.max(PACE * shared.count.get()).mul_f64(0.75 + chance() / 2.0)
            }
            Err(End::Unheard) => return,
            Err(End::Failed(verb, failure)) => {
                if watch.failed(verb, &failure).await.is_err() {
                    return;
                }
                backoff.next(chance())
            }
        };
        tokio::time::sleep(wait).await;
    }
}
