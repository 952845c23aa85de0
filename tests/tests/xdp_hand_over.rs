//! Packet tables of a hand-over: which packets go on to the node with which a VIP changes hands. The sockets are real, in the
//! namespace of the programs; the two nodes are in `netns_hand_over.rs`.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingress_tests::capture::Capture;
use ingress_tests::lan::Host;
use ingress_tests::packet::{ACK, CLIENT_MAC, EDGE_MAC, FIN, Packet, RST, SYN, tcp, udp};
use ingress_tests::wait::until;
use ingress_tests::xdp_site::*;
use ingress_tests::xdp_world::{World, addr};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use xdp_ebpf::verdict::Verdict::*;
use xdp_ebpf::{
    Heartbeat, IPPROTO_TCP, Router, Vip, flow_state, frontend_flags, mac_word, map, router, rules, vip_flags,
};

const VRID: u8 = 51;
const PROXY6: &str = "[2001:db8:1::10]:80";
const OTHER: [u8; 6] = [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
const LONG: u64 = 3600 * 1_000_000_000;

struct HandOver {
    w: World,
    routers: &'static mut [Router],
    heartbeat: &'static mut [Heartbeat],
}

fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// The site with a frontend of the proxy in either family, both being handed over.
fn site_of(label: &str) -> HandOver {
    let mut w = site(label, 128);
    w.frontend(17, IPPROTO_TCP, at(PROXY6), frontend_flags::L7, at(PROXY6).ip()).expect("a frontend");
    for vip in [PROXY, PROXY6] {
        let (flags, router) = (vip_flags::ECHO, router(VRID, at(vip).is_ipv6()));
        w.rig.set(map::VIPS, &addr(at(vip).ip()), &Vip { flags, router }).expect("write VIPS");
    }
    let routers = w.rig.array(map::ROUTERS, xdp_ebpf::ROUTERS as usize).expect("ROUTERS");
    let heartbeat = w.rig.array(map::HEARTBEAT, 1).expect("HEARTBEAT");
    let mut h = HandOver { w, routers, heartbeat };
    h.begin();
    h
}

/// What leaves for the other node.
fn passed_on(mut packet: Packet) -> Vec<u8> {
    packet.macs = (OTHER, EDGE_MAC);
    packet.ttl(63).bytes()
}

impl HandOver {
    fn begin(&mut self) {
        let until = now() + LONG;
        for v6 in [false, true] {
            let router = &mut self.routers[router(VRID, v6) as usize];
            (router.other, router.other_until) = (mac_word(OTHER), until);
        }
        self.heartbeat[0].hand_over_until = until;
    }

    #[track_caller]
    fn goes_on(&self, name: &str, packet: &Packet) {
        self.w.check(name, &packet.bytes(), TX, &passed_on(packet.clone()), &[HandOver]);
    }

    #[track_caller]
    fn stays(&self, name: &str, packet: &Packet) {
        self.w.passes(name, &packet.bytes(), PassL7);
    }
}

#[test]
fn what_no_socket_here_knows_goes_to_the_other_node() {
    let mut h = site_of("handover");
    for (client, vip) in [(CLIENT, PROXY), (CLIENT6, PROXY6)] {
        let (client, vip) = (at(client), at(vip));
        let segment = tcp(client, vip, ACK);
        h.goes_on("data", &segment);
        h.goes_on("the end", &tcp(client, vip, FIN | ACK));
        h.goes_on("a reset", &tcp(client, vip, RST));
        let tagged = Packet { vlans: vec![(0x88a8, 1), (0x8100, 2)], ..segment.clone() };
        h.goes_on("in two vlans", &tagged);
        h.stays("what opens a connection", &tcp(client, vip, SYN));
        h.stays("what answers an opening", &tcp(client, vip, SYN | ACK));
        h.stays("a hop limit of 1", &segment.clone().ttl(1));
        h.stays("a hop limit of 0", &segment.clone().ttl(0));
        h.stays("from the other node itself", &Packet { macs: (EDGE_MAC, OTHER), ..segment.clone() });
        // One byte less than a match, at either end.
        for i in [0, 3, 4, 5] {
            let mut nearly = OTHER;
            nearly[i] ^= 4;
            let packet = Packet { macs: (EDGE_MAC, nearly), ..segment.clone() };
            h.goes_on("from a node with nearly its name", &packet);
        }
        let short = Packet { macs: (EDGE_MAC, CLIENT_MAC), ..segment.clone() }.bytes();
        h.w.passes("cut short", &short[..short.len() - 20], PassMalformed);
    }
    let with_options = Packet { options: vec![1; 8], ..tcp(at(CLIENT), at(PROXY), ACK) };
    h.goes_on("ipv4 options", &with_options);
    let options = vec![0, 0, 1, 4, 0, 0, 0, 0];
    let extended = Packet { extensions: vec![(60, options)], ..tcp(at(CLIENT6), at(PROXY6), ACK) };
    h.goes_on("ipv6 options", &extended);
    // It ends by its time, by the agent's word, and for each router apart.
    let (v4, v6) = (tcp(at(CLIENT), at(PROXY), ACK), tcp(at(CLIENT6), at(PROXY6), ACK));
    h.routers[router(VRID, false) as usize].other_until = now();
    h.stays("its time is over", &v4);
    h.goes_on("that of the other family is not", &v6);
    h.routers[router(VRID, false) as usize].other_until = 0;
    h.stays("never begun", &v4);
    h.heartbeat[0].hand_over_until = 0;
    h.stays("none is under way", &v6);
    h.begin();
    h.goes_on("begun again", &v4);
    let alone = Vip { flags: vip_flags::ECHO, router: 0 };
    h.w.rig.set(map::VIPS, &addr(at(PROXY).ip()), &alone).expect("write VIPS");
    h.stays("no router's vip", &v4);
}

/// A client's, at L4: of young flows the other node has not told yet.
#[test]
fn flows_that_only_the_other_node_knows_go_there_until_it_has_told_of_them() {
    let h = site_of("handoverfw");
    let made = |h: &HandOver, name: &str, packet: &Packet| {
        let (run, rose) = h.w.ingress(&packet.bytes()).expect("a run");
        assert_eq!((run.action, rose), (TX, vec![ForwardNat, FlowNew, FlowMiss]), "{name}");
    };
    for (n, client, vip) in [(0, CLIENT, WEB), (1, CLIENT6, WEB6)] {
        let vip = at(vip);
        let client = |port: u16| SocketAddr::new(at(client).ip(), port);
        for (name, flags) in [("data", ACK), ("the end", FIN | ACK), ("a reset", RST), ("an answer", SYN | ACK)] {
            h.goes_on(name, &tcp(client(50_000), vip, flags));
        }
        // What begins here is known here.
        for flags in [SYN, ACK] {
            let (run, rose) = h.w.ingress(&tcp(client(50_001), vip, flags).bytes()).expect("a run");
            assert!(run.action == TX && rose[0] == ForwardNat && !rose.contains(&FlowMiss), "{rose:?}");
        }
        let from_other = Packet { macs: (EDGE_MAC, OTHER), ..tcp(client(50_002), vip, ACK) };
        made(&h, "from the other node itself", &from_other);
        // It has told of its flows when there are so many milliseconds left.
        let router = router(VRID, vip.is_ipv6()) as usize;
        h.routers[router].flows_known = (LONG / 1_000_000) as u32 - 60_000;
        h.goes_on("in the first minute", &tcp(client(50_003), vip, ACK));
        h.routers[router].flows_known = (LONG / 1_000_000) as u32;
        made(&h, "it has told of its flows", &tcp(client(50_004), vip, ACK));
        let proxy = at([PROXY, PROXY6][n]);
        h.goes_on("what its proxy has is another matter", &tcp(client(50_005), proxy, ACK));
        h.w.passes("a hop limit of 1", &tcp(client(50_006), vip, ACK).ttl(1).bytes(), PassTtl);
    }
    let (_, rose) = h.w.ingress(&udp(at(CLIENT), at(DNS)).bytes()).expect("a run");
    assert!(rose.contains(&FlowNew), "every datagram may be the first: {rose:?}");
}

/// From a backend to the source address of a flow, which is the VIP. The client's side of it is not on the port of any frontend.
#[test]
fn answers_to_flows_that_the_other_node_forwarded_go_there() {
    let mut h = site_of("handoverl4");
    for (backend, vip) in [(WEB_BACKEND, "203.0.113.10:50001"), (WEB6_BACKEND, "[2001:db8:1::10]:50001")] {
        let (backend, vip) = (at(backend), at(vip));
        h.goes_on("what answers an opening", &tcp(backend, vip, SYN | ACK));
        h.goes_on("data", &tcp(backend, vip, ACK));
        h.goes_on("the end", &tcp(backend, vip, FIN | ACK));
        h.goes_on("a refusal", &tcp(backend, vip, RST | ACK));
        h.goes_on("a datagram", &udp(backend, vip));
        let here = |name: &str, packet: &Packet| h.w.passes(name, &packet.bytes(), PassNoFrontend);
        here("what opens a connection", &tcp(backend, vip, SYN));
        here("a hop limit of 1", &udp(backend, vip).ttl(1));
        here("from the other node itself", &Packet { macs: (EDGE_MAC, OTHER), ..udp(backend, vip) });
        // The node's own.
        let all: IpAddr = if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((all, vip.port())).expect("bind");
        here("a datagram for a socket", &udp(backend, vip));
        h.goes_on("not its port", &udp(backend, SocketAddr::new(vip.ip(), 50_002)));
        drop(socket);
    }
    h.w.passes("no vip", &udp(at(WEB_BACKEND), at("198.51.100.1:50001")).bytes(), PassNotOurs);
    // What this node forwards itself is known here.
    h.w.ingress(&tcp(at(CLIENT), at(WEB), SYN).bytes()).expect("a run");
    let source = source(IPPROTO_TCP, CLIENT, WEB, 0);
    let answer = tcp(at(WEB_BACKEND), source, SYN | ACK);
    let here = |h: &HandOver, answer: &Packet| {
        let (_, rose) = h.w.ingress(&answer.bytes()).expect("a run");
        assert_eq!(rose, [ReplyNat]);
    };
    here(&h, &answer);
    // A flow that ended here a while ago does not keep its port from one of the other node.
    let [record] = &h.w.seen()[..] else { panic!("one record") };
    let index = record.index;
    h.w.set_state(index, flow_state::CLOSING);
    here(&h, &tcp(at(WEB_BACKEND), source, ACK));
    h.w.age(index, rules::CLOSING_REUSE);
    h.goes_on("an answer to a flow that has the port since", &answer);
    here(&h, &Packet { macs: (EDGE_MAC, OTHER), ..answer.clone() });
    h.w.age(index, rules::CLOSING_REUSE);
    let of_v4 = router(VRID, false) as usize;
    h.routers[of_v4].flows_known = (LONG / 1_000_000) as u32;
    here(&h, &answer);
    h.heartbeat[0].hand_over_until = 0;
    h.w.passes("none is under way", &udp(at(WEB_BACKEND), at("203.0.113.10:50001")).bytes(), PassNoFrontend);
}

/// What a client does that is dropped here harms neither node.
#[test]
fn what_a_dropped_client_sends_goes_nowhere() {
    let h = site_of("handoverdrop");
    for (client, vip) in [(CLIENT, PROXY), (CLIENT6, PROXY6)] {
        let segment = tcp(at(client), at(vip), ACK);
        h.w.rig.set(map::DROPPED, &addr(at(client).ip()), &u64::MAX).expect("write DROPPED");
        h.goes_on("nobody is said to be dropped", &segment);
    }
    h.w.config.dropping = 1;
    for (client, vip) in [(CLIENT, PROXY), (CLIENT6, PROXY6)] {
        let segment = tcp(at(client), at(vip), ACK).bytes();
        h.w.check("dropped", &segment, DROP, &segment, &[DropLimited]);
    }
}

/// A socket of the proxy at `vip`, and one of a client at `client`, in the namespace of this thread.
fn sockets(h: &HandOver, client: SocketAddr, vip: SocketAddr) -> (Socket, Socket) {
    for ip in [client.ip(), vip.ip()] {
        let (text, nodad): (_, &[&str]) = match ip {
            IpAddr::V4(v4) => (format!("{v4}/32"), &[]),
            IpAddr::V6(v6) => (format!("{v6}/128"), &["nodad"]),
        };
        h.w.rig.ns.ip(&[&["addr", "add", &text, "dev", "lo"], nodad].concat()).expect("add an address");
        // The kernel makes an IPv6 address's route a moment later, in a work of its own.
        let route = || h.w.rig.ns.ip(&["route", "get", &ip.to_string()]).ok();
        // Its own, and not that of the range that it is in.
        until("the address has its route", || route().filter(|route| route.starts_with("local ")));
    }
    let open = |at: SocketAddr| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_reuse_address(true).expect("reuse");
        socket.bind(&SockAddr::from(at)).expect("bind");
        socket
    };
    (open(vip), open(client))
}

