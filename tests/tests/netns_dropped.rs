//! Clients that the data plane drops, on a real interface: over a restart, in a full map, and where it is switched off.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ingress_agent::dataplane::{Dataplane, DataplaneOptions};
use ingress_agent::model::offence::{DroppedClient, Offence};
use ingress_agent::model::snapshot::{FrontendKey, FrontendKind, ObjectName, Protocol, Snapshot};
use ingress_tests::l4::{PinPath, Snapshots, options};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::wait::until;
use xdp_ebpf::map::DROPPED_MOST;

const VIP: &str = "10.1.0.100";
const PORT: u16 = 80;
const CLIENT: &str = "10.1.0.4";
const HOUR: Duration = Duration::from_hours(1);

/// An edge whose proxy is a socket of the test, and a client.
struct World {
    edge: Host,
    client: Host,
    pins: PinPath,
    _proxy: TcpListener,
    _lan: Lan,
}

impl World {
    fn new(label: &str) -> Self {
        let lan = Lan::new(label).expect("make a LAN");
        let edge = lan.host("e", &["10.1.0.2/24", &format!("{VIP}/24")]).expect("plug in the edge");
        let client = lan.host("c", &[&format!("{CLIENT}/24")]).expect("plug in the client");
        client.receive_xdp().expect("take XDP frames");
        let proxy = edge.inside(|| TcpListener::bind((VIP, PORT))).expect("the proxy's port");
        Self { edge, client, pins: PinPath::default(), _proxy: proxy, _lan: lan }
    }

    fn open(&self, limit_drop: bool) -> Dataplane {
        self.edge.inside(|| {
            let options = DataplaneOptions { limit_drop, ..options(&self.pins, &["eth0"]) };
            let mut dataplane = Dataplane::open(options).expect("open the data plane");
            dataplane.apply(&snapshot()).expect("apply");
            dataplane
        })
    }

    /// Whether the client's SYN is answered.
    fn is_heard(&self) -> bool {
        let to: SocketAddr = format!("{VIP}:{PORT}").parse().expect("an address");
        match self.client.inside(|| TcpStream::connect_timeout(&to, Duration::from_millis(500))) {
            Ok(_) => true,
            Err(e) if e.kind() == ErrorKind::TimedOut => false,
            Err(e) => panic!("{e}"),
        }
    }
}

fn snapshot() -> Arc<Snapshot> {
    let mut snapshots = Snapshots::default();
    let key = FrontendKey { vip: VIP.parse().expect("an address"), protocol: Protocol::Tcp, port: PORT };
    snapshots.frontend(key, "web", FrontendKind::L7);
    snapshots.build()
}

fn offence(client: impl Into<IpAddr>, lasts: Duration) -> Offence {
    Offence { client: client.into(), owner: Arc::new(ObjectName::new("shop", "web")), lasts }
}

fn client() -> IpAddr {
    CLIENT.parse().expect("an address")
}

fn names(dropped: &[DroppedClient]) -> Vec<IpAddr> {
    dropped.iter().map(|d| d.client).collect()
}

#[test]
fn a_dropped_client_gets_no_answer_until_it_is_let_go_also_over_a_restart() {
    let w = World::new("dropone");
    let mut dataplane = w.open(true);
    assert!(w.is_heard());
    assert!(dataplane.drop_client(&offence(client(), HOUR)).expect("drop"));
    assert!(!w.is_heard());
    let known = dataplane.dropped_clients();
    assert_eq!((names(&known), known[0].owner.as_deref()), (vec![client()], Some(&ObjectName::new("shop", "web"))));
    assert!(known[0].left > HOUR / 60 * 59 && known[0].left <= HOUR, "{known:?}");
    // A shorter time does not end a longer one.
    assert!(!dataplane.drop_client(&offence(client(), Duration::from_secs(1))).expect("drop"), "it is already");
    assert!(dataplane.dropped_clients()[0].left > Duration::from_mins(1));

    drop(dataplane);
    assert!(!w.is_heard(), "nobody has to be there");
    let mut next = w.open(true);
    assert!(!w.is_heard());
    let known = next.dropped_clients();
    assert_eq!((names(&known), known[0].owner.as_deref()), (vec![client()], None), "why, the first one knew");

    assert!(next.release_client(client()).expect("release"));
    assert!(w.is_heard() && next.dropped_clients().is_empty());
    assert!(!next.release_client(client()).expect("release"), "once");
    let lasts = Duration::from_millis(700);
    next.drop_client(&offence(client(), lasts)).expect("drop");
    assert_eq!(names(&next.dropped_clients()), [client()]);
    until("its time is over, and nobody takes it out", || w.is_heard().then_some(()));
    assert_eq!(next.dropped_clients(), [], "it is not shown either");
    next.tick().expect("tick");
}

#[test]
fn an_agent_that_drops_nobody_lets_all_go() {
    let w = World::new("dropoff");
    let mut dataplane = w.open(true);
    dataplane.drop_client(&offence(client(), HOUR)).expect("drop");
    assert!(!w.is_heard());
    drop(dataplane);
    let off = w.open(false);
    assert!(w.is_heard() && off.dropped_clients().is_empty());
    drop(off);
    let on = w.open(true);
    assert!(w.is_heard() && on.dropped_clients().is_empty(), "and they stay free");
}

#[test]
fn where_there_is_no_room_who_ends_first_gives_way() {
    let w = World::new("dropfull");
    let mut dataplane = w.open(true);
    let address = |i: u32| Ipv4Addr::from(0x0b00_0000 + i);
    for i in 0..DROPPED_MOST {
        // The seventh ends first.
        let lasts = if i == 7 { HOUR / 2 } else { HOUR };
        dataplane.drop_client(&offence(address(i), lasts)).expect("drop");
    }
    dataplane.drop_client(&offence(client(), HOUR)).expect("drop one more");
    let known = names(&dataplane.dropped_clients());
    assert_eq!(known.len(), DROPPED_MOST as usize);
    assert!(known.contains(&client()) && !known.contains(&IpAddr::from(address(7))));
    assert!(!w.is_heard());
    // Known again after a restart, as many as they are.
    drop(dataplane);
    assert_eq!(names(&w.open(true).dropped_clients()), known);
}
