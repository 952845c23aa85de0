//! A Go tool chain, for the Kubernetes control plane that the tests run against. Uses one that is new enough; else lets an older
//! `go` (Debian's, if there is none) fetch the wanted one as the Go module that Go itself publishes its tool chains as.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, on_path};
use crate::steps;

/// The release that is fetched where none is new enough.
const RELEASE: &str = "1.26.4";
/// Where Go's own archives are unpacked, although `PATH` may lack it.
const USUAL_PLACE: &str = "/usr/local/go/bin/go";

/// A `go` of at least `wanted` (such as `1.26.0`), installed if need be.
pub(crate) fn prepare(wanted: &str) -> Result<PathBuf> {
    let found: Vec<PathBuf> =
        [on_path("go"), Some(PathBuf::from(USUAL_PLACE)).filter(|go| go.is_file())].into_iter().flatten().collect();
    if let Some(go) = found.iter().find(|go| version(go).is_ok_and(|version| at_least(&version, wanted))) {
        return Ok(go.clone());
    }
    let old = match found.into_iter().next() {
        Some(go) => go,
        None => install_some()?,
    };
    if version(&old).is_ok_and(|version| at_least(&version, wanted)) {
        return Ok(old);
    }
    fetch(&old)
}

fn install_some() -> Result<PathBuf> {
    if !apt::known_system() {
        bail!(
            "no Go here, which builds the tests' Kubernetes control plane: install Go {RELEASE} or newer ({})",
            apt::pretty_name()
        );
    }
    apt::install("install Go", &["golang-go"])?;
    on_path("go").context("the package golang-go brought no program `go`")
}

/// Go publishes each release as a version of the module `golang.org/toolchain`, so the proxy that serves modules serves it too.
fn fetch(old: &Path) -> Result<PathBuf> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no Go tool chain is known for {other}: install Go {RELEASE} or newer and put it in PATH"),
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{RELEASE}.linux-{arch}");
    let root = PathBuf::from(module_cache(old)?).join(&module);
    let go = root.join("bin/go");
    if !version(&go).is_ok_and(|version| version == RELEASE) {
        steps::note(&format!("{} is too old to build Kubernetes; it fetches a newer Go as a module", old.display()));
        // Outside any module, or an old Go would reject what this project's `go.mod` asks for.
        let mut download = Command::new(old);
        download
            .args(["mod", "download", &module])
            .current_dir("/")
            .env("GO111MODULE", "on")
            .env("GOFLAGS", "-mod=mod");
        steps::run(&format!("fetch Go {RELEASE}"), &mut download)?;
        make_executable(&root)?;
    }
    if !version(&go).is_ok_and(|version| version == RELEASE) {
        bail!("{} does not start: remove {} and try again", go.display(), root.display());
    }
    Ok(go)
}

/// `go env GOMODCACHE`; Go before 1.15 has no such variable and keeps modules in `GOPATH/pkg/mod`.
fn module_cache(go: &Path) -> Result<String> {
    let cache = steps::ask(Command::new(go).args(["env", "GOMODCACHE"]).current_dir("/"))?.trim().to_owned();
    if !cache.is_empty() {
        return Ok(cache);
    }
    Ok(format!("{}/pkg/mod", steps::ask(Command::new(go).args(["env", "GOPATH"]).current_dir("/"))?.trim()))
}

/// The module cache holds files without their executable bits. `go` sets them itself only for tool chains that it chose.
fn make_executable(root: &Path) -> Result<()> {
    let mut directories = vec![root.join("bin"), root.join("pkg/tool")];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
        for entry in entries {
            let path = entry.context("read a directory entry")?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o555))
                .with_context(|| format!("make {} executable", path.display()))?;
        }
    }
    Ok(())
}

/// `1.26.4` of `go version go1.26.4 linux/amd64`.
pub(crate) fn version(go: &Path) -> Result<String> {
    // Not in this project: a newer Go would fetch the tool chain that `go.mod` names and answer for that.
    let said = steps::ask(Command::new(go).arg("version").current_dir("/").env("GOTOOLCHAIN", "local"))?;
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("go1.").map(|rest| format!("1.{rest}")));
    version.with_context(|| format!("`go version` names no version: {said}"))
}

fn at_least(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        // `1.27rc1` is before 1.27.0, and new enough for anything before 1.27.
        text.split('.')
            .map(|part| part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("").parse().unwrap_or(0))
            .collect()
    };
    let (mut version, mut wanted) = (numbers(version), numbers(wanted));
    version.resize(3, 0);
    wanted.resize(3, 0);
    version >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, wanted, enough) in [
            ("1.26.8", "1.26.0", true),
            ("1.26", "1.26.0", true),
            ("1.100.1", "1.26.0", true),
            ("1.27rc1", "1.26.0", true),
            ("1.19.8", "1.26.0", false),
            ("1.25.9", "1.26", false),
            ("2.0", "1.26.0", true),
        ] {
            assert_eq!(at_least(version, wanted), enough, "{version} {wanted}");
        }
    }
}