fn defer_accept(socket: &Socket, seconds: libc::c_int) {
    // SAFETY: the option's value is an int, which lives until the call returns.
    let rc = unsafe {
        let (at, len) = ((&raw const seconds).cast(), size_of::<libc::c_int>() as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, at, len)
    };
    assert_eq!(rc, 0, "TCP_DEFER_ACCEPT");
}

#[test]
fn what_a_socket_here_has_stays() {
    let h = site_of("handoverown");
    for (client, vip) in [(CLIENT, PROXY), (CLIENT6, PROXY6)] {
        let (client, vip) = (at(client), at(vip));
        let (listener, socket) = sockets(&h, client, vip);
        let segment = tcp(client, vip, ACK);
        let stranger = tcp(SocketAddr::new(client.ip(), 40_001), vip, ACK);
        listener.listen(8).expect("listen");
        h.goes_on("a listener alone knows no connection", &segment);

        // The kernel keeps a request for a connection until the client has spoken (tcp(7)).
        defer_accept(&listener, 30);
        socket.connect(&SockAddr::from(vip)).expect("connect");
        h.stays("a connection that is being opened", &segment);
        h.goes_on("another one's", &stranger);
        let mut peer = TcpStream::from(socket);
        std::io::Write::write_all(&mut peer, b"x").expect("speak");
        let listener = TcpListener::from(listener);
        let (mut accepted, _) = listener.accept().expect("accept");
        accepted.read_exact(&mut [0]).expect("hear");
        h.stays("a connection", &segment);
        h.goes_on("still another one's", &stranger);
        drop(accepted);
        drop(peer);
        until("the server's side waits for late packets", || {
            let shown = h.w.rig.ns.run("ss", &["-tnaH", "state", "time-wait"]).ok()?;
            shown.contains(&vip.to_string()).then_some(())
        });
        // The client may use the port again meanwhile: there is nothing in a connection that is over for its packets.
        h.goes_on("a connection that is over", &segment);
        drop(listener);
        h.goes_on("without a listener, another one's", &stranger);
    }
}

