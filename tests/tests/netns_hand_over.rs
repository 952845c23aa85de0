//! Connections that end in the proxy, while their address moves between two whole agents: they go on where they began after a planned
//! move, and are reset at once after a crash. Which packets go where is in `xdp_hand_over.rs`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ingress_tests::capture::Capture;
use ingress_tests::two_agents::{Edge, TCP_PORT, TwoAgents};
use ingress_tests::vip_site::{VIP4, VIP6, mac, until_has};
use ingress_tests::visitors::{Findings, HOST_NAME, Visitors};
use ingress_tests::wait::{SetOnDrop, until, within};
use xdp_ebpf::verdict::Verdict;

fn sites() -> [SocketAddr; 2] {
    [VIP4, VIP6].map(|vip| SocketAddr::new(vip.parse().expect("an address"), 80))
}

/// Visitors come, the address moves, and everybody stays for a while.
#[track_caller]
fn nobody_notices(world: &TwoAgents, what: &str, to: &Edge, moves: impl FnOnce()) {
    let visitors = Visitors::come(&world.site.client, &sites()).expect("visitors");
    let before = to.verdict(Verdict::HandOver);
    moves();
    // What the visitors say on connections that began on the other side.
    within(Duration::from_secs(20), "the new owner sends on what it does not know", || {
        (to.verdict(Verdict::HandOver) >= before + 400).then_some(())
    });
    let sent_on = to.verdict(Verdict::HandOver) - before;
    let Findings { answered, echoed, http2_connections, failures } = visitors.leave();
    eprintln!(
        "{what}: {answered} answers, {echoed} echoes, {http2_connections} HTTP/2 connections, {sent_on} packets sent on"
    );
    assert_eq!(failures, Vec::<String>::new(), "{what}");
    assert!(http2_connections >= 4, "{what}: GOAWAY makes one more of each");
}

#[test]
fn a_planned_move_and_a_drain_lose_no_request_and_no_websocket() {
    let mut world = TwoAgents::new("hov1", &["--drain-timeout=60s"]);
    let [a, b] = [world.edges[0].name, world.edges[1].name];
    let edges = &world.edges;
    nobody_notices(&world, "vip move, told to the owner", &edges[1], || {
        for vip in [VIP4, VIP6] {
            let (code, out, err) = edges[0].vip(&["move", vip, b]);
            assert!(code == 0 || out.contains("already") || err.contains("is not on"), "{out}{err}");
        }
        world.until_on(1);
        assert!(edges[0].lingering().contains(VIP4) && edges[0].lingering().contains(VIP6), "{}", edges[0].lingering());
    });
    nobody_notices(&world, "vip move, told to the one that wants it", &edges[0], || {
        let (code, out, err) = edges[0].vip(&["move", VIP4, a]);
        assert_eq!(code, 0, "{out}{err}");
        world.until_on(0);
        assert_eq!(edges[0].lingering(), "", "it is on the interface again");
    });
    nobody_notices(&world, "vip drain", &edges[1], || {
        assert_eq!(edges[0].vip(&["drain"]).0, 0);
        world.until_on(1);
    });
    nobody_notices(&world, "undrained, the stronger one preempts", &edges[0], || {
        assert_eq!(edges[0].vip(&["undrain"]).0, 0);
        world.until_on(0);
    });
    let visitors = Visitors::come(&world.site.client, &sites()).expect("visitors");
    let (owner, other) = world.edges.split_at_mut(1);
    std::thread::scope(|s| {
        let ending = s.spawn(|| owner[0].agent.stop());
        until("the other one has it, and sends on", || (other[0].verdict(Verdict::HandOver) > 400).then_some(()));
        // An idle connection is closed after three seconds: its visitor opens another, as browsers do.
        let Findings { answered, echoed, failures, .. } = visitors.leave();
        eprintln!("SIGTERM: {answered} answers, {echoed} echoes");
        assert_eq!(failures, Vec::<String>::new());
        ending.join().expect("no panic").expect("it ends");
    });
    assert_eq!(world.edges[0].lingering(), "", "nothing is left behind");
    for edge in &world.edges {
        let log = std::fs::read_to_string(edge.agent.log_path()).expect("its log");
        assert!(!log.contains("two machines hold one address"), "a peer that takes over is no stranger:\n{log}");
    }
}

