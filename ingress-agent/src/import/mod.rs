//! `sluicegate import keepalived.conf`: what a keepalived configuration means for us, as options of `run` and as manifests, and, line by
//! line, what could not be carried over. Nothing is executed and nothing on the machine is looked at but the files.

mod ipvs;

mod syntax;

mod vrrp;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syntax::{Files, Place, Statement};

/// Namespace of the manifests.
const NAMESPACE: &str = "default";

/// What a configuration became.
#[derive(Debug, Default)]
pub struct Imported {
    /// Options of `sluicegate run`, each with its value.
    pub options: Vec<(&'static str, Option<String>)>,
    /// Services and EndpointSlices, as YAML documents.
    pub manifests: Vec<String>,
    /// What was not carried over, or works differently, in the order of the file.
    notes: Vec<(Place, String)>,
}

impl Imported {
    fn note(&mut self, at: &Statement, why: impl Into<String>) {
        self.notes.push((at.place.clone(), why.into()));
    }

    fn left_out(&mut self, at: &Statement, why: &str) {
        self.note(at, format!("`{}` is not carried over: {why}", at.text()));
    }

    /// One line a remark: `keepalived.conf:12: …`.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().map(|(place, why)| format!("{place}: {why}"))
    }

    /// The options as a person would type them, in comments, then the manifests.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        if !self.options.is_empty() {
            out += "# sluicegate run --manifests DIR \\\n";
        }
        for (i, (option, value)) in self.options.iter().enumerate() {
            let value = value.as_ref().map_or(String::new(), |v| format!(" {}", quoted(v)));
            let more = if i + 1 < self.options.len() { " \\" } else { "" };
            let _ = writeln!(out, "#   {option}{value}{more}");
        }
        for manifest in &self.manifests {
            out += "---\n";
            out += manifest;
        }
        out
    }
}

/// For a POSIX shell.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,%".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "'\\''"))
    }
}

/// Reads a configuration and the files that it includes. Fails only where the file itself cannot be read.
pub fn import(path: &Path) -> Result<Imported> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(convert(&path.display().to_string(), &String::from_utf8_lossy(&text), &OnDisk))
}

fn convert(name: &str, text: &str, files: &dyn Files) -> Imported {
    let parsed = syntax::parse(name, text, files);
    let mut out = Imported { notes: parsed.faults, ..Imported::default() };
    let mut rest = Vec::new();
    let held = vrrp::convert(&parsed.statements, &mut out, &mut rest);
    ipvs::convert(&rest, &held, &mut out);
    out.notes.sort_by(|(a, _), (b, _)| (a.file != name, &a.file, a.line).cmp(&(b.file != name, &b.file, b.line)));
    out
}

struct OnDisk;

impl Files for OnDisk {
    fn read(&self, pattern: &str, beside: &Path) -> Result<Vec<(String, String)>, String> {
        let whole: PathBuf = beside.join(pattern);
        let named = |path: &Path| {
            let text = fs::read(path).map_err(|e| e.to_string())?;
            Ok((path.display().to_string(), String::from_utf8_lossy(&text).into_owned()))
        };
        let wanted = whole.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((head, tail)) = wanted.split_once('*') else { return Ok(vec![named(&whole)?]) };
        if tail.contains(['*', '?', '[']) || head.contains(['?', '[']) {
            return Err("of glob(7) only one `*` in the file's name is understood".into());
        }
        let directory = whole.parent().unwrap_or(Path::new("."));
        let entries = fs::read_dir(directory).map_err(|e| e.to_string())?;
        let mut names: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        names.retain(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail) && path.is_file()
        });
        names.sort();
        names.iter().map(|path| named(path)).collect()
    }
}
