//! What one node's virtual routers make of groups, links, fitness and packets.

use std::time::Duration;

use super::*;
use crate::vip::vrrp::packet::{Advert, Checksum, Envelope, GROUP_V4, GROUP_V6, Version};

const MINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 2));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 3));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn group(vrid: u8, addresses: &[&str], priority: u8) -> VipGroup {
    VipGroup {
        vrid,
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        order: vec!["a".into(), "b".into()],
        priority,
    }
}

struct World {
    election: Election,
    now: Instant,
}

impl World {
    fn new(options: VrrpOptions) -> Self {
        Self { election: Election::new(options), now: Instant::now() }
    }

    fn up(options: VrrpOptions, groups: &[VipGroup]) -> Self {
        let mut world = Self::new(options);
        world.event(Event::Link(Some(vec![MINE, ip("fe80::2")])));
        world.event(Event::Groups(groups.to_vec().into()));
        world
    }

    fn event(&mut self, event: Event<'_>) -> Vec<Action> {
        self.election.on(event, self.now)
    }

    fn wait(&mut self, ms: u64) -> Vec<Action> {
        let end = self.now + Duration::from_millis(ms);
        let mut actions = Vec::new();
        while let Some(next) = self.election.next().filter(|n| *n <= end) {
            self.now = self.now.max(next);
            actions.extend(self.election.on(Event::Tick, self.now));
        }
        self.now = end;
        actions
    }

    fn advert(&mut self, from: IpAddr, vrid: u8, priority: u8, addresses: &[&str]) -> Vec<Action> {
        let advert = Advert {
            version: Version::V3,
            vrid,
            priority,
            interval: Duration::from_millis(100),
            addresses: addresses.iter().map(|a| ip(a)).collect(),
            password: None,
        };
        let to = if from.is_ipv4() { IpAddr::from(GROUP_V4) } else { IpAddr::from(GROUP_V6) };
        self.packet(from, to, &advert)
    }

    fn packet(&mut self, source: IpAddr, destination: IpAddr, advert: &Advert) -> Vec<Action> {
        let payload = advert.encode(source, destination, Checksum::Plain);
        let envelope = Envelope { source, destination, hop_limit: 255 };
        self.event(Event::Packet { packet: Ok((envelope, &payload)), mac: MAC })
    }

    fn rejected(&self, reason: Reject) -> u64 {
        self.election.rejected[reason as usize]
    }
}

fn held(actions: &[Action]) -> Option<(usize, usize)> {
    actions.iter().rev().find_map(|a| match a {
        Action::Hold { held, unsure, .. } => Some((held.len(), unsure.len())),
        _ => None,
    })
}

/// How many are held, and how many are left as they are.
fn open(actions: &[Action]) -> Option<(usize, usize)> {
    actions.iter().rev().find_map(|a| match a {
        Action::Hold { held, open, .. } => Some((held.len(), open.len())),
        _ => None,
    })
}

fn sent(actions: &[Action]) -> Vec<(IpAddr, IpAddr, u8, u8)> {
    let of = |a: &Action| match a {
        Action::Send { source, destination, payload } => Some((*source, *destination, payload[1], payload[2])),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn group_of_both_families_is_elected_over_ipv4_and_moves_as_one() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100", "fd01::100"], 250)]);
    let actions = w.wait(310);
    assert_eq!(sent(&actions), [(MINE, GROUP_V4.into(), 7, 250)]);
    assert_eq!(held(&actions), Some((2, 2)), "nobody was heard: whether they are free is not known");
    assert_eq!(held(&w.advert(OTHER, 7, 251, &["10.1.0.100"])), Some((0, 0)));
}

#[test]
fn group_of_ipv6_alone_speaks_from_the_link_local_address() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["fd01::100", "fe80::99"], 250)]);
    let actions = w.wait(310);
    assert_eq!(sent(&actions), [(ip("fe80::2"), GROUP_V6.into(), 7, 250)]);
    let Some(Action::Send { payload, .. }) = actions.iter().find(|a| matches!(a, Action::Send { .. })) else {
        panic!()
    };
    assert_eq!(payload[8..10], [0xfe, 0x80], "RFC 9568 §5.2.9: the link-local one first");
}

#[test]
fn addresses_whose_owner_was_heard_are_taken_without_a_question() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    w.advert(OTHER, 7, 251, &["10.1.0.100"]);
    assert_eq!(held(&w.wait(400)), Some((1, 0)));
}

