//! Elections between our own nodes on real links: one holds, another takes over, and what the client notices.

use std::collections::BTreeSet;
use std::time::Duration;

use ingress_agent::model::election::{Fitness, Move};
use ingress_tests::capture::Capture;
use ingress_tests::vip_site::{Node, Site, VIP4, VIP6, VRID, group, has, ip, mac, options, until_has};
use ingress_tests::wait::{until, within};

/// Two nodes, of which the first has the addresses.
fn pair(site: &Site, interval_ms: u64) -> (Node, Node) {
    let (a, b) = (site.host(2), site.host(3));
    let a = Node::start(&a, options(interval_ms), &[group(VRID, &[VIP4, VIP6], 250)]);
    a.until("active");
    until_has(&a.host, VIP4, true);
    until_has(&a.host, VIP6, true);
    let b = Node::start(&b, options(interval_ms), &[group(VRID, &[VIP4, VIP6], 246)]);
    b.until("backup");
    until("the second hears the first", || b.router()?.other);
    (a, b)
}

#[test]
fn dead_node_is_replaced_within_four_adverts_and_one_owner_is_left_when_it_returns() {
    let site = Site::new("vrrp1");
    let (a, b) = pair(&site, 100);
    let watched = [site.watch(VIP4), site.watch(VIP6)];
    // The client is the first of the switch's ports.
    site.cable(2, false);
    until_has(&b.host, VIP4, true);
    until_has(&b.host, VIP6, true);
    until_has(&a.host, VIP4, false);
    for watch in watched {
        let found = watch.end().expect("the probe tells");
        eprintln!(
            "node death at 100 ms: longest gap {:?}, {} of {} answered",
            found.longest, found.answered, found.sent
        );
        assert!(found.answered > 0 && found.longest <= Duration::from_millis(400), "{found:?}");
    }

    // The partition heals: the stronger one takes its addresses back, and the client knows.
    site.cable(2, true);
    within(Duration::from_secs(2), "one owner", || {
        (has(&a.host, VIP4) && !has(&b.host, VIP4) && has(&a.host, VIP6) && !has(&b.host, VIP6)).then_some(())
    });
    let mac = mac(&a.host);
    for address in [VIP4, VIP6] {
        until("the client's cache is right", || {
            site.client.ip(&["neigh", "show", address]).ok().filter(|n| n.contains(&mac))
        });
    }
}

/// Every core is busy, and the next node is ready to jump in after 62 ms of silence.
#[test]
fn busy_machine_delays_no_advert() {
    let site = Site::new("vrrp8");
    let (a, b) = pair(&site, 20);
    let took = (a.router().expect("a router").became_active, b.router().expect("a router").became_active);
    let busy = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while busy.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let sent = a.router().map_or(0, |r| r.adverts_sent);
        let enough = ingress_tests::wait::holds(Duration::from_secs(20), || {
            a.router().is_some_and(|r| r.adverts_sent >= sent + 300)
        });
        let now = (a.router().map(|r| r.became_active), b.router().map(|r| r.became_active));
        let watch = site.watch(VIP4);
        site.cable(2, false);
        let moved = ingress_tests::wait::holds(Duration::from_secs(20), || has(&b.host, VIP4));
        let found = watch.end().expect("the probe tells");
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(enough && moved, "{:?}", a.vips().elections().notes);
        assert_eq!(now, (Some(took.0), Some(took.1)), "nobody was taken for dead: {:?} {:?}", a.router(), b.router());
        eprintln!("node death at 20 ms on a busy machine: longest gap {:?}", found.longest);
        assert!(found.longest <= Duration::from_millis(150), "{found:?}");
    });
}

#[test]
fn planned_moves_have_no_gap_worth_the_name() {
    let site = Site::new("vrrp2");
    let (a, b) = pair(&site, 100);
    let watched = [site.watch(VIP4), site.watch(VIP6)];
    let vips = || BTreeSet::from([ip(VIP4)]);
    // Taken by the weaker, taken back, given away, drained.
    b.vips().give(vips(), Move::Here);
    b.until("active");
    a.until("backup");
    a.vips().give(vips(), Move::Here);
    a.until("active");
    b.until("backup");
    a.vips().give(vips(), Move::Away);
    b.until("active");
    a.until("backup");
    b.vips().drain(true);
    b.until("idle");
    a.until("active");
    until_has(&a.host, VIP6, true);
    until_has(&b.host, VIP6, false);
    for watch in watched {
        let found = watch.end().expect("the probe tells");
        eprintln!("four planned moves: longest gap {:?}, {} of {} answered", found.longest, found.answered, found.sent);
        assert!(found.longest <= Duration::from_millis(20), "{found:?}");
    }
    b.vips().drain(false);
    b.until("backup");
    a.release();
    b.until("active");
}

