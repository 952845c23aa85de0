//! The model's maps, as the programs have them.

use ingress_tests::l4_model::Maps;
use ingress_tests::xdp_world::World;
use xdp_ebpf::{Heartbeat, Pool, Ring, Router, SourceKey, Vip, mac_word, map};

/// Of all VIPs.
const ROUTER: u32 = 1;

/// Writes the model's maps over what is there; frontends and VIPs that are no longer named are removed.
pub(crate) fn write(real: &mut World, maps: &Maps, before: Option<&Maps>) {
    *real.config = maps.config;
    for bit in &maps.filter {
        real.filter.words[*bit as usize / 64] |= 1 << (bit % 64);
    }
    for key in before.iter().flat_map(|b| b.frontends.keys()).filter(|key| !maps.frontends.contains_key(key)) {
        real.rig.remove(map::FRONTENDS, key).expect("remove a frontend");
    }
    for key in before.iter().flat_map(|b| b.vips.keys()).filter(|key| !maps.vips.contains_key(*key)) {
        real.rig.remove(map::VIPS, key).expect("remove a VIP");
    }
    for (key, flags) in &maps.vips {
        real.rig.set(map::VIPS, key, &Vip { flags: *flags, router: ROUTER }).expect("write a VIP");
    }
    for (frontend, (addr, bits)) in &maps.sources {
        let key = SourceKey { bits: 32 + bits, frontend: *frontend, addr: *addr };
        real.rig.set(map::SOURCES, &key, &1u32).expect("write a range");
    }
    for client in before.iter().flat_map(|b| b.dropped.keys()).filter(|client| !maps.dropped.contains_key(*client)) {
        real.rig.remove(map::DROPPED, client).expect("let a client go");
    }
    for (client, still) in &maps.dropped {
        let until = if *still { u64::MAX } else { 1 };
        real.rig.set(map::DROPPED, client, &until).expect("drop a client");
    }
    for (id, info) in &maps.infos {
        real.frontend_info[*id as usize] = *info;
    }
    for (id, backend) in &maps.backends {
        real.backends[*id as usize] = *backend;
    }
    let mut used = 0;
    for (id, (current, previous)) in &maps.rings {
        let mut place = |slots: &[u32]| {
            real.ring_slots[used..used + slots.len()].copy_from_slice(slots);
            used += slots.len();
            Ring::new((used - slots.len()) as u32, slots.len() as u32)
        };
        real.pools[*id as usize] = Pool { current: place(current), previous: place(previous) };
    }
    for (key, frontend) in &maps.frontends {
        real.frontend_port(u16::from_be_bytes(key.port));
        real.rig.set(map::FRONTENDS, key, frontend).expect("write a frontend");
    }
    let until = if maps.other.is_some() { u64::MAX } else { 0 };
    real.rig.array::<Heartbeat>(map::HEARTBEAT, 1).expect("HEARTBEAT")[0].hand_over_until = until;
    let routers = real.rig.array::<Router>(map::ROUTERS, xdp_ebpf::ROUTERS as usize).expect("ROUTERS");
    let router = &mut routers[ROUTER as usize];
    (router.other, router.other_until) = (mac_word(maps.other.unwrap_or_default()), until);
}
