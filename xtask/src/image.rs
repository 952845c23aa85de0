//! `cargo xtask image`: the agent as an OCI archive, without a container engine. Load it with `ctr images import`, `podman load`,
//! or `skopeo copy oci-archive:… docker://…`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{build, setup, steps};

#[derive(Args)]
pub(crate) struct Options {
    /// Where to write it [default: target/image/sluicegate-VERSION.oci.tar].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn image(options: &Options) -> Result<()> {
    setup::tools(setup::For::Build)?;
    steps::title("Image");
    build::agent(true)?;
    let directory = steps::target().join("image");
    std::fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // Names of functions stay, for backtraces; the lines that they came from are most of the file.
    let binary = directory.join("sluicegate");
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&binary).arg(steps::target().join("release/sluicegate"));
    steps::run("strip the agent", &mut strip)?;
    let version = env!("CARGO_PKG_VERSION");
    let archive = options.output.clone().unwrap_or_else(|| directory.join(format!("sluicegate-{version}.oci.tar")));
    // The time of the commit, so that whoever builds it again gets the same.
    let revision = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    let created = git(&["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"])
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".into());
    let mut pack = steps::cargo(&["run", "--quiet", "--package", "sluicegate-image", "--bin", "pack-image", "--"]);
    pack.arg(&binary).arg(&archive).args(["--version", version, "--revision", &revision, "--created", &created]);
    steps::run("pack the image", &mut pack)?;
    let size = std::fs::metadata(&archive).with_context(|| format!("look at {}", archive.display()))?.len();
    steps::note(&format!("the image: {} ({} MiB)", archive.display(), size.div_ceil(1 << 20)));
    Ok(())
}

/// Nothing outside a repository (a source archive).
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let said = steps::ask(git.args(arguments).current_dir(steps::root()).env("TZ", "UTC")).ok()?;
    Some(said.trim().to_owned())
}