#[test]
fn foreign_router_with_our_vrid_is_reported_and_ignored() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    w.wait(310);
    let actions = w.advert(OTHER, 7, 255, &["192.168.7.1"]);
    let [Action::Warn(line)] = &actions[..] else { panic!("{actions:?}") };
    assert!(line.contains("10.1.0.3 (02:00:00:00:00:03), uses VRID 7") && line.contains("192.168.7.1"), "{line}");
    assert_eq!(w.advert(OTHER, 7, 255, &["192.168.7.1"]), [], "once");
    assert_eq!(w.rejected(Reject::AddressList), 2);
    let report = w.election.report(&[], 0);
    assert_eq!((report.foreign.len(), report.routers[0].state), (1, "active"));
}

#[test]
fn packets_that_are_not_for_us_are_counted_and_do_nothing() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    w.wait(310);
    assert_eq!(w.advert(OTHER, 8, 255, &["10.1.0.100"]), []);
    assert_eq!(w.advert(MINE, 7, 255, &["10.1.0.100"]), []);
    let advert = Advert {
        version: Version::V2,
        vrid: 7,
        priority: 255,
        interval: Duration::from_secs(1),
        addresses: vec![ip("10.1.0.100")],
        password: None,
    };
    let actions = w.packet(OTHER, GROUP_V4.into(), &advert);
    let [Action::Warn(line)] = &actions[..] else { panic!("{actions:?}") };
    assert!(line.contains("from 10.1.0.3 (02:00:00:00:00:03)") && line.contains("--vrrp-version"), "{line}");
    // Unicast, where multicast is spoken.
    let unicast = Advert { version: Version::V3, ..advert };
    assert!(w.packet(OTHER, MINE, &unicast).iter().all(|a| matches!(a, Action::Warn(_))));
    assert_eq!(w.packet(OTHER, MINE, &unicast), [], "said once");
    assert_eq!(w.event(Event::Packet { packet: Err(Reject::Truncated), mac: MAC }), []);
    for reason in [Reject::Vrid, Reject::OwnAddress, Reject::Version, Reject::Truncated] {
        assert_eq!(w.rejected(reason), 1, "{reason:?}");
    }
    assert_eq!(w.rejected(Reject::Peer), 2);
}

#[test]
fn version_2_wants_the_same_interval_and_password() {
    let options = VrrpOptions {
        version: Version::V2,
        interval: Duration::from_secs(1),
        password: Some(*b"s3cret\0\0"),
        ..VrrpOptions::default()
    };
    let mut w = World::up(options.clone(), &[group(7, &["10.1.0.100"], 100)]);
    let good = Advert {
        version: Version::V2,
        vrid: 7,
        priority: 200,
        interval: options.interval,
        addresses: vec![ip("10.1.0.100")],
        password: options.password,
    };
    w.packet(OTHER, GROUP_V4.into(), &Advert { password: None, ..good.clone() });
    w.packet(OTHER, GROUP_V4.into(), &Advert { interval: Duration::from_secs(2), ..good.clone() });
    assert_eq!((w.rejected(Reject::Authentication), w.rejected(Reject::Interval)), (1, 1));
    w.packet(OTHER, GROUP_V4.into(), &good);
    assert_eq!(w.election.report(&[], 0).routers[0].adverts_heard, 1);
}

#[test]
fn unicast_goes_to_each_peer_and_comes_from_peers_only() {
    let options = VrrpOptions { peers: vec![OTHER, ip("10.1.0.4")], ..VrrpOptions::default() };
    let mut w = World::up(options, &[group(7, &["10.1.0.100"], 250)]);
    let to: Vec<IpAddr> = sent(&w.wait(310)).iter().map(|s| s.1).collect();
    assert_eq!(to, [OTHER, ip("10.1.0.4")]);
    w.advert(OTHER, 7, 255, &["10.1.0.100"]);
    assert_eq!(w.rejected(Reject::Peer), 1);
}

#[test]
fn faults_make_it_the_last_resort_and_bans_take_it_out() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    w.wait(310);
    let fitness = |faults: &[&str], bans: &[&str], weight| Fitness {
        faults: faults.iter().map(|f| (*f).into()).collect(),
        bans: bans.iter().map(|f| (*f).into()).collect(),
        weight,
    };
    let told = |actions: Vec<Action>| sent(&actions)[0].3;
    assert_eq!(told(w.event(Event::Fitness(fitness(&[], &[], -100)))), 150);
    assert_eq!(told(w.event(Event::Fitness(fitness(&["proxy"], &[], -100)))), 1 + 150 / 8);
    assert_eq!(told(w.event(Event::Fitness(fitness(&[], &["check"], 0)))), 0);
    assert_eq!(held(&w.wait(400)), None, "nobody else has come");
    assert_eq!(held(&w.advert(OTHER, 7, 9, &["10.1.0.100"])), Some((0, 0)));
    assert_eq!(sent(&w.wait(1000)), []);
    w.event(Event::Fitness(Fitness::default()));
    assert_eq!(held(&w.wait(310)), Some((1, 0)));
}

