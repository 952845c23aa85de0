//! Hostile bytes at both programs: packets of the site, damaged in every way that chance finds. Never an error, never an action that
//! is not known, never a change to what is malformed, never a wrong checksum where there was a right one. The seed of a failing
//! packet is in the message; `SLUICEGATE_FUZZ_PACKETS` sets how many are tried.

use ingress_tests::dice::Dice;
use ingress_tests::packet::{ACK, FIN, Packet, RST, SYN, faults, icmp, tcp, udp};
use ingress_tests::xdp_site::*;
use ingress_tests::xdp_world::World;
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP};

fn packets() -> u64 {
    std::env::var("SLUICEGATE_FUZZ_PACKETS").ok().and_then(|n| n.parse().ok()).unwrap_or(30_000)
}

/// A packet that the site knows what to do with.
fn valid(dice: &mut Dice) -> Packet {
    let v6 = dice.one_in(3);
    let (vips, backends): (&[&str], &[&str]) = if v6 {
        (&[WEB6, DNS6, POD6], &[WEB6_BACKEND, DNS6_BACKEND, POD6_BACKEND])
    } else {
        (
            &[WEB, DNS, PROXY, POD, POD_UDP, EMPTY, TWIN, FAR, MUTE, STICKY],
            &[WEB_BACKEND, DNS_BACKEND, POD_BACKEND, FAR_BACKEND],
        )
    };
    let client = if v6 { CLIENT6 } else { CLIENT };
    let (vip, backend) = (*dice.pick(vips), *dice.pick(backends));
    let flags = *dice.pick(&[SYN, ACK, SYN | ACK, FIN | ACK, RST, 0, 0xff]);
    let size = if dice.one_in(8) { 1400 } else { dice.below(64) };
    let quoted = if dice.one_in(2) { tcp(at(vip), at(client), ACK) } else { udp(at(vip), at(client)) };
    let behind = |proto| source(proto, client, vip, 0);
    let mut packet = match dice.below(8) {
        0..=2 => tcp(at(client), at(vip), flags).payload(&vec![7; size]),
        3 => udp(at(client), at(vip)).payload(&vec![9; size]),
        4 => tcp(at(backend), behind(IPPROTO_TCP), flags),
        5 => udp(at(backend), behind(IPPROTO_UDP)),
        6 => {
            let (kind, code) =
                *dice.pick(&[(3, 1), (3, 4), (11, 0), (12, 0), (1, 0), (2, 0), (4, 1), (8, 0), (128, 0)]);
            icmp(at(client).ip(), at(vip).ip(), kind, code, [0, 0, 5, 0], quoted.ip_bytes())
        }
        _ => {
            let about = tcp(behind(IPPROTO_TCP), at(backend), ACK);
            let (kind, code) = if v6 { (1, 4) } else { (3, 1) };
            icmp(at(backend).ip(), about.src, kind, code, [0; 4], about.ip_bytes())
        }
    };
    for _ in 0..dice.below(8).saturating_sub(5) {
        packet = packet.vlan(*dice.pick(&[0x8100, 0x88a8]), dice.number() as u16);
    }
    if dice.one_in(6) {
        packet.options = vec![1; 4 * (1 + dice.below(10))];
    }
    if v6 && dice.one_in(4) {
        packet.extensions = (0..=dice.below(5)).map(|_| (*dice.pick(&[0, 60]), vec![0, 0, 1, 4, 0, 0, 0, 0])).collect();
    }
    packet
}

/// Damage, mostly to the headers.
fn damage(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..dice.below(4) {
        match dice.below(6) {
            0 => bytes.truncate(14 + dice.below(bytes.len() - 13)),
            1 => bytes.extend(std::iter::repeat_with(|| dice.number() as u8).take(16).collect::<Vec<_>>()),
            2 => {
                let (from, to) = (dice.below(bytes.len()), dice.below(bytes.len()));
                bytes[to] = bytes[from];
            }
            3 => {
                let at = dice.below(bytes.len().min(64));
                bytes[at] = *dice.pick(&[0, 1, 4, 0x45, 0x60, 0x7f, 0x80, 0xff]);
            }
            _ => {
                let at = dice.below(bytes.len().min(96));
                bytes[at] ^= 1 << dice.below(8);
            }
        }
    }
    bytes
}

