//! The holder of virtual addresses on real links: what the kernel shows, what neighbours hear, and what is left behind.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ingress_agent::vip::{VipOptions, Vips, remove_leftovers};
use ingress_tests::capture::Capture;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::wait::until;
use serde_json::Value;

const V4: &str = "10.1.0.100";
const V6: &str = "fd01::100";

fn start(host: &Host, interface: &str) -> Vips {
    host.inside(|| Vips::start(VipOptions { interface: interface.into(), proc_sys: "/proc/sys".into(), vrrp: None }))
        .expect("start the holder")
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|a| a.parse().expect("an address")).collect()
}

fn release(vips: Vips) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(vips.release()).expect("release");
}

/// What `ip -j -d address` says about one address.
fn shown(host: &Host, link: &str, address: &str) -> Option<Value> {
    let text = host.ip(&["-j", "-d", "address", "show", "dev", link]).ok()?;
    let links: Value = serde_json::from_str(&text).expect("ip prints JSON");
    let infos = links.as_array()?.iter().find_map(|l| l["addr_info"].as_array())?.clone();
    infos.into_iter().find(|i| i["local"] == address)
}

fn is_present(vips: &Vips, address: &str) -> bool {
    vips.holding().addresses.get(&address.parse().expect("an address")).is_some_and(|a| a.present)
}

#[track_caller]
fn until_held(vips: &Vips, addresses: &[&str]) {
    until("the addresses are held", || addresses.iter().all(|a| is_present(vips, a)).then_some(()));
}

/// Arrival times of announcements of `address`, in milliseconds since the first: (ARP requests, replies) or (advertisements, –).
fn announcements(frames: &[(Instant, Vec<u8>)], address: &str) -> (Vec<u128>, Vec<u128>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (at, f) in frames {
        match address.parse().expect("an address") {
            IpAddr::V4(v4) => {
                let ours = f.len() >= 42 && f[12..14] == [8, 6] && f[28..32] == v4.octets() && f[38..42] == v4.octets();
                match f.get(21) {
                    Some(1) if ours => first.push(*at),
                    Some(2) if ours => second.push(*at),
                    _ => {}
                }
            }
            IpAddr::V6(v6) => {
                if f.len() >= 86 && f[12..14] == [0x86, 0xdd] && f[54] == 136 && f[62..78] == v6.octets() {
                    first.push(*at);
                }
            }
        }
    }
    let start = first.first().copied().unwrap_or_else(Instant::now);
    let ms = |list: Vec<Instant>| list.into_iter().map(|t| t.saturating_duration_since(start).as_millis()).collect();
    (ms(first), ms(second))
}

