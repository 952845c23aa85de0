//! What must hold before anything is loaded, checked one by one so that each failure says what to do. Changes nothing but, where
//! it can, mounts the BPF file system.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
const BPFFS: &str = "/sys/fs/bpf";

/// tcx links (6.6) are the youngest thing that is needed.
const KERNEL: (u32, u32) = (6, 6);

pub(super) fn check(pin_path: &Path) -> Result<()> {
    privileges(&fs::read_to_string("/proc/self/status").context("read /proc/self/status")?)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    ensure!(
        version(&release) >= KERNEL,
        "this is Linux {}, the data plane needs {}.{} or newer (tcx links)",
        release.trim(),
        KERNEL.0,
        KERNEL.1
    );
    ensure!(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
        "this kernel has no BTF (/sys/kernel/btf/vmlinux): use one built with CONFIG_DEBUG_INFO_BTF=y, as all large distributions' are"
    );
    bpffs(pin_path)
}

/// Reads the effective capabilities from the text of /proc/PID/status.
fn privileges(status: &str) -> Result<()> {
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("no CapEff in /proc/self/status")?;
    let has = |capability: u32| effective >> capability & 1 == 1;
    let mut missing = Vec::new();
    if !has(BPF) && !has(SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    // The verifier lets only such a program compare and store pointers, as any parser of packets does.
    if !has(PERFMON) && !has(SYS_ADMIN) {
        missing.push("CAP_PERFMON");
    }
    if !has(NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    ensure!(
        missing.is_empty(),
        "loading XDP programs needs {}: run as root, or grant the capabilities (AmbientCapabilities= in systemd, \
         securityContext.capabilities in Kubernetes)",
        missing.join(", ")
    );
    Ok(())
}

/// Major and minor of a release such as `6.18.44-amd64`. (0, 0) when it is none.
fn version(release: &str) -> (u32, u32) {
    let mut parts = release.trim().split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn bpffs(pin_path: &Path) -> Result<()> {
    ensure!(pin_path.is_absolute(), "the pin path {} must be absolute", pin_path.display());
    if is_bpffs(pin_path)? {
        return Ok(());
    }
    if !pin_path.starts_with(BPFFS) {
        bail!(
            "{} is not on a BPF file system: choose a pin path under {BPFFS}, or mount one there with `mount -t bpf bpf DIR`",
            pin_path.display()
        );
    }
    let target = CString::new(BPFFS)?;
    // SAFETY: three NUL-terminated strings that outlive the call; no data.
    let mounted = unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) };
    let error = std::io::Error::last_os_error();
    ensure!(
        mounted == 0,
        "no BPF file system is mounted on {BPFFS} and mounting one failed ({error}): run `mount -t bpf bpf {BPFFS}` on the host"
    );
    tracing::info!(
        "mounted a BPF file system on {BPFFS}; pins live as long as this mount namespace does, so mount it on the host in good time"
    );
    ensure!(is_bpffs(pin_path)?, "{} is not below the BPF file system on {BPFFS}", pin_path.display());
    Ok(())
}

/// Whether the nearest existing ancestor of `path` is on a bpffs.
fn is_bpffs(path: &Path) -> Result<bool> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let name = CString::new(existing.as_os_str().as_bytes()).context("the pin path")?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a NUL-terminated path and room for one `statfs`.
    let failed = unsafe { libc::statfs(name.as_ptr(), found.as_mut_ptr()) } != 0;
    ensure!(!failed, "statfs {}: {}", existing.display(), std::io::Error::last_os_error());
    // SAFETY: zeroed, which is a value of this struct of integers, and then filled by the kernel.
    Ok(unsafe { found.assume_init() }.f_type as u64 & 0xffff_ffff == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\nCapBnd:\t0\n");
        assert!(privileges(&status(u64::MAX)).is_ok());
        assert!(privileges(&status(1 << 39 | 1 << 38 | 1 << 12)).is_ok());
        let message = privileges(&status(0)).unwrap_err().to_string();
        assert!(message.contains("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN") && message.contains("root"), "{message}");
        let message = privileges(&status(1 << 21)).unwrap_err().to_string();
        assert!(message.contains("CAP_NET_ADMIN") && !message.contains("CAP_BPF"), "{message}");
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-amd64\n"), (6, 18));
        assert!(version("6.6.0") >= KERNEL);
        assert!(version("5.15.0-91-generic") < KERNEL);
        assert!(version("6.5+") < KERNEL);
        assert!(version("nonsense") < KERNEL);
    }

    #[test]
    fn a_pin_path_elsewhere_is_refused_with_the_command() {
        let message = bpffs(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(message.contains("mount -t bpf"), "{message}");
        assert!(bpffs(Path::new("relative")).unwrap_err().to_string().contains("absolute"));
    }
}
