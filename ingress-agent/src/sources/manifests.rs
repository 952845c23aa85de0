//! A directory of manifests, live: `*.yaml`, `*.yml` and `*.json` directly in it, also through symbolic links, as in a
//! mounted ConfigMap. Only changed files are read again. What a file means is `store`'s business.
//!
//! A file is read when its writer has closed it or renamed it into place, never while it is being written: half a file
//! may be valid YAML. There is no debounce: the first event is acted upon at once, and what arrives meanwhile is next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{oneshot, watch};

use super::SourceOptions;
use super::document::file_fault;
use super::store::Store;
use crate::memory::{Leftovers, QUIET};
use crate::model::facts::Facts;
use crate::model::rejection::Rejection;

/// A look at everything without an event: finds what inotify cannot tell (the target of a link, a network file system)
/// and certificates that expire. A thousand files cost it a few milliseconds.
const SWEEP: Duration = Duration::from_secs(10);

/// A file younger than this is left to its writer's closing it when a sweep comes by.
const SETTLED: Duration = Duration::from_secs(1);

/// More than any manifest; less than would hurt.
const LARGEST: u64 = 64 << 20;

/// Publishes the directory's facts, first all of it and then after each change, until the future is dropped or nobody
/// receives any more. Fails only at the start, when the directory cannot be read or watched.
pub async fn watch(directory: PathBuf, options: SourceOptions, facts: watch::Sender<Arc<Facts>>) -> anyhow::Result<()> {
    let (wake, events) = channel();
    let (ended, end) = oneshot::channel();
    let stop = Stop(wake.clone());
    // A thread of its own: reading and parsing a large directory must not hold up whoever runs this future.
    std::thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || {
            // Nobody listens any more when the future is gone.
            let _ = ended.send(Watch::open(&directory, options, wake).map(|mut w| w.run(&events, &facts)));
        })
        .context("start the thread that watches the manifests")?;
    let result = end.await.context("the thread that watches the manifests ended unexpectedly")?;
    drop(stop);
    result
}

/// Ends the thread with the future.
struct Stop(Sender<Wake>);

impl Drop for Stop {
    fn drop(&mut self) {
        // It has ended already when nobody receives.
        let _ = self.0.send(Wake::Stop);
    }
}

