//! Nanoseconds a packet that the XDP program costs, one core, net of the test loop. A wrapper restores the packet before each run
//! (plain `repeat` would measure the program on its own output), and each run is compared with one of a program that only returns.
//! Not in any number: NIC driver, DMA, cold packet bytes.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, ensure};
use aya::EbpfLoader;
use aya::maps::Map;
use aya::programs::Xdp;
use clap::Parser;
use ingress_tests::packet::{ACK, Packet, SYN, faults, icmp, tcp, udp};
use ingress_tests::xdp_run::{PEER_MAC, Sizes, pin, update};
use ingress_tests::xdp_site::{DROP, PASS, TX, at};
use ingress_tests::xdp_world::{World, addr};
use xdp_ebpf::bench::{BASE, HEADER, PLAN, PREPARE, Plan, UNDER_TEST, flows, place};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, forwarding, frontend_flags, map};

/// Nanoseconds a packet in the XDP program, by packet kind.
#[derive(Parser)]
struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Packets a run.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// Runs of each kind, in turns with the base.
    #[arg(long, default_value_t = 11)]
    runs: usize,
    /// The CPU to run on.
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    /// Size of the flow table, in buckets of eight flows; a power of two. The default is the agent's: a million flows.
    #[arg(long, default_value_t = 131_072)]
    flow_buckets: u32,
    /// Measure this object file instead of the built one.
    #[arg(long)]
    object: Option<std::path::PathBuf>,
    /// Only kinds whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

const VIP: &str = "203.0.113.10:443";
const VIP6: &str = "[2001:db8:1::10]:443";
/// The wrapper replaces the low half of the address, and the port.
const CLIENT: &str = "10.128.0.0:40000";
const CLIENT6: &str = "[2001:db8::]:40000";
/// Whoever is dropped, and a thousand after it.
const DROPPED: &str = "10.129.0.0:40000";
const BACKENDS: u32 = 64;

struct Kind {
    name: &'static str,
    /// Sent once before the measurement, so that its flow is there.
    before: Option<Packet>,
    packet: Packet,
    flows: u32,
    /// Forget all flows before each run.
    empty: bool,
    /// Some clients are dropped.
    dropping: bool,
    action: u32,
    verdict: Verdict,
    /// At most this many nanoseconds, in the median, where the project set itself a bar.
    bar: Option<u32>,
}

fn kinds() -> Vec<Kind> {
    let (client, vip) = (at(CLIENT), at(VIP));
    let syn = tcp(client, vip, SYN);
    let ack = tcp(client, vip, ACK);
    let (udp_vip, proxy) = (at("203.0.113.10:53"), at("203.0.113.10:80"));
    let kind = |name, packet, verdict| Kind {
        name,
        before: None,
        packet,
        flows: flows::ONE,
        empty: false,
        dropping: false,
        action: match verdict {
            Verdict::PassNotOurs | Verdict::PassL7 | Verdict::ForwardLocal => PASS,
            Verdict::DropLimited => DROP,
            _ => TX,
        },
        verdict,
        bar: None,
    };
    let nat = |name, packet| kind(name, packet, Verdict::ForwardNat);
    vec![
        Kind { bar: Some(35), ..kind("not ours", tcp(client, at("203.0.113.99:443"), ACK), Verdict::PassNotOurs) },
        kind("L7, passed", tcp(client, proxy, ACK), Verdict::PassL7),
        Kind { dropping: true, ..kind("L7, passed, others are dropped", tcp(client, proxy, ACK), Verdict::PassL7) },
        Kind { dropping: true, ..kind("L7, dropped", tcp(at(DROPPED), proxy, ACK), Verdict::DropLimited) },
        Kind { before: Some(syn.clone()), bar: Some(137), ..nat("nat TCP v4, one flow", ack.clone()) },
        Kind { flows: flows::RANDOM, bar: Some(323), ..nat("nat TCP v4, 65,536 flows at random", ack.clone()) },
        Kind { flows: flows::NEW, empty: true, bar: Some(510), ..nat("nat TCP v4, new flow, free way", syn.clone()) },
        Kind { flows: flows::NEW, bar: Some(510), ..nat("nat TCP v4, new flow, evicting", syn.clone()) },
        Kind { before: Some(syn), ..kind("nat TCP v4, reply", ack.clone(), Verdict::ReplyNat) },
        Kind { before: Some(udp(client, udp_vip)), ..nat("nat UDP v4, one flow", udp(client, udp_vip)) },
        Kind {
            before: Some(tcp(at(CLIENT6), at(VIP6), SYN)),
            ..nat("nat TCP v6, one flow", tcp(at(CLIENT6), at(VIP6), ACK))
        },
        kind("local TCP v4, one flow", tcp(client, at("203.0.113.10:25"), ACK), Verdict::ForwardLocal),
        kind("echo", icmp(client.ip(), vip.ip(), 8, 0, [1, 2, 3, 4], vec![7; 32]), Verdict::Echo),
    ]
}

