//! Clients that go on exceeding an Ingress's limits, as an operator and as clients see it: the agent's binary, real TCP, and who is heard.

#[path = "agent_run/world.rs"]
#[expect(dead_code, reason = "each program uses a part of the world")]
mod world;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ingress_tests::edge::Agent;
use ingress_tests::wait::until;
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use world::World;

const WEB: &str = "10.1.0.100";
const WEB6: &str = "fd01::100";
const ECHO: &str = "10.1.0.101";
/// Addresses of the client's host: each is a client of its own.
const GREEDY: &str = "10.1.0.4";
const GREEDY6: &str = "fd01::4";
const MODEST: &str = "10.1.0.5";
const EXEMPT: &str = "10.1.0.6";
const BRIEF: &str = "10.1.0.7";
const ENDPOINT: &str = "10.1.0.8";

/// Two requests, then one a minute; and five refusals within a minute are too many.
fn ingress(name: &str, lasts: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: demo
  annotations:
    nginx.ingress.kubernetes.io/limit-rpm: '1'
    nginx.ingress.kubernetes.io/limit-burst-multiplier: '1'
    sluicegate.io/limit-drop-after: 5/1m
    sluicegate.io/limit-drop-for: {lasts}
spec:
  ingressClassName: limited
  rules:
    - host: {name}.example
      http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}] }}
"
    )
}

const CLASS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: limited, annotations: { sluicegate.io/vips: '10.1.0.100, fd01::100' } }
spec: { controller: sluicegate.io/ingress-controller }
---
apiVersion: v1
kind: Service
metadata: { name: other, namespace: demo }
spec: { ports: [{ port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: other-1, namespace: demo, labels: { kubernetes.io/service-name: other } }
addressType: IPv4
ports: [{ port: 80, protocol: TCP }]
endpoints: [{ addresses: [10.1.0.8], nodeName: worker }]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: other, namespace: demo }
spec:
  ingressClassName: limited
  rules:
    - host: other.example
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: other, port: { number: 80 } } } }] }
";

struct Site {
    agent: Agent,
    world: World,
}

impl Site {
    fn new(label: &str, flags: &[&str]) -> Self {
        // The class of the world's own Ingress has the same address, in one family only.
        let world = World::new(label);
        for address in [MODEST, EXEMPT, BRIEF, ENDPOINT] {
            world.client.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"]).expect("one more client");
        }
        world.place.manifest("class.yaml", CLASS).expect("write");
        world.place.manifest("long.yaml", &ingress("long", "30m")).expect("write");
        world.place.manifest("short.yaml", &ingress("short", "2s")).expect("write");
        let flags: Vec<&str> = ["--max-flows=10000", "--workers=2"].iter().chain(flags).copied().collect();
        let place = &world.place;
        let agent = Agent::start(&world.edge, &place.directory, &place.pins, &flags).expect("it is ready");
        Self { agent, world }
    }

    /// The status that a client gets; an error where it gets none.
    fn ask(&self, client: &str, host: &str) -> Result<u16, ErrorKind> {
        let client: IpAddr = client.parse().expect("an address");
        let vip = if client.is_ipv4() { WEB } else { WEB6 };
        let to = SocketAddr::new(vip.parse().expect("an address"), 80);
        self.world.client.inside(|| {
            let mut stream = connect(client, to).map_err(|e| e.kind())?;
            let head = format!("GET / HTTP/1.1\r\nhost: {host}.example\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).map_err(|e| e.kind())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(|e| e.kind())?;
            Ok(answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"))
        })
    }

    /// Asks until nobody answers; how many answers there were of each kind.
    fn exceed(&self, client: &str, host: &str) -> (usize, usize) {
        let (mut served, mut refused) = (0, 0);
        until("it is dropped", || match self.ask(client, host) {
            Ok(200) => {
                served += 1;
                None
            }
            Ok(503) => {
                refused += 1;
                None
            }
            Ok(other) => panic!("{other}"),
            // The last answer may be on its way while the client is dropped already.
            Err(ErrorKind::TimedOut | ErrorKind::WouldBlock) => Some(()),
            Err(other) => panic!("{other}"),
        });
        (served, refused)
    }

    fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.agent.get("/metrics").expect("metrics").1;
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    fn dropped(&self) -> Value {
        let (code, out, err) = self.world.sluicegate(&["limits", "list", "-o", "json"]);
        assert_eq!((code, err.as_str()), (0, ""));
        serde_json::from_str(&out).expect("JSON")
    }
}

fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    socket.connect_timeout(&SockAddr::from(to), Duration::from_secs(1))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket.into())
}

