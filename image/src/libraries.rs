//! Which shared libraries a program needs, as the dynamic loader of this machine finds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Their paths, the loader's among them, in order. Empty for a static program.
pub(crate) fn of(binary: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd").arg(binary).env("LC_ALL", "C").output().context("start ldd (package libc-bin)")?;
    let (said, complaint) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if complaint.contains("not a dynamic executable") || said.contains("statically linked") {
        return Ok(Vec::new());
    }
    ensure!(out.status.success(), "ldd {}: {complaint}", binary.display());
    paths(&said).with_context(|| format!("ask ldd about {}", binary.display()))
}

/// `name => path (address)`, or `path (address)` for the loader itself; the vDSO has no path and is the kernel's.
fn paths(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines() {
        if line.contains("not found") {
            bail!("a library is missing: {}", line.trim());
        }
        let place = line.split_once("=>").map_or(line, |(_, place)| place).trim();
        let path = place.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_what_it_loads_are_found() {
        let said = "\tlinux-vdso.so.1 (0x00007f9cc9318000)\n\
                    \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f9cc92e7000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f9cc641e000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f9cc931a000)\n";
        let wanted =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths(said).expect("paths"), wanted.map(PathBuf::from));
        assert!(paths("\tlibx.so => not found\n").expect_err("it is missing").to_string().contains("libx.so"));
    }
}
