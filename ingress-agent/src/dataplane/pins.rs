//! What lies under the pin path: `v<SCHEMA>/{maps,programs,links}`. Decides whether existing maps may be adopted; it never
//! changes a map's content.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{MapInfo, MapType};
use xdp_ebpf::affinity::{Affinity, AffinityKey};
use xdp_ebpf::{
    Addr, AddrFilter, Backend, Config, Flow, FlowBucket, Frontend, FrontendInfo, FrontendKey, Heartbeat, Pool, ROUTERS,
    ReplyBucket, RingPage, Router, SCHEMA, SOURCES_MOST, SourceKey, Traffic, Vip, WAYS, map, verdict::Verdict,
};

use super::kernel;
use super::options::Sizes;

/// `BPF_F_MMAPABLE` of linux/bpf.h.
const MMAPABLE: u32 = 1 << 10;
/// Interfaces that `DEVICES` can hold, as in the object file.
const DEVICES: u32 = 64;

/// The directory of this schema.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
    own: PathBuf,
}

/// A map as the ABI has it.
pub(super) struct MapSpec {
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    flags: u32,
    pub entries: u32,
}

impl Pins {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into(), own: root.join(format!("v{SCHEMA}")) }
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.own.join("maps").join(name)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.own.join("programs").join(name)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.own.join("links")
    }

    pub(super) fn create(&self) -> Result<()> {
        for part in ["maps", "programs", "links"] {
            let dir = self.own.join(part);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        Ok(())
    }

    /// Directories of other schemas, for people and for taking over their links.
    pub(super) fn other_schemas(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries.map(|e| e.path()).filter(|p| *p != self.own && is_schema(p)).collect();
        found.sort();
        found
    }

    /// Finds maps to adopt. Returns the specs with the pinned capacities in place of the wanted ones, and whether there
    /// are any pins.
    pub(super) fn survey(&self, sizes: &Sizes) -> Result<(Vec<MapSpec>, bool)> {
        let mut specs = specs(sizes);
        let (pinned, absent): (Vec<_>, Vec<_>) = specs.iter().map(|s| s.name).partition(|name| self.map(name).exists());
        if !absent.is_empty() && !pinned.is_empty() {
            let attached = fs::read_dir(self.links()).is_ok_and(|mut dir| dir.next().is_some());
            ensure!(
                !attached,
                "the pins under {} are incomplete ({} missing) while their program is attached: run `sluicegate uninstall \
                 --pin-path {}` and start again; flows are lost",
                self.own.display(),
                absent.join(", "),
                self.root.display()
            );
            // Nothing is attached, so nobody reads them: a start that was cut short.
            tracing::info!(path = %self.own.display(), "removed the pins of a start that was cut short");
            remove_tree(&self.own)?;
            self.create()?;
            return Ok((specs, false));
        }
        for spec in specs.iter_mut().filter(|_| absent.is_empty()) {
            self.check(spec)?;
        }
        if absent.is_empty() {
            let entries = |name| specs.iter().find(|s| s.name == name).map_or(0, |s| s.entries);
            let (index, flows) = (entries(map::FLOW_INDEX), entries(map::FLOWS));
            let powers = index.is_power_of_two() && entries(map::REPLY_INDEX).is_power_of_two();
            let ids = entries(map::FRONTEND_INFO) == entries(map::FRONTEND_TRAFFIC)
                && entries(map::BACKENDS) == entries(map::BACKEND_TRAFFIC);
            ensure!(
                powers && ids && flows == index * WAYS as u32,
                "the capacities of the maps under {} contradict each other: {}",
                self.own.display(),
                self.remedy()
            );
        }
        Ok((specs, absent.is_empty()))
    }

    fn check(&self, spec: &mut MapSpec) -> Result<()> {
        let path = self.map(spec.name);
        let info = MapInfo::from_pin(&path)
            .with_context(|| format!("{} is not a map that this agent can read: {}", path.display(), self.remedy()))?;
        let (kind, key, value) = (info.map_type().ok(), info.key_size() as usize, info.value_size() as usize);
        if kind != Some(spec.kind)
            || key != spec.key
            || value != spec.value
            || info.map_flags() & MMAPABLE != spec.flags
        {
            bail!(
                "the pinned map {} is a {kind:?} with keys of {key} and values of {value} bytes instead of a {:?} with {} \
                 and {}: {}",
                path.display(),
                spec.kind,
                spec.key,
                spec.value,
                self.remedy()
            );
        }
        if info.max_entries() != spec.entries {
            tracing::warn!(
                map = spec.name,
                pinned = info.max_entries(),
                wanted = spec.entries,
                "the pinned map keeps its capacity; for the new one, drain the node and run `sluicegate uninstall` first"
            );
            spec.entries = info.max_entries();
        }
        Ok(())
    }

    fn remedy(&self) -> String {
        format!("run `sluicegate uninstall --pin-path {}` and start again; flows are lost", self.root.display())
    }
}

