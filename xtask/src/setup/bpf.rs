//! The tool chain that compiles the BPF programs: a Rust compiler with its library's source, and `bpf-linker` built against
//! the same LLVM. Prefers what the user has (a nightly with `rust-src`), else Debian's own `rustc-web`; downloads a
//! tool chain from rustup's servers only where neither can be had.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::{apt, on_path};
use crate::steps;

const LINKER_VERSION: &str = "0.13.0";
/// The name under which Debian's compiler is linked into rustup; also the default of `ingress-agent/build.rs`.
pub(crate) const DEBIAN: &str = "bpf";
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];
/// Set by a user who wants another tool chain; also what `ingress-agent/build.rs` reads.
const VARIABLE: &str = crate::build::TOOLCHAIN_VARIABLE;

/// The tool chain's name in rustup.
pub(crate) fn chosen() -> Result<String> {
    if let Ok(name) = std::env::var(VARIABLE) {
        return Ok(name);
    }
    match ["nightly", DEBIAN].into_iter().find(|name| has_library_source(name)) {
        Some(name) => Ok(name.to_owned()),
        None => bail!("no tool chain can build the BPF programs: run `cargo xtask setup` (as root)"),
    }
}

pub(crate) fn prepare() -> Result<()> {
    if on_path("rustup").is_none() {
        bail!("rustup is not installed: the BPF programs need a second tool chain beside yours; see https://rustup.rs");
    }
    let toolchain = if let Ok(name) = chosen() { name } else { install_toolchain()? };
    if linker_works() {
        return Ok(());
    }
    install_linker(&toolchain)
}

fn install_toolchain() -> Result<String> {
    steps::note("no Rust tool chain here has its library's source, which BPF's target needs");
    if apt::offers("rust-web-llvm") {
        apt::install("install Debian's BPF-capable Rust", &DEBIAN_PACKAGES)?;
        steps::run("link it into rustup", Command::new("rustup").args(["toolchain", "link", DEBIAN, "/usr"]))?;
        if has_library_source(DEBIAN) {
            return Ok(DEBIAN.to_owned());
        }
    }
    let mut nightly = Command::new("rustup");
    nightly.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    match steps::run("install a nightly with rust-src", &mut nightly) {
        Ok(()) => Ok("nightly".to_owned()),
        Err(error) => bail!(
            "{error:#}\nno tool chain for the BPF programs on {}: give rustup one with the component rust-src and set {VARIABLE}",
            apt::pretty_name()
        ),
    }
}

/// `-Z build-std=core` compiles the library from here.
fn has_library_source(toolchain: &str) -> bool {
    let sysroot = steps::ask(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]));
    sysroot
        .is_ok_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file())
}

fn linker_works() -> bool {
    steps::ask(Command::new("bpf-linker").arg("--version")).is_ok_and(|version| version.contains(LINKER_VERSION))
}

/// The linker reads the compiler's bitcode, so it needs an LLVM of at least the compiler's version.
fn install_linker(toolchain: &str) -> Result<()> {
    let llvm = llvm_version(toolchain)?;
    steps::note(&format!(
        "bpf-linker {LINKER_VERSION} is missing; it is built against LLVM {llvm}, that of `{toolchain}`"
    ));
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let packages =
        [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), "libzstd-dev".into(), "zlib1g-dev".into()];
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    if apt::known_system() {
        let missing = apt::missing(&packages);
        if !missing.is_empty() {
            apt::install("install LLVM", &missing)?;
        }
    } else if !Path::new(&prefix).exists() && std::env::var_os("LLVM_PREFIX").is_none() {
        steps::note(&format!(
            "if the next step fails: install LLVM {llvm}'s development files and set LLVM_PREFIX to their place"
        ));
    }
    let feature = format!("llvm-{llvm}");
    let mut install = steps::cargo(&["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &feature]);
    if Path::new(&prefix).exists() {
        install.env("LLVM_PREFIX", prefix);
    }
    steps::run("build bpf-linker (a minute or more)", &mut install)?;
    if !linker_works() {
        bail!("bpf-linker was installed but does not start: is cargo's bin directory in PATH?");
    }
    Ok(())
}

fn llvm_version(toolchain: &str) -> Result<String> {
    let said = steps::ask(Command::new("rustup").args(["run", toolchain, "rustc", "-vV"]))?;
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next());
    match version {
        Some(major) => Ok(major.to_owned()),
        None => bail!("`rustc -vV` of the tool chain `{toolchain}` names no LLVM version"),
    }
}
