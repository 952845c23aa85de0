//! What the cluster said last, on disk, for a start without its API server: a node that boots while the control plane is
//! down serves what it served before. Facts are saved, not the plan: the rules of a newer agent apply to them.
//!
//! The file holds private keys and is for root only. It is replaced as a whole, so that a crash leaves the old one. One
//! that cannot be used, for whatever reason, is told and passed over; the next save replaces it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, bail};
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::model::facts::{
    CertificateFacts, ConfigMapFacts, Facts, IngressClassFacts, IngressFacts, NamespaceFacts, NodeFacts, Origin,
    SecretFacts, ServiceFacts, SliceFacts, StreamFacts, VirtualIpPoolFacts,
};
use crate::model::snapshot::PrivateKey;
use crate::sources::document::{Identity, Object};
use crate::sources::parse::{Notes, secret};

/// Grows with each change of the file or of the facts in it that an older reader would misunderstand.
const VERSION: u32 = 3;

const FILE: &str = "facts.json";
/// Until it is whole.
const NEW_FILE: &str = ".facts.json.new";

/// Saved facts, and until when they were those of the cluster.
#[derive(Debug)]
pub(super) struct Saved {
    /// Certificates last: who seeds them first needs the Ingresses that name them.
    pub(super) objects: Vec<(Identity, Object)>,
    pub(super) at: SystemTime,
}

/// Read before the rest, which may be of a form that is not known.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    #[serde(flatten)]
    whose: Whose,
}

/// What the facts are of. Those of another would be served to this one's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whose {
    pub(super) cluster: String,
    /// `--annotations-prefix`, where it is not ingress-nginx's own.
    #[serde(default)]
    pub(super) annotations_prefix: Option<String>,
    /// `--watch-namespace-selector`.
    #[serde(default)]
    pub(super) namespace_labels: Option<String>,
}

#[derive(Serialize)]
struct Writing<'a> {
    services: Vec<&'a ServiceFacts>,
    slices: Vec<&'a SliceFacts>,
    ingresses: Vec<&'a IngressFacts>,
    classes: Vec<&'a IngressClassFacts>,
    streams: Vec<&'a StreamFacts>,
    pools: Vec<&'a VirtualIpPoolFacts>,
    nodes: Vec<&'a NodeFacts>,
    namespaces: Vec<&'a NamespaceFacts>,
    config_maps: Vec<&'a ConfigMapFacts>,
    secrets: Vec<Plain>,
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
struct Reading {
    services: Vec<ServiceFacts>,
    slices: Vec<SliceFacts>,
    ingresses: Vec<IngressFacts>,
    classes: Vec<IngressClassFacts>,
    streams: Vec<StreamFacts>,
    pools: Vec<VirtualIpPoolFacts>,
    nodes: Vec<NodeFacts>,
    #[serde(default)]
    namespaces: Vec<NamespaceFacts>,
    config_maps: Vec<ConfigMapFacts>,
    secrets: Vec<Plain>,
    certificates: Vec<Certificate>,
}

/// A Secret that is no certificate.
#[derive(Serialize, Deserialize)]
struct Plain {
    origin: Origin,
    data: BTreeMap<String, ByteString>,
}

/// As DER; what else is known of a certificate follows from it.
#[derive(Serialize, Deserialize)]
struct Certificate {
    origin: Origin,
    chain: Vec<ByteString>,
    form: KeyForm,
    key: ByteString,
    authority: Option<ByteString>,
}

#[derive(Serialize, Deserialize)]
enum KeyForm {
    Pkcs8,
    Pkcs1,
    Sec1,
}