#[test]
fn unfit_node_lets_the_other_serve_and_two_unfit_ones_still_do() {
    let site = Site::new("vrrp3");
    let (a, b) = pair(&site, 50);
    let unfit = || Fitness { faults: vec!["the proxy has no listener".into()], ..Fitness::default() };
    a.vips().fit(unfit());
    b.until("active");
    a.until("backup");
    b.vips().fit(unfit());
    a.until("active");
    assert!(a.vips().elections().notes.iter().any(|n| n.contains("the proxy has no listener")));
    a.vips().fit(Fitness { bans: vec!["check fails".into()], ..Fitness::default() });
    b.until("active");
    a.until("idle");
}

#[test]
fn address_of_a_foreign_host_is_not_claimed_but_reported() {
    let site = Site::new("vrrp4");
    let (a, printer) = (site.host(2), site.host(7));
    printer.ip(&["address", "add", &format!("{VIP4}/32"), "dev", "eth0"]).expect("somebody's own address");
    printer.ip(&["address", "add", &format!("{VIP6}/128"), "dev", "eth0", "nodad"]).expect("somebody's own address");
    let a = Node::start(&a, options(50), &[group(VRID, &[VIP4, VIP6, "10.1.0.101"], 250)]);
    until_has(&a.host, "10.1.0.101", true);
    let mac = mac(&printer);
    for address in [VIP4, VIP6] {
        until("it is reported", || {
            let held = a.vips().holding().addresses.get(&ip(address)).cloned()?;
            let said = held.fault.as_ref().is_some_and(|f| f.contains("not added") && f.contains(&mac));
            (said && held.claimed_by().as_deref() == Some(mac.as_str())).then_some(())
        });
        assert!(!has(&a.host, address));
    }
    printer.ip(&["address", "del", &format!("{VIP4}/32"), "dev", "eth0"]).expect("it is given up");
    until_has(&a.host, VIP4, true);
}

#[test]
fn adverts_leave_with_the_right_headers_at_the_right_time() {
    let site = Site::new("vrrp5");
    let host = site.host(2);
    let mut capture = Capture::start(&site.client, "eth0").expect("listen");
    let groups = [group(7, &[VIP4], 250), group(8, &[VIP6], 250)];
    let _node = Node::start(&host, options(20), &groups);
    let adverts = |frames: &[(std::time::Instant, Vec<u8>)], v4: bool| -> Vec<std::time::Instant> {
        let of = |f: &Vec<u8>| {
            if v4 { f[12..14] == [8, 0] && f[23] == 112 } else { f[12..14] == [0x86, 0xdd] && f[20] == 112 }
        };
        frames.iter().filter(|(_, f)| f.len() >= 46 && of(f)).map(|(at, _)| *at).collect()
    };
    let enough = |f: &[(std::time::Instant, Vec<u8>)]| adverts(f, true).len() >= 50 && adverts(f, false).len() >= 50;
    assert!(capture.collect(Duration::from_secs(20), enough), "adverts of both families");
    let frame = |v4: bool| {
        let at = adverts(&capture.frames, v4)[0];
        capture.frames.iter().find(|(t, _)| *t == at).map(|(_, f)| f.clone()).expect("an advert")
    };
    let v4 = frame(true);
    assert_eq!(v4[..6], [1, 0, 0x5e, 0, 0, 18], "RFC 1112 §6.4");
    assert_eq!((v4[22], &v4[30..34]), (255, &[224, 0, 0, 18][..]), "RFC 9568 §5.1.1.3");
    assert_eq!(v4[26..30], [10, 1, 0, 2], "the interface's own address");
    let v6 = frame(false);
    assert_eq!(v6[..6], [0x33, 0x33, 0, 0, 0, 0x12], "RFC 2464 §7");
    assert_eq!((v6[21], &v6[22..24]), (255, &[0xfe, 0x80][..]), "from a link-local address");
    for v4 in [true, false] {
        let times = adverts(&capture.frames, v4);
        let span = times[49].saturating_duration_since(times[0]).as_millis();
        assert!((960..=1200).contains(&span), "50 adverts at 20 ms took {span} ms");
    }
}