/// Removes all pins of all schemas, links first: forwarding stops with them.
pub(super) fn remove_all(root: &Path) -> Result<()> {
    let entries = fs::read_dir(root).with_context(|| format!("nothing is pinned under {}", root.display()))?;
    for dir in entries.flatten().map(|e| e.path()).filter(|p| is_schema(p)) {
        remove_tree(&dir)?;
    }
    fs::remove_dir(root).with_context(|| format!("remove {}", root.display()))
}

/// Removes a schema's directory. Links go first, so that no program runs on maps that are gone.
pub(super) fn remove_tree(dir: &Path) -> Result<()> {
    for link in fs::read_dir(dir.join("links")).into_iter().flatten().flatten() {
        kernel::detach(&link.path()).with_context(|| format!("detach {}", link.path().display()))?;
    }
    for part in ["links", "programs", "maps"] {
        let part = dir.join(part);
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
        }
    }
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

fn is_schema(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn specs(sizes: &Sizes) -> Vec<MapSpec> {
    let array = |name, value, entries| MapSpec { name, kind: MapType::Array, key: 4, value, flags: MMAPABLE, entries };
    let hash = |name, key, value, entries| MapSpec { name, kind: MapType::Hash, key, value, flags: 0, entries };
    let counters =
        |name, value, entries| MapSpec { name, kind: MapType::PerCpuArray, key: 4, value, flags: 0, entries };
    vec![
        array(map::CONFIG, size_of::<Config>(), 1),
        array(map::ADDR_FILTER, size_of::<AddrFilter>(), 1),
        hash(map::VIPS, size_of::<Addr>(), size_of::<Vip>(), sizes.frontend_ids),
        array(map::ROUTERS, size_of::<Router>(), ROUTERS),
        array(map::HEARTBEAT, size_of::<Heartbeat>(), 1),
        hash(map::FRONTENDS, size_of::<FrontendKey>(), size_of::<Frontend>(), sizes.frontends),
        MapSpec {
            name: map::SOURCES,
            kind: MapType::LpmTrie,
            key: size_of::<SourceKey>(),
            value: 4,
            flags: 0,
            entries: SOURCES_MOST,
        },
        hash(map::DROPPED, size_of::<Addr>(), size_of::<u64>(), map::DROPPED_MOST),
        MapSpec {
            name: map::AFFINITY,
            kind: MapType::LruHash,
            key: size_of::<AffinityKey>(),
            value: size_of::<Affinity>(),
            flags: 0,
            entries: sizes.affinity,
        },
        array(map::FRONTEND_INFO, size_of::<FrontendInfo>(), sizes.frontend_ids),
        array(map::POOLS, size_of::<Pool>(), sizes.frontend_ids),
        array(map::RINGS, size_of::<RingPage>(), sizes.ring_pages),
        array(map::BACKENDS, size_of::<Backend>(), sizes.backend_ids),
        array(map::FLOW_INDEX, size_of::<FlowBucket>(), sizes.flow_buckets),
        array(map::FLOWS, size_of::<Flow>(), sizes.flow_buckets * WAYS as u32),
        array(map::REPLY_INDEX, size_of::<ReplyBucket>(), sizes.reply_buckets),
        MapSpec { name: map::DEVICES, kind: MapType::DevMapHash, key: 4, value: 8, flags: 0, entries: DEVICES },
        counters(map::VERDICTS, size_of::<u64>(), Verdict::ALL.len() as u32),
        counters(map::FRONTEND_TRAFFIC, size_of::<Traffic>(), sizes.frontend_ids),
        counters(map::BACKEND_TRAFFIC, size_of::<Traffic>(), sizes.backend_ids),
    ]
}