#[test]
fn taken_addresses_have_the_right_flags_and_neighbours_learn_them() {
    let lan = Lan::new("vip1").expect("make a LAN");
    let edge = lan.host("e", &["10.1.0.2/24", "fd01::2/64"]).expect("plug in the edge");
    let client = lan.host("c", &["10.1.0.3/24", "fd01::3/64"]).expect("plug in the client");
    edge.forward().expect("forward");
    // A bridge port forwards a moment after its link is up; the first announcement must not fall into that.
    for address in ["10.1.0.3", "fd01::3"] {
        until("the LAN works", || edge.run("ping", &["-c1", "-W1", address]).ok());
    }
    // A neighbour entry of the previous holder, which only the announcement can put right.
    for (family, address) in [("-4", V4), ("-6", V6)] {
        client
            .ip(&[family, "neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale"])
            .expect("plant a stale entry");
    }
    let mut capture = Capture::start(&client, "eth0").expect("listen");
    let vips = start(&edge, "eth0");
    vips.apply(set(&[V4, V6]));

    // The schedule up to 5 s, on both families, ARP as request and reply.
    let complete = capture.collect(Duration::from_secs(12), |f| {
        let (requests, replies) = announcements(f, V4);
        requests.len() >= 6 && replies.len() >= 6 && announcements(f, V6).0.len() >= 6
    });
    assert!(
        complete,
        "announcements: {:?} {:?}",
        announcements(&capture.frames, V4),
        announcements(&capture.frames, V6)
    );
    for times in [announcements(&capture.frames, V4).0, announcements(&capture.frames, V6).0] {
        for (got, wanted) in times.iter().zip([0, 50, 200, 1000, 2000, 5000]) {
            // Never early; late by what a busy machine costs.
            assert!((wanted..wanted + 900).contains(&(got + 2)), "{times:?}");
        }
    }
    let na = capture.frames.iter().find(|(_, f)| f.len() >= 86 && f[54] == 136 && f[12..14] == [0x86, 0xdd]);
    let na = &na.expect("an advertisement").1;
    assert_eq!(na[21], 255, "hop limit, RFC 4861 §7.1.2");
    assert_eq!(na[58], 0xa0, "R as we forward, S not set, O set");

    let mac = edge.ip(&["-j", "link", "show", "eth0"]).expect("the edge's link");
    let mac: Value = serde_json::from_str(&mac).expect("ip prints JSON");
    let mac = mac[0]["address"].as_str().expect("its MAC").to_owned();
    for address in [V4, V6] {
        until("the client's neighbour entry names the new holder", || {
            client.ip(&["neigh", "show", address]).ok().filter(|t| t.contains(&mac))
        });
        let info = shown(&edge, "eth0", address).expect("the address is on the interface");
        assert_eq!(info["prefixlen"], if address == V4 { 32 } else { 128 });
        assert_eq!(info["noprefixroute"], true, "{info}");
        assert!(info.get("tentative").is_none() && info.get("broadcast").is_none(), "{info}");
    }
    let v6 = shown(&edge, "eth0", V6).expect("still there");
    assert_eq!((&v6["nodad"], &v6["preferred_life_time"]), (&Value::Bool(true), &Value::from(0)), "{v6}");
    let sysctl = edge.run("cat", &["/proc/sys/net/ipv4/conf/eth0/arp_ignore"]);
    // /proc/sys follows the reader's network namespace.
    assert_eq!(sysctl.expect("read").trim(), "1");
    for address in [V4, V6] {
        client.run("ping", &["-c1", "-W2", address]).expect("the client reaches the address");
    }

    release(vips);
    for address in [V4, V6] {
        assert_eq!(shown(&edge, "eth0", address), None, "released addresses are gone");
    }
    assert!(shown(&edge, "eth0", "10.1.0.2").is_some(), "the node's own address stays");
}

#[test]
fn addresses_of_a_killed_agent_are_adopted_and_only_the_unwanted_removed() {
    let lan = Lan::new("vip2").expect("make a LAN");
    let edge = lan.host("e", &["10.1.0.2/24"]).expect("plug in the edge");
    edge.ip(&["address", "add", "10.1.0.50/32", "dev", "eth0"]).expect("somebody's own address");
    let first = start(&edge, "eth0");
    first.apply(set(&[V4, "10.1.0.101", V6]));
    until_held(&first, &[V4, "10.1.0.101", V6]);
    let stamp = shown(&edge, "eth0", V4).expect("present");
    // Without a release: as after kill -9.
    drop(first);
    assert!(shown(&edge, "eth0", V4).is_some(), "a holder that vanishes leaves its addresses");

    let second = start(&edge, "eth0");
    second.apply(set(&[V4, V6, "10.1.0.50"]));
    until_held(&second, &[V4, V6, "10.1.0.50"]);
    until("the unwanted one is gone", || shown(&edge, "eth0", "10.1.0.101").is_none().then_some(()));
    assert_eq!(shown(&edge, "eth0", V4), Some(stamp), "adopted as it was, not added again");
    release(second);
    assert!(shown(&edge, "eth0", V4).is_none() && shown(&edge, "eth0", V6).is_none());
    assert!(shown(&edge, "eth0", "10.1.0.50").is_some(), "what we did not add, we do not remove");
}

#[test]
fn address_that_somebody_deletes_comes_back() {
    let lan = Lan::new("vip3").expect("make a LAN");
    let edge = lan.host("e", &["10.1.0.2/24"]).expect("plug in the edge");
    let vips = start(&edge, "eth0");
    vips.apply(set(&[V4, V6]));
    for address in [V4, V6] {
        until("present", || is_present(&vips, address).then_some(()));
        let before = vips.holding().addresses[&address.parse().expect("an address")].announced;
        let bits = if address == V4 { "32" } else { "128" };
        edge.ip(&["address", "del", &format!("{address}/{bits}"), "dev", "eth0"]).expect("delete it");
        until("back on the interface", || shown(&edge, "eth0", address));
        until("and announced again", || {
            (vips.holding().addresses[&address.parse().expect("an address")].announced > before).then_some(())
        });
    }
    release(vips);
}