fn world(options: &Options) -> Result<World> {
    let sizes = Sizes { flow_buckets: options.flow_buckets, ..Sizes::default() };
    let other = options.object.as_ref().map(std::fs::read).transpose().context("read the object file")?;
    let mut w = World::load("bench", sizes, other.as_deref().unwrap_or(ingress_agent::object::PROGRAM))?;
    (w.config.port_min, w.config.port_count) = (1024, 64_512);
    for (id, proto, vip, flags) in [
        (1, IPPROTO_TCP, VIP, 0),
        (2, IPPROTO_UDP, "203.0.113.10:53", 0),
        (3, IPPROTO_TCP, "203.0.113.10:80", frontend_flags::L7),
        (4, IPPROTO_TCP, VIP6, 0),
        (5, IPPROTO_TCP, "203.0.113.10:25", 0),
    ] {
        w.frontend(id, proto, at(vip), flags, at(vip).ip())?;
    }
    for i in 1..=BACKENDS {
        w.backend(i, SocketAddr::new(IpAddr::from([10, 0, 2, i as u8]), 8080), forwarding::NAT);
        let v6 = format!("[2001:db8:2::{i:x}]:8080");
        w.backend(100 + i, at(&v6), forwarding::NAT);
    }
    w.backend(99, at("10.244.0.9:2525"), forwarding::LOCAL);
    let slots = |first: u32| -> Vec<u32> { (0..8191).map(|i| first + i % BACKENDS).collect() };
    w.pool(1, &slots(1));
    w.pool(2, &slots(1));
    w.pool(4, &slots(101));
    w.pool(5, &[99]);
    for i in 0..1000u16 {
        let [high, low] = i.to_be_bytes();
        w.rig.set(map::DROPPED, &addr(IpAddr::from([10, 129, high, low])), &u64::MAX)?;
    }
    Ok(w)
}

/// The wrapper, ready to call a program.
struct Wrapper {
    prepare: OwnedFd,
    base: OwnedFd,
    plan: OwnedFd,
    under_test: OwnedFd,
    _ebpf: aya::Ebpf,
}

impl Wrapper {
    fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(ingress_agent::object::BENCH).context("load the wrapper")?;
        let mut program = |name| -> Result<OwnedFd> {
            let xdp: &mut Xdp = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
            xdp.load()?;
            Ok(xdp.fd()?.as_fd().try_clone_to_owned()?)
        };
        let (prepare, base) = (program(PREPARE)?, program(BASE)?);
        let map = |name| -> Result<OwnedFd> {
            let (Map::Array(data) | Map::ProgramArray(data)) =
                ebpf.map(name).with_context(|| format!("no map {name}"))?
            else {
                anyhow::bail!("map {name} has an unexpected type");
            };
            Ok(data.fd().as_fd().try_clone_to_owned()?)
        };
        let (plan, under_test) = (map(PLAN)?, map(UNDER_TEST)?);
        Ok(Self { prepare, base, plan, under_test, _ebpf: ebpf })
    }

    /// Runs `program` on `packets` packets of a kind and returns the nanoseconds of one, with the last action and packet.
    fn run(
        &self,
        w: &World,
        kind: &Kind,
        program: RawFd,
        packets: u32,
        from: u64,
    ) -> Result<ingress_tests::xdp_run::Run> {
        let packet = padded(&kind.packet);
        let mut header = [0; HEADER / 8];
        for (word, bytes) in header.iter_mut().zip(packet.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
        }
        // One flow writes what is there; a reply and an echo stay as they are.
        let place = match kind.verdict {
            Verdict::ReplyNat | Verdict::Echo => place::NONE,
            _ if kind.packet.src.is_ipv4() => place::V4,
            _ => place::V6,
        };
        let plan = Plan { header, len: packet.len() as u32, flows: kind.flows, runs: from, place, pad: 0 };
        update(self.plan.as_raw_fd(), &0u32, &plan)?;
        update(self.under_test.as_raw_fd(), &0u32, &(program as u32))?;
        w.rig.run(self.prepare.as_raw_fd(), &packet, packets)
    }
}

