//! The image's one layer: which files it holds, with everything about them fixed that does not come from their content.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use crate::PROGRAM;

/// Where the agent keeps its socket and its state, and where the node's things are mounted. They are there for an engine that runs the
/// image with a read-only root.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "host",
    "host/proc",
    "host/proc/sys",
    "host/proc/sys/net",
    "proc",
    "run",
    "run/sluicegate",
    "sys",
    "var",
    "var/lib",
    "var/lib/sluicegate",
];

/// A layer's tar, not compressed.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) tar: Vec<u8>,
}

impl Layer {
    /// The program and its libraries, these under the paths by which it looks for them.
    pub(crate) fn of(binary: &Path, libraries: &[PathBuf]) -> Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut directories: Vec<String> = DIRECTORIES.iter().map(|&d| d.to_owned()).collect();
        for library in libraries {
            directories.extend(library.ancestors().skip(1).map(inside).filter(|d| !d.is_empty()));
        }
        directories.sort();
        directories.dedup();
        for directory in directories {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, format!("{directory}/"), std::io::empty()).context("add a directory")?;
        }
        append(&mut tar, &inside(Path::new(PROGRAM)), 0o755, &read(binary)?)?;
        for library in libraries {
            // What the path leads to: the versioned file behind the link.
            append(&mut tar, &inside(library), 0o755, &read(library)?)?;
        }
        Ok(Self { tar: tar.into_inner().context("end the layer")? })
    }

    pub(crate) fn compressed(&self) -> Result<Vec<u8>> {
        // No name and no time in the head.
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(&self.tar).context("compress the layer")?;
        gzip.finish().context("compress the layer")
    }
}

/// Adds a file of root's, from the beginning of time.
pub(crate) fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("add {path}"))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A path as an archive names it: without the leading slash.
fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