/// Replaces what was saved.
pub(super) fn save(directory: &Path, whose: &Whose, facts: &Facts) -> anyhow::Result<()> {
    let shown = directory.display();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("make the directory {shown} (--state-dir)"))?;
    let (path, new) = (directory.join(FILE), directory.join(NEW_FILE));
    let write = || -> anyhow::Result<()> {
        // A leftover of a crash may have another mode.
        if let Err(e) = fs::remove_file(&new)
            && e.kind() != ErrorKind::NotFound
        {
            return Err(e.into());
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let mut out = BufWriter::new(file);
        // A line each, so that the head can be read without the rest.
        serde_json::to_writer(&mut out, &Head { version: VERSION, whose: whose.clone() })?;
        out.write_all(b"\n")?;
        serde_json::to_writer(&mut out, &Writing::of(facts))?;
        out.write_all(b"\n")?;
        // Renamed before it is on disk, it might be empty after a power failure.
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&new, &path)?;
        Ok(())
    };
    write().with_context(|| format!("save the facts in {shown} (--state-dir)"))
}

/// The facts on disk are still those of the cluster at the time `now`.
pub(super) fn still_true(directory: &Path, now: SystemTime) {
    // Without it they only seem older than they are.
    let _ = File::options().write(true).open(directory.join(FILE)).and_then(|f| f.set_modified(now));
}

/// Removes what is saved, and the directory if nothing else is in it. Whether there was anything.
pub fn remove(directory: &Path) -> anyhow::Result<bool> {
    let mut found = false;
    for name in [FILE, NEW_FILE] {
        match fs::remove_file(directory.join(name)) {
            Ok(()) => found = true,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("remove {}", directory.join(name).display())),
        }
    }
    // Others' files stay, and a mount point cannot go.
    let _ = fs::remove_dir(directory);
    Ok(found)
}

/// `None`: nothing was saved yet.
pub(super) fn load(directory: &Path, whose: &Whose) -> anyhow::Result<Option<Saved>> {
    let path = directory.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("read the saved facts in {}", path.display())),
    };
    let read = || -> anyhow::Result<Saved> {
        let at = file.metadata()?.modified()?;
        let mut lines = std::io::BufRead::lines(BufReader::new(file));
        let mut line = || lines.next().transpose()?.context("the file is cut short");
        let head: Head = serde_json::from_str(&line()?).context("its head is not understood")?;
        if head.version != VERSION {
            bail!("they are of version {}, and this agent reads version {VERSION}", head.version);
        }
        if head.whose.cluster != whose.cluster {
            bail!("they are of the cluster {}, and this is {}", head.whose.cluster, whose.cluster);
        }
        if head.whose != *whose {
            bail!("they were read with another --annotations-prefix or --watch-namespace-selector");
        }
        let reading: Reading = serde_json::from_str(&line()?)?;
        Ok(Saved { objects: reading.objects(), at })
    };
    read().with_context(|| format!("use the saved facts in {}", path.display())).map(Some)
}

impl<'a> Writing<'a> {
    fn of(facts: &'a Facts) -> Self {
        Self {
            services: facts.services.iter().map(AsRef::as_ref).collect(),
            slices: facts.slices.iter().flat_map(|s| &s.slices).map(AsRef::as_ref).collect(),
            ingresses: facts.ingresses.iter().map(AsRef::as_ref).collect(),
            classes: facts.classes.iter().map(AsRef::as_ref).collect(),
            streams: [&facts.tcp_streams, &facts.udp_streams].into_iter().flatten().map(AsRef::as_ref).collect(),
            pools: facts.virtual_ip_pools.iter().map(AsRef::as_ref).collect(),
            nodes: facts.nodes.iter().map(AsRef::as_ref).collect(),
            namespaces: facts.namespaces.iter().map(AsRef::as_ref).collect(),
            config_maps: facts.config_maps.iter().map(AsRef::as_ref).collect(),
            secrets: facts.secrets.iter().map(|s| Plain::of(s)).collect(),
            certificates: facts.certificates.iter().map(|c| Certificate::of(c)).collect(),
        }
    }
}

