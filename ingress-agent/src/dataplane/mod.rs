//! The data plane's side of the agent: loads, attaches and pins the BPF programs, and keeps their maps an image of the snapshot.
//! It knows kernels, not Kubernetes. Nothing that a packet needs waits for it: when this process is gone, all is pinned and
//! forwards on.

mod options;

mod preflight;

mod claim;

mod device;

mod sysctl;

mod pins;

mod attach;

mod plain;

mod region;

mod maps;

mod ids;

mod arena;

mod filter;

mod pool;

mod tables;

mod image;

mod kernel;

mod clock;

mod traffic;

mod explain;

mod sync;

mod fence;

mod dropped;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use xdp_ebpf::{Config, tick_shift};

pub use self::fence::Fence;
pub use self::options::{DataplaneOptions, XdpMode};
pub use self::sync::SyncOptions;

use self::claim::Claims;
use self::clock::Clock;
use self::device::Device;
use self::dropped::Dropped;
use self::image::Image;
use self::maps::Maps;
use self::pins::Pins;
use self::sync::FlowSync;
use self::sync::directory::Directory;
use crate::model::election::RouterKey;
use crate::model::snapshot::Snapshot;
use crate::model::sync::{SharedLimits, SyncReading};
use crate::model::traffic::Attachment;

/// The loaded, attached and pinned data plane. Dropping it leaves everything in place.
pub struct Dataplane {
    options: DataplaneOptions,
    pins: Pins,
    devices: Vec<Device>,
    namespace: u64,
    image: Image,
    dropped: Dropped,
    clock: Clock,
    attachments: Vec<Attachment>,
    /// Programs that wait for the first snapshot, because another schema's are still forwarding.
    waiting: Option<Ebpf>,
    /// Before the claims, since it writes to what they protect.
    sync: Option<FlowSync>,
    _claims: Claims,
}

/// What [`Dataplane::apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub generation: u64,
    /// What of the snapshot is not served, and why, a sentence each.
    pub problems: Vec<String>,
}

impl Dataplane {
    /// Checks the host, takes its claims, adopts or makes the maps, and attaches the programs. Adopted flows and frontends go
    /// on meanwhile.
    pub fn open(options: DataplaneOptions) -> Result<Self> {
        let now = Instant::now();
        let key = options.sync.as_ref().map(|sync| sync::read_key(&sync.key_file)).transpose()?;
        let pin_path = &options.pin_path;
        preflight::check(pin_path)?;
        let namespace = attach::network_namespace()?;
        let mut devices: Vec<Device> =
            options.interfaces.iter().map(|name| device::find(name)).collect::<Result<_>>()?;
        devices.sort();
        devices.dedup();
        if devices.is_empty() {
            bail!("no interface is named: give at least one --interface");
        }
        let below: Vec<Device> = devices.iter().flat_map(device::below).collect();
        let mut claimed: Vec<_> = devices.iter().chain(&below).map(|d| (d.name.clone(), d.index)).collect();
        claimed.sort();
        claimed.dedup();
        let claims = claim::take(pin_path, &claimed)?;
        sysctl::prepare(&options.proc_sys, &devices)?;

        let pins = Pins::new(pin_path);
        pins.create()?;
        let (specs, adopted) = pins.survey(&options.sizes())?;
        let mut ebpf = attach::load(crate::object::PROGRAM, &pins, &specs)?;
        let mut maps = Maps::open(&pins, &specs)?;
        let config = configure(&maps, &options)?;
        let dropped = Dropped::adopt(&mut maps, options.limit_drop, fence::nanoseconds())?;
        let clock = Clock::new(config.tick_shift)?;
        let mut image = Image::read(maps, config.seed, &options, now).with_context(|| {
            format!(
                "adopt the maps under {0}; `sluicegate uninstall --pin-path {0}` removes them, flows are lost",
                pin_path.display()
            )
        })?;
        let sync = match options.sync.as_ref().zip(key) {
            None => None,
            Some((sync, key)) => {
                let directory = Directory::default();
                image.directory = Some(directory.clone());
                let host = sync::Host { pins: &pins, maps: &image.maps, directory, hz: hz()? };
                Some(FlowSync::start(sync, key, host).context("start the flow sync")?)
            }
        };
        tracing::info!(
            adopted,
            frontends = image.frontends.len(),
            pin_path = %pin_path.display(),
            "the data plane's maps are ready"
        );
        let others = pins.other_schemas();
        let mut dataplane = Self {
            options,
            pins,
            devices,
            namespace,
            image,
            dropped,
            clock,
            attachments: Vec::new(),
            waiting: None,
            sync,
            _claims: claims,
        };
        if others.is_empty() {
            dataplane.attach(&mut ebpf)?;
        } else {
            tracing::warn!(
                found = ?others,
                "pins of another schema: its programs forward until the first snapshot is applied; its flows are lost then"
            );
            dataplane.waiting = Some(ebpf);
        }
        Ok(dataplane)
    }

    /// Makes the maps what the snapshot says. After an error the next call does what is missing.
    pub fn apply(&mut self, snapshot: &Arc<Snapshot>) -> Result<Applied> {
        let problems = self.image.apply(snapshot, Instant::now())?;
        if let Some(directory) = &self.image.directory {
            directory.lock().set_ready();
        }
        if let Some(mut ebpf) = self.waiting.take() {
            self.replace_other_schemas(&mut ebpf)?;
        }
        Ok(Applied { generation: snapshot.generation, problems })
    }

