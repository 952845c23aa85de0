//! Ours and the real keepalived as routers of one VRID: both ways, both versions, both families, and a pair that is replaced while it
//! serves.

use std::collections::BTreeSet;
use std::time::Duration;

use ingress_agent::model::election::Move;
use ingress_agent::vip::{Checksum, Version, VrrpOptions};
use ingress_tests::keepalived::{Instance, Keepalived};
use ingress_tests::lan::Host;
use ingress_tests::vip_site::{Node, Site, VIP4, VIP6, VRID, group, has, ip, options, until_has};
use ingress_tests::wait::until;

/// keepalived on `10.1.0.2`, ours on `10.1.0.3`.
struct Match {
    site: Site,
    theirs: Host,
    ours: Host,
}

impl Match {
    fn new(label: &str) -> Self {
        let site = Site::new(label);
        let (theirs, ours) = (site.host(2), site.host(3));
        Self { site, theirs, ours }
    }

    #[track_caller]
    fn until_ours(&self, vip: &str, is_ours: bool) {
        until_has(&self.ours, vip, is_ours);
        until_has(&self.theirs, vip, !is_ours);
    }
}

/// Who is stronger has the address, whatever the order of events; who leaves says so.
#[track_caller]
fn both_ways(label: &str, ours: &VrrpOptions, theirs: &Instance<'_>, vip: &str, listed: &[&str]) {
    let m = Match::new(label);
    // Ours as the backup of an Active keepalived of higher priority.
    let mut keepalived =
        Keepalived::start(&m.theirs, label, &Instance { priority: 150, ..theirs.clone() }).expect("start");
    until_has(&m.theirs, vip, true);
    let node = Node::start(&m.ours, ours.clone(), &[group(VRID, listed, 100)]);
    until("ours hears theirs", || node.router()?.other.filter(|o| o.priority == 150));
    node.until("backup");
    m.until_ours(vip, false);
    // keepalived may begin more than once, while its addresses are tentative; then it stays.
    let settled = node.router().expect("a router");
    until("ten adverts later", || (node.router()?.adverts_heard > settled.adverts_heard + 10).then_some(()));
    assert!(!has(&m.ours, vip) && node.router().is_some_and(|r| r.became_active == settled.became_active));
    // Priority 0: ours takes over within its skew.
    keepalived.stop().expect("stop keepalived");
    m.until_ours(vip, true);
    // It comes back and preempts.
    let keepalived2 =
        Keepalived::start(&m.theirs, label, &Instance { priority: 150, ..theirs.clone() }).expect("start");
    m.until_ours(vip, false);
    node.until("backup");
    // Ours becomes the stronger one while it runs, and preempts.
    node.vips().elect([group(VRID, listed, 200)].into());
    m.until_ours(vip, true);
    assert!(keepalived2.log().contains("Entering BACKUP STATE"), "{}", keepalived2.log());
    // Ours leaves with priority 0.
    node.vips().drain(true);
    m.until_ours(vip, false);
    node.release();
    for complaint in ["invalid", "mismatch", "bogus", "Invalid"] {
        let log = keepalived2.log();
        assert!(!log.to_lowercase().contains(&complaint.to_lowercase()), "keepalived complains:\n{log}");
    }
}

#[test]
fn version_3_over_ipv4_with_keepalived_s_checksum() {
    both_ways("ka1", &options(100), &Instance::default(), VIP4, &[VIP4]);
}

/// keepalived 2.2 sends and understands the pseudo-header only (2.3 has `v3_checksum_as_v2`), which is why that is our default. Ours
/// understands both, whichever it sends.
#[test]
fn version_3_over_ipv4_with_the_checksum_of_the_rfc() {
    let m = Match::new("ka2");
    let mut keepalived =
        Keepalived::start(&m.theirs, "ka2", &Instance { priority: 150, ..Instance::default() }).expect("start");
    until_has(&m.theirs, VIP4, true);
    let plain = VrrpOptions { checksum: Checksum::Plain, ..options(100) };
    let node = Node::start(&m.ours, plain.clone(), &[group(VRID, &[VIP4], 100)]);
    until("theirs is understood", || node.router()?.other.filter(|o| o.priority == 150));
    keepalived.stop().expect("stop keepalived");
    m.until_ours(VIP4, true);
    let other = Node::start(&m.theirs, options(100), &[group(VRID, &[VIP4], 50)]);
    until("ours is understood by ours", || other.router()?.other.filter(|o| o.priority == 100));
    let third = Node::start(&m.site.host(5), plain, &[group(VRID, &[VIP4], 200)]);
    third.until("active");
    node.until("backup");
    other.until("backup");
    assert_eq!(node.rejected("checksum") + other.rejected("checksum"), 0);
}

#[test]
fn version_3_over_ipv6() {
    // Where namespaces come and go, keepalived's netlink requests keep it silent for 0.4 s, now and then.
    let theirs = Instance { advert_int: "0.3", addresses: &["fe80::51/64", "fd01::100/128"], ..Instance::default() };
    both_ways("ka3", &options(300), &theirs, VIP6, &["fe80::51", VIP6]);
}

