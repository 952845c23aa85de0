//! What cargo-deny would say, without the network: every dependency's licence against the list in `deny.toml`, and
//! versions that are there twice. Where `cargo deny` itself is installed, it is asked instead.
//! Advisories need their database; without it this says that they were not checked, and never that all is well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{setup, steps};

pub(crate) fn check() -> Result<()> {
    let database = advisory_database();
    if setup::on_path("cargo-deny").is_some() {
        let mut deny = steps::cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]);
        if database.is_some() {
            deny.arg("advisories");
        } else {
            steps::note("advisories: not checked, their database is not on this machine (`cargo deny fetch`)");
        }
        return steps::run("cargo deny", &mut deny);
    }
    let list = steps::root().join("deny.toml");
    let text = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let allowed = string_list(&text, "allow").context("deny.toml has no list `allow`")?;
    let format = [
        "tree",
        "--workspace",
        "--all-features",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}\t{l}",
    ];
    let tree = steps::ask(&mut steps::cargo(&format))?;
    let mut faults = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut seen: Vec<&str> =
        tree.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty()).collect();
    seen.sort_unstable();
    seen.dedup();
    for line in &seen {
        let (package, licence) = line.split_once('\t').unwrap_or((line, ""));
        if !permitted(licence, &allowed) {
            faults.push(format!("{package}: `{licence}` is not covered by deny.toml's [licenses] allow"));
        }
        let mut words = package.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().push(version);
        }
    }
    let twice: Vec<String> =
        versions.iter().filter(|(_, v)| v.len() > 1).map(|(name, v)| format!("{name} {}", v.join(" and "))).collect();
    if !faults.is_empty() {
        bail!("licences that are not allowed:\n    {}", faults.join("\n    "));
    }
    steps::note(&format!("✓ licences of {} packages; there twice: {}", seen.len(), or_none(&twice)));
    steps::note("  advisories: not checked, cargo-deny is not installed (`cargo install cargo-deny`)");
    Ok(())
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn advisory_database() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = cargo.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    ["advisory-dbs", "advisory-db"].into_iter().map(|name| home.join(name)).find(|path| path.is_dir())
}

/// The strings of `key = [ … ]` in a TOML file that this project wrote itself.
fn string_list(text: &str, key: &str) -> Option<Vec<String>> {
    let start = text.lines().position(|line| line.split('=').next().is_some_and(|head| head.trim() == key))?;
    let rest: Vec<&str> = text.lines().skip(start).map(|line| line.split('#').next().unwrap_or_default()).collect();
    let body = rest.join("\n");
    let body = body.split_once('[')?.1.split_once(']')?.0;
    Some(body.split(',').map(|item| item.trim().trim_matches('"').to_owned()).filter(|item| !item.is_empty()).collect())
}

/// Evaluates an SPDX expression (`/` is what old manifests wrote for `OR`). `AND` binds tighter than `OR` (SPDX 2.3, annex D).
fn permitted(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "~WITH~");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    !tokens.is_empty() && either(&mut rest, allowed) && rest.is_empty()
}

fn either(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut result = both(rest, allowed);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        result |= both(rest, allowed);
    }
    result
}

fn both(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut result = one(rest, allowed);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        result &= one(rest, allowed);
    }
    result
}

fn one(rest: &mut &[&str], allowed: &[String]) -> bool {
    let Some((first, tail)) = rest.split_first() else { return false };
    *rest = tail;
    if *first != "(" {
        let licence = first.replace("~WITH~", " WITH ");
        return allowed.contains(&licence);
    }
    let result = either(rest, allowed);
    if rest.first() == Some(&")") {
        *rest = &rest[1..];
        return result;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spdx_expressions() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"].map(str::to_owned);
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("MIT/Apache-2.0", true),
            ("MIT AND GPL-3.0", false),
            ("ISC AND (MIT OR GPL-3.0)", true),
            ("GPL-2.0 AND MIT OR ISC", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("(MIT", false),
            ("", false),
        ] {
            assert_eq!(permitted(expression, &allowed), expected, "{expression}");
        }
    }

    #[test]
    fn the_list_is_read_over_several_lines() {
        let text = "[licenses]\nallow = [\n  \"MIT\", # simple\n  \"ISC\",\n]\n";
        assert_eq!(string_list(text, "allow"), Some(vec!["MIT".to_owned(), "ISC".to_owned()]));
    }
}