    /// Periodic work, about once a second.
    pub fn tick(&mut self) -> Result<()> {
        anyhow::ensure!(
            self.sync.as_ref().is_none_or(FlowSync::is_alive),
            "the thread of the flow sync has ended: flows are not shared any more; restart the agent"
        );
        self.image.tick(Instant::now(), self.clock.tick()?)?;
        self.dropped.expire(&mut self.image.maps)
    }

    /// How each interface is attached. Empty until the first snapshot where another schema's programs are replaced.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The hash seed in force, for telling the operator what other nodes need.
    pub fn hash_seed(&self) -> u64 {
        self.image.seed
    }

    /// From now on these VIPs, and no others, may be held by other nodes: each by its virtual router. Adverts that
    /// come to `listening`, this node's own addresses, are seen beside those to VRRP's groups; packets to them cost a little more.
    /// Without effect until a [`Fence`] gives roles and beats, or another node adverts.
    pub fn guard(&mut self, routers: &BTreeMap<IpAddr, RouterKey>, listening: &BTreeSet<IpAddr>) -> Result<()> {
        self.image.put_routers(routers, listening)
    }

    /// The handle for the thread of the election.
    pub fn fence(&self) -> Result<Fence> {
        Fence::open(&self.pins)
    }

    /// Whether an address is one of this node's.
    pub fn is_own(address: IpAddr) -> bool {
        sync::is_own(address)
    }

    /// How the flow sync goes; `None` where it is off.
    pub fn sync(&self) -> Option<SyncReading> {
        self.sync.as_ref().map(FlowSync::reading)
    }

    /// Tells other edges what the proxy lets through under the limits that they share, and the proxy what they do. Without effect where
    /// the flow sync is off: nothing is shared there.
    pub fn share_limits(&self, limits: SharedLimits) {
        if let Some(sync) = &self.sync {
            sync.share_limits(limits);
        }
    }

    /// A cheap question for the election of another thread: whether this node may take an address from a node that holds it
    /// ([`SyncReading::settled`]). Always yes where the flow sync is off.
    pub fn may_preempt(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        match &self.sync {
            Some(sync) => Box::new(sync.settled()),
            None => Box::new(|| true),
        }
    }

    /// Detaches the programs and removes all pins: forwarding stops. For a deliberate uninstall only.
    pub fn detach_and_unpin(self) -> Result<()> {
        pins::remove_all(&self.options.pin_path)
    }

    fn attach(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        self.attachments = attach::attach(ebpf, &self.pins, &self.devices, self.namespace, self.options.xdp_mode)?;
        self.image.maps.allow_redirect(&self.attachments)
    }

    fn replace_other_schemas(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        let others = self.pins.other_schemas();
        for other in &others {
            attach::take_over(&self.pins, other)?;
        }
        self.attach(ebpf)?;
        for other in &others {
            pins::remove_tree(other)?;
            tracing::warn!(path = %other.display(), "replaced the data plane of another schema and removed its pins");
        }
        Ok(())
    }
}

/// Detaches and removes whatever is pinned under `pin_path`, by any schema, when no agent runs there.
pub fn uninstall(pin_path: &Path) -> Result<()> {
    let _claims = claim::take_existing(pin_path)?;
    pins::remove_all(pin_path)
}

/// Writes `CONFIG` and returns it.
fn configure(maps: &Maps, options: &DataplaneOptions) -> Result<Config> {
    let pinned = maps.config.load(0);
    let seed = match (options.hash_seed, pinned.seed) {
        (Some(wanted), before) => {
            if before != 0 && before != wanted {
                tracing::warn!("the hash seed changed: flow records made under the old one are not found any more");
            }
            wanted
        }
        (None, 0) => random()?,
        (None, before) => before,
    };
    let (first, last) = (u32::from(*options.snat_ports.start()), u32::from(*options.snat_ports.end()));
    anyhow::ensure!(first > 0 && first <= last, "the SNAT port range {first}-{last} is empty or begins at 0");
    let hz = hz()?;
    let shift = tick_shift(hz);
    let config = Config {
        seed,
        flow_mask: maps.flow_buckets() - 1,
        reply_mask: maps.reply_buckets() - 1,
        tick_shift: shift,
        udp_idle: u32::try_from((options.udp_idle.as_millis() * u128::from(hz) / 1000) >> shift)
            .unwrap_or(u32::MAX)
            .max(1),
        port_min: first,
        port_count: last - first + 1,
        dropping: pinned.dropping,
    };
    maps.config.store(0, &config);
    Ok(config)
}

/// At least so long, in ticks of the programs' clock.
fn ticks(seconds: u32, shift: u32) -> Result<u32> {
    let jiffies = u64::from(seconds) * u64::from(hz()?);
    Ok(u32::try_from((jiffies >> shift) + 1).unwrap_or(u32::MAX))
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: room for the 8 bytes asked for.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    anyhow::ensure!(got == 8, "getrandom: {}", std::io::Error::last_os_error());
    // 0 means "no seed yet" in adopted maps.
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// Jiffies a second: the coarse clock advances once a jiffy.
fn hz() -> Result<u32> {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for one `timespec`.
    let failed = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) } != 0;
    let nanoseconds = u32::try_from(resolution.tv_nsec).unwrap_or(0);
    anyhow::ensure!(!failed && nanoseconds > 0, "the coarse clock does not tell its resolution");
    Ok((1_000_000_000 + nanoseconds / 2) / nanoseconds)
}
