//! The loop of the election: asks the API server, gives the answers to [`Election`], does what it says.

use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use super::election::{AGAIN, DEADLINE, Election, LOOK, RENEW, REQUEST, Record, Turn};
use super::lease::{self, ELECTION};
use super::troubles::{Troubles, resource};
use crate::apiserver::backoff::chance;
use crate::apiserver::failure::Resource;

/// What is in the way while the applying side hangs.
const PULSE: &str = "pulse";

pub(super) struct Elector {
    api: Api<Lease>,
    namespace: String,
    election: Election,
    version: Option<String>,
    /// Until when this process may write.
    until: watch::Sender<Option<Instant>>,
    /// When this node's data plane and proxy were last seen to be applied to.
    pulse: watch::Receiver<Instant>,
    resource: Resource,
    troubles: Troubles,
}

/// The answer did not come, or was none.
struct Failed;

impl Elector {
    pub(super) fn new(
        client: Client,
        namespace: &str,
        identity: String,
        until: watch::Sender<Option<Instant>>,
        pulse: watch::Receiver<Instant>,
        troubles: Troubles,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            election: Election::new(identity),
            version: None,
            until,
            pulse,
            resource: resource("coordination.k8s.io", "leases", namespace),
            troubles,
        }
    }

    pub(super) async fn run(&mut self) {
        loop {
            if !self.is_alive().await {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let answered = self.turn().await.is_ok();
            self.tell();
            let wait = match (answered, self.election.turn(Instant::now())) {
                (true, Turn::Renew) => RENEW,
                (true, Turn::Wait) => LOOK,
                (true, Turn::Take) | (false, _) => AGAIN,
            };
            // Never longer, or a renewal might come too late; and a hundred nodes must not look at one moment.
            tokio::time::sleep(wait.mul_f64(0.75 + chance() / 4.0)).await;
        }
    }

    /// Whether this node knows what it serves. One that does not would leave everybody's status as it was, for as long as it
    /// renews its Lease: so it gives it up, and takes none.
    async fn is_alive(&mut self) -> bool {
        let silent = self.pulse.borrow().elapsed();
        if silent < DEADLINE {
            self.troubles.gone(PULSE);
            return true;
        }
        let text = "nothing is applied on this node any more (its control thread, data plane or proxy hangs), so it leaves \
                    writing to another one";
        self.troubles.appeared(PULSE, text);
        self.give_back().await;
        self.election.resign();
        self.tell();
        false
    }

    /// Gives the lease back, so that another one need not wait for its end.
    pub(super) async fn give_back(&mut self) {
        if self.election.until().is_none() {
            return;
        }
        self.until.send_replace(None);
        let nobody = Record { holder: String::new(), ..self.election.record() };
        if self.write(&nobody).await.is_ok() {
            info!("status: another node may write now");
        }
    }

    async fn turn(&mut self) -> Result<(), Failed> {
        // The holder knows what it wrote; if that is no longer so, its write is refused.
        if self.election.turn(Instant::now()) != Turn::Renew {
            self.look().await?;
        }
        if self.election.turn(Instant::now()) == Turn::Wait {
            return Ok(());
        }
        let sent = Instant::now();
        let record = self.election.record();
        match self.write(&record).await? {
            Some(written) => self.election.wrote(lease::record(&written), sent),
            None => self.look().await?,
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Failed> {
        let found = self.answered("get", timeout(REQUEST, self.api.get_opt(ELECTION)).await)?;
        self.version = found.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        self.election.look(found.as_ref().map(lease::record), Instant::now());
        Ok(())
    }

    /// `None`: somebody else was faster.
    async fn write(&mut self, record: &Record) -> Result<Option<Lease>, Failed> {
        let lease = lease::of_record(record, &self.namespace, self.version.as_deref());
        let (verb, answer) = if self.version.is_some() {
            let patch = Patch::Merge(&lease);
            ("patch", timeout(REQUEST, self.api.patch(ELECTION, &PatchParams::default(), &patch)).await)
        } else {
            ("create", timeout(REQUEST, self.api.create(&PostParams::default(), &lease)).await)
        };
        // 404: it was deleted meanwhile.
        if let Ok(Err(Error::Api(status))) = &answer
            && [404, 409].contains(&status.code)
        {
            return Ok(None);
        }
        let written = self.answered(verb, answer)?;
        self.version.clone_from(&written.metadata.resource_version);
        Ok(Some(written))
    }

    fn answered<T>(
        &self,
        verb: &str,
        answer: Result<kube::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, Failed> {
        match answer {
            Ok(Ok(answer)) => {
                self.troubles.worked(verb, &self.resource);
                // The holder does not look any more, and need not.
                if verb == "patch" {
                    self.troubles.worked("get", &self.resource);
                }
                Ok(answer)
            }
            Ok(Err(e)) => {
                self.troubles.failed(verb, &self.resource, &e);
                Err(Failed)
            }
            Err(_) => {
                self.troubles.no_answer(verb, &self.resource, REQUEST);
                Err(Failed)
            }
        }
    }

    fn tell(&self) {
        let until = self.election.until();
        self.until.send_if_modified(|before| {
            if before.is_some() != until.is_some() {
                info!("status: {}", if until.is_some() { "this node writes" } else { "another node writes" });
            }
            let changed = *before != until;
            *before = until;
            changed
        });
    }
}