/// Without a link-local address in the list, which RFC 9568 §5.2.9 wants first and keepalived does not insist on.
#[test]
fn version_3_over_ipv6_with_global_addresses_alone() {
    let theirs = Instance { advert_int: "0.3", addresses: &["fd01::100/128", "fd01::7/128"], ..Instance::default() };
    both_ways("ka11", &options(300), &theirs, VIP6, &[VIP6, "fd01::7"]);
}

/// A group of both families is elected over IPv4, and keepalived has the other family's addresses in `virtual_ipaddress_excluded`.
#[test]
fn addresses_of_ipv6_move_along_with_a_router_of_ipv4() {
    let theirs = Instance { more: "virtual_ipaddress_excluded {\n    fd01::100/128\n  }", ..Instance::default() };
    for (label, vip) in [("ka12", VIP4), ("ka13", VIP6)] {
        both_ways(label, &options(100), &theirs, vip, &[VIP4, VIP6]);
    }
}

/// The other way to have both families: an instance for each, of one VRID (RFC 9568 §1.2: the families' VRIDs are apart).
#[test]
fn one_vrid_in_both_families_is_two_routers() {
    let m = Match::new("ka14");
    let v6 = Instance { advert_int: "0.3", addresses: &["fe80::51/64", "fd01::100/128"], ..Instance::default() };
    let both = |v4: u8, six: u8| {
        let v4 = Instance { priority: v4, advert_int: "0.3", ..Instance::default() };
        Keepalived::start_all(&m.theirs, "ka14", &[v4, Instance { priority: six, ..v6.clone() }]).expect("start")
    };
    // Each side has one family.
    let mut keepalived = both(150, 50);
    until_has(&m.theirs, VIP4, true);
    until_has(&m.theirs, VIP6, true);
    let groups = [group(VRID, &[VIP4], 100), group(VRID, &["fe80::51", VIP6], 100)];
    let node = Node::start(&m.ours, options(300), &groups);
    m.until_ours(VIP6, true);
    m.until_ours(VIP4, false);
    let routers = node.vips().elections().routers;
    let states: Vec<_> = routers.iter().map(|r| (r.addresses.contains(&ip(VIP4)), r.state)).collect();
    assert!(states.contains(&(true, "backup")) && states.contains(&(false, "active")), "{states:?}");
    assert_eq!(node.vips().elections().foreign, []);
    // It leaves: both are ours. It comes back as the stronger one in the other family.
    keepalived.stop().expect("stop keepalived");
    m.until_ours(VIP4, true);
    m.until_ours(VIP6, true);
    let mut keepalived = both(50, 150);
    m.until_ours(VIP6, false);
    m.until_ours(VIP4, true);
    keepalived.stop().expect("stop keepalived");
    m.until_ours(VIP6, true);
    node.release();
}

#[test]
fn version_2_with_a_password() {
    let ours = VrrpOptions {
        version: Version::V2,
        password: Some(*b"s3cret\0\0"),
        interval: Duration::from_secs(1),
        ..VrrpOptions::default()
    };
    let theirs = Instance {
        version: 2,
        advert_int: "1",
        more: "authentication {\n    auth_type PASS\n    auth_pass s3cret\n  }",
        ..Instance::default()
    };
    both_ways("ka4", &ours, &theirs, VIP4, &[VIP4]);
}

#[test]
fn version_2_without() {
    let ours = VrrpOptions { version: Version::V2, interval: Duration::from_secs(1), ..VrrpOptions::default() };
    let theirs = Instance { version: 2, advert_int: "1", ..Instance::default() };
    both_ways("ka5", &ours, &theirs, VIP4, &[VIP4]);
}

#[test]
fn unicast() {
    let ours = VrrpOptions { peers: vec![ip("10.1.0.2")], ..options(100) };
    let theirs =
        Instance { more: "unicast_src_ip 10.1.0.2\n  unicast_peer {\n    10.1.0.3\n  }", ..Instance::default() };
    both_ways("ka6", &ours, &theirs, VIP4, &[VIP4]);
}

#[test]
fn differing_intervals_are_adopted_by_the_backup() {
    // Ours is set to 1 s and waits by keepalived's 0.1 s, and the other way round.
    let m = Match::new("ka7");
    let mut keepalived =
        Keepalived::start(&m.theirs, "ka7", &Instance { priority: 150, ..Instance::default() }).expect("start");
    until_has(&m.theirs, VIP4, true);
    let node = Node::start(&m.ours, options(1000), &[group(VRID, &[VIP4], 100)]);
    until("ours hears theirs", || node.router()?.other.filter(|o| o.interval == Duration::from_millis(100)));
    let watch = m.site.watch(VIP4);
    m.site.cable(2, false);
    until_has(&m.ours, VIP4, true);
    let found = watch.end().expect("the probe tells");
    assert!(found.longest < Duration::from_secs(1), "its own interval would have taken 3.6 s: {found:?}");
    m.site.cable(2, true);
    m.until_ours(VIP4, false);
    let heard = node.router().expect("a router").adverts_heard;
    until("keepalived has settled", || (node.router()?.adverts_heard > heard + 5).then_some(()));
    keepalived.stop().expect("stop keepalived");
    node.until("active");
    let moved = ingress_tests::wait::holds(Duration::from_secs(10), || has(&m.ours, VIP4) && !has(&m.theirs, VIP4));
    assert!(moved, "{}\n{}", m.theirs.ip(&["address"]).unwrap_or_default(), keepalived.log());
}

