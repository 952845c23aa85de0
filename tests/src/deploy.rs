//! What `deploy/` ships, and the image: where it is, how it is rendered and unpacked.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::container::Unpacked;
use crate::edge::sibling;

/// A file or directory of `deploy/`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// The `ServiceAccount` of the agents, and what the base grants it, for `kubectl apply`. Its comments are left, and each rule
/// begins with `- apiGroups:`, so that a test can take one away.
pub fn rights() -> String {
    let file = |name: &str| {
        let path = path("kustomize/base").join(format!("{name}.yaml"));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    // As kustomize puts them into the namespace.
    let metadata = "metadata:\n  name: sluicegate\n";
    let placed = |name: &str| file(name).replace(metadata, &format!("{metadata}  namespace: sluicegate-system\n"));
    [file("namespace"), placed("service-account"), file("cluster-role"), placed("role")].join("---\n")
}

/// [`rights`] without the rule of one resource.
pub fn rights_without(resource: &str) -> String {
    let rights = rights();
    let rule = format!("  resources: [{resource}]\n");
    let at = rights.find(&rule).unwrap_or_else(|| panic!("no rule is of {resource} alone"));
    let begin = rights[..at].rfind("- apiGroups:").expect("a rule begins");
    let end =
        at + rights[at..].find("verbs:").and_then(|v| Some(v + rights[at + v..].find('\n')? + 1)).expect("it ends");
    format!("{}{}", &rights[..begin], &rights[end..])
}

/// Helm, beside cargo's own directories.
pub fn helm() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let path = own.ancestors().skip(1).take(4).map(|directory| directory.join("helm/helm")).find(|path| path.is_file());
    path.context("Helm is not built: run `cargo xtask setup`, or the tests by `cargo xtask test`")
}

/// Runs a command to its end and gives its output; an error holds all of it.
pub fn run(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("start {command:?}"))?;
    let (said, complaint) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{command:?} failed ({}): {said}{complaint}", out.status);
    Ok(said.into_owned())
}

/// Packs the agent that was built beside this program. The one that is shipped is built with optimisations, and stripped.
pub fn pack(archive: &Path) -> Result<String> {
    pack_program(&sibling("sluicegate")?, archive)
}

/// Packs another program as if it were the agent.
pub fn pack_program(program: &Path, archive: &Path) -> Result<String> {
    let origin = sluicegate_image::Origin {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: String::new(),
        created: "2026-01-02T03:04:05Z".to_owned(),
    };
    sluicegate_image::pack(program, &origin, archive)
}

/// Unpacks an OCI archive as a runtime does: by its index, every blob checked by the digest that names it.
pub fn unpack(archive: &Path, directory: &Path) -> Result<Unpacked> {
    let layout = directory.join("layout");
    tar::Archive::new(File::open(archive).context("open the archive")?)
        .unpack(&layout)
        .context("unpack the archive")?;
    let marker: Value = read_json(&fs::read(layout.join("oci-layout")).context("read oci-layout")?)?;
    ensure!(marker["imageLayoutVersion"] == "1.0.0", "{marker}");
    let index: Value = read_json(&fs::read(layout.join("index.json")).context("read index.json")?)?;
    ensure!(index["manifests"].as_array().is_some_and(|m| m.len() == 1), "{index}");
    let manifest: Value = read_json(&blob(&layout, &index["manifests"][0])?)?;
    let config: Value = read_json(&blob(&layout, &manifest["config"])?)?;
    let root = directory.join("root");
    let layers = manifest["layers"].as_array().context("layers")?;
    for (layer, id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().context("diff_ids")?) {
        let mut tar = Vec::new();
        GzDecoder::new(blob(&layout, layer)?.as_slice()).read_to_end(&mut tar).context("decompress a layer")?;
        ensure!(*id == digest(&tar), "the layer's tar is not what the configuration says");
        tar::Archive::new(tar.as_slice()).unpack(&root).context("unpack a layer")?;
    }
    let entrypoint = serde_json::from_value(config["config"]["Entrypoint"].clone()).context("an entrypoint")?;
    Ok(Unpacked { root, entrypoint })
}

fn blob(layout: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let named = descriptor["digest"].as_str().context("a digest")?;
    let bytes =
        fs::read(layout.join("blobs").join(named.replace(':', "/"))).with_context(|| format!("read {named}"))?;
    ensure!(digest(&bytes) == named, "the blob {named} is another");
    ensure!(descriptor["size"] == bytes.len(), "the blob {named} is of another size");
    Ok(bytes)
}

fn digest(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    hash.as_ref().iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn read_json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).context("read JSON")
}
