//! An edge beside a peer that the test plays, with the key: what the peer says counts where it fits, once, and never against what the
//! edge has seen itself. The datagrams are written here from the page of the format, not by the agent's code.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use ingress_agent::dataplane::Dataplane;
use ingress_agent::model::sync::{LimitId, LimitUse, SharedLimits, SyncReading};
use ingress_tests::edges::{A, B, Edges, SYNC_PORT, VIP, records};
use ingress_tests::wait::until;

const KEY: &[u8] = b"a key that both of them have";
const ENDPOINT: &str = "10.0.0.11:8080";
const FLOWS: u8 = 1;
const REQUEST: u8 = 2;
const END: u8 = 3;
const LIMITS: u8 = 5;

struct Peer {
    socket: UdpSocket,
    epoch: u64,
    sequence: u64,
}

fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

impl Peer {
    fn new(edges: &Edges) -> Self {
        let socket = edges.a.inside(|| UdpSocket::bind((A, SYNC_PORT))).expect("the peer's socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self { socket, epoch: 1000, sequence: 0 }
    }

    fn say(&mut self, kind: u8, token: u64, entries: &[Vec<u8>]) {
        self.sequence += 1;
        self.say_at(kind, (self.epoch, self.sequence, milliseconds()), token, entries.len() as u16, &entries.concat());
    }

    fn say_at(&self, kind: u8, (epoch, sequence, time): (u64, u64, u64), token: u64, count: u16, body: &[u8]) {
        let mut bytes = [&b"SGFS"[..], &[1, kind], &count.to_be_bytes()].concat();
        for word in [epoch, sequence, time, token] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &bytes);
        bytes.extend(tag.as_ref());
        self.socket.send_to(&bytes, (B, SYNC_PORT)).expect("send");
    }

    /// The token of the edge's next request.
    fn requested(&self) -> u64 {
        u64::from_be_bytes(self.heard(REQUEST)[32..40].try_into().expect("eight bytes"))
    }

    /// The edge's next datagram of this kind.
    fn heard(&self, kind: u8) -> Vec<u8> {
        let mut buffer = [0; 2048];
        loop {
            let (len, _) = self.socket.recv_from(&mut buffer).expect("the edge speaks");
            if len >= 72 && buffer[5] == kind {
                return buffer[..len].to_vec();
            }
        }
    }
}