#[test]
fn draining_gives_everything_away_and_can_be_undone() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250), group(8, &["10.1.0.101"], 200)]);
    w.wait(330);
    assert_eq!(sent(&w.event(Event::Drain(true))).iter().map(|s| s.3).collect::<Vec<_>>(), [0, 0]);
    assert!(w.election.report(&[], 0).routers.iter().all(|r| r.state == "leaving"));
    assert_eq!(held(&w.advert(OTHER, 7, 100, &["10.1.0.100"])), Some((1, 1)));
    assert_eq!(held(&w.wait(4000)), Some((1, 1)), "nobody takes the other one");
    assert_eq!(held(&w.advert(OTHER, 8, 100, &["10.1.0.101"])), Some((0, 0)));
    w.event(Event::Drain(false));
    assert_eq!(held(&w.wait(330)), Some((2, 0)));
}

/// Whoever hears of the new owner late still sends to the old one.
#[test]
fn addresses_that_were_handed_over_stay_on_the_interface_for_a_moment_and_are_nobodys_to_ask_for() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100", "fd01::100"], 250)]);
    w.wait(310);
    w.event(Event::Move([ip("10.1.0.100")].into(), Move::Away));
    let actions = w.advert(OTHER, 7, 246, &["10.1.0.100"]);
    assert_eq!(open(&actions), Some((0, 2)));
    assert_eq!(handed_over(&actions), Some(MAC));
    let [Action::HandOver(..), Action::Hold { standings, .. }, ..] = &actions[..] else { panic!("{actions:?}") };
    assert!(standings.values().all(|s| *s == Standing::Elsewhere), "no ARP request is answered here any more");
    assert_eq!(open(&w.wait(299)), None);
    assert_eq!(open(&w.wait(2)), Some((0, 0)));
    // The node's link is gone meanwhile.
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    w.wait(310);
    assert_eq!(open(&w.advert(OTHER, 7, 251, &["10.1.0.100"])), Some((0, 1)));
    assert_eq!(open(&w.event(Event::Link(None))), Some((0, 0)));
    // It is its owner again.
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    w.wait(310);
    w.advert(OTHER, 7, 251, &["10.1.0.100"]);
    assert_eq!(open(&w.event(Event::Move([ip("10.1.0.100")].into(), Move::Here))), Some((1, 0)));
    assert_eq!(open(&w.wait(1000)), None);
}

/// Whoever hears an advert may let go of the addresses at once.
#[test]
fn addresses_are_taken_before_anybody_is_told() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    let actions = w.wait(310);
    let first = |wanted: fn(&Action) -> bool| actions.iter().position(wanted);
    let (held, sent) = (
        first(|a| matches!(a, Action::Hold { held, .. } if !held.is_empty())),
        first(|a| matches!(a, Action::Send { .. })),
    );
    assert!(held.is_some() && held < sent, "{actions:?}");
}

#[test]
fn moved_here_means_only_the_groups_named() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 200), group(8, &["10.1.0.101"], 200)]);
    w.advert(OTHER, 7, 250, &["10.1.0.100"]);
    w.advert(OTHER, 8, 250, &["10.1.0.101"]);
    let actions = w.event(Event::Move([ip("10.1.0.100")].into(), Move::Here));
    assert_eq!(held(&actions), Some((1, 0)));
    assert_eq!(sent(&w.wait(20)), [(MINE, GROUP_V4.into(), 7, 254)]);
}

#[test]
fn lost_link_releases_and_a_new_one_begins_as_backup() {
    let mut w = World::up(VrrpOptions::default(), &[group(7, &["10.1.0.100"], 250)]);
    w.wait(310);
    assert_eq!(held(&w.event(Event::Link(None))), Some((0, 0)));
    assert_eq!(w.wait(5000), []);
    w.event(Event::Link(Some(vec![MINE])));
    assert_eq!(w.election.report(&[], 0).routers[0].state, "backup");
}

