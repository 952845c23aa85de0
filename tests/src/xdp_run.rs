//! The packet programs on a bench: loaded into the kernel, with maps that a test fills, run on single packets by
//! `BPF_PROG_TEST_RUN` inside a namespace of their own. Knows the ABI, not the rules.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::Map;
use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{REPLY_FACTOR, WAYS, map, program};

use crate::netns::Namespace;

/// The ingress device's and the other device's MAC, and their only neighbours'.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub const OTHER_PEER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// Sizes of the maps that tests vary.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub flow_buckets: u32,
    pub backends: u32,
    pub ring_pages: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { flow_buckets: 128, backends: 1024, ring_pages: 64 }
    }
}

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `XDP_*` or `TC_ACT_*`.
    pub action: u32,
    pub packet: Vec<u8>,
    /// Mean nanoseconds of the repetitions.
    pub nanoseconds: u32,
}

/// The programs with their maps, and a namespace with two devices. The thread that makes it enters the namespace for good:
/// the kernel takes the devices of a test run from the caller's.
pub struct Rig {
    pub ns: Arc<Namespace>,
    /// Device `in0`, by which packets come. Routes: 10.0.0.0/8 and `2001:db8::/32` behind a resolved neighbour on it.
    pub ingress: u32,
    /// Device `out0`, in `DEVICES`: 172.16.0.0/12 and `2001:db8:ffff::/48`, with an MTU of 1400.
    pub other: u32,
    xdp: OwnedFd,
    tc: OwnedFd,
    maps: BTreeMap<String, OwnedFd>,
    _ebpf: Ebpf,
}