/// Requests of a client under a shared limit.
fn used(limit: u8, requests: u32, client: &str) -> Vec<u8> {
    let (family, address) = match client.parse().expect("an address") {
        IpAddr::V4(v4) => (4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (6, v6.octets().to_vec()),
    };
    [&[family][..], &[limit; 16], &requests.to_be_bytes(), &address].concat()
}

fn sockets(all: &[&str]) -> Vec<u8> {
    let all: Vec<SocketAddr> = all.iter().map(|a| a.parse().expect("an address with a port")).collect();
    let mut out: Vec<u8> = all.iter().flat_map(|a| a.port().to_be_bytes()).collect();
    for address in &all {
        match address.ip() {
            IpAddr::V4(v4) => out.extend(v4.octets()),
            IpAddr::V6(v6) => out.extend(v6.octets()),
        }
    }
    out
}

/// An established TCP flow that was idle for a second and is a minute old.
fn upsert(client: &str, vip: &str, endpoint: &str, source: &str) -> Vec<u8> {
    [&[1, 4, 6, 2, 0, 1, 0, 60][..], &sockets(&[client, vip, endpoint, source])].concat()
}

fn delete(client: &str, vip: &str) -> Vec<u8> {
    [&[2, 4, 6, 0][..], &sockets(&[client, vip])].concat()
}

fn reading(b: &Dataplane) -> SyncReading {
    b.sync().expect("the flow sync is on")
}

#[track_caller]
fn counted(b: &Dataplane, reason: &str, wanted: u64) {
    until(reason, || reading(b).rejected.contains(&(reason, wanted)).then_some(()));
}

#[test]
fn what_a_peer_says_counts_once_and_where_it_fits() {
    let edges = Edges::new("sypeer").expect("make the LAN");
    let mut peer = Peer::new(&edges);
    let b = edges.open_b(|_| {});
    let records = || records(&edges.pins[1]);
    let (client, source) = ("10.0.0.2:45000", "10.0.0.100:20000");
    let good = upsert(client, VIP, ENDPOINT, source);

    // The first sync: the answer was not whole until the edge has as many datagrams as the end says.
    let token = peer.requested();
    peer.say(FLOWS, token, &[good.clone(), upsert("10.0.0.2:45001", VIP, ENDPOINT, "10.0.0.100:20001")]);
    until("both are taken", || (reading(&b).taken == 2).then_some(()));
    peer.sequence += 1;
    let now = (peer.epoch, peer.sequence, milliseconds());
    peer.say_at(END, now, token, 0, &2u32.to_be_bytes());
    let again = peer.requested();
    assert_ne!(again, token, "a datagram was lost: it asks anew");
    assert!(!b.may_preempt()());
    peer.say(FLOWS, again, std::slice::from_ref(&good));
    peer.sequence += 1;
    let now = (peer.epoch, peer.sequence, milliseconds());
    peer.say_at(END, now, again, 0, &1u32.to_be_bytes());
    until("the first sync is complete", || b.may_preempt()().then_some(()));
    assert_eq!(records(), 2);

    // Idempotent, and nothing for whom it does not fit.
    let kept = reading(&b).kept;
    peer.say(FLOWS, 0, &[good.clone(), good.clone()]);
    until("known already", || (reading(&b).kept >= kept + 2).then_some(()));
    peer.say(
        FLOWS,
        0,
        &[
            upsert(client, "10.0.0.100:81", ENDPOINT, source),
            upsert("10.0.0.2:45002", VIP, "10.0.0.99:8080", "10.0.0.100:20002"),
            upsert("10.0.0.2:45002", VIP, ENDPOINT, "10.0.0.1:20002"),
            // A source port that is a frontend's.
            upsert("10.0.0.2:45002", VIP, ENDPOINT, VIP),
        ],
    );
    for reason in ["unknown_frontend", "unknown_endpoint", "other_source", "port_taken"] {
        counted(&b, reason, 1);
    }
    // The peer gave a source port to another flow: the copy of the old one gives way.
    peer.say(FLOWS, 0, &[upsert("10.0.0.2:45003", VIP, ENDPOINT, source)]);
    until("the port's new flow", || (reading(&b).taken >= 3).then_some(()));
    assert_eq!(records(), 2);

    // Twice, too old, too early, and with bodies that are none.
    let said = (peer.epoch, peer.sequence, milliseconds());
    peer.say_at(FLOWS, said, 0, 1, &good);
    counted(&b, "replayed", 1);
    peer.say_at(FLOWS, (peer.epoch - 1, 9999, milliseconds()), 0, 1, &good);
    counted(&b, "old_epoch", 1);
    for (n, time) in [milliseconds() - 31_000, milliseconds() + 31_000].into_iter().enumerate() {
        peer.say_at(FLOWS, (peer.epoch + 1, 1, time), 0, 1, &good);
        counted(&b, "clock", n as u64 + 1);
    }
    let family = [&[1, 5, 6, 2, 0, 1, 0, 60][..], &sockets(&[client, VIP, ENDPOINT, source])].concat();
    let state = [&[1, 4, 6, 0, 0, 1, 0, 60][..], &sockets(&[client, VIP, ENDPOINT, source])].concat();
    for (n, (count, body)) in
        [(2, good.clone()), (0, good.clone()), (1, family), (1, state), (1, good[1..].to_vec())].into_iter().enumerate()
    {
        peer.sequence += 1;
        peer.say_at(FLOWS, (peer.epoch, peer.sequence, milliseconds()), 0, count, &body);
        counted(&b, "malformed", n as u64 + 1);
    }
    assert_eq!(records(), 2);

    // What the edge sees itself is its own: neither another version of it nor its end count.
    let _held = edges.hold(&edges.b);
    let mut asker = until("the address answers", || edges.connect(46_000, false).ok());
    let before = asker.ask().expect("an answer");
    let endpoint = format!("10.0.0.1{}:8080", &before.name[1..]);
    let (kept, own) = (reading(&b).kept, "10.0.0.2:46000");
    let mut older = upsert(own, VIP, &endpoint, "10.0.0.100:30303");
    older[5] = 30;
    peer.say(FLOWS, 0, &[older, delete(own, VIP)]);
    until("no news", || (reading(&b).kept > kept).then_some(()));
    assert_eq!(asker.ask().expect("it goes on"), before);
    // Nor does a flow of the peer's get the source port of it.
    let taken = reading(&b).rejected.iter().find(|r| r.0 == "port_taken").expect("counted").1;
    peer.say(FLOWS, 0, &[upsert("10.0.0.2:46001", VIP, &endpoint, &before.seen.to_string())]);
    counted(&b, "port_taken", taken + 1);
    assert_eq!(asker.ask().expect("it goes on"), before);

    // The end of flows that nobody saw here.
    let flows = records();
    peer.say(FLOWS, 0, &[delete("10.0.0.2:45001", VIP), delete("10.0.0.2:45003", VIP)]);
    until("the ends", || (reading(&b).deleted == 2).then_some(()));
    assert_eq!(records(), flows - 2);
}

#[test]
fn what_a_peer_let_through_is_heard_once_and_what_is_let_through_here_is_told() {
    let edges = Edges::new("sylimit").expect("make the LAN");
    let mut peer = Peer::new(&edges);
    let b = edges.open_b(|_| {});
    let both = [used(1, 3, "10.0.0.2"), used(1, 70_000, "fd00::2")];
    peer.say(LIMITS, 0, &both);
    counted(&b, "unknown_limit", 2);

    let (heard, news, missing) =
        (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<LimitUse>>>::default(), Arc::new(AtomicU64::new(0)));
    let (hears, tells, lacks) = (Arc::clone(&heard), Arc::clone(&news), Arc::clone(&missing));
    b.share_limits(SharedLimits {
        take: Box::new(move |uses| {
            uses.append(&mut tells.lock().expect("no panic under the lock"));
            lacks.swap(0, Ordering::Relaxed)
        }),
        hear: Box::new(move |used| {
            let known = used.limit == LimitId([1; 16]);
            if known {
                hears.lock().expect("no panic under the lock").push((used.client.to_string(), used.requests));
            }
            known
        }),
    });
    peer.say(LIMITS, 0, &[&both[..], &[used(2, 9, "10.0.0.2")]].concat());
    counted(&b, "unknown_limit", 3);
    let said = (peer.epoch, peer.sequence, milliseconds());
    peer.say_at(LIMITS, said, 0, 2, &both.concat());
    counted(&b, "replayed", 1);
    peer.say_at(LIMITS, (peer.epoch - 1, 9999, milliseconds()), 0, 2, &both.concat());
    counted(&b, "old_epoch", 1);
    peer.say_at(LIMITS, (peer.epoch, peer.sequence + 1, milliseconds() - 31_000), 0, 2, &both.concat());
    counted(&b, "clock", 1);
    // Nor has anything of a body an effect that is not understood to its last byte, or of a kind that is not known.
    for (n, (kind, count, body)) in [
        (LIMITS, 3, both.concat()),
        (LIMITS, 1, both.concat()),
        (LIMITS, 2, [both[0].clone(), used(1, 0, "10.0.0.2")].concat()),
        (LIMITS, 2, [both[0].clone(), used(1, 1, "::ffff:10.0.0.2")].concat()),
        (LIMITS + 1, 0, Vec::new()),
    ]
    .into_iter()
    .enumerate()
    {
        peer.sequence += 1;
        peer.say_at(kind, (peer.epoch, peer.sequence, milliseconds()), 0, count, &body);
        counted(&b, "malformed", n as u64 + 1);
    }
    let expected = [("10.0.0.2".to_owned(), 3), ("fd00::2".to_owned(), 70_000)];
    assert_eq!(*heard.lock().expect("no panic under the lock"), expected);
    assert_eq!(reading(&b).limits_heard, 70_003);

    // More than one datagram holds, in the order in which they were given.
    let clients = |n: u8| format!("10.0.{n}.7");
    *news.lock().expect("no panic under the lock") = (0..100)
        .map(|n| LimitUse {
            limit: LimitId([n; 16]),
            client: clients(n).parse().expect("an address"),
            requests: u32::from(n) + 1,
        })
        .collect();
    missing.store(11, Ordering::Relaxed);
    let mut told = Vec::new();
    while told.len() < 100 * 25 {
        let datagram = peer.heard(LIMITS);
        let body = &datagram[40..datagram.len() - 32];
        assert_eq!(body.len(), 25 * usize::from(u16::from_be_bytes([datagram[6], datagram[7]])));
        assert!(datagram.len() <= 1232, "{} bytes", datagram.len());
        told.extend_from_slice(body);
    }
    let expected: Vec<u8> = (0..100).flat_map(|n| used(n, u32::from(n) + 1, &clients(n))).collect();
    assert_eq!(told, expected);
    until("it is counted", || (reading(&b).limits_told == 5050 && reading(&b).limits_left_out == 11).then_some(()));
}
