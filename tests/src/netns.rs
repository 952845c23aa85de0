//! A network namespace that lives as long as its value. Names carry the process id, so that tests never meet; what a
//! crashed process left behind is removed by the next one that starts.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output};
use std::sync::{Arc, Mutex, Once, PoisonError};

use anyhow::{Context, Result, bail, ensure};

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "sg-";

/// Held while a namespace is made; see [`make_no_more`].
static MAKING: Mutex<()> = Mutex::new(());

/// A namespace made by `ip netns add`, so that a person can look into it while a test runs.
#[derive(Debug)]
pub struct Namespace {
    pub name: String,
    file: File,
    /// Links to XDP programs that [`Namespace::attach_pass`] loaded; closed with the namespace.
    keep: std::sync::Mutex<Vec<OwnedFd>>,
}

impl Namespace {
    /// Makes `sg-LABEL-PID` with its loopback up and the sysctls that a test host needs.
    pub fn new(label: &str) -> Result<Arc<Self>> {
        // SAFETY: geteuid has no preconditions.
        ensure!(unsafe { libc::geteuid() } == 0, "network tests need root: they make network namespaces");
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_stale);
        let name = format!("{PREFIX}{label}-{}", std::process::id());
        let making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        ip(&["netns", "add", &name])?;
        drop(making);
        let file = File::open(format!("{DIRECTORY}/{name}")).with_context(|| format!("open namespace {name}"))?;
        let ns = Arc::new(Self { name, file, keep: std::sync::Mutex::default() });
        ns.ip(&["link", "set", "lo", "up"])?;
        // Duplicate address detection would delay every IPv6 address by a second or two.
        ns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        ns.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        Ok(ns)
    }

    /// A command that runs in this namespace. Unlike `ip netns exec` it keeps the mounts, and with them bpffs.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let fd = self.file.as_raw_fd();
        let mut command = Command::new(program);
        // SAFETY: setns is async-signal-safe; `fd` is open until `self` drops, and spawning borrows `self`'s life by use.
        unsafe { command.pre_exec(move || enter(fd)) };
        command
    }

    /// Runs a command in here to its end; an error holds its output.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let out = self.command(program).args(args).output().with_context(|| format!("start {program}"))?;
        text(&out, || format!("{program} {} (in {})", args.join(" "), self.name))
    }

    /// `ip ARGS` in here.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.run("ip", args)
    }

    /// Starts a command in here that is ended when the value drops.
    pub fn spawn(&self, command: &mut Command) -> Result<Running> {
        self.settle(command);
        Ok(Running(command.spawn().with_context(|| format!("start {command:?}"))?))
    }

    /// Has a command that is not started yet run in here, and end with the thread that starts it.
    pub fn settle(&self, command: &mut Command) {
        let fd = self.file.as_raw_fd();
        // SAFETY: as in `command`. The parent's death takes the child along, so that nothing is left after a crash.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                enter(fd)
            });
        }
    }

    /// Runs `work` on a thread of its own inside the namespace; sockets that it makes stay in here.
    #[track_caller]
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let fd = self.file.as_raw_fd();
        std::thread::scope(|s| {
            s.spawn(move || {
                enter(fd).expect("enter the namespace");
                work()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Writes `/proc/sys/PATH`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.inside(|| fs::write(format!("/proc/sys/{path}"), value)).with_context(|| format!("set {path} to {value}"))
    }

    /// Attaches a native XDP program that passes everything: a veth end needs one to receive what its peer sends by
    /// `XDP_TX` or a redirect.
    pub fn attach_pass(&self, link: &str) -> Result<()> {
        let fd = self.inside(|| attach_pass(link)).with_context(|| format!("attach a pass program to {link}"))?;
        self.keep.lock().expect("no panic under the lock").push(fd);
        Ok(())
    }

    /// Calls setns(2) for the current thread. For tests that keep a whole thread in here.
    pub fn enter_thread(&self) -> Result<()> {
        enter(self.file.as_raw_fd()).with_context(|| format!("enter {}", self.name))
    }

    /// Leaves the namespace in place when the value drops (for `demo --keep`).
    pub fn keep(self: &Arc<Self>) {
        std::mem::forget(Arc::clone(self));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(e) = ip(&["netns", "del", &self.name]) {
            eprintln!("could not remove {}: {e:#}", self.name);
        }
    }
}

/// A child process that is killed and reaped on drop.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal to this child.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill has no memory preconditions; the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(self.0.id() as libc::pid_t, signal) };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `ip ARGS` in the namespace of the caller.
pub fn ip(args: &[&str]) -> Result<String> {
    let out = Command::new("ip").args(args).output().context("start ip (package iproute2)")?;
    text(&out, || format!("ip {}", args.join(" ")))
}

fn text(out: &Output, what: impl Fn() -> String) -> Result<String> {
    if !out.status.success() {
        bail!(
            "{} failed ({}): {}{}",
            what(),
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn enter(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: setns takes no pointers.
    match unsafe { libc::setns(fd, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// From here on no namespace appears: whoever wants one waits for the end of the process. For a clean-up that must be the last
/// word while other threads still build.
pub fn make_no_more() {
    std::mem::forget(MAKING.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Removes namespaces of processes that no longer run.
pub fn remove_stale() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|n| n.rsplit('-').next()).and_then(|p| p.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// The parts of `union bpf_attr` (linux/bpf.h) for `BPF_PROG_LOAD` that a two-instruction program needs; zeros after it.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 6],
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

fn attach_pass(link: &str) -> Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_LINK_CREATE: libc::c_int = 28;
    const BPF_PROG_TYPE_XDP: u32 = 6;
    const BPF_XDP: u32 = 37;
    const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
    // r0 = XDP_PASS; exit
    const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    let name = std::ffi::CString::new(link)?;
    // SAFETY: `name` is NUL-terminated.
    let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(ifindex != 0, "no interface {link}");
    let load = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: 2,
        insns: PASS.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log: [0; 6],
        name: *b"pass\0\0\0\0\0\0\0\0\0\0\0\0",
        ifindex: 0,
        expected_attach_type: BPF_XDP,
    };
    let program = bpf(BPF_PROG_LOAD, &load).context("load the pass program")?;
    let create = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &create).context("attach it in native mode")
}

fn bpf<T>(command: libc::c_int, attr: &T) -> Result<OwnedFd> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the size given, and its pointers outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the kernel just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
