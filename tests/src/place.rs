//! A directory for an agent's manifests, log and socket, and a path for its pins, both named after the process and removed on
//! drop. What a crashed process left is removed by the next one that makes a place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const PREFIX: &str = "sluicegate-test-";
const BPFFS: &str = "/sys/fs/bpf";

#[derive(Debug)]
pub struct Place {
    pub directory: PathBuf,
    pub pins: PathBuf,
}

impl Place {
    /// `label` must be unique among the places of one process. `DIRECTORY/manifests` exists and is empty.
    pub fn new(label: &str) -> Result<Self> {
        remove_stale();
        let name = format!("{PREFIX}{label}-{}", std::process::id());
        let place = Self { directory: std::env::temp_dir().join(&name), pins: Path::new(BPFFS).join(&name) };
        let manifests = place.directory.join("manifests");
        fs::create_dir_all(&manifests).with_context(|| format!("create {}", manifests.display()))?;
        Ok(place)
    }

    /// Writes a manifest before an agent runs; to change one under it, see [`crate::edge::Agent::write`].
    pub fn manifest(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.directory.join("manifests").join(name), text).with_context(|| format!("write {name}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(&self.pins);
    }
}

fn remove_stale() {
    for parent in [Path::new(BPFFS), &std::env::temp_dir()] {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit('-').next()?.parse::<u32>().ok());
            if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}