impl Rig {
    /// Loads an object file with these sizes and puts the calling thread into a new namespace.
    pub fn new(label: &str, sizes: Sizes, object: &[u8]) -> Result<Self> {
        let ns = Namespace::new(label)?;
        let (ingress, other) = devices(&ns)?;
        ns.enter_thread()?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map::FLOW_INDEX, sizes.flow_buckets)
            .map_max_entries(map::FLOWS, sizes.flow_buckets * WAYS as u32)
            .map_max_entries(map::REPLY_INDEX, sizes.flow_buckets * REPLY_FACTOR)
            .map_max_entries(map::BACKENDS, sizes.backends)
            .map_max_entries(map::BACKEND_TRAFFIC, sizes.backends)
            .map_max_entries(map::RINGS, sizes.ring_pages)
            .load(object)
            .context("create the maps (a test of the packet programs needs root and a kernel with BPF)")?;
        let xdp: &mut Xdp =
            ebpf.program_mut(program::INGRESS).context("the object has no ingress program")?.try_into()?;
        xdp.load().context("the verifier refused the ingress program")?;
        let xdp = xdp.fd()?.as_fd().try_clone_to_owned()?;
        let tc: &mut SchedClassifier =
            ebpf.program_mut(program::EGRESS).context("the object has no egress program")?.try_into()?;
        tc.load().context("the verifier refused the egress program")?;
        let tc = tc.fd()?.as_fd().try_clone_to_owned()?;
        let mut maps = BTreeMap::new();
        for (name, map) in ebpf.maps() {
            let (Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::DevMapHash(data)
            | Map::LpmTrie(data)) = map
            else {
                bail!("map {name} has an unexpected type");
            };
            maps.insert(name.to_owned(), data.fd().as_fd().try_clone_to_owned()?);
        }
        let rig = Self { ns, ingress, other, xdp, tc, maps, _ebpf: ebpf };
        for device in [ingress, other] {
            rig.set(map::DEVICES, &device, &[device, 0])?;
        }
        Ok(rig)
    }

    /// Runs the ingress program on a packet that came by `in0`.
    pub fn ingress(&self, packet: &[u8]) -> Result<Run> {
        self.run(self.xdp.as_raw_fd(), packet, 1)
    }

    /// Runs the egress program on a packet.
    pub fn egress(&self, packet: &[u8]) -> Result<Run> {
        test_run(self.tc.as_raw_fd(), packet, &[], 1)
    }

    /// Runs any XDP program on a packet that came by `in0`.
    pub fn run(&self, program: RawFd, packet: &[u8], repeat: u32) -> Result<Run> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, packet.len() as u32, 0, self.ingress, 0, 0];
        test_run(program, packet, &context.map(u32::to_ne_bytes).concat(), repeat)
    }

    pub fn program(&self) -> RawFd {
        self.xdp.as_raw_fd()
    }

    pub fn map(&self, name: &str) -> Result<RawFd> {
        Ok(self.maps.get(name).with_context(|| format!("the object has no map {name}"))?.as_raw_fd())
    }

    /// Writes one entry of a map that is not per CPU. Key and value must have the map's sizes.
    pub fn set<K: Copy, V: Copy>(&self, name: &str, key: &K, value: &V) -> Result<()> {
        update(self.map(name)?, key, value).with_context(|| format!("write to map {name}"))
    }

    /// One entry of a map that is not per CPU.
    pub fn value<K: Copy, V: Copy + Default>(&self, name: &str, key: &K) -> Result<V> {
        let mut value = V::default();
        let attr = element(self.map(name)?, std::ptr::from_ref(key) as u64, (&raw mut value) as u64);
        bpf(BPF_MAP_LOOKUP_ELEM, &attr).with_context(|| format!("read map {name}"))?;
        Ok(value)
    }

    pub fn remove<K: Copy>(&self, name: &str, key: &K) -> Result<()> {
        let attr = element(self.map(name)?, std::ptr::from_ref(key) as u64, 0);
        bpf(BPF_MAP_DELETE_ELEM, &attr).map(drop).with_context(|| format!("delete from map {name}"))
    }

    /// The `entries` values of an array map, in place: what the program writes is seen, and the other way round.
    pub fn array<T: Copy>(&self, name: &str, entries: usize) -> Result<&'static mut [T]> {
        ensure!(size_of::<T>().is_multiple_of(8), "the kernel rounds values up to 8 bytes");
        let len = size_of::<T>() * entries;
        // SAFETY: a fresh mapping of `len` bytes, never unmapped while the process lives; any bytes are valid for the ABI's plain types.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.map(name)?,
                0,
            );
            ensure!(at != libc::MAP_FAILED, "mmap {name}: {}", std::io::Error::last_os_error());
            Ok(std::slice::from_raw_parts_mut(at.cast(), entries))
        }
    }

    /// One entry of a per-CPU array, all CPUs' values.
    pub fn per_cpu<T: Copy + Default>(&self, name: &str, index: u32) -> Result<Vec<T>> {
        ensure!(size_of::<T>().is_multiple_of(8), "the kernel rounds values up to 8 bytes");
        let mut values = vec![T::default(); possible_cpus()?];
        let attr = element(self.map(name)?, (&raw const index) as u64, values.as_mut_ptr() as u64);
        bpf(BPF_MAP_LOOKUP_ELEM, &attr).with_context(|| format!("read map {name}"))?;
        Ok(values)
    }

    /// All verdict counters, summed over the CPUs, indexed by `Verdict as usize`.
    pub fn verdicts(&self) -> Result<Vec<u64>> {
        Verdict::ALL.iter().map(|v| Ok(self.per_cpu::<u64>(map::VERDICTS, *v as u32)?.iter().sum())).collect()
    }
}

fn devices(ns: &Namespace) -> Result<(u32, u32)> {
    let mac = |m: [u8; 6]| m.map(|b| format!("{b:02x}")).join(":");
    for (name, peer, own) in [("in0", "in1", MAC), ("out0", "out1", OTHER_MAC)] {
        ns.ip(&["link", "add", name, "address", &mac(own), "type", "veth", "peer", "name", peer])?;
        ns.ip(&["link", "set", peer, "up"])?;
        ns.ip(&["link", "set", name, "up"])?;
        // The kernel runs a test on a device's receive queue, which veth registers when a program is attached.
        ns.attach_pass(name)?;
    }
    ns.ip(&["link", "set", "out0", "mtu", "1400"])?;
    ns.sysctl("net/ipv4/ip_forward", "1")?;
    ns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    for (device, v4, v6, peer) in [
        ("in0", ["192.0.2.1/24", "192.0.2.2"], ["fd00:1::1/64", "fd00:1::2"], PEER_MAC),
        ("out0", ["198.18.0.1/24", "198.18.0.2"], ["fd00:2::1/64", "fd00:2::2"], OTHER_PEER_MAC),
    ] {
        for [own, next] in [v4, v6] {
            ns.ip(&["addr", "add", own, "dev", device])?;
            ns.ip(&["neigh", "replace", next, "lladdr", &mac(peer), "dev", device, "nud", "permanent"])?;
        }
    }
    for (device, routes) in [
        ("in0", [("10.0.0.0/8", "192.0.2.2"), ("198.51.100.0/24", "192.0.2.2"), ("2001:db8::/32", "fd00:1::2")]),
        (
            "out0",
            [("172.16.0.0/12", "198.18.0.2"), ("203.0.113.128/25", "198.18.0.2"), ("2001:db8:ffff::/48", "fd00:2::2")],
        ),
    ] {
        for (to, via) in routes {
            ns.ip(&["route", "add", to, "via", via, "dev", device])?;
        }
    }
    Ok((index(ns, "in0")?, index(ns, "out0")?))
}

