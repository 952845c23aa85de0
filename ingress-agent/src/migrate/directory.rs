//! Manifests: a file, or every `*.yaml`, `*.yml` and `*.json` below a directory. What a file says is the agent's own reading of it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::Said;
use super::controller::Controller;
use super::inventory::{Inventory, SELECTOR, choose, options, sources};
use crate::sources::document::{split, values};
use crate::sources::store::Store;

/// As in a directory that an agent watches.
const LARGEST: u64 = 64 << 20;
/// Directories below each other: a link may lead back.
const DEEPEST: usize = 32;

pub(super) fn read(path: &Path, said: &Said) -> Result<Inventory> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    let metadata = fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
    if metadata.is_dir() {
        collect(path, path, 0, &mut files, &mut errors).with_context(|| format!("read {}", path.display()))?;
    } else {
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        files.push((name, text(path).map_err(anyhow::Error::msg)?));
    }
    let mut inventory = take(&files, errors, said, SystemTime::now());
    inventory.name = path.display().to_string();
    Ok(inventory)
}

pub(super) fn take(files: &[(String, String)], errors: Vec<String>, said: &Said, now: SystemTime) -> Inventory {
    let mut notes = Vec::new();
    let controller = choose(controllers(files), said, &mut notes);
    let options = options(controller.as_ref(), said);
    let mut store = Store::new(sources(controller.as_ref(), &options));
    for (name, text) in files {
        store.put(name, Ok(text));
    }
    let facts = store.publish(now, &[]).map(|facts| (*facts).clone()).unwrap_or_default();
    let selector = controller.as_ref().and_then(|c| c.value(SELECTOR)).filter(|labels| !labels.is_empty());
    if let Some(labels) = selector {
        notes
            .push(format!("the labels of namespaces are not known here, so that all of them are taken for `{labels}`"));
    }
    let (name, chosen) = (String::new(), None);
    Inventory { name, facts, options, controller, chosen, notes, errors }
        .without_missing_settings(said)
        .with_usual_class()
}

/// Those are of kinds that the agent does not read.
fn controllers(files: &[(String, String)]) -> Vec<Controller> {
    let mut found = Vec::new();
    for (name, text) in files {
        let json = ending(name) == "json";
        let documents = if json { vec![crate::sources::document::Document { text, line: 1 }] } else { split(text) };
        for (i, document) in documents.into_iter().enumerate() {
            // What it is must be written in it.
            if !document.text.contains("Deployment") && !document.text.contains("DaemonSet") {
                continue;
            }
            let place = format!("{name}, document {}", i + 1);
            // What cannot be read is told by the store.
            let objects = values(document, json).unwrap_or_default();
            found.extend(objects.iter().filter_map(|object| Controller::read(object, &place)));
        }
    }
    found
}

fn collect(
    top: &Path,
    directory: &Path,
    depth: usize,
    files: &mut Vec<(String, String)>,
    errors: &mut Vec<String>,
) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.')) else { continue };
        let shown = path.strip_prefix(top).unwrap_or(&path).display().to_string();
        let manifest = ["yaml", "yml", "json"].contains(&ending(name));
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && depth < DEEPEST => {
                if let Err(e) = collect(top, &path, depth + 1, files, errors) {
                    errors.push(format!("{shown} cannot be read: {e}"));
                }
            }
            Ok(metadata) if metadata.is_dir() => errors.push(format!("{shown} lies too deep")),
            Ok(_) if manifest => match text(&path) {
                Ok(text) => files.push((shown, text)),
                Err(why) => errors.push(why),
            },
            Err(e) if manifest => errors.push(format!("{shown} cannot be read: {e}")),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

fn ending(name: &str) -> &str {
    Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default()
}

fn text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let size = fs::metadata(path).map_err(|e| format!("{shown} cannot be read: {e}"))?;
    if !size.is_file() || size.len() > LARGEST {
        return Err(format!("{shown} is no file of at most {} MiB", LARGEST >> 20));
    }
    fs::read_to_string(path).map_err(|e| format!("{shown} cannot be read: {e}"))
}