/// What the thread is woken for.
enum Wake {
    /// This file was written, linked or moved here.
    File(String),
    /// Anything else: look at all of it.
    All,
    /// The directory itself went or came.
    Directory,
    Stop,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Watch {
    /// Absolute, so that events can be compared with it.
    directory: PathBuf,
    /// Device and inode of the directory that inotify has: it stays with the inode when the name gets another.
    watched: Option<(u64, u64)>,
    watcher: RecommendedWatcher,
    store: Store,
    stamps: BTreeMap<String, Stamp>,
    /// About the directory itself.
    faults: Vec<Rejection>,
}

impl Watch {
    fn open(directory: &Path, options: SourceOptions, wake: Sender<Wake>) -> anyhow::Result<Self> {
        let shown = directory.display().to_string();
        let directory = std::path::absolute(directory).with_context(|| format!("find the directory {shown}"))?;
        fs::read_dir(&directory).with_context(|| format!("read the manifests in {shown}"))?;
        let target = directory.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            for wanted in wanted(&target, event) {
                // The thread has ended when nobody receives; the watcher ends with it.
                let _ = wake.send(wanted);
            }
        });
        let watcher = watcher.context("start inotify (fs.inotify.max_user_instances may be used up)")?;
        let mut watch = Self {
            directory,
            watched: None,
            watcher,
            store: Store::new(options),
            stamps: BTreeMap::new(),
            faults: Vec::new(),
        };
        watch.attach().with_context(|| format!("watch {shown} (fs.inotify.max_user_watches may be used up)"))?;
        Ok(watch)
    }

    fn run(&mut self, events: &Receiver<Wake>, facts: &watch::Sender<Arc<Facts>>) {
        self.scan(false);
        let mut leftovers = Leftovers::default();
        loop {
            if let Some(new) = self.store.publish(SystemTime::now(), &self.faults) {
                if facts.send(new).is_err() {
                    return;
                }
                leftovers.worked(Instant::now());
            }
            let patience = if leftovers.due().is_some() { QUIET } else { SWEEP };
            let first = match events.recv_timeout(patience) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) if leftovers.due().is_some() => {
                    leftovers.give_back(Instant::now());
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {
                    // Watching anew would lose what happens meanwhile, so only where it must be.
                    let moved = self.watched.is_none() || self.watched != inode(&self.directory);
                    if moved {
                        self.reattach();
                    }
                    self.scan(!moved);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut all, mut directory, mut files) = (false, false, BTreeSet::new());
            for wake in std::iter::once(first).chain(events.try_iter()) {
                match wake {
                    Wake::File(name) => drop(files.insert(name)),
                    Wake::All => all = true,
                    Wake::Directory => directory = true,
                    Wake::Stop => return,
                }
            }
            if directory {
                self.reattach();
            }
            if all || directory {
                self.scan(false);
            }
            for name in files {
                self.look(&name, false);
            }
        }
    }

    /// The directory, and its parent for the day on which it is replaced.
    fn attach(&mut self) -> notify::Result<()> {
        self.watched = None;
        self.watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
        self.watched = inode(&self.directory);
        if let Some(parent) = self.directory.parent() {
            // Without it a replaced directory is found by the sweep.
            let _ = self.watcher.watch(parent, RecursiveMode::NonRecursive);
        }
        Ok(())
    }

    /// After the directory may have become another one. A scan has to follow.
    fn reattach(&mut self) {
        // It fails when the old directory is gone, which is the reason to be here.
        let _ = self.watcher.unwatch(&self.directory);
        let _ = self.attach();
    }

    /// Looks at every file, reads the changed ones and forgets those that are gone.
    fn scan(&mut self, sweep: bool) {
        self.faults.clear();
        let names = match manifest_names(&self.directory) {
            Ok(names) => names,
            Err(e) => {
                // A directory that cannot be read says nothing; it does not say that everything is deleted.
                let place = self.directory.display().to_string();
                self.faults.push(file_fault(&place, format!("cannot be read: {e}; all it said keeps serving")));
                return;
            }
        };
        let gone: Vec<String> = self.store.file_names().filter(|n| !names.contains(*n)).cloned().collect();
        for name in &names {
            self.look(name, sweep);
        }
        for name in gone {
            self.stamps.remove(&name);
            self.store.remove(&name);
        }
    }

    /// Reads the file if it is another than last time.
    fn look(&mut self, name: &str, sweep: bool) {
        let path = self.directory.join(name);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => {
                self.stamps.remove(name);
                self.store.remove(name);
                return;
            }
            Err(e) => {
                self.stamps.remove(name);
                self.store.put(name, Err(format!("cannot be read: {e}")));
                return;
            }
        };
        let stamp = stamp(&metadata);
        if self.stamps.get(name) == Some(&stamp) {
            return;
        }
        if sweep && metadata.modified().is_ok_and(|t| t.elapsed().is_ok_and(|age| age < SETTLED)) {
            return;
        }
        let text = if metadata.is_file() { read(&path) } else { Err("is not a regular file".to_owned()) };
        self.store.put(name, text.as_deref().map_err(Clone::clone));
        self.stamps.insert(name.to_owned(), stamp);
    }
}

fn inode(directory: &Path) -> Option<(u64, u64)> {
    fs::metadata(directory).ok().map(|m| (m.dev(), m.ino()))
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("is larger than {} MiB", LARGEST >> 20));
    }
    String::from_utf8(bytes).map_err(|e| format!("is not UTF-8 from byte {} on", e.utf8_error().valid_up_to()))
}

fn manifest_names(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        // A name that is not UTF-8 is no manifest's.
        names.extend(entry?.file_name().into_string().ok().filter(|n| is_manifest(n)));
    }
    Ok(names)
}

/// Editors' and ConfigMaps' own files start with a dot.
fn is_manifest(name: &str) -> bool {
    let end = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    !name.starts_with('.') && ["yaml", "yml", "json"].contains(&end)
}

/// What an event asks for. inotify also reports our own opening of files: nothing.
fn wanted(directory: &Path, event: notify::Result<notify::Event>) -> Vec<Wake> {
    let Ok(event) = event else {
        return vec![Wake::All];
    };
    if event.need_rescan() {
        return vec![Wake::Directory];
    }
    let mut wanted = Vec::new();
    for path in &event.paths {
        if path == directory {
            if !matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_))) {
                wanted.push(Wake::Directory);
            }
            continue;
        }
        if path.parent() != Some(directory) {
            continue;
        }
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // The whole of a mounted ConfigMap is swapped by renaming this link.
        if name == "..data" && matches!(event.kind, EventKind::Modify(ModifyKind::Name(_))) {
            wanted.push(Wake::All);
        }
        let manifest = is_manifest(name);
        match event.kind {
            // It may have another name in this directory now: both are looked at before anything is published, or its
            // objects would be gone for a moment.
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) if manifest => {
                wanted.push(Wake::All);
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To))
                if manifest =>
            {
                wanted.push(Wake::File(name.to_owned()));
            }
            // A new file is empty and will be closed by its writer; a link is complete.
            EventKind::Create(CreateKind::File) if manifest && is_link(path) => {
                wanted.push(Wake::File(name.to_owned()));
            }
            _ => {}
        }
    }
    wanted
}

/// A symbolic link, or another name of a file that exists: no writer will close it.
fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink() || m.nlink() > 1)
}