#[test]
fn missing_interface_is_waited_for_and_a_returning_link_announces_again() {
    let lan = Lan::new("vip4").expect("make a LAN");
    let edge = lan.host("e", &["10.1.0.2/24"]).expect("plug in the edge");
    let client = lan.host("c", &["10.1.0.3/24", "fd01::3/64"]).expect("plug in the client");
    let vips = start(&edge, "lan1");
    vips.apply(set(&[V4, V6]));
    until("the state says so", || {
        let h = vips.holding();
        (h.link == ingress_agent::model::holding::LinkState::Absent && h.addresses.len() == 2).then_some(())
    });
    assert!(!vips.holding().is_complete());

    let mut capture = Capture::start(&client, "eth0").expect("listen");
    lan.plug(&edge, "lan1", &[]).expect("plug it in");
    until("both are added", || vips.holding().is_complete().then_some(()));
    let heard = |f: &[(Instant, Vec<u8>)]| !announcements(f, V4).0.is_empty() && !announcements(f, V6).0.is_empty();
    assert!(capture.collect(Duration::from_secs(10), heard), "announced on the new interface");

    // An administrator's down flushes IPv6 addresses; with up they must return, and neighbours be told.
    edge.ip(&["link", "set", "lan1", "down"]).expect("down");
    until("seen as down", || (vips.holding().link == ingress_agent::model::holding::LinkState::Down).then_some(()));
    let mut capture = Capture::start(&client, "eth0").expect("listen");
    edge.ip(&["link", "set", "lan1", "up"]).expect("up");
    assert!(capture.collect(Duration::from_secs(10), heard), "announced after the link returned");
    assert!(shown(&edge, "lan1", V6).is_some());
    release(vips);
}

#[test]
fn another_holder_is_noticed() {
    let lan = Lan::new("vip5").expect("make a LAN");
    let edge = lan.host("e", &["10.1.0.2/24"]).expect("plug in the edge");
    let rival = lan.host("r", &["10.1.0.3/24"]).expect("plug in the rival");
    let vips = start(&edge, "eth0");
    vips.apply(set(&[V4, V6]));
    until_held(&vips, &[V4, V6]);
    let theirs = start(&rival, "eth0");
    theirs.apply(set(&[V4, V6]));
    until_held(&theirs, &[V4, V6]);
    for address in [V4, V6] {
        for side in [&vips, &theirs] {
            until("each knows of the other", || {
                side.holding().addresses[&address.parse().expect("an address")].claimed_by()
            });
        }
    }
    release(theirs);
    release(vips);
}

#[test]
fn uninstall_takes_what_any_agent_left() {
    let lan = Lan::new("vip6").expect("make a LAN");
    let edge = lan.host("e", &["10.1.0.2/24"]).expect("plug in the edge");
    let vips = start(&edge, "eth0");
    vips.apply(set(&[V4, V6]));
    until_held(&vips, &[V4, V6]);
    drop(vips);
    let removed = edge.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(remove_leftovers()).expect("remove")
    });
    assert_eq!(removed.into_iter().collect::<BTreeSet<_>>(), set(&[V4, V6]));
    assert!(shown(&edge, "eth0", V4).is_none() && shown(&edge, "eth0", "10.1.0.2").is_some());
}

#[test]
fn thousand_addresses_are_held_at_once() {
    let lan = Lan::new("vip7").expect("make a LAN");
    let edge = lan.host("e", &["10.1.0.2/24"]).expect("plug in the edge");
    let many: BTreeSet<IpAddr> = (0..1000u32).map(|i| IpAddr::from((0x0a05_0000 + i).to_be_bytes())).collect();
    let vips = start(&edge, "eth0");
    let began = Instant::now();
    vips.apply(many);
    until("all are present", || {
        let h = vips.holding();
        (h.addresses.len() == 1000 && h.is_complete()).then_some(())
    });
    eprintln!("1000 addresses held after {:?}", began.elapsed());
    release(vips);
    assert_eq!(edge.ip(&["-4", "address", "show", "dev", "eth0"]).expect("list").matches("inet ").count(), 1);
}
