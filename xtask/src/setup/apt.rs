//! Packages of Debian and Ubuntu. Never lets an installed package start a service, and never changes anything on
//! another system: there it says what is wanted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::{setup, steps};

/// Debian's hook for "may this package start its service?"; 101 means no (Debian Policy, invoke-rc.d).
const POLICY: &str = "/usr/sbin/policy-rc.d";
const DENY: &str = "#!/bin/sh\n# Written by cargo xtask setup while it installs packages.\nexit 101\n";

/// Installs packages, without what they only recommend.
pub(crate) fn install(what: &str, packages: &[&str]) -> Result<()> {
    if !known_system() {
        bail!(
            "this is neither Debian nor Ubuntu ({}): install by hand what these packages hold there, then run this again:\n    {}",
            pretty_name(),
            packages.join(" ")
        );
    }
    steps::need_root("setup", &format!("it installs {}", packages.join(" ")))?;
    update();
    let _quiet = NoServices::new()?;
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    steps::run(&format!("{what}: {}", packages.join(" ")), &mut command)
}

/// Whether the archive has a package. Updates the lists first if they were never fetched.
pub(crate) fn offers(package: &str) -> bool {
    if !known_system() {
        return false;
    }
    update();
    let policy = steps::ask(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    policy.lines().any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)"))
}

/// Those of the packages that are not installed, with one question.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    // dpkg-query fails when it knows one of them not at all, and still answers for the rest.
    let answer =
        Command::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).args(packages).output();
    let answer = answer.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    packages
        .iter()
        .copied()
        .filter(|package| !answer.lines().any(|line| line == format!("{package} installed")))
        .collect()
}

pub(crate) fn known_system() -> bool {
    let like = os_release("ID").unwrap_or_default() + " " + &os_release("ID_LIKE").unwrap_or_default();
    like.split([' ', '"']).any(|word| word == "debian" || word == "ubuntu") && setup::on_path("apt-get").is_some()
}

pub(crate) fn pretty_name() -> String {
    os_release("PRETTY_NAME").unwrap_or_else(|| "unknown system".to_owned()).trim_matches('"').to_owned()
}

/// Once a run, and only when something is to be installed. One unreachable extra archive must not stop an install from
/// the others, so a failure here is only told.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = steps::run("fetch the package lists", apt_get().arg("update")) {
            steps::note(&format!("going on with the lists at hand ({error:#})"));
        }
    });
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Acquire::Retries=3",
    ]);
    command
}

fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
}

/// While it lives, no package starts a service. A policy of the system's own is left alone: it is the operator's word.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        let left_by_a_crash = fs::read_to_string(POLICY).is_ok_and(|text| text == DENY);
        if Path::new(POLICY).exists() && !left_by_a_crash {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, DENY).with_context(|| format!("write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {POLICY} executable"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