fn index(ns: &Namespace, device: &str) -> Result<u32> {
    let name = std::ffi::CString::new(device)?;
    // SAFETY: `name` is a C string.
    let index = ns.inside(|| unsafe { libc::if_nametoindex(name.as_ptr()) });
    ensure!(index != 0, "no device {device} in {}", ns.name);
    Ok(index)
}

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// bpf(2). The attributes are words, so that no union of the kernel's has to be repeated here.
fn bpf(command: libc::c_long, attr: &[u64]) -> Result<libc::c_long> {
    // SAFETY: `attr` is as long as said, and the kernel checks what it holds; pointers in it are the callers' live borrows.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    ensure!(rc >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    Ok(rc)
}

/// A program or map that is pinned there.
pub fn pinned(path: &std::path::Path) -> Result<OwnedFd> {
    let name = std::ffi::CString::new(path.to_string_lossy().as_bytes())?;
    let fd = bpf(BPF_OBJ_GET, &[name.as_ptr() as u64, 0]).with_context(|| format!("open {}", path.display()))?;
    // SAFETY: the kernel just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn element(map: RawFd, key: u64, value: u64) -> [u64; 4] {
    [map as u64, key, value, 0]
}

/// Writes one entry of a map that is not per CPU.
pub fn update<K: Copy, V: Copy>(map: RawFd, key: &K, value: &V) -> Result<()> {
    let attr = element(map, std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64);
    bpf(BPF_MAP_UPDATE_ELEM, &attr).map(drop)
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Runs a loaded program on a packet, with a context if it takes one, in the network namespace of the caller.
pub fn test_run(program: RawFd, packet: &[u8], context: &[u8], repeat: u32) -> Result<Run> {
    let mut out = vec![0u8; packet.len() + 512];
    // prog_fd, retval | data_size_in, data_size_out | data_in | data_out | repeat, duration | ctx_size_in, ctx_size_out | ctx_in | ctx_out
    // | flags, cpu | batch_size
    let mut attr = [
        pair(program as u32, 0),
        pair(packet.len() as u32, out.len() as u32),
        packet.as_ptr() as u64,
        out.as_mut_ptr() as u64,
        pair(repeat, 0),
        pair(context.len() as u32, 0),
        if context.is_empty() { 0 } else { context.as_ptr() as u64 },
        0,
        0,
        0,
    ];
    // SAFETY: as in `bpf`; the kernel writes its answers into `attr` and at most `out.len()` bytes into `out`.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, attr.as_mut_ptr(), size_of_val(&attr)) };
    ensure!(rc >= 0, "run a program on {} bytes: {}", packet.len(), std::io::Error::last_os_error());
    out.truncate((attr[1] >> 32) as usize);
    Ok(Run { action: (attr[0] >> 32) as u32, packet: out, nanoseconds: (attr[4] >> 32) as u32 })
}

fn possible_cpus() -> Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").context("read the possible CPUs")?;
    let last = text.trim().rsplit(['-', ',']).next().unwrap_or_default();
    Ok(last.parse::<usize>().with_context(|| format!("understand the possible CPUs {text:?}"))? + 1)
}

/// Keeps this thread on the CPU where it is. The program has things of its own on each, and one of them is seen from outside: what
/// the last eviction left behind.
pub fn stay_on_this_cpu() {
    // SAFETY: takes nothing.
    let cpu = unsafe { libc::sched_getcpu() };
    pin(usize::try_from(cpu).expect("the number of a CPU")).expect("stay on a CPU");
}

/// Keeps this thread on a CPU.
pub fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a zeroed set is an empty one; the calls take no other pointers.
    let rc = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    ensure!(rc == 0, "pin to CPU {cpu}: {}", std::io::Error::last_os_error());
    Ok(())
}