#[test]
fn who_goes_on_exceeding_a_limit_is_not_heard_and_everybody_else_is() {
    let s = Site::new("ldrop", &["--enable-limit-drop", "--limit-drop-exempt=10.1.0.6"]);
    let (served, refused) = s.exceed(GREEDY, "long");
    assert!(served == 2 && refused >= 5, "{served} served, {refused} refused");
    assert_eq!(s.ask(GREEDY, "long"), Err(ErrorKind::TimedOut), "its SYN gets no answer");
    assert_eq!(s.ask(GREEDY, "shop"), Err(ErrorKind::TimedOut), "at any host");
    assert!(s.world.echo(ECHO).is_some(), "an L4 service answers it as ever");
    assert_eq!(s.ask(MODEST, "long"), Ok(200), "somebody else");
    assert_eq!(s.ask(GREEDY6, "long"), Ok(200), "the same host by its other address");

    // IPv6, where one address is a client as well.
    s.exceed(GREEDY6, "long");
    assert_eq!(s.ask(GREEDY6, "shop"), Err(ErrorKind::TimedOut));

    // Seen: who, why, until when, and how much.
    let status = s.agent.status().expect("status");
    let line = status.lines().find(|l| l.contains(GREEDY) && l.contains("demo/long")).expect("its line");
    assert!(status.contains("DROPPED CLIENTS") && line.contains("29 min"), "{status}");
    assert!(status.contains("drop_limited"), "{status}");
    let clients = s.dropped()["clients"].as_array().expect("clients").clone();
    let names: Vec<_> = clients.iter().map(|c| c["client"].as_str().expect("an address")).collect();
    assert_eq!(names, [GREEDY, GREEDY6]);
    assert!(clients[0]["left_seconds"].as_u64().is_some_and(|left| left > 1600 && left <= 1800), "{clients:?}");
    assert_eq!(s.metric("sluicegate_limit_dropped_clients{namespace=\"demo\",ingress=\"long\"}"), Some(2.0));
    assert_eq!(s.metric("sluicegate_limit_drops_total"), Some(2.0));
    assert!(s.metric("sluicegate_xdp_packets_total{verdict=\"drop_limited\"}") > Some(0.0));
    let told = s.world.log().lines().filter(|l| l.contains("exceeded limits too often") && l.contains(GREEDY)).count();
    assert!(told >= 1, "{}", s.world.log());
    let (_, out, _) = s.world.sluicegate(&["explain", "tcp", "10.1.0.4:40000", "10.1.0.100:80"]);
    assert!(out.starts_with("dropped: the client exceeded limits too often"), "{out}");
    assert!(out.contains("10.1.0.4 exceeded the limits of demo/long too often"), "{out}");
    let (_, out, _) = s.world.sluicegate(&["explain", "tcp", "10.1.0.5:40000", "10.1.0.100:80"]);
    assert!(out.starts_with("passed up to the proxy"), "{out}");

    // Let go by an operator.
    let release = |client: &str| s.world.sluicegate(&["limits", "release", client]);
    assert_eq!(release(GREEDY), (0, "10.1.0.4 is let go\n".to_owned(), String::new()));
    assert_eq!(s.ask(GREEDY, "shop"), Ok(200));
    let (code, _, err) = release(GREEDY);
    assert!(code == 1 && err.contains("10.1.0.4 is not dropped"), "{err}");
    let (code, _, err) = release("everybody");
    assert!(code == 1 && err.contains("everybody: is not an IP address"), "{err}");
    assert_eq!(s.dropped()["clients"].as_array().map(Vec::len), Some(1));
}

#[test]
fn its_time_ends_by_itself_and_some_are_never_dropped() {
    let s = Site::new("ldropend", &["--enable-limit-drop", "--limit-drop-exempt=10.1.0.6,fd01::/64"]);
    let began = Instant::now();
    s.exceed(BRIEF, "short");
    until("it is heard again", || s.ask(BRIEF, "shop").ok());
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(s.ask(BRIEF, "shop"), Ok(200));
    until("and not listed", || s.dropped()["clients"].as_array().is_some_and(Vec::is_empty).then_some(()));

    for client in [EXEMPT, GREEDY6, ENDPOINT] {
        for _ in 0..20 {
            let status = s.ask(client, "long");
            assert!(matches!(status, Ok(200 | 503)), "{client}: {status:?}");
        }
        assert_eq!(s.ask(client, "long"), Ok(503), "{client}: its limit holds");
    }
    until("each was spared", || (s.metric("sluicegate_limit_drops_spared_total") >= Some(9.0)).then_some(()));
    assert_eq!(s.metric("sluicegate_limit_drops_total"), Some(1.0));
}

#[test]
fn a_client_stays_dropped_while_the_agent_is_away_and_behind_the_next_one() {
    let mut s = Site::new("ldropkill", &["--enable-limit-drop"]);
    s.exceed(GREEDY, "long");
    s.agent.kill().expect("kill -9");
    assert_eq!(s.ask(GREEDY, "long"), Err(ErrorKind::TimedOut), "dropped before the kernel can refuse");
    assert_eq!(s.ask(MODEST, "long"), Err(ErrorKind::ConnectionRefused), "there is no proxy");
    s.agent.start_again().expect("start again");
    assert_eq!(s.ask(GREEDY, "long"), Err(ErrorKind::TimedOut));
    assert_eq!(s.ask(MODEST, "long"), Ok(200));
    let (_, out, _) = s.world.sluicegate(&["limits", "list"]);
    assert!(out.starts_with("1 client is dropped now, 0 were since the agent started"), "{out}");
    assert!(out.contains(GREEDY) && out.contains("(an agent before this one)"), "{out}");
    assert_eq!(s.world.sluicegate(&["limits", "release", GREEDY]).0, 0);
    assert_eq!(s.ask(GREEDY, "shop"), Ok(200));
}

#[test]
fn without_the_flag_nobody_is_dropped_and_the_owner_is_told() {
    let s = Site::new("ldropoff", &[]);
    let answers: Vec<_> = (0..30).map(|_| s.ask(GREEDY, "long")).collect();
    assert!(answers.iter().all(|answer| matches!(answer, Ok(200 | 503))), "{answers:?}");
    assert!(answers.iter().filter(|answer| **answer == Ok(503)).count() > 5, "{answers:?}");
    let status = s.agent.status().expect("status");
    assert!(status.contains("agents drop clients with `--enable-limit-drop` only"), "{status}");
    assert!(!status.contains("drop_limited") && s.metric("sluicegate_limit_drops_total").is_none(), "{status}");
    let (code, out, _) = s.world.sluicegate(&["limits", "list"]);
    assert!(code == 0 && out.contains("--enable-limit-drop"), "{out}");
    let (code, _, err) = s.world.sluicegate(&["limits", "release", GREEDY]);
    assert!(code == 1 && err.contains("--enable-limit-drop"), "{err}");
}
