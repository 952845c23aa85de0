//! What a demo leaves on the machine while it runs, all named after its process id: namespaces, a directory, pinned maps.
//! Removing them needs no memory of how they were made, so the same code serves a normal end, Ctrl-C and the next start after
//! a crash. Touches nothing that is not named `demo`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ingress_tests::netns;

const NAMESPACES: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";
const NAME: &str = "sluicegate-demo-";
/// The label of the demo's control plane. Its files lie where those of a test's would.
pub(crate) const CLUSTER: &str = "demo";
const CLUSTER_NAME: &str = "sluicegate-test-k8s-demo-";
/// What writes into a directory was told to end just before, and may take a moment.
const ENDING: Duration = Duration::from_secs(5);

/// Manifests, certificates, logs and sockets of one demo.
pub(crate) fn directory(id: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{NAME}{id}"))
}

/// Its pinned maps and programs.
pub(crate) fn pins(id: u32) -> PathBuf {
    Path::new(BPFFS).join(format!("{NAME}{id}"))
}

/// Exists once a kept demo has been shown.
pub(crate) fn ready_file(id: u32) -> PathBuf {
    directory(id).join("shown")
}

/// Files and sockets of its control plane, if it has one.
fn cluster_directory(id: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{CLUSTER_NAME}{id}"))
}

fn places(id: u32) -> [PathBuf; 3] {
    [pins(id), directory(id), cluster_directory(id)]
}

/// Removes everything of one demo. Harmless if there is nothing.
pub(crate) fn clean(id: u32) -> Result<()> {
    for name in namespaces(id) {
        // The processes in there are this demo's: nobody else knows the namespace.
        let inside = netns::ip(&["netns", "pids", &name]).unwrap_or_default();
        for process in inside.lines().filter_map(|line| line.trim().parse().ok()) {
            signal(process, libc::SIGKILL);
        }
        // A fixture may be removing it at the same moment.
        let _ = netns::ip(&["netns", "del", &name]);
    }
    places(id).iter().try_for_each(|path| remove(path))
}

fn remove(path: &Path) -> Result<()> {
    let deadline = Instant::now() + ENDING;
    while path.exists() {
        match fs::remove_dir_all(path) {
            Ok(()) => break,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
        }
    }
    Ok(())
}

/// Fails if anything of one demo is still there.
pub(crate) fn nothing_left(id: u32) -> Result<()> {
    let mut left = namespaces(id);
    left.extend(places(id).iter().filter(|path| path.exists()).map(|path| path.display().to_string()));
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(())
}

/// Removes what demos left whose process is gone.
pub(crate) fn clean_stale() -> Result<()> {
    for id in demos() {
        if !alive(id) {
            clean(id)?;
        }
    }
    Ok(())
}

/// Ends kept demos and removes everything of theirs.
pub(crate) fn clean_all() -> Result<()> {
    let demos = demos();
    for id in &demos {
        if alive(*id) {
            end(*id);
        }
        clean(*id)?;
        nothing_left(*id)?;
    }
    match demos.len() {
        0 => println!("There is no demo to remove."),
        count => println!("Removed {count}; nothing is left."),
    }
    Ok(())
}

/// Asks a demo to end and waits until it has, or makes it.
pub(crate) fn end(id: u32) {
    signal(id, libc::SIGTERM);
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive(id) {
        if Instant::now() > deadline {
            signal(id, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A demo with this process id is running: the id may have been given to another program since, and a zombie is none.
fn alive(id: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{id}/status")) else { return false };
    let field =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
    field("Name:") == "demo" && !field("State:").starts_with('Z')
}

/// Process ids of all demos of which there is a trace.
fn demos() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let temporary = std::env::temp_dir();
    for (directory, prefix) in
        [(Path::new(NAMESPACES), "sg-demo-"), (Path::new(BPFFS), NAME), (&temporary, NAME), (&temporary, CLUSTER_NAME)]
    {
        for name in names(directory) {
            let id = name.strip_prefix(prefix).and_then(|rest| rest.rsplit('-').next());
            found.extend(id.and_then(|id| id.parse::<u32>().ok()));
        }
    }
    found
}

fn namespaces(id: u32) -> Vec<String> {
    let suffix = format!("-{id}");
    names(Path::new(NAMESPACES))
        .into_iter()
        .filter(|name| name.starts_with("sg-demo-") && name.ends_with(&suffix))
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn signal(process: u32, signal: libc::c_int) {
    // SAFETY: kill takes no pointer; a process that is gone is an error that nobody needs.
    unsafe { libc::kill(process.cast_signed(), signal) };
}

/// Waits until a child has ended by itself, and fails where it does not.
pub(crate) fn wait_for(child: &mut std::process::Child, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    while child.try_wait().context("wait for a process")?.is_none() {
        if Instant::now() > deadline {
            bail!("a process did not end within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