#[test]
fn nopreempt_on_either_side_leaves_the_weaker_one_in_place() {
    let m = Match::new("ka8");
    // keepalived does not preempt ours. (At 50 ms its netlink requests keep it silent for too long, now and then.)
    let polite = VrrpOptions { preempt: false, ..options(200) };
    let node = Node::start(&m.ours, polite.clone(), &[group(VRID, &[VIP4], 100)]);
    node.until("active");
    let theirs = Instance { priority: 150, advert_int: "0.2", more: "nopreempt", ..Instance::default() };
    let mut keepalived = Keepalived::start(&m.theirs, "ka8", &theirs).expect("start");
    until("keepalived is a backup", || keepalived.log().contains("Entering BACKUP STATE").then_some(()));
    let sent = node.router().expect("a router").adverts_sent;
    until("for a long time", || (node.router()?.adverts_sent > sent + 15).then_some(()));
    assert!(has(&m.ours, VIP4) && !has(&m.theirs, VIP4));
    // Ours does not preempt keepalived.
    node.vips().drain(true);
    m.until_ours(VIP4, false);
    node.vips().elect([group(VRID, &[VIP4], 200)].into());
    node.vips().drain(false);
    node.until("backup");
    let heard = node.router().expect("a router").adverts_heard;
    let patient = ingress_tests::wait::holds(Duration::from_secs(10), || {
        node.router().is_some_and(|r| r.adverts_heard > heard + 15)
    });
    let told = format!("{:?}\n{}", node.router(), keepalived.log());
    assert!(patient && !has(&m.ours, VIP4) && has(&m.theirs, VIP4), "{told}");
    keepalived.stop().expect("stop keepalived");
    m.until_ours(VIP4, true);
}

#[test]
fn equal_priorities_end_with_one_owner_the_one_of_the_greater_address() {
    let m = Match::new("ka9");
    let theirs = Instance { priority: 100, ..Instance::default() };
    let _keepalived = Keepalived::start(&m.theirs, "ka9", &theirs).expect("start");
    let node = Node::start(&m.ours, options(100), &[group(VRID, &[VIP4], 100)]);
    until("somebody has it", || (has(&m.ours, VIP4) || has(&m.theirs, VIP4)).then_some(()));
    // Both are Active on their own side of a cut, and meet as equals.
    m.site.cable(2, false);
    m.site.cable(3, false);
    until("both stand alone", || (!has(&m.ours, VIP4)).then_some(()));
    m.site.cable(2, true);
    m.site.cable(3, true);
    until("one owner", || (has(&m.ours, VIP4) != has(&m.theirs, VIP4)).then_some(()));
    let both = || node.router().is_some_and(|r| r.state == "active") && has(&m.theirs, VIP4);
    until("and it stays one", || (!both()).then_some(()));
}

#[test]
fn ours_joins_a_live_pair_takes_over_on_command_and_the_pair_is_retired() {
    let site = Site::new("ka10");
    let (first, second, new) = (site.host(2), site.host(3), site.host(4));
    let pair = |host: &Host, label: &str, priority: u8| {
        Keepalived::start(
            host,
            label,
            &Instance { priority, addresses: &["10.1.0.100/32", "10.1.0.101/32"], ..Instance::default() },
        )
        .expect("start")
    };
    let mut a = pair(&first, "ka10a", 150);
    let mut b = pair(&second, "ka10b", 140);
    until_has(&first, VIP4, true);
    let watched = [site.watch(VIP4), site.watch("10.1.0.101")];
    let node = Node::start(&new, options(100), &[group(VRID, &[VIP4, "10.1.0.101"], 1)]);
    until("it hears the pair", || node.router()?.other.filter(|o| o.priority == 150));
    node.vips().give(BTreeSet::from([ip(VIP4)]), Move::Here);
    until_has(&new, VIP4, true);
    until_has(&first, VIP4, false);
    a.stop().expect("retire the first");
    b.stop().expect("retire the second");
    let sent = node.router().expect("a router").adverts_sent;
    until("it goes on alone", || (node.router()?.adverts_sent > sent + 5).then_some(()));
    assert!(has(&new, VIP4) && has(&new, "10.1.0.101") && node.router().is_some_and(|r| r.state == "active"));
    for watch in watched {
        let found = watch.end().expect("the probe tells");
        eprintln!("pair retired: longest gap {:?}, {} of {} answered", found.longest, found.answered, found.sent);
        assert!(found.longest <= Duration::from_millis(100), "{found:?}");
    }
}