#[test]
fn what_a_killed_agent_left_stays_until_it_is_known_whose_it_is() {
    let mut w = World::new(VrrpOptions::default());
    assert_eq!(w.event(Event::Link(Some(vec![MINE]))), [], "nothing is said before the groups are known");
    let groups = [group(7, &["10.1.0.100"], 250), group(8, &["10.1.0.101"], 250), group(9, &["10.1.0.102"], 0)];
    assert_eq!(open(&w.event(Event::Groups(groups.to_vec().into()))), Some((0, 2)), "what is not for us goes at once");
    w.wait(100);
    assert_eq!(open(&w.advert(OTHER, 8, 251, &["10.1.0.101"])), Some((0, 1)), "somebody else has it");
    assert_eq!(open(&w.wait(250)), Some((1, 0)), "nobody else has it");
}

#[test]
fn own_address_is_never_a_vip() {
    let mut w = World::new(VrrpOptions::default());
    w.event(Event::Groups([group(7, &["10.1.0.100"], 250)].into()));
    w.event(Event::Link(Some(vec![ip("10.1.0.100")])));
    assert_eq!(w.wait(1000), []);
    let notes = w.election.report(&[], 0).notes;
    assert_eq!(notes, ["the interface has no IPv4 address of its own to send adverts from"]);
    w.event(Event::Link(Some(vec![ip("10.1.0.100"), MINE])));
    assert_eq!(sent(&w.wait(310))[0].0, MINE);
}

#[test]
fn thousand_addresses_of_a_group_fit_into_a_packet() {
    let many: Vec<String> = (0..1000).map(|i| format!("fd01::{i:x}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut w = World::up(VrrpOptions::default(), &[group(7, &many, 250)]);
    let actions = w.wait(310);
    let Some(Action::Send { payload, .. }) = actions.iter().find(|a| matches!(a, Action::Send { .. })) else {
        panic!()
    };
    assert!(payload.len() < 1280 - 40, "{}", payload.len());
    assert_eq!(held(&actions), Some((1000, 1000)));
}

/// With whom the addresses change hands.
fn handed_over(actions: &[Action]) -> Option<[u8; 6]> {
    actions.iter().find_map(|a| match a {
        Action::HandOver(key, mac) => (key.vrid == 7).then_some(*mac),
        _ => None,
    })
}

#[test]
fn addresses_change_hands_between_the_living() {
    let groups = [group(7, &["10.1.0.100"], 200)];
    let fresh = || World::up(VrrpOptions::default(), &groups);
    let vip = &["10.1.0.100"];

    let mut w = fresh();
    assert_eq!(handed_over(&w.wait(1000)), None, "nobody was ever heard");
    assert_eq!(handed_over(&w.advert(OTHER, 7, 150, vip)), Some(MAC), "a partition heals");
    assert_eq!(handed_over(&w.advert(OTHER, 7, 250, vip)), Some(MAC), "the other one prevails");

    let mut w = fresh();
    w.advert(OTHER, 7, 250, vip);
    assert_eq!(handed_over(&w.wait(1000)), None, "it died");

    let mut w = fresh();
    w.advert(OTHER, 7, 250, vip);
    w.advert(OTHER, 7, 0, vip);
    let actions = w.wait(100);
    assert_eq!(handed_over(&actions), Some(MAC), "it leaves");
    let place = |wanted: fn(&Action) -> bool| actions.iter().position(wanted);
    let (first, then) = (place(|a| matches!(a, Action::HandOver(..))), place(|a| matches!(a, Action::Hold { .. })));
    assert!(first.is_some() && first < then, "before the addresses are here: {actions:?}");
    w.wait(300);
    assert_eq!(handed_over(&w.wait(1000)), None, "and not for ever");

    let mut w = fresh();
    for _ in 0..5 {
        w.advert(OTHER, 7, 150, vip);
        w.wait(70);
    }
    assert_eq!(handed_over(&w.advert(OTHER, 7, 150, vip)), Some(MAC), "the stronger one preempts");

    let mut w = fresh();
    w.advert(OTHER, 7, 250, vip);
    let order = |w: &mut World| w.event(Event::Move(groups[0].addresses.clone(), Move::Here));
    assert_eq!(handed_over(&order(&mut w)), Some(MAC), "an order");
    let mut w = fresh();
    let advert = Advert {
        version: Version::V3,
        vrid: 7,
        priority: 250,
        interval: Duration::from_millis(100),
        addresses: groups[0].addresses.iter().copied().collect(),
        password: None,
    };
    let payload = advert.encode(OTHER, GROUP_V4.into(), Checksum::Plain);
    let envelope = Envelope { source: OTHER, destination: GROUP_V4.into(), hop_limit: 255 };
    w.event(Event::Packet { packet: Ok((envelope, &payload)), mac: [0, 0, 0x5e, 0, 1, 7] });
    assert_eq!(handed_over(&order(&mut w)), None, "the virtual router's address is nobody's");
}