/// Whether the headers down to the IP payload agree with what there is. Written from the RFCs, not from the program.
fn well_formed(frame: &[u8]) -> bool {
    let mut at = 12;
    while at < 22 && matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    let Some((kind, ip)) = frame.get(at..).and_then(|rest| rest.split_first_chunk::<2>()) else { return false };
    let word = |at: usize| ip.get(at..at + 2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    match kind {
        [8, 0] if ip.len() >= 20 => {
            let header = usize::from(ip[0] & 15) * 4;
            ip[0] >> 4 == 4 && header >= 20 && (header + 8..=ip.len()).contains(&word(2))
        }
        [0x86, 0xdd] if ip.len() >= 40 => ip[0] >> 4 == 6 && (8..=ip.len() - 40).contains(&word(4)),
        _ => false,
    }
}

fn primary(counters: &[u64]) -> u64 {
    counters[..Verdict::FlowNew as usize].iter().sum()
}

#[test]
fn no_packet_is_an_error_and_malformed_ones_stay_as_they_are() {
    let w = site("fuzz", 128);
    let mut changed = 0;
    let before = primary(&w.rig.verdicts().expect("counters"));
    for seed in 0..packets() {
        let mut dice = Dice::new(seed);
        let packet = valid(&mut dice).bytes();
        let input = damage(&mut dice, packet);
        let run = w.rig.ingress(&input).unwrap_or_else(|e| panic!("seed {seed}: {e:#}\n{input:02x?}"));
        assert!((DROP..=REDIRECT).contains(&run.action), "seed {seed}: action {}\n{input:02x?}", run.action);
        changed += u64::from(judge(seed, &input, &run.packet));
    }
    assert_eq!(primary(&w.rig.verdicts().expect("counters")) - before, packets(), "one verdict a packet");
    assert!(changed > packets() / 10, "the packets reach the rewrites: {changed}");
}

#[test]
fn no_packet_is_an_error_at_egress() {
    let w = site("fuzzout", 128);
    let mut changed = 0;
    for seed in 0..packets() / 2 {
        let mut dice = Dice::new(seed);
        changed += u64::from(egress(&w, seed, &mut dice));
    }
    assert!(changed > packets() / 200, "the packets reach the rewrites: {changed}");
}

/// A client's packet to the pod at times, and then something like the pod's answer.
fn egress(w: &World, seed: u64, dice: &mut Dice) -> bool {
    let rows = [(POD, POD_BACKEND, CLIENT), (POD6, POD6_BACKEND, CLIENT6), (POD_UDP, POD_UDP_BACKEND, CLIENT)];
    let (vip, backend, client) = *dice.pick(&rows);
    let make = |from, to| if vip == POD_UDP { udp(from, to) } else { tcp(from, to, ACK) };
    w.rig.ingress(&make(at(client), at(vip)).bytes()).expect("a run");
    let input = damage(dice, make(at(backend), at(client)).bytes());
    let run = match w.rig.egress(&input) {
        Ok(run) => run,
        // The kernel itself refuses to build some packets for a test; the program never saw them.
        Err(e) if format!("{e:#}").contains("Invalid argument") => return false,
        Err(e) => panic!("seed {seed}: {e:#}\n{input:02x?}"),
    };
    assert_eq!(run.action, u32::MAX, "seed {seed}: TC_ACT_UNSPEC\n{input:02x?}");
    judge(seed, &input, &run.packet)
}

/// Whether the packet was changed, which only a well-formed one may be.
fn judge(seed: u64, input: &[u8], output: &[u8]) -> bool {
    if input == output {
        return false;
    }
    assert!(well_formed(input), "seed {seed}: a malformed packet was changed\n{input:02x?}\n{output:02x?}");
    if faults(input).is_empty() {
        let wrong = faults(output);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:?}\n{input:02x?}\n{output:02x?}");
    }
    true
}