/// With Ethernet padding up to what the wrapper restores.
fn padded(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes.resize(bytes.len().max(HEADER), 0);
    bytes
}

struct Measured {
    name: &'static str,
    min: u32,
    median: u32,
    bar: Option<u32>,
}

fn measure(w: &mut World, wrapper: &Wrapper, mut kind: Kind, options: &Options) -> Result<Measured> {
    w.clear_flows();
    w.config.dropping = u64::from(kind.dropping);
    if let Some(before) = &kind.before {
        let run = w.rig.ingress(&padded(before))?;
        if kind.verdict == Verdict::ReplyNat {
            let sent = run.packet;
            let (backend, port) =
                (IpAddr::from([sent[30], sent[31], sent[32], sent[33]]), u16::from_be_bytes([sent[34], sent[35]]));
            kind.packet = tcp(SocketAddr::new(backend, 8080), SocketAddr::new(at(VIP).ip(), port), ACK);
        }
    }
    let (program, base) = (w.rig.program(), wrapper.base.as_raw_fd());
    // The first packet: what came out is right, not only fast.
    let first = wrapper.run(w, &kind, program, 1, 0)?;
    ensure!(first.action == kind.action, "{}: action {}", kind.name, first.action);
    let mac = if kind.verdict == Verdict::Echo { kind.packet.macs.1 } else { PEER_MAC };
    ensure!(
        kind.action != TX || first.packet[..6] == mac,
        "{}: not to the next hop: {:02x?}",
        kind.name,
        &first.packet[..14]
    );
    if kind.flows == flows::ONE {
        ensure!(faults(&first.packet).is_empty(), "{}: {:?}", kind.name, faults(&first.packet));
        ensure!(
            (first.packet == padded(&kind.packet))
                == matches!(kind.verdict, Verdict::PassNotOurs | Verdict::PassL7 | Verdict::DropLimited),
            "{}: bytes",
            kind.name
        );
    }
    let mut from = 1;
    if kind.flows != flows::ONE && !kind.empty {
        // Warm: every flow is there, or the table is full.
        for _ in 0..if kind.flows == flows::NEW { 3 } else { 1 } {
            wrapper.run(w, &kind, program, 1_000_000, from)?;
            from += 1_000_000;
        }
    }
    let mut net = vec![];
    for _ in 0..options.runs {
        if kind.empty {
            w.clear_flows();
        }
        let packets = if kind.empty { options.packets / 2 } else { options.packets };
        let nothing = wrapper.run(w, &kind, base, packets, from)?.nanoseconds;
        let before = w.rig.verdicts()?;
        let run = wrapper.run(w, &kind, program, packets, from)?;
        from += u64::from(packets);
        let counted = w.rig.verdicts()?[kind.verdict as usize] - before[kind.verdict as usize];
        ensure!(
            counted * 1000 >= u64::from(packets) * 999,
            "{}: {counted} of {packets} packets were {:?}",
            kind.name,
            kind.verdict
        );
        net.push(run.nanoseconds.saturating_sub(nothing));
    }
    net.sort_unstable();
    Ok(Measured { name: kind.name, min: net[0], median: net[net.len() / 2], bar: kind.bar })
}

fn main() -> Result<()> {
    let options = Options::parse();
    pin(options.cpu)?;
    let mut w = world(&options)?;
    let wrapper = Wrapper::load()?;
    let mut rows = vec![];
    for kind in kinds() {
        if options.only.as_ref().is_none_or(|only| kind.name.contains(only.as_str())) {
            rows.push(measure(&mut w, &wrapper, kind, &options)?);
        }
    }
    if options.json {
        let row = |m: &Measured| serde_json::json!({ "name": m.name, "min_ns": m.min, "median_ns": m.median, "bar_ns": m.bar });
        println!("{}", serde_json::Value::from(rows.iter().map(row).collect::<Vec<_>>()));
        return Ok(());
    }
    println!("{:38} {:>6} {:>8} {:>6}", "ns a packet, net", "min", "median", "bar");
    for m in &rows {
        let bar = m
            .bar
            .map_or_else(String::new, |bar| format!("{bar:>6} {}", if m.median <= bar { "held" } else { "MISSED" }));
        println!("{:38} {:>6} {:>8} {bar}", m.name, m.min, m.median);
    }
    Ok(())
}
