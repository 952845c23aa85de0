//! `pack-image BINARY ARCHIVE`: see the library. Started by `cargo xtask image`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Packs the agent's binary and the shared libraries that it needs into an OCI archive.
#[derive(Parser)]
struct Args {
    binary: PathBuf,
    archive: PathBuf,
    #[arg(long)]
    version: String,
    /// The commit that it was built from.
    #[arg(long, default_value = "")]
    revision: String,
    /// RFC 3339; for a reproducible image, of the commit.
    #[arg(long)]
    created: String,
}

fn main() -> Result<()> {
    let Args { binary, archive, version, revision, created } = Args::parse();
    let origin = sluicegate_image::Origin { version, revision, created };
    println!("{}", sluicegate_image::pack(&binary, &origin, &archive)?);
    Ok(())
}
