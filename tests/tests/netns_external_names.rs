//! Services of type `ExternalName` behind Ingresses: the agent's binary, a DNS server whose answers change, and real requests.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use ingress_tests::dns::{Dns, Record};
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::http::raw::Raw;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::Running;
use ingress_tests::place::Place;
use ingress_tests::wait::within;

/// Some answers hold for ten seconds, and the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
const VIP: &str = "10.1.0.100";
const ONE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 12);

/// `plain` says no ports, so the Ingress's is the one to connect to; `ported` has one that means another.
const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: { name: plain, namespace: t }
spec: { type: ExternalName, externalName: app.example. }
---
apiVersion: v1
kind: Service
metadata: { name: ported, namespace: t }
spec: { type: ExternalName, externalName: alias.example, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: loop, namespace: t }
spec: { type: ExternalName, externalName: loop.example }
---
apiVersion: v1
kind: Service
metadata: { name: inside, namespace: t }
spec: { type: ExternalName, externalName: inside.example }
---
apiVersion: v1
kind: Service
metadata: { name: nobodys, namespace: t }
spec: { type: ExternalName, externalName: nobodys.example }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: i, namespace: t }
spec:
  rules:
  - host: a.test
    http:
      paths:
      - { path: /plain, pathType: Prefix, backend: { service: { name: plain, port: { number: 8080 } } } }
      - { path: /ported, pathType: Prefix, backend: { service: { name: ported, port: { name: http } } } }
      - { path: /loop, pathType: Prefix, backend: { service: { name: loop, port: { number: 80 } } } }
      - { path: /inside, pathType: Prefix, backend: { service: { name: inside, port: { number: 10254 } } } }
";

struct World {
    agent: Agent,
    dns: Dns,
    client: Host,
    _backends: Vec<Running>,
    _hosts: Vec<Host>,
    _place: Place,
    _lan: Lan,
}

impl World {
    fn new(label: &str, more: &[&str], say: impl FnOnce(&Dns)) -> Self {
        let lan = Lan::new(label).expect("make a LAN");
        let host = |name: &str, n: u8| lan.host(name, &[&format!("10.1.0.{n}/24")]).expect("plug in a host");
        let (edge, client, server) = (host("e", 2), host("c", 4), host("d", 53));
        let hosts = vec![host("b1", 11), host("b2", 12), server];
        let backends = hosts.iter().zip(["one", "two"]).map(|(host, name)| {
            let mut command = Command::new(sibling("demo_backend").expect("a backend's binary"));
            host.ns.spawn(command.arg(name).stdout(Stdio::null())).expect("start a backend")
        });
        let backends = backends.collect();
        let dns = Dns::start(&hosts[2].ns, "10.1.0.53:53".parse().expect("an address")).expect("start a DNS server");
        say(&dns);
        let place = Place::new(label).expect("a place");
        place.manifest("all.yaml", MANIFESTS).expect("write");
        let vip = format!("--ingress-vip={VIP}");
        let flags =
            ["--workers=1", "--max-flows=10000", "--watch-ingress-without-class", "--dns-server=10.1.0.53:53", &vip];
        let agent = Agent::start(&edge, &place.directory, &place.pins, &[&flags, more].concat()).expect("it is ready");
        Self { agent, dns, client, _backends: backends, _hosts: hosts, _place: place, _lan: lan }
    }

    /// Status, and the first word of the answer: who it was.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let stream = self.client.inside(|| {
            let address = format!("{VIP}:80").parse().expect("an address");
            TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()
        })?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a read timeout");
        let response = Raw::over(stream).send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).response()?;
        Some((response.status, response.text().split(' ').next().unwrap_or_default().to_owned()))
    }

    #[track_caller]
    fn answers(&self, path: &str, name: &str) {
        let mut last = None;
        within(PATIENCE, &format!("{path} is answered by {name}"), || {
            last = self.get(path);
            (last == Some((200, name.to_owned()))).then_some(())
        });
    }

    #[track_caller]
    fn says(&self, words: &str) {
        within(PATIENCE, &format!("the status says {words}"), || {
            self.agent.status().ok()?.contains(words).then_some(())
        });
    }
}

fn at(address: Ipv4Addr, ttl: u32) -> Record {
    Record::Addresses { addresses: vec![address], ttl }
}

#[test]
fn a_name_is_followed_and_a_server_that_fails_takes_nothing_away() {
    let world = World::new("extname", &[], |dns| {
        dns.say("app.example", at(ONE, 1));
        dns.say("alias.example", Record::Alias { name: "target.example", ttl: 3600 });
        dns.say("target.example", at(TWO, 3600));
        dns.say("loop.example", at(VIP.parse().expect("an address"), 3600));
        dns.say("inside.example", at(Ipv4Addr::LOCALHOST, 3600));
        dns.say("nobodys.example", at(ONE, 1));
    });
    world.answers("/plain", "one");
    world.answers("/ported", "two");

    // Neither we ourselves nor what listens on the node's loopback, such as our own admin address.
    world.says("loop.example is 10.1.0.100, an address that we answer for");
    world.says("`inside.example` is 127.0.0.1, which is no address of a backend");
    for path in ["/loop", "/inside"] {
        assert_eq!(world.get(path).expect("an answer").0, 503, "{path}");
    }

    world.dns.say("app.example", at(TWO, 1));
    world.answers("/plain", "two");

    world.dns.say("app.example", Record::Broken);
    world.says("`app.example` cannot be resolved: SERVFAIL");
    let before = world.dns.asked("app.example");
    within(PATIENCE, "it is asked for again", || (world.dns.asked("app.example") > before).then_some(()));
    world.answers("/plain", "two");

    world.dns.say("app.example", at(ONE, 1));
    world.answers("/plain", "one");
    assert_eq!(world.dns.asked("nobodys.example"), 0, "no Ingress names it");
    assert_eq!(world.dns.asked("alias.example"), 1, "its answer holds for an hour");
}

#[test]
fn names_are_not_resolved_where_the_operator_says_so() {
    let world = World::new("extoff", &["--disable-svc-external-name"], |dns| dns.say("app.example", at(ONE, 1)));
    world.says("names are not resolved here (`--disable-svc-external-name`)");
    assert_eq!(world.get("/plain").expect("an answer").0, 503);
    assert_eq!(world.dns.asked("app.example"), 0);
}
