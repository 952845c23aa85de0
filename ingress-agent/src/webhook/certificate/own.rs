//! Our own certificate in the cluster: a Secret in our namespace, so that replicas agree, and the authority in the
//! `ValidatingWebhookConfiguration`. No other Secret is ever read. Who writes first wins; the others read what he wrote.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use tokio::time::timeout;
use tracing::info;

use super::pair::Pair;
use super::ring::Ring;
use super::{OwnOptions, Served};
use crate::apiserver;
use crate::apiserver::backoff::{Backoff, chance};
use crate::apiserver::failure::{Failure, Resource};
use crate::webhook::health::Health;

/// Owns the field `caBundle`.
const MANAGER: &str = "sluicegate-webhook";
/// Between two looks: another replica may have renewed it, or somebody applied the configuration without an authority.
const LOOK: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(10);
/// Writers that meet are two or three replicas.
const TRIES: u32 = 5;

pub(super) async fn keep(options: &OwnOptions, kubeconfig: Option<&Path>, served: &Served, health: &Health) {
    let mut backoff = Backoff::default();
    let client = loop {
        match apiserver::client(kubeconfig).await {
            Ok((client, _)) => break client,
            Err(e) => health.certificate(Some(format!("{e:#}"))),
        }
        tokio::time::sleep(backoff.next(chance())).await;
    };
    let own = Own { options, client, names: names(options) };
    backoff.reset();
    loop {
        let wait = match own.turn(served).await {
            Ok(wait) => {
                health.certificate(None);
                backoff.reset();
                wait
            }
            Err(e) => {
                health.certificate(Some(format!("{e:#}")));
                backoff.next(chance()).max(Duration::from_millis(200))
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// By which the API server calls a webhook's Service.
fn names(options: &OwnOptions) -> Vec<String> {
    let (service, namespace) = (&options.service, &options.namespace);
    vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}"), service.clone()]
}

struct Own<'a> {
    options: &'a OwnOptions,
    client: Client,
    names: Vec<String>,
}

impl Own<'_> {
    /// Looks once at everything, does what is due, and says when to look again.
    async fn turn(&self, served: &Served) -> Result<Duration> {
        let configuration = self.configuration().await;
        let trusted = configuration.as_ref().map(trusted).unwrap_or_default();
        let ring = self.ring(&trusted).await?;
        served.set(ring.current.certified()?, ring.current.not_after);
        let configuration = configuration?;
        let bundle = ring.bundle();
        if trusted != bundle {
            self.trust(&configuration, &bundle).await?;
            info!("ValidatingWebhookConfiguration {} trusts our certificate", self.options.configuration);
        }
        Ok(ring.wait(SystemTime::now(), LOOK.mul_f64(0.75 + chance() / 2.0)))
    }

    /// The ring in the Secret after all steps that are due.
    async fn ring(&self, trusted: &str) -> Result<Ring> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.options.namespace);
        let name = &self.options.secret;
        let secret = self.resource("secrets", "", true);
        for _ in 0..TRIES {
            let there = match answer("get", &secret, api.get_opt(name)).await? {
                Ok(there) => there,
                Err(e) => bail!(failed("get", &secret, &e)),
            };
            let now = SystemTime::now();
            let read = there.as_ref().map(read);
            let (ring, why) = match read {
                Some(Ok(ring)) => match ring.step(&self.names, trusted, now)? {
                    None => return Ok(ring),
                    Some(step) => (step.ring, step.why),
                },
                Some(Err(e)) => (Ring::new(&self.names, now)?, format!("it cannot be used ({e:#}): a new one is made")),
                None => (Ring::new(&self.names, now)?, "there is none: one is made".to_owned()),
            };
            let written = self.written(&ring, there.as_ref());
            let outcome = match &there {
                // The version of what was read goes along: a write in between makes this one fail.
                Some(_) => answer("update", &secret, api.replace(name, &PostParams::default(), &written)).await?,
                None => answer("create", &secret, api.create(&PostParams::default(), &written)).await?,
            };
            match outcome {
                Ok(_) => {
                    info!("certificate in Secret {}/{name}: {why}", self.options.namespace);
                    return Ok(ring);
                }
                Err(Error::Api(status)) if status.code == 409 => {}
                Err(e) => bail!(failed(if there.is_some() { "update" } else { "create" }, &secret, &e)),
            }
        }
        bail!("Secret {}/{name} changes again and again", self.options.namespace)
    }

    fn written(&self, ring: &Ring, there: Option<&Secret>) -> Secret {
        let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
        let mut put = |key: String, text: &str| drop(data.insert(key, ByteString(text.as_bytes().to_vec())));
        for (prefix, pair) in [(CURRENT, Some(&ring.current)), (NEXT, ring.next.as_ref())] {
            let Some(pair) = pair else { continue };
            put(format!("{prefix}tls.crt"), &pair.certificate);
            put(format!("{prefix}tls.key"), &pair.key);
            put(format!("{prefix}ca.crt"), &pair.authority);
        }
        if let Some(retired) = &ring.retired {
            put(RETIRED.to_owned(), retired);
        }
        let metadata = there.map_or_else(
            || ObjectMeta {
                name: Some(self.options.secret.clone()),
                namespace: Some(self.options.namespace.clone()),
                ..ObjectMeta::default()
            },
            |there| ObjectMeta { managed_fields: None, ..there.metadata.clone() },
        );
        Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
    }

    async fn configuration(&self) -> Result<ValidatingWebhookConfiguration> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let name = &self.options.configuration;
        let resource = self.resource(PLURAL, GROUP, false);
        match answer("get", &resource, api.get_opt(name)).await? {
            Ok(Some(configuration)) => Ok(configuration),
            Ok(None) => Err(anyhow!(
                "there is no ValidatingWebhookConfiguration {name} (--configuration), so nobody asks this webhook anything"
            )),
            Err(e) => bail!(failed("get", &resource, &e)),
        }
    }

    async fn trust(&self, configuration: &ValidatingWebhookConfiguration, bundle: &str) -> Result<()> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let webhook = |name: &String| serde_json::json!({ "name": name, "clientConfig": { "caBundle": bundle } });
        let webhooks = configuration.webhooks.iter().flatten().map(|w| webhook(&w.name));
        let patch = serde_json::json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            // Of this object: one that was deleted meanwhile is not made anew.
            "metadata": { "name": self.options.configuration, "uid": configuration.metadata.uid },
            "webhooks": webhooks.collect::<Vec<_>>(),
        });
        let resource = self.resource(PLURAL, GROUP, false);
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&patch);
        match answer("patch", &resource, api.patch(&self.options.configuration, &params, &patch)).await? {
            Ok(_) => Ok(()),
            Err(e) => bail!(failed("patch", &resource, &e)),
        }
    }

    fn resource(&self, plural: &str, group: &str, namespaced: bool) -> Resource {
        let options = self.options;
        Resource {
            plural: plural.to_owned(),
            group: group.to_owned(),
            namespace: if namespaced { options.namespace.clone() } else { String::new() },
            name: if namespaced { options.secret.clone() } else { options.configuration.clone() },
        }
    }
}