#[test]
fn hostile_packets_are_counted_by_reason_and_move_nothing() {
    let site = Site::new("vrrp6");
    let (a, b) = pair(&site, 50);
    let attacker = site.host(66);
    let took = a.router().expect("a router").became_active;
    attacker.inside(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(112.into())).expect("a socket");
        socket.bind_device(Some(b"eth0")).expect("bind it to the link");
        let send = |ttl: u32, bytes: &[u8]| {
            socket.set_multicast_ttl_v4(ttl).expect("set the TTL");
            let to: std::net::SocketAddr = "224.0.0.18:0".parse().expect("an address");
            // A full queue is no concern of the attacker's.
            let _ = socket.send_to(bytes, &to.into());
        };
        let good = |vrid: u8, priority: u8, interval: u8, address: [u8; 4]| {
            let mut p = vec![0x31, vrid, priority, 1, 0, interval, 0, 0];
            p.extend_from_slice(&address);
            let sum: u32 = p.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            p[6..8].copy_from_slice(&sum.to_be_bytes());
            p
        };
        let vip = [10, 1, 0, 100];
        for _ in 0..20 {
            send(64, &good(VRID, 255, 1, vip));
            send(255, &good(VRID, 255, 0, vip));
            send(255, &good(99, 255, 1, vip));
            send(255, &good(VRID, 255, 1, [10, 9, 9, 9]));
            send(255, &good(VRID, 255, 1, vip)[..7]);
            let mut broken = good(VRID, 255, 1, vip);
            broken[2] ^= 1;
            send(255, &broken);
        }
        // A flood of what is well-formed and says nothing: an Active Router of lower priority.
        let weak = good(VRID, 1, 5, vip);
        for _ in 0..20_000 {
            send(255, &weak);
        }
    });
    for reason in ["hop_limit", "interval", "vrid", "address_list", "truncated", "checksum"] {
        until(&format!("counted as {reason}"), || (a.rejected(reason) >= 20).then_some(()));
    }
    let foreign = until("the foreign router is named", || a.vips().elections().foreign.first().cloned());
    let mac = mac(&attacker);
    assert_eq!((foreign.address, foreign.mac.as_str(), foreign.vrid), (ip("10.1.0.66"), mac.as_str(), VRID));
    assert_eq!(a.router().map(|r| (r.state, r.became_active)), Some(("active", took)));
    assert_eq!(b.router().map(|r| (r.state, r.became_active)), Some(("backup", 0)));
    assert!(has(&a.host, VIP4) && !has(&b.host, VIP4));
}

/// Adverts are not authenticated, so an old one of a peer is as good as a new one, and all that it can say is what the peer once said. Our own
/// has no effect on ourselves, whoever sends it; nor has a farewell on whoever is Active.
#[test]
fn replayed_adverts_are_counted_and_move_nothing() {
    let site = Site::new("vrrp9");
    let (a, b) = pair(&site, 50);
    let attacker = site.host(66);
    let mut capture = Capture::start(&attacker, "eth0").expect("listen");
    // The second has it for a moment, and says farewell.
    b.vips().give(BTreeSet::from([ip(VIP4)]), Move::Here);
    b.until("active");
    a.until("backup");
    b.vips().drain(true);
    a.until("active");
    b.vips().drain(false);
    b.until("backup");
    let advert = |f: &[u8], from: u8| f.len() >= 46 && f[12..14] == [8, 0] && f[23] == 112 && f[29] == from;
    let farewell = |f: &[u8]| advert(f, 3) && f[36] == 0;
    let heard = capture.collect(Duration::from_secs(20), |frames| {
        frames.iter().any(|(_, f)| advert(f, 2)) && frames.iter().any(|(_, f)| farewell(f))
    });
    assert!(heard, "adverts of both");
    until("the second hears the first", || b.router()?.other.filter(|o| o.address == ip("10.1.0.2")));
    let took = |n: &Node| n.router().map(|r| (r.state, r.became_active));
    let (before, own) = ((took(&a), took(&b)), a.rejected("own_address"));
    let heard = a.router().expect("a router").adverts_heard;
    let of = |wanted: &dyn Fn(&[u8]) -> bool| {
        capture.frames.iter().rev().find(|(_, f)| wanted(f)).map(|(_, f)| f.clone()).expect("it was heard")
    };
    let (mine, theirs) = (of(&|f| advert(f, 2)), of(&farewell));
    for _ in 0..20 {
        capture.send(&mine).expect("replay the first's");
        capture.send(&theirs).expect("replay the farewell of the second");
    }
    until("its own are counted", || (a.rejected("own_address") >= own + 20).then_some(()));
    until("the farewells are heard", || (a.router()?.adverts_heard >= heard + 20).then_some(()));
    // The owner goes on, and the other hears it.
    let sent = a.router().expect("a router").adverts_sent;
    until("for a while", || (a.router()?.adverts_sent > sent + 10).then_some(()));
    assert_eq!((took(&a), took(&b)), before);
    for address in [VIP4, VIP6] {
        assert!(has(&a.host, address) && !has(&b.host, address));
    }
}

#[test]
fn many_addresses_are_spread_and_a_dead_nodes_share_moves() {
    let site = Site::new("vrrp7");
    let hosts = [site.host(2), site.host(3)];
    // Forty routers, half of them preferred on each node.
    let groups = |first: bool| -> Vec<_> {
        let priority = |i: u8| if i.is_multiple_of(2) == first { 250 } else { 246 };
        (1..=40).map(|i| group(i, &[&format!("10.1.0.{}", 100 + i), &format!("fd01::1:{i:x}")], priority(i))).collect()
    };
    let nodes =
        [Node::start(&hosts[0], options(50), &groups(true)), Node::start(&hosts[1], options(50), &groups(false))];
    let held = |n: &Node| n.vips().holding().addresses.values().filter(|a| a.present).count();
    until("each has half", || (held(&nodes[0]) == 40 && held(&nodes[1]) == 40).then_some(()));
    site.cable(2, false);
    until("the other has all", || (held(&nodes[1]) == 80).then_some(()));
    site.cable(2, true);
    until("each has half again", || (held(&nodes[0]) == 40 && held(&nodes[1]) == 40).then_some(()));
}
