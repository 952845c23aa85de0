//! Builds the packet programs for the BPF target, so that `object.rs` can include them as bytes. Never downloads a tool: it says
//! what to run when one is missing. (aya-build does the same but fixes the compiler's flags, and the programs need the third BPF
//! instruction set.)

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Names the rustup tool chain with a BPF-capable rustc and `rust-src`. `cargo xtask setup` links `bpf` to the distribution's
/// compiler; `nightly` serves as well where rustup can add `rust-src` to it.
const TOOLCHAIN: &str = "SLUICEGATE_BPF_TOOLCHAIN";
/// The programs, and what measures them.
const OBJECTS: [&str; 2] = ["sluicegate-bpf", "sluicegate-bench-bpf"];

fn main() -> Result<()> {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdp-ebpf");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", programs.display());
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    let toolchain = env::var(TOOLCHAIN).unwrap_or_else(|_| "bpf".to_owned());
    ensure!(
        succeeds(Command::new("bpf-linker").arg("--version")),
        "bpf-linker is not installed: run `cargo xtask setup`"
    );
    ensure!(
        succeeds(Command::new("rustup").args(["run", &toolchain, "rustc", "--version"])),
        "the tool chain `{toolchain}` that compiles the BPF programs is not installed: run `cargo xtask setup`, \
         or name another one in {TOOLCHAIN}"
    );

    let out = env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?;
    let out = Path::new(&out);
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("cargo sets CARGO_CFG_TARGET_ARCH")?;
    // v3 (Linux 5.12): 32-bit registers, and atomics that return the old value.
    let flags =
        ["-Ctarget-cpu=v3", "-Cdebuginfo=2", "-Clink-arg=--btf", "--cfg", &format!("bpf_target_arch=\"{arch}\"")]
            .join("\x1f");
    let built = Command::new("rustup")
        .args(["run", &toolchain, "cargo", "build", "--quiet", "--release", "-Zbuild-std=core", "--target", target])
        .args(["--package", "xdp-ebpf", "--bins", "--features", "program"])
        // A directory of its own: the outer cargo holds the lock of the workspace's.
        .arg("--target-dir")
        .arg(out.join("bpf"))
        .current_dir(&programs)
        // `-Z` and inline assembly for BPF are unstable; the distribution's compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // What the outer cargo (or clippy) set for the host's compiler.
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .context("start rustup")?;
    ensure!(
        built.success(),
        "the BPF programs do not build with the tool chain `{toolchain}`; is its `rust-src` there? `cargo xtask setup` sees to it"
    );
    for object in OBJECTS {
        let from = out.join("bpf").join(target).join("release").join(object);
        std::fs::copy(&from, out.join(object)).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|out| out.status.success())
}