const PLURAL: &str = "validatingwebhookconfigurations";
const GROUP: &str = "admissionregistration.k8s.io";

/// Keys of the Secret.
const CURRENT: &str = "";
const NEXT: &str = "next-";
const RETIRED: &str = "retired-ca.crt";

fn read(secret: &Secret) -> Result<Ring> {
    let data = secret.data.as_ref();
    let text = |key: &str| {
        let bytes = data.and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok())
    };
    let pair = |prefix: &str| {
        let text = |name: &str| text(&format!("{prefix}{name}")).with_context(|| format!("it has no `{prefix}{name}`"));
        Pair::read(&text("ca.crt")?, &text("tls.crt")?, &text("tls.key")?)
    };
    // A next one that cannot be read is made again when its time comes.
    Ok(Ring { current: pair(CURRENT)?, next: pair(NEXT).ok(), retired: text(RETIRED) })
}

/// The bundle that all of its webhooks have; nothing where they differ.
fn trusted(configuration: &ValidatingWebhookConfiguration) -> String {
    let mut bundles = configuration.webhooks.iter().flatten().map(|w| w.client_config.ca_bundle.as_ref());
    let first = bundles.next().flatten();
    let same = bundles.all(|bundle| bundle == first);
    let text = first.filter(|_| same).and_then(|bundle| String::from_utf8(bundle.0.clone()).ok());
    text.unwrap_or_default()
}

/// Waits for an answer, and not for ever.
async fn answer<T>(
    verb: &str,
    resource: &Resource,
    asked: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>> {
    timeout(ANSWER, asked)
        .await
        .map_err(|_| anyhow!("cannot {verb} {}: no answer in {} s", resource.words(), ANSWER.as_secs()))
}

fn failed(verb: &str, resource: &Resource, e: &Error) -> String {
    let failure = Failure::of(verb, resource, e);
    failure.words(verb, resource).unwrap_or_else(|| format!("cannot {verb} {}: {e}", resource.words()))
}