impl Reading {
    fn objects(self) -> Vec<(Identity, Object)> {
        let named = |kind, origin: &Origin| Identity { kind, name: origin.name.clone() };
        let mut all = Vec::new();
        all.extend(self.services.into_iter().map(|o| (named("Service", &o.origin), Object::Service(o.into()))));
        all.extend(self.slices.into_iter().map(|o| (named("EndpointSlice", &o.origin), Object::Slice(o.into()))));
        all.extend(self.ingresses.into_iter().map(|o| (named("Ingress", &o.origin), Object::Ingress(o.into()))));
        all.extend(self.classes.into_iter().map(|o| (named("IngressClass", &o.origin), Object::Class(o.into()))));
        all.extend(self.streams.into_iter().map(|o| (named("ConfigMap", &o.origin), Object::Streams(o.into()))));
        let pools = self.pools.into_iter();
        all.extend(pools.map(|o| (named("VirtualIPPool", &o.origin), Object::VirtualIpPool(o.into()))));
        all.extend(self.nodes.into_iter().map(|o| (named("Node", &o.origin), Object::Node(o.into()))));
        all.extend(self.namespaces.into_iter().map(|o| (named("Namespace", &o.origin), Object::Namespace(o.into()))));
        all.extend(self.config_maps.into_iter().map(|o| (named("ConfigMap", &o.origin), Object::ConfigMap(o.into()))));
        let secrets = self.secrets.into_iter().map(Plain::facts);
        all.extend(secrets.map(|o| (named("Secret", &o.origin), Object::Secret(o.into()))));
        // One that is no longer taken (a rule of a newer agent) is left out, as any bad object.
        let certificates = self.certificates.into_iter().filter_map(Certificate::facts);
        all.extend(certificates.map(|o| (named("Secret", &o.origin), Object::Certificate(o.into()))));
        all
    }
}

impl Plain {
    fn of(facts: &SecretFacts) -> Self {
        let data = facts.data.iter().map(|(key, value)| (key.clone(), ByteString(value.clone())));
        Self { origin: facts.origin.clone(), data: data.collect() }
    }

    fn facts(self) -> SecretFacts {
        SecretFacts { origin: self.origin, data: self.data.into_iter().map(|(key, value)| (key, value.0)).collect() }
    }
}

impl Certificate {
    fn of(facts: &CertificateFacts) -> Self {
        let (form, key) = match &facts.certificate.key {
            PrivateKey::Pkcs8(der) => (KeyForm::Pkcs8, der),
            PrivateKey::Pkcs1(der) => (KeyForm::Pkcs1, der),
            PrivateKey::Sec1(der) => (KeyForm::Sec1, der),
        };
        Self {
            origin: facts.origin.clone(),
            chain: facts.certificate.chain.iter().cloned().map(ByteString).collect(),
            form,
            key: ByteString(key.clone()),
            authority: facts.authority.clone().map(ByteString),
        }
    }

    fn facts(self) -> Option<CertificateFacts> {
        let metadata = ObjectMeta {
            name: Some(self.origin.name.name.clone()),
            namespace: Some(self.origin.name.namespace.clone()),
            ..ObjectMeta::default()
        };
        let mut notes = Notes::new("Secret", &metadata, true, "").ok()?;
        notes.origin = self.origin;
        let chain: Vec<_> = self.chain.into_iter().map(|der| CertificateDer::from(der.0)).collect();
        let key = match self.form {
            KeyForm::Pkcs8 => PrivateKeyDer::Pkcs8(self.key.0.into()),
            KeyForm::Pkcs1 => PrivateKeyDer::Pkcs1(self.key.0.into()),
            KeyForm::Sec1 => PrivateKeyDer::Sec1(self.key.0.into()),
        };
        let mut facts = secret::from_der(&chain, Ok(key), &notes).ok()?;
        facts.authority = self.authority.map(|a| a.0);
        Some(facts)
    }
}

#[cfg(test)]
mod tests;