/// The segment with which a client completes a connection whose request the listener did not keep.
fn cookie(h: &HandOver, socket: Socket, vip: SocketAddr) -> Vec<u8> {
    let mut capture = Capture::start(&Host { ns: Arc::clone(&h.w.rig.ns) }, "lo").expect("listen");
    socket.connect(&SockAddr::from(vip)).expect("connect");
    // Reset and forgotten by both sides.
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
    drop(socket);
    let offset = if vip.is_ipv4() { 20 } else { 40 };
    let port = vip.port().to_be_bytes();
    let completes = |frame: &&(Instant, Vec<u8>)| {
        let tcp = frame.1.get(14 + offset..).unwrap_or_default();
        tcp.get(2..4) == Some(&port) && tcp.get(13) == Some(&ACK)
    };
    assert!(capture.collect(Duration::from_secs(5), |frames| frames.iter().any(|f| completes(&f))), "no ACK");
    let mut frame = capture.frames.iter().find(completes).expect("it was seen").1.clone();
    frame[..6].copy_from_slice(&EDGE_MAC);
    frame[6..12].copy_from_slice(&CLIENT_MAC);
    frame
}

#[test]
fn a_syn_cookie_of_a_listener_here_stays() {
    let h = site_of("handovercookie");
    h.w.rig.ns.sysctl("net/ipv4/tcp_syncookies", "2").expect("cookies for all");
    for (client, vip) in [(CLIENT, PROXY), (CLIENT6, PROXY6)] {
        let (client, vip) = (at(client), at(vip));
        let (listener, socket) = sockets(&h, client, vip);
        listener.listen(8).expect("listen");
        let frame = cookie(&h, socket, vip);
        until("both sides have forgotten the connection", || {
            let shown = h.w.rig.ns.run("ss", &["-tnaH", "exclude", "listening"]).ok()?;
            shown.trim().is_empty().then_some(())
        });
        h.w.passes("a cookie of this listener", &frame, PassL7);
        // One that it did not give: the acknowledged number is another. Its first bit is of the cookie's time, while the last ones are of the
        // MSS, where its neighbour may be as good.
        let mut other = frame;
        other[14 + if vip.is_ipv4() { 20 } else { 40 } + 8] ^= 0x80;
        let (run, rose) = h.w.ingress(&other).expect("a run");
        assert_eq!((run.action, rose), (TX, vec![HandOver]), "another cookie");
    }
}
