//! Whom the proxy tells of when limits refuse a client again and again: the other end of the connection itself, and nobody where somebody
//! else's word says who the client is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use ingress_agent::model::offence::Offence;
use ingress_agent::model::policy::{LimitDrop, Limits, ListenerSettings, Policy, ProxyHeader, Rate};
use ingress_agent::model::snapshot::ObjectName;
use ingress_agent::proxy::ProxyOptions;
use ingress_tests::http::backend::Backend;
use ingress_tests::http::raw::{Raw, ask};
use ingress_tests::http::site::{Served, Site};
use tokio::sync::mpsc::{Receiver, channel};

const DROP: LimitDrop = LimitDrop { refusals: 3, within: Duration::from_mins(10), lasts: Duration::from_secs(42) };
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// One request an hour for each client.
fn limited(drop: Option<LimitDrop>) -> Policy {
    let limits = Limits {
        owner: ObjectName::new("shop", "web"),
        shared: false,
        rates: vec![Rate { every: Duration::from_hours(1), burst: 0 }],
        connections: None,
        exempt: Vec::new(),
        rate_status: StatusCode::SERVICE_UNAVAILABLE,
        connection_status: StatusCode::SERVICE_UNAVAILABLE,
        drop,
    };
    Policy { limits: Some(Arc::new(limits)), ..Policy::default() }
}

struct Told {
    served: Served,
    offences: Receiver<Offence>,
    _backend: Backend,
}

impl Told {
    fn new(policy: Policy, settings: ListenerSettings) -> Self {
        let backend = Backend::echo();
        let (tell, offences) = channel(16);
        let options = ProxyOptions { workers: 2, offences: Some(tell), ..ProxyOptions::default() };
        let site = Site { settings: Arc::new(settings), ..Site::under(backend.address, policy) };
        Self { served: Served::with(options, &site), offences, _backend: backend }
    }

    /// The statuses of so many requests, each on a connection of its own.
    fn ask(&self, times: usize, request: &str) -> Vec<u16> {
        (0..times).map(|_| ask(self.served.http(), request).expect("an answer").status).collect()
    }

    fn told(&mut self) -> Vec<Offence> {
        std::iter::from_fn(|| self.offences.try_recv().ok()).collect()
    }
}

/// The client of the tests.
fn own() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

#[test]
fn a_client_is_told_of_after_so_many_refusals_and_counted_anew() {
    let mut t = Told::new(limited(Some(DROP)), ListenerSettings::default());
    assert_eq!(t.ask(3, REQUEST), [200, 503, 503]);
    assert_eq!(t.told(), [], "two refusals are too few");
    assert_eq!(t.ask(1, REQUEST), [503], "what is told of is answered all the same");
    let offence = Offence { client: own(), owner: Arc::new(ObjectName::new("shop", "web")), lasts: DROP.lasts };
    assert_eq!(t.told(), std::slice::from_ref(&offence));
    t.ask(2, REQUEST);
    assert_eq!(t.told(), []);
    t.ask(1, REQUEST);
    assert_eq!(t.told(), [offence]);
    // On one connection, as well.
    let mut one = Raw::connect(t.served.http());
    for _ in 0..3 {
        one.send(REQUEST);
        assert_eq!(one.response().map(|r| r.status), Some(503));
    }
    assert_eq!(t.told().len(), 1);
}

#[test]
fn without_the_annotation_nobody_is_told_of() {
    let mut t = Told::new(limited(None), ListenerSettings::default());
    t.ask(10, REQUEST);
    assert_eq!(t.told(), []);
}

#[test]
fn who_is_exempt_from_the_limits_is_never_refused() {
    let mut policy = limited(Some(DROP));
    Arc::make_mut(policy.limits.as_mut().expect("limits")).exempt = vec!["127.0.0.0/8".parse().expect("a range")];
    let mut t = Told::new(policy, ListenerSettings::default());
    assert_eq!(t.ask(10, REQUEST), [200; 10]);
    assert_eq!(t.told(), []);
}

/// Dropping the packets would drop the load balancer's, and everybody behind it.
#[test]
fn clients_behind_the_proxy_protocol_are_not_told_of() {
    for from in [vec![], vec!["203.0.113.0/24".parse().expect("a range")]] {
        let header = ProxyHeader { from, timeout: Duration::from_secs(5) };
        let settings = ListenerSettings { proxy_protocol: Some(header), ..ListenerSettings::default() };
        let mut t = Told::new(limited(Some(DROP)), settings);
        for head in ["PROXY TCP4 203.0.113.7 192.0.2.1 5555 80\r\n", "PROXY UNKNOWN\r\n"] {
            let refused = t.ask(10, &format!("{head}{REQUEST}")).iter().filter(|status| **status == 503).count();
            assert!(refused >= 9, "the limit holds: {refused}");
            assert_eq!(t.told(), [], "{head}");
        }
    }
}

#[test]
fn clients_behind_a_trusted_proxy_are_not_told_of_and_nor_is_the_proxy() {
    let trusted = vec!["127.0.0.0/8".parse().expect("a range")];
    let mut t = Told::new(limited(Some(DROP)), ListenerSettings { trusted, ..ListenerSettings::default() });
    let forwarded = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    for request in [forwarded, REQUEST] {
        assert!(t.ask(10, request).iter().filter(|status| **status == 503).count() >= 9);
        assert_eq!(t.told(), [], "{request}");
    }
}

#[test]
fn a_field_of_somebody_who_is_not_trusted_says_nothing() {
    let mut t = Told::new(limited(Some(DROP)), ListenerSettings::default());
    for i in 0..4 {
        t.ask(1, &format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.{i}\r\n\r\n"));
    }
    assert_eq!(t.told().iter().map(|offence| offence.client).collect::<Vec<_>>(), [own()]);
}

#[test]
fn more_than_can_be_heard_holds_up_nobody() {
    let mut t = Told::new(limited(Some(LimitDrop { refusals: 1, ..DROP })), ListenerSettings::default());
    assert_eq!(t.ask(101, REQUEST).iter().filter(|status| **status == 503).count(), 100);
    assert_eq!(t.told().len(), 16);
    t.ask(1, REQUEST);
    assert_eq!(t.told().len(), 1, "and is told again");
}
