//! The two lists of recorded requests that are not answered alike: those that deliberately differ, each with a reason that a user would
//! accept, and those whose behaviour is not built yet. Both may only hold what truly differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// `golden-ingress-nginx/deliberate.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deliberate {
    case: String,
    /// Numbers from 1, as in cases.json; without it all of them.
    requests: Option<String>,
    reason: String,
    /// Settings with which they are answered alike: what a user who wants that would write.
    #[serde(default)]
    remedy: BTreeMap<String, String>,
}

pub struct Lists {
    pub deliberate: BTreeMap<(String, usize), String>,
    pub not_yet: BTreeSet<(String, usize)>,
    /// By case: settings, and the requests that are answered alike with them.
    pub remedies: BTreeMap<String, (BTreeMap<String, String>, BTreeSet<usize>)>,
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden-ingress-nginx").join(name)
}

impl Lists {
    /// `steps` says how many steps a case has.
    pub fn read(steps: &BTreeMap<String, usize>) -> Result<Self> {
        let text =
            |name: &str| std::fs::read_to_string(file(name)).with_context(|| format!("read {}", file(name).display()));
        let entries: Vec<Deliberate> = serde_saphyr::from_str(&text("deliberate.yaml")?).context("deliberate.yaml")?;
        let (mut deliberate, mut remedies) = (BTreeMap::new(), BTreeMap::new());
        for entry in entries {
            let count =
                *steps.get(&entry.case).with_context(|| format!("deliberate.yaml: there is no case {}", entry.case))?;
            ensure!(entry.reason.len() > 20, "deliberate.yaml: {} needs a reason", entry.case);
            let which = numbers(entry.requests.as_deref().unwrap_or("all"), count)?;
            if !entry.remedy.is_empty() {
                remedies.insert(entry.case.clone(), (entry.remedy, which.iter().copied().collect()));
            }
            for number in which {
                deliberate.insert((entry.case.clone(), number), entry.reason.clone());
            }
        }
        let entries: BTreeMap<String, String> =
            serde_saphyr::from_str(&text("not-yet.yaml")?).context("not-yet.yaml")?;
        let mut not_yet = BTreeSet::new();
        for (case, which) in entries {
            let count = *steps.get(&case).with_context(|| format!("not-yet.yaml: there is no case {case}"))?;
            not_yet.extend(numbers(&which, count)?.into_iter().map(|n| (case.clone(), n)));
        }
        Ok(Self { deliberate, not_yet, remedies })
    }

    /// Writes what is not built yet anew.
    pub fn write_not_yet(failing: &BTreeSet<(String, usize)>) -> Result<()> {
        let mut by_case: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (case, number) in failing {
            by_case.entry(case).or_default().push(number.to_string());
        }
        let mut text = "# Recorded requests whose behaviour is not built yet: case, and numbers of its requests from 1.\n\
            # `UPDATE_GOLDEN=1 cargo test -p ingress-tests --test proxy_golden` writes this; read the difference before you commit it.\n"
            .to_owned();
        for (case, numbers) in by_case {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{case}: \"{}\"", numbers.join(" "));
        }
        if failing.is_empty() {
            text += "{}\n";
        }
        std::fs::write(file("not-yet.yaml"), text).context("write not-yet.yaml")
    }
}

/// `1 3 5-7`, or `all`.
fn numbers(text: &str, count: usize) -> Result<Vec<usize>> {
    if text == "all" {
        return Ok((1..=count).collect());
    }
    let mut numbers = Vec::new();
    for part in text.split_whitespace() {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse()?, to.parse()?);
        ensure!(from >= 1 && to <= count, "there is no request {part} of {count}");
        numbers.extend(from..=to);
    }
    Ok(numbers)
}
