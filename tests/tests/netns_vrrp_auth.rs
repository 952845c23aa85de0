//! Elections whose adverts are signed: nodes that share a key elect, and whoever has none, or only old packets, moves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ingress_agent::model::election::Move;
use ingress_agent::vip::{AuthOptions, KeyFile, VipOptions, Vips, VrrpOptions};
use ingress_tests::capture::Capture;
use ingress_tests::place::Place;
use ingress_tests::vip_site::{Node, Site, VIP4, VIP6, VRID, group, has, ip, options, until_has};
use ingress_tests::wait::until;

struct Keys(Place);

impl Keys {
    fn new(label: &str) -> Self {
        Self(Place::new(label).expect("make a directory"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.directory.join(name);
        fs::write(&path, text).expect("write a key");
        path
    }

    /// Of 32 equal bytes, as `openssl rand -hex` would write them.
    fn hex(&self, byte: u8) -> PathBuf {
        self.file(&format!("{byte:02x}"), &format!("hex:{}\n", format!("{byte:02x}").repeat(32)))
    }
}

/// Signs with the first of the keys. On a busy machine the test may take its time.
fn signed(keys: &[(u8, PathBuf)]) -> VrrpOptions {
    let keys = keys.iter().map(|(id, path)| KeyFile { id: *id, path: path.clone() }).collect();
    let auth = AuthOptions { keys, permissive: false, window: Some(Duration::from_mins(1)) };
    VrrpOptions { auth: Some(auth), ..options(50) }
}

fn permissive(options: VrrpOptions) -> VrrpOptions {
    VrrpOptions { auth: options.auth.map(|auth| AuthOptions { permissive: true, ..auth }), ..options }
}

/// A group of IPv4, and one of IPv6 alone.
fn groups(priority: u8) -> Vec<ingress_agent::model::election::VipGroup> {
    vec![group(VRID, &[VIP4], priority), group(VRID, &["fe80::51", VIP6], priority)]
}

fn held(node: &Node) -> [bool; 2] {
    [VIP4, VIP6].map(|vip| has(&node.host, vip))
}

fn states(node: &Node) -> Vec<(&'static str, u64)> {
    node.vips().elections().routers.iter().map(|r| (r.state, r.became_active)).collect()
}

#[track_caller]
fn until_all(node: &Node, state: &str) {
    until(&format!("all routers are {state}"), || {
        let routers = node.vips().elections().routers;
        (routers.len() == 2 && routers.iter().all(|r| r.state == state)).then_some(())
    });
}

#[test]
fn who_shares_the_key_elects_and_who_does_not_moves_nothing() {
    let site = Site::new("vauth1");
    let keys = Keys::new("vauth1");
    let ours = || signed(&[(1, keys.hex(1))]);
    let (a, b) = (site.host(2), site.host(3));
    let a = Node::start(&a, ours(), &groups(250));
    until_all(&a, "active");
    let b = Node::start(&b, ours(), &groups(246));
    until_all(&b, "backup");
    until("the second hears the first", || b.router()?.other);
    let attacker = site.host(66);
    let mut capture = Capture::start(&attacker, "eth0").expect("listen");
    // By command, so that the second says the strongest that it ever will; then it says farewell.
    b.vips().give(BTreeSet::from([ip(VIP4), ip(VIP6)]), Move::Here);
    until_all(&b, "active");
    until_all(&a, "backup");
    b.vips().drain(true);
    until_all(&a, "active");
    b.vips().drain(false);
    until_all(&b, "backup");
    until("the second hears the first", || {
        b.vips().elections().routers.iter().all(|r| r.other.is_some_and(|o| o.priority == 250)).then_some(())
    });
    let v4 = |f: &[u8]| f.len() >= 46 && f[12..14] == [8, 0] && f[23] == 112;
    let v6 = |f: &[u8]| f.len() >= 90 && f[12..14] == [0x86, 0xdd] && f[20] == 112;
    // A link-local address of the second is not known here; its priority when it took over is.
    let strong = |f: &[u8]| v4(f) && f[29] == 3 && f[36] >= 254 || v6(f) && f[56] >= 254;
    let heard = capture.collect(Duration::from_secs(20), |frames| {
        frames.iter().any(|(_, f)| v4(f) && strong(f)) && frames.iter().any(|(_, f)| v6(f) && strong(f))
    });
    assert!(heard, "adverts of a priority that takes over, in both families");
    let before = (states(&a), states(&b));
    let replayed: Vec<&Vec<u8>> = capture.frames.iter().map(|(_, f)| f).filter(|f| strong(f)).collect();
    for _ in 0..20 {
        for frame in &replayed {
            capture.send(frame).expect("replay it");
        }
        // The same with a priority of its own, without the trailer, and with a key that is not ours.
        let frame = replayed.iter().find(|f| v4(f)).expect("of IPv4");
        let mut forged = (*frame).clone();
        forged[36] = 255;
        capture.send(&checksummed(&forged)).expect("forge it");
        let mut bare = frame[..frame.len() - 28].to_vec();
        bare[17] -= 28;
        capture.send(&checksummed(&bare)).expect("strip it");
        let mut other = (*frame).clone();
        other[14 + 20 + 12 + 1] = 9;
        capture.send(&other).expect("name another key");
    }
    for (node, reason) in
        [(&a, "hmac_replayed"), (&a, "hmac_wrong"), (&a, "hmac_missing"), (&a, "hmac_unknown_key"), (&b, "own_address")]
    {
        until(&format!("counted as {reason}"), || (node.rejected(reason) >= 20).then_some(()));
    }
    // A node that just came remembers no sender. What protects it is the time.
    let strict = ours();
    let auth = strict.auth.map(|auth| AuthOptions { window: Some(Duration::from_secs(1)), ..auth });
    let new = Node::start(&site.host(4), VrrpOptions { auth, ..strict }, &groups(1));
    until_all(&new, "backup");
    until("they are stale", || {
        capture.send(replayed[0]).ok()?;
        (new.rejected("hmac_stale") >= 3).then_some(())
    });
    let sent = a.router().expect("a router").adverts_sent;
    until("for a while", || (a.router()?.adverts_sent > sent + 10).then_some(()));
    assert_eq!((states(&a), states(&b)), before);
    assert_eq!((held(&a), held(&b)), ([true; 2], [false; 2]));

    // Whoever has no key, or another, is not heard, however strong.
    let stranger = Node::start(&site.host(5), options(50), &groups(254));
    let other = Node::start(&site.host(6), signed(&[(1, keys.hex(7))]), &groups(254));
    let (missing, wrong) = (a.rejected("hmac_missing"), a.rejected("hmac_wrong"));
    until("they are counted", || {
        (a.rejected("hmac_missing") > missing + 5 && a.rejected("hmac_wrong") > wrong + 5).then_some(())
    });
    assert!(stranger.rejected("length") > 0, "who knows no trailers takes none");
    assert_eq!(states(&a), before.0);
    drop((stranger, other));
}

/// What an IPv4 frame's IP and VRRP checksums must be, VRRP's with the pseudo-header and without the trailer.
fn checksummed(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let fold = |bytes: &[u8]| {
        let mut sum: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    };
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = fold(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum);
    frame[40..42].copy_from_slice(&[0, 0]);
    let end = 34 + 8 + usize::from(frame[37]) * 4;
    let pseudo = [&frame[26..34], &[0, 112, 0, (end - 34) as u8], &frame[34..end]].concat();
    let sum = fold(&pseudo);
    frame[40..42].copy_from_slice(&sum);
    frame
}

#[test]
fn signing_is_rolled_out_and_keys_are_changed_while_it_serves() {
    let site = Site::new("vauth2");
    let keys = Keys::new("vauth2");
    let (one, two) = (keys.hex(1), keys.file("two", "a passphrase is a key as it is, of 32 bytes or more\n"));
    let hosts = [site.host(2), site.host(3)];
    // Each step replaces one node after the other, as an upgrade does; the stronger first.
    let steps = [
        options(50),
        permissive(signed(&[(1, one.clone())])),
        signed(&[(1, one.clone())]),
        signed(&[(1, one.clone()), (2, two.clone())]),
        signed(&[(2, two.clone()), (1, one)]),
        signed(&[(2, two)]),
    ];
    let start = |n: usize, step: &VrrpOptions| Node::start(&hosts[n], step.clone(), &groups([250, 246][n]));
    let mut nodes = [0, 1].map(|n| start(n, &steps[0]));
    until_all(&nodes[0], "active");
    until_all(&nodes[1], "backup");
    for (number, step) in steps.iter().enumerate().skip(1) {
        // A node that signs is not understood by one that knows nothing of it: that step is made while one node is away.
        for n in [1, 0] {
            let [first, second] = nodes;
            let (old, other) = if n == 0 { (first, second) } else { (second, first) };
            old.release();
            if number == 1 && n == 1 {
                other.release();
                nodes = [0, 1].map(|n| start(n, step));
                break;
            }
            until_all(&other, "active");
            let new = start(n, step);
            nodes = if n == 0 { [new, other] } else { [other, new] };
            until_all(&nodes[0], "active");
            until_all(&nodes[1], "backup");
        }
        until_all(&nodes[0], "active");
        until_all(&nodes[1], "backup");
        until("one owner", || (held(&nodes[0]) == [true; 2] && held(&nodes[1]) == [false; 2]).then_some(()));
        for reason in ["hmac_missing", "hmac_wrong", "hmac_unknown_key", "hmac_stale", "hmac_replayed"] {
            let rejected = [0, 1].map(|n| nodes[n].rejected(reason));
            assert_eq!(rejected, [0, 0], "step {number}: {reason}");
        }
    }
    until_has(&hosts[0], VIP4, true);
}

#[test]
fn a_key_that_is_none_is_told_before_anything_begins() {
    let site = Site::new("vauth3");
    let keys = Keys::new("vauth3");
    let host = site.host(2);
    for (name, text, said) in [
        ("short", Some("hex:00ff"), "holds a key of 2 bytes; 32 to 64 are wanted"),
        ("odd", Some("hex:00f"), "what follows hex: is not hexadecimal"),
        ("empty", Some(""), "holds a key of 0 bytes"),
        ("none", None, "read --vrrp-auth-hmac-key"),
    ] {
        let path = match text {
            Some(text) => keys.file(name, text),
            None => keys.0.directory.join(name),
        };
        let options = VipOptions {
            interface: "eth0".into(),
            proc_sys: "/proc/sys".into(),
            vrrp: Some(signed(&[(1, path.clone())])),
        };
        let error = host.inside(|| Vips::start(options)).expect_err(name);
        let error = format!("{error:#}");
        assert!(error.contains(said) && error.contains(&path.display().to_string()), "{error}");
    }
}
