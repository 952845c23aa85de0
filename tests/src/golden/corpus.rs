//! The recorded cases as they stand on disk. A folder that cannot be read fails the run by its name: nothing is passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ingress_agent::sources::document::split;
use serde_json::Value;

/// Where the recordings are: beside the repository, or where `SLUICEGATE_GOLDEN` says.
pub fn directory() -> Result<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden/ingress-nginx");
    let directory = std::env::var_os("SLUICEGATE_GOLDEN").map_or(beside, PathBuf::from);
    ensure!(
        directory.join("000-fixtures/manifests.yaml").is_file(),
        "the recorded answers of ingress-nginx are missing: there is no {}/000-fixtures/manifests.yaml (SLUICEGATE_GOLDEN names \
         another place)",
        directory.display()
    );
    Ok(directory)
}

pub struct Corpus {
    pub directory: PathBuf,
    pub fixtures: Vec<Value>,
    pub cases: Vec<Case>,
}

#[derive(Clone)]
pub struct Case {
    /// `003-path-implspecific`.
    pub name: String,
    pub objects: Vec<Value>,
    /// Extra flags of the controller.
    pub flags: Vec<String>,
    pub steps: Vec<Value>,
}

impl Corpus {
    pub fn read() -> Result<Self> {
        let directory = directory()?;
        let fixtures = objects(&text(&directory.join("000-fixtures/manifests.yaml"))?)?;
        let mut names: Vec<String> = fs::read_dir(&directory)?
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|n| n.starts_with(|c: char| c.is_ascii_digit()) && n != "000-fixtures")
            .collect();
        names.sort();
        let read =
            |name: String| Case::read(&directory.join(&name), name.clone()).with_context(|| format!("case {name}"));
        let cases = names.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Self { directory, fixtures, cases })
    }
}

impl Case {
    fn read(folder: &Path, name: String) -> Result<Self> {
        let manifests = text(&folder.join("manifests.yaml"))?;
        let flags = manifests.lines().find_map(|l| l.strip_prefix("# Extra controller flags: "));
        let flags = flags.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let steps = serde_json::from_str(&text(&folder.join("cases.json"))?).context("cases.json")?;
        Ok(Self { name, objects: objects(&manifests)?, flags, steps })
    }

    /// The same with other settings.
    #[must_use]
    pub fn with_settings(&self, settings: &BTreeMap<String, String>) -> Self {
        let mut case = self.clone();
        for object in &mut case.objects {
            let named = object.pointer("/metadata/name").is_some_and(|name| name == "ingress-nginx-controller");
            if named && object["kind"] == "ConfigMap" {
                for (key, value) in settings {
                    object["data"][key] = value.as_str().into();
                }
            }
        }
        case
    }

    /// What the case is about, by its number.
    pub fn area(&self) -> &'static str {
        let number: u32 = self.name[..3].parse().unwrap_or(0);
        match number {
            0..=23 | 333 | 340 => "hosts and paths",
            24..=35 | 326 => "regex and rewrite",
            36..=66 | 337 | 338 => "redirects, TLS, aliases",
            100..=125 => "header fields",
            126..=136 | 142 | 143 => "targets and framing",
            137..=166 | 294 | 295 | 331 | 334 | 335 => "backends, timeouts, tries",
            167..=200 => "limits",
            201..=218 | 329 => "canary",
            219..=228 | 328 => "affinity, hashing",
            229..=260 => "authentication",
            261..=270 => "access lists",
            271..=277 => "CORS",
            278..=284 => "client certificates",
            285..=289 | 327 | 345 | 346 | 347 => "errors, default backend",
            320..=325 => "TLS to backends",
            400.. => "admission",
            _ => "other",
        }
    }
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn objects(manifests: &str) -> Result<Vec<Value>> {
    let read = |d: ingress_agent::sources::document::Document<'_>| {
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(d.text, options).context("a manifest is no YAML")
    };
    split(manifests).into_iter().map(read).collect()
}
