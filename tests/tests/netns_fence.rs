//! A killed agent's kernel still has the VIP on its interface. It answers for it when it is alone, and not when another node adverts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ingress_agent::model::election::{RouterKey, Standing};
use ingress_tests::capture::Capture;
use ingress_tests::edge::sibling;
use ingress_tests::edges::Edges;
use ingress_tests::lan::Host;
use ingress_tests::wait::until;

const VIP: &str = "10.0.0.100";
const VIP6: &str = "fd00::100";
const VRID: u8 = 51;
/// Centiseconds.
const INTERVAL: u8 = 10;

/// Adverts of another node, sent from a host as that node would.
struct Adverts {
    socket: [OwnedFd; 2],
}

impl Adverts {
    fn new(host: &Host) -> Self {
        let open = |family: libc::c_int, level, option| {
            host.inside(|| {
                // SAFETY: plain system calls; the option's value is the int that is pointed to, and the descriptor is ours alone.
                unsafe {
                    let fd = libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 112);
                    assert!(fd >= 0, "a raw socket: {}", std::io::Error::last_os_error());
                    let ttl: libc::c_int = 255;
                    let len = size_of::<libc::c_int>() as libc::socklen_t;
                    assert_eq!(libc::setsockopt(fd, level, option, (&raw const ttl).cast(), len), 0);
                    OwnedFd::from_raw_fd(fd)
                }
            })
        };
        let v4 = open(libc::AF_INET, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL);
        let v6 = open(libc::AF_INET6, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS);
        Self { socket: [v4, v6] }
    }

    /// Goes on while `work` does.
    fn during<T>(&self, host: &Host, work: impl FnOnce() -> T) -> T {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        self.send(host);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    self.send(host);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let _stop = Stop(&stop);
            work()
        })
    }

    fn send(&self, host: &Host) {
        let index = host.inside(|| {
            // SAFETY: a C string.
            unsafe { libc::if_nametoindex(c"eth0".as_ptr()) }
        });
        let head = |count| [0x31, VRID, 100, count, 0, INTERVAL, 0, 0];
        let v4 = [&head(1)[..], &[10, 0, 0, 100]].concat();
        let (link_local, vip): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
            ("fe80::9".parse().expect("an address"), VIP6.parse().expect("an address"));
        let v6 = [&head(2)[..], &link_local.octets(), &vip.octets()].concat();
        // SAFETY: zeroed addresses are valid, and both calls get pointers to live values of the lengths given.
        unsafe {
            let mut to: libc::sockaddr_in = std::mem::zeroed();
            to.sin_family = libc::AF_INET as u16;
            to.sin_addr.s_addr = u32::from_ne_bytes([224, 0, 0, 18]);
            let mreq = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: 0 },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: index as i32,
            };
            libc::setsockopt(
                self.socket[0].as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MULTICAST_IF,
                (&raw const mreq).cast(),
                size_of::<libc::ip_mreqn>() as u32,
            );
            let sent = libc::sendto(
                self.socket[0].as_raw_fd(),
                v4.as_ptr().cast(),
                v4.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_in>() as u32,
            );
            assert_eq!(sent, v4.len() as isize, "{}", std::io::Error::last_os_error());
            let mut to: libc::sockaddr_in6 = std::mem::zeroed();
            to.sin6_family = libc::AF_INET6 as u16;
            to.sin6_addr.s6_addr = "ff02::12".parse::<std::net::Ipv6Addr>().expect("the group").octets();
            to.sin6_scope_id = index;
            let sent = libc::sendto(
                self.socket[1].as_raw_fd(),
                v6.as_ptr().cast(),
                v6.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_in6>() as u32,
            );
            assert_eq!(sent, v6.len() as isize, "{}", std::io::Error::last_os_error());
        }
    }
}

/// Who answers to a request for the addresses, asked by the client's kernel: MAC addresses by address.
fn answers(client: &Host, capture: &mut Capture) -> BTreeMap<IpAddr, BTreeSet<[u8; 6]>> {
    capture.frames.clear();
    for (family, address) in [("-4", VIP), ("-6", VIP6)] {
        let _ = client.ip(&[family, "neigh", "del", address, "dev", "eth0"]);
        // It need not be answered; the request is what counts.
        let _ = client.run("ping", &["-c1", "-W1", address]);
    }
    capture.collect(Duration::ZERO, |_| true);
    let mut found: BTreeMap<IpAddr, BTreeSet<[u8; 6]>> = BTreeMap::new();
    for (_, f) in &capture.frames {
        let mac = |at: usize| -> [u8; 6] { f[at..at + 6].try_into().expect("six bytes") };
        if f.len() >= 42 && f[12..14] == [8, 6] && f[21] == 2 {
            let octets: [u8; 4] = f[28..32].try_into().expect("four bytes");
            found.entry(octets.into()).or_default().insert(mac(22));
        }
        if f.len() >= 78 && f[12..14] == [0x86, 0xdd] && f[20] == 58 && f[54] == 136 {
            let octets: [u8; 16] = f[62..78].try_into().expect("16 bytes");
            found.entry(octets.into()).or_default().insert(mac(6));
        }
    }
    found.retain(|address, _| [VIP, VIP6].iter().any(|vip| vip.parse() == Ok(*address)));
    found
}