/// A connection of the client's that has had one answer.
fn greeted(world: &TwoAgents, to: SocketAddr) -> TcpStream {
    let mut stream = world.site.client.inside(|| TcpStream::connect(to)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    ask(&mut stream).expect("an answer");
    stream
}

/// A request and its answer, or how long it took to fail, and why.
fn ask(stream: &mut TcpStream) -> Result<String, (Duration, std::io::Error)> {
    let began = Instant::now();
    let failed = |e| (began.elapsed(), e);
    write!(stream, "GET / HTTP/1.1\r\nhost: {HOST_NAME}\r\n\r\n").map_err(failed)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"\r\n\r\nok") {
        match stream.read(&mut buffer).map_err(failed)? {
            0 => return Err(failed(ErrorKind::UnexpectedEof.into())),
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// TCP segments with RST from a VIP to one of these ports.
fn resets(frames: &[(Instant, Vec<u8>)], ports: &[u16]) -> usize {
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (VIP4.parse().expect("IPv4"), VIP6.parse().expect("IPv6"));
    let reset = |frame: &[u8]| {
        let Some((head, ip)) = frame.split_at_checked(14) else { return false };
        let (from_vip, tcp) = match head[12..] {
            [8, 0] => (ip.get(9) == Some(&6) && ip.get(12..16) == Some(&v4.octets()), ip.get(20..)),
            [0x86, 0xdd] => (ip.get(6) == Some(&6) && ip.get(8..24) == Some(&v6.octets()), ip.get(40..)),
            _ => (false, None),
        };
        let Some(&[_, _, a, b, .., flags]) = tcp.and_then(|tcp| tcp.first_chunk::<14>()) else { return false };
        from_vip && flags & 4 != 0 && ports.contains(&u16::from_be_bytes([a, b]))
    };
    frames.iter().filter(|(_, frame)| reset(frame)).count()
}

#[test]
fn after_a_crash_connections_are_reset_at_once_and_who_returns_resets_none() {
    let mut world = TwoAgents::new("hov2", &["--vrrp-nopreempt"]);
    let l4 = SocketAddr::new(VIP4.parse().expect("an address"), TCP_PORT);
    let mut idle = sites().map(|to| greeted(&world, to));
    let mut sending = greeted(&world, sites()[0]);
    write!(sending, "POST / HTTP/1.1\r\nhost: {HOST_NAME}\r\ncontent-length: 900000\r\n\r\n").expect("begin to send");
    let mut flow = greeted(&world, l4);
    until("the other edge knows the flow", || {
        let metrics = world.edges[1].agent.get("/metrics").ok()?.1;
        let taken =
            metrics.lines().find(|l| l.starts_with("sluicegate_sync_entries_received_total{result=\"taken\"}"))?;
        (!taken.ends_with(" 0")).then_some(())
    });

    // The node is dead: nothing that it could say would be heard.
    world.site.cable(world.edges[0].port, false);
    world.edges[0].agent.kill().expect("kill -9");
    for vip in [VIP4, VIP6] {
        until_has(&world.edges[1].host, vip, true);
    }
    for stream in &mut idle {
        let (took, why) = ask(stream).expect_err("its other end is dead");
        eprintln!("an idle connection: {why} after {took:?}");
        assert_eq!(why.kind(), ErrorKind::ConnectionReset);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    let began = Instant::now();
    let why = until("one that sends is told", || sending.write_all(&[b'u'; 1000]).err());
    eprintln!("one that sends: {why} after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    ask(&mut flow).expect("L4 goes on");
    assert_eq!(world.edges[1].verdict(Verdict::HandOver), 0, "nothing is sent to the dead");

    // It returns, first without its agent: its kernel has the addresses yet. A part of the network has not heard of the move.
    let mut alive = sites().map(|to| greeted(&world, to));
    let mut capture = Capture::start(&world.site.client, "eth0").expect("listen");
    let (counted, fenced) = (world.edges[1].verdict(Verdict::PassL7), world.edges[0].verdict(Verdict::Fenced));
    world.site.cable(world.edges[0].port, true);
    let old = mac(&world.edges[0].host);
    let stale = |change: &str| {
        for vip in [VIP4, VIP6] {
            let neighbour = ["neigh", change, vip, "lladdr", &old, "dev", "eth0", "nud", "permanent"];
            world.site.client.ip(&neighbour).expect("say where it is");
        }
    };
    until("it has heard the other one", || (world.edges[0].verdict(Verdict::Fenced) > fenced).then_some(()));
    stale("replace");
    until("connections go on through it", || {
        let sent_on = world.edges[0].verdict(Verdict::HandOver);
        for stream in &mut alive {
            ask(stream).expect("through the node without an agent");
        }
        (sent_on >= 20).then_some(())
    });
    // With its agent, from its first moment on.
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let _done = SetOnDrop(&done);
        let asking = s.spawn(|| {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                for stream in &mut alive {
                    ask(stream).expect("while the agent comes back");
                    answers += 1;
                }
            }
            answers
        });
        world.edges[0].agent.start_again().expect("start it again");
        world.edges[0].until_state("backup");
        for vip in [VIP4, VIP6] {
            until_has(&world.edges[0].host, vip, false);
        }
        done.store(true, Ordering::Relaxed);
        let answers = asking.join().expect("no failure");
        eprintln!("{answers} answers while it came back");
        assert!(answers > 0);
    });
    for stream in &mut alive {
        ask(stream).expect("by its kernel's routes");
    }
    assert!(world.edges[1].verdict(Verdict::PassL7) > counted);
    capture.collect(Duration::ZERO, |_| false);
    let ports: Vec<u16> = alive.iter().map(|stream| stream.local_addr().expect("its address").port()).collect();
    assert_eq!(resets(&capture.frames, &ports), 0, "nobody was reset");

    // And then it takes over, as ordered.
    for vip in [VIP4, VIP6] {
        world.site.client.ip(&["neigh", "del", vip, "dev", "eth0"]).expect("forget where it was");
    }
    let [a, _] = world.edges.each_ref().map(|e| e.name);
    nobody_notices(&world, "back to the one that returned", &world.edges[0], || {
        let (code, out, err) = world.edges[0].vip(&["move", VIP4, a]);
        assert_eq!(code, 0, "{out}{err}");
        world.until_on(0);
    });
    ask(&mut flow).expect("L4 goes on");
}

#[test]
fn what_is_left_at_the_limit_is_closed() {
    let mut world = TwoAgents::new("hov3", &["--drain-timeout=2s"]);
    let [a, b] = world.edges.each_ref().map(|e| e.name);
    let mut idle = sites().map(|to| greeted(&world, to));
    let visitors = Visitors::come(&world.site.client, &sites()).expect("visitors");
    assert_eq!(world.edges[0].vip(&["move", VIP4, b]).0, 0);
    world.until_on(1);
    let moved = Instant::now();
    for stream in &mut idle {
        // Nothing was asked: it ends in good order, and not before its time.
        assert_eq!(stream.read(&mut [0; 1]).expect("an orderly end"), 0);
    }
    let took = moved.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(4)).contains(&took), "{took:?}");
    let failures = visitors.leave().failures;
    let cut = |what: &str| failures.iter().filter(|f| f.starts_with(what)).count();
    assert_eq!((cut("a WebSocket"), cut("a request"), cut("HTTP/2")), (2, 0, 0), "{failures:#?}");
    until("nothing of it is left", || (world.edges[0].lingering().is_empty()).then_some(()));

    // A killed agent's connections ended with it: the next one takes away what it left.
    assert_eq!(world.edges[0].vip(&["move", VIP4, a]).0, 0);
    world.until_on(0);
    world.edges[1].agent.kill().expect("kill -9");
    assert!(world.edges[1].lingering().contains(VIP4) && world.edges[1].lingering().contains(VIP6));
    world.edges[1].agent.start_again().expect("start it again");
    until("the next one takes them away", || (world.edges[1].lingering().is_empty()).then_some(()));
}
