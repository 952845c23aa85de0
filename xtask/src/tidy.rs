//! `cargo xtask tidy`: the rules of `ARCHITECTURE.md` and of the style that the compiler does not know. Prints every fault
//! with its file and line. It reads text only: never builds, never changes a file.

mod files;
mod readme;
mod rooms;
mod source;
mod words;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::steps;
use source::Source;

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    path: String,
    /// From 1; 0 is the whole file.
    line: usize,
    text: String,
}

impl Fault {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

pub(crate) fn tidy() -> Result<()> {
    let faults = faults(&steps::root())?;
    for fault in &faults {
        println!("  {}:{}: {}", fault.path, fault.line, fault.text);
    }
    if !faults.is_empty() {
        bail!("tidy: {} faults", faults.len());
    }
    steps::note("✓ tidy");
    Ok(())
}

/// All faults of a tree, in the order of files and lines.
fn faults(root: &Path) -> Result<Vec<Fault>> {
    let mut sources = Vec::new();
    let mut texts = Vec::new();
    walk(root, root, &mut sources, &mut texts)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    let mut faults = Vec::new();
    for source in &sources {
        faults.extend(rooms::check(source));
        faults.extend(files::check(source));
        faults.extend(words::check(source));
    }
    faults.extend(files::stale_exceptions(&sources));
    for (path, text) in &texts {
        faults.extend(words::no_machine_path(path, text));
    }
    if let Some((path, text)) = texts.iter().find(|(path, _)| path == "README.md") {
        faults.extend(readme::check(path, text, &sources));
    }
    faults.sort();
    Ok(faults)
}

/// Reads every text file of the project: Rust sources apart, the others as they are.
fn walk(root: &Path, directory: &Path, sources: &mut Vec<Source>, texts: &mut Vec<(String, String)>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    for entry in entries {
        let path = entry.context("read a directory entry")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" && !path.is_symlink() {
                walk(root, &path, sources, texts)?;
            }
            continue;
        }
        let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        // In a worktree `.git` is a file.
        if name == ".git" {
            continue;
        }
        // What is not UTF-8 is not ours to judge.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::new(&relative, &text));
        }
        texts.push((relative, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let faults = faults(&steps::root()).expect("the tree can be read");
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