fn routers() -> BTreeMap<IpAddr, RouterKey> {
    let router = |vip: &str| {
        let vip: IpAddr = vip.parse().expect("a VIP");
        (vip, RouterKey { vrid: VRID, v6: vip.is_ipv6() })
    };
    [VIP, VIP6].map(router).into()
}

#[test]
fn a_dead_agents_node_answers_alone_and_is_silent_beside_a_living_one() {
    let edges = Edges::new("fence").expect("make the LAN");
    // A process of its own, which holds the addresses and beats: so that it can be killed like an agent.
    let mut command = Command::new(sibling("fence_holder").expect("the holder's binary"));
    command.arg(&edges.pins[0].0).stdout(Stdio::piped());
    let mut holder = edges.a.spawn(&mut command).expect("start the holder");
    let mut line = String::new();
    BufReader::new(holder.0.stdout.take().expect("its output")).read_line(&mut line).expect("its first line");
    assert_eq!(line.trim(), "holds");
    let mut capture = Capture::start(&edges.client, "eth0").expect("listen");
    let both = |found: &BTreeMap<IpAddr, BTreeSet<[u8; 6]>>| found.len() == 2;
    until("it answers", || both(&answers(&edges.client, &mut capture)).then_some(()));
    let adverts = Adverts::new(&edges.b);
    adverts.send(&edges.b);
    assert!(both(&answers(&edges.client, &mut capture)), "a living agent decides for itself");

    // An election takes over after three intervals without an advert, not before; until then nobody else adverts.
    let alone = |capture: &mut Capture, what: &str| {
        let (mut asked, began) = (0, Instant::now());
        while asked < 3 || began.elapsed() < Duration::from_millis(3 * 10 * u64::from(INTERVAL)) {
            assert!(both(&answers(&edges.client, capture)), "{what} and alone: it goes on answering");
            asked += 1;
        }
    };
    holder.signal(libc::SIGSTOP);
    alone(&mut capture, "stopped");
    let found = adverts.during(&edges.b, || answers(&edges.client, &mut capture));
    assert_eq!(found, BTreeMap::new(), "a stopped agent's node answered beside a living one");
    holder.signal(libc::SIGCONT);
    // It does not look around, as an agent would; then the fence lapses when the other node is gone. Twice, since it announces, too.
    until("it answers again", || (0..2).all(|_| both(&answers(&edges.client, &mut capture))).then_some(()));

    // kill -9.
    drop(holder);
    alone(&mut capture, "dead");
    // Its node does not answer from the other's first advert on, for as long as adverts come.
    let began = Instant::now();
    let mut asked = 0;
    while began.elapsed() < Duration::from_secs(2) || asked < 3 {
        let found = adverts.during(&edges.b, || answers(&edges.client, &mut capture));
        assert_eq!(found, BTreeMap::new(), "a dead agent's node answered beside a living one");
        asked += 1;
    }
    // The other one dies as well: better a node without an agent than none.
    until("it answers again", || both(&answers(&edges.client, &mut capture)).then_some(()));

    // The next agent finds the fence up, and lifts it when it holds the addresses.
    let mut dataplane = edges.open_a(|_| {});
    dataplane.guard(&routers(), &BTreeSet::new()).expect("guard the VIPs");
    let fence = dataplane.fence().expect("the fence");
    adverts.send(&edges.b);
    until("the fence is seen", || {
        adverts.send(&edges.b);
        routers().values().all(|key| fence.is_fenced(*key)).then_some(())
    });
    fence.beat(Duration::from_mins(1));
    let all = |standing| routers().into_values().map(|key| (key, standing)).collect();
    fence.set_standings(&all(Standing::Elsewhere));
    assert!(answers(&edges.client, &mut capture).is_empty(), "a backup does not answer, whatever its kernel has");
    fence.set_standings(&all(Standing::Here));
    adverts.send(&edges.b);
    assert!(both(&answers(&edges.client, &mut capture)), "the active one does");
    let counted = ingress_tests::l4::verdicts(&dataplane);
    assert!(counted["fenced"] >= 2 && counted["drop_elsewhere"] >= 6, "{counted:?}");
    // Records are told to nobody here.
    drop(dataplane);
}
