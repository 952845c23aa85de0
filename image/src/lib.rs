//! An OCI image of the agent, made of its binary and the shared libraries that this links, on nothing else. No container engine
//! is needed, nor a network. The same files give the same archive, byte for byte: owners, modes, times and orders are fixed.
//!
//! The image runs as root, and says so: XDP, pins and addresses take capabilities, and Kubernetes gives capabilities to root
//! only (the DaemonSet in `deploy/` takes all but five of them away).

mod layer;

mod libraries;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use oci_spec::image::{
    ANNOTATION_CREATED, ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REF_NAME, ANNOTATION_REVISION,
    ANNOTATION_SOURCE, ANNOTATION_TITLE, ANNOTATION_VERSION, Arch, ConfigBuilder, Descriptor, DescriptorBuilder,
    HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder,
    Os, PlatformBuilder, RootFsBuilder, Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use layer::{Layer, append};

/// Where the binary is, in the image.
pub const PROGRAM: &str = "/sluicegate";
/// What a registry of its own would call the project.
const REPOSITORY: &str = "ghcr.io/sluicegate/sluicegate";

/// What the image says of itself.
#[derive(Clone, Debug)]
pub struct Origin {
    pub version: String,
    /// The commit; empty: unknown.
    pub revision: String,
    /// RFC 3339.
    pub created: String,
}

/// Packs a binary into an OCI archive: an image layout in a tar. Returns the image's digest, `sha256:…`.
pub fn pack(binary: &Path, origin: &Origin, archive: &Path) -> Result<String> {
    let layer = Layer::of(binary, &libraries::of(binary)?)?;
    let mut blobs = Blobs::default();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => anyhow::bail!("no image is known for {other}"),
    };
    let labels = labels(origin);
    let config = ImageConfigurationBuilder::default()
        .created(origin.created.clone())
        .architecture(architecture.clone())
        .os(Os::Linux)
        .config(
            ConfigBuilder::default()
                .user("0:0")
                .entrypoint(vec![PROGRAM.to_owned()])
                .working_dir("/")
                .labels(labels.clone())
                .stop_signal("SIGTERM")
                .build()?,
        )
        .rootfs(RootFsBuilder::default().typ("layers").diff_ids(vec![digest(&layer.tar)]).build()?)
        .history(vec![
            HistoryBuilder::default().created(origin.created.clone()).created_by("cargo xtask image").build()?,
        ])
        .build()
        .context("describe the configuration")?;
    let config = blobs.add(MediaType::ImageConfig, json(&config)?)?;
    let layer = blobs.add(MediaType::ImageLayerGzip, layer.compressed()?)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(vec![layer])
        .annotations(labels)
        .build()
        .context("describe the image")?;
    let mut image = blobs.add(MediaType::ImageManifest, json(&manifest)?)?;
    image.set_platform(Some(PlatformBuilder::default().architecture(architecture).os(Os::Linux).build()?));
    // What `ctr images import`, `podman load` and `skopeo copy` call it.
    let tag = format!("{REPOSITORY}:{}", origin.version);
    let names = [(ANNOTATION_REF_NAME, origin.version.clone()), ("io.containerd.image.name", tag)];
    image.set_annotations(Some(names.map(|(key, value)| (key.to_owned(), value)).into()));
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![image.clone()])
        .build()
        .context("describe the index")?;
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
    blobs.write(archive, &json(&layout)?, &json(&index)?)?;
    Ok(image.digest().to_string())
}

fn labels(origin: &Origin) -> HashMap<String, String> {
    let mut labels = vec![
        (ANNOTATION_TITLE, "sluicegate"),
        (ANNOTATION_DESCRIPTION, "Edge load balancer for bare-metal Kubernetes"),
        // The agent's, its packet programs', and those of the C library and of libgcc.
        (
            ANNOTATION_LICENSES,
            "Apache-2.0 AND (MIT OR GPL-2.0-only) AND LGPL-2.1-or-later AND GPL-3.0-or-later WITH GCC-exception-3.1",
        ),
        (ANNOTATION_SOURCE, env!("CARGO_PKG_REPOSITORY")),
        (ANNOTATION_VERSION, origin.version.as_str()),
        (ANNOTATION_CREATED, origin.created.as_str()),
    ];
    if !origin.revision.is_empty() {
        labels.push((ANNOTATION_REVISION, &origin.revision));
    }
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Content by digest, in the order of its making.
#[derive(Default)]
struct Blobs(Vec<(String, Vec<u8>)>);

impl Blobs {
    fn add(&mut self, media_type: MediaType, bytes: Vec<u8>) -> Result<Descriptor> {
        let hex = hex(&bytes);
        let digest: Sha256Digest = hex.parse().context("a SHA-256 digest")?;
        let descriptor =
            DescriptorBuilder::default().media_type(media_type).digest(digest).size(bytes.len() as u64).build()?;
        self.0.push((hex, bytes));
        Ok(descriptor)
    }

    fn write(&self, archive: &Path, layout: &[u8], index: &[u8]) -> Result<()> {
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "oci-layout", 0o644, layout)?;
        append(&mut tar, "index.json", 0o644, index)?;
        for (hex, bytes) in &self.0 {
            append(&mut tar, &format!("blobs/sha256/{hex}"), 0o644, bytes)?;
        }
        let bytes = tar.into_inner().context("end the archive")?;
        // Renamed into place: nobody finds half of one.
        let half = archive.with_extension("part");
        let mut file = fs::File::create(&half).with_context(|| format!("create {}", half.display()))?;
        file.write_all(&bytes).with_context(|| format!("write {}", half.display()))?;
        fs::rename(&half, archive).with_context(|| format!("rename it to {}", archive.display()))
    }
}

/// With the keys of every map in order: `oci-spec` keeps labels in hash maps, and serialises them in no order.
fn json(document: &impl Serialize) -> Result<Vec<u8>> {
    let value = serde_json::to_value(document).context("serialise a document")?;
    Ok(serde_json::to_vec(&value)?)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
