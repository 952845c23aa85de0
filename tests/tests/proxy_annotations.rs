//! Annotations and settings of which no answer was recorded, from manifests to real sockets: whom a request reaches, and over which
//! connection.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::SystemTime;

use ingress_agent::model::class_rule::ClassRule;
use ingress_agent::model::snapshot::{ObjectName, PrivateKey};
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::proxy::{Proxy, ProxyOptions};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::ask;
use ingress_tests::http::site::certificate;
use ingress_tests::http::tls::Trusting;
use ingress_tests::netns::Namespace;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConnection, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use tokio::runtime::Runtime;

const EDGE: &str = "10.78.0.2";
const CLUSTER_IP: &str = "10.78.2.1";

/// A namespace whose addresses are all its own; this thread is in it, and those that it starts.
struct World {
    edge: SocketAddr,
    proxy: Proxy,
    runtime: Runtime,
    _namespace: Arc<Namespace>,
}

fn backend(address: &str) -> Backend {
    let name = address.to_owned();
    Backend::bound(address.parse().expect("an address"), move |_, stream| {
        reply(stream, "200 OK", "", name.as_bytes());
        Then::Keep
    })
}

impl World {
    fn enter(label: &str) -> Self {
        let namespace = Namespace::new(label).expect("a namespace");
        namespace.ip(&["route", "add", "local", "10.78.0.0/16", "dev", "lo"]).expect("a route");
        namespace.enter_thread().expect("enter it");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let proxy = Proxy::start(ProxyOptions { workers: 1, ..ProxyOptions::default() }).expect("the proxy");
        let edge = format!("{EDGE}:8080").parse().expect("an address");
        Self { edge, proxy, runtime, _namespace: namespace }
    }

    /// Serves a Service with so many endpoints by an Ingress with these annotations, under these settings.
    fn serve(&self, endpoints: u8, annotations: &[(&str, &str)], settings: &[(&str, &str)]) {
        let lines = |pairs: &[(&str, &str)], prefix: &str| {
            pairs.iter().fold(String::new(), |mut text, (key, value)| {
                writeln!(text, "    {prefix}{key}: '{value}'").expect("a String takes all");
                text
            })
        };
        let addresses: Vec<String> = (1..=endpoints).map(|n| format!("{{addresses: [10.78.1.{n}]}}")).collect();
        let manifest = format!(
            "
apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: t }}
spec: {{ clusterIP: {CLUSTER_IP}, ports: [{{ port: 80, targetPort: 8080 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: web-1, namespace: t, labels: {{ kubernetes.io/service-name: web }} }}
addressType: IPv4
ports: [{{ port: 8080 }}]
endpoints: [{}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{ name: settings, namespace: t }}
data:
    none: ''
{}---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: t
  annotations:
    none: ''
{}spec:
  rules:
  - host: a.test
    http:
      paths:
      - {{ path: /, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}
      - {{ path: /deep/, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}
",
            addresses.join(", "),
            lines(settings, ""),
            lines(annotations, "nginx.ingress.kubernetes.io/"),
        );
        let named = Some(ObjectName::new("t", "settings"));
        let mut store = Store::new(SourceOptions { config_map: named.clone(), ..SourceOptions::default() });
        store.put("a.yaml", Ok(&manifest));
        let facts = store.publish(SystemTime::now(), &[]).expect("the first facts");
        let options = PlanOptions {
            classes: ClassRule { without_class: true, ..ClassRule::default() },
            ingress_vips: vec![EDGE.parse().expect("an address")],
            http_port: 8080,
            config_map: named,
            ..PlanOptions::default()
        };
        let planned = plan(&facts, &options, None).snapshot;
        let about = planned.rejections.iter().filter(|r| r.kind != "ConfigMap" || !r.field.contains("none"));
        assert_eq!(about.count(), 0, "{:#?}", planned.rejections);
        let problems = self.runtime.block_on(self.proxy.apply(planned)).expect("the proxy lives");
        assert_eq!(problems, Vec::<String>::new());
    }

    fn get(&self, target: &str) -> String {
        let answer = ask(self.edge, format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).expect("an answer");
        answer.field("location").map_or_else(|| answer.text(), str::to_owned)
    }

    fn who(&self, target: &str, times: usize) -> BTreeSet<String> {
        (0..times).map(|_| self.get(target)).collect()
    }
}

#[test]
fn a_service_upstream_is_asked_by_its_own_address() {
    let world = World::enter("pacluster");
    let _backends = [backend("10.78.1.1:8080"), backend(&format!("{CLUSTER_IP}:80"))];
    let whole = format!("{CLUSTER_IP}:80");
    for (annotations, settings, reached) in [
        (&[][..], &[][..], "10.78.1.1:8080"),
        (&[("service-upstream", "true")], &[], &*whole),
        (&[], &[("service-upstream", "true")], &*whole),
        (&[("service-upstream", "false")], &[("service-upstream", "true")], "10.78.1.1:8080"),
    ] {
        world.serve(1, annotations, settings);
        assert_eq!(world.get("/"), reached, "{annotations:?} {settings:?}");
    }
    // Whether an endpoint is there is not our business then.
    world.serve(0, &[("service-upstream", "true")], &[]);
    assert_eq!(world.get("/"), whole);
}

#[test]
fn a_subset_is_asked_evenly_and_always_the_same_one() {
    let world = World::enter("pasubset");
    let _backends: Vec<Backend> = (1..=7).map(|n| backend(&format!("10.78.1.{n}:8080"))).collect();
    let by = ("upstream-hash-by", "$arg_user");
    let on = ("upstream-hash-by-subset", "true");
    let subsets = |size: usize| -> Vec<BTreeSet<String>> {
        let all: Vec<String> = (1..=7).map(|n| format!("10.78.1.{n}:8080")).collect();
        let sets = 7_usize.div_ceil(size);
        // The last one is filled up from the beginning.
        (0..sets).map(|set| (0..size).map(|at| all[(set * size + at) % 7].clone()).collect()).collect()
    };
    for (size, annotations) in [(3, &[by, on][..]), (2, &[by, on, ("upstream-hash-by-subset-size", "2")])] {
        world.serve(7, annotations, &[]);
        let mut reached = BTreeSet::new();
        for user in 0..12 {
            let asked = world.who(&format!("/?user={user}"), 60);
            assert!(subsets(size).contains(&asked), "{asked:?} is no subset of {size}");
            reached.extend(asked);
        }
        assert_eq!(reached.len(), 7, "every endpoint is in one that somebody gets");
    }
    world.serve(7, &[by], &[]);
    assert_eq!(world.who("/?user=1", 20).len(), 1, "without it, one endpoint a key");
}

#[test]
fn the_port_of_a_redirect_is_named_where_it_is_asked_for() {
    let world = World::enter("paport");
    let on = ("use-port-in-redirects", "true");
    for (annotations, settings, location) in [
        (&[][..], &[][..], "http://a.test/deep/"),
        (&[on], &[], "http://a.test:8080/deep/"),
        (&[], &[on], "http://a.test:8080/deep/"),
        (&[("use-port-in-redirects", "false")], &[on], "http://a.test/deep/"),
    ] {
        world.serve(1, annotations, settings);
        assert_eq!(world.get("/deep"), location, "{annotations:?} {settings:?}");
    }
}

#[test]
fn connections_to_backends_are_kept_as_the_settings_say() {
    let world = World::enter("pakeep");
    let backend = backend("10.78.1.1:8080");
    let opened = |settings: &[(&str, &str)]| {
        world.serve(1, &[], settings);
        // The first request uses what was kept under the settings before.
        world.get("/");
        let before = backend.connections();
        assert_eq!(world.who("/", 4).len(), 1);
        backend.connections() - before
    };
    assert_eq!(opened(&[]), 0, "one connection, used again and again");
    assert_eq!(opened(&[("upstream-keepalive-connections", "0")]), 4);
    assert_eq!(opened(&[("upstream-keepalive-requests", "1")]), 4);
    assert_eq!(opened(&[("upstream-keepalive-requests", "2")]), 2);
    assert_eq!(opened(&[("upstream-keepalive-timeout", "0")]), 4);
    assert_eq!(opened(&[("upstream-keepalive-time", "0s")]), 4);
    assert_eq!(opened(&[("upstream-keepalive-time", "1h")]), 0);
}

/// `auth-snippet`: fields of the requests to the auth server, which a backend never sees.
#[test]
fn a_snippet_for_the_auth_server_sets_its_fields() {
    let world = World::enter("pasnip");
    let (web, auth) = (backend("10.78.1.1:8080"), backend("10.78.3.1:8080"));
    let snippet =
        "proxy_set_header X-Team $host; more_set_input_headers \"X-Edge: west\"; proxy_set_header X-Gone \"\";";
    let annotations = [("auth-url", "http://10.78.3.1:8080/check"), ("auth-snippet", snippet)];
    let allowed = [("allow-snippet-annotations", "true"), ("annotations-risk-level", "Critical")];
    world.serve(1, &annotations, &allowed);
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Edge: mine\r\nX-Gone: mine\r\n\r\n";
    assert_eq!(ask(world.edge, request).expect("an answer").text(), "10.78.1.1:8080");
    let asked = auth.received().pop().expect("the auth server is asked");
    let of = |name: &str| asked.fields(name);
    assert_eq!((of("x-team"), of("x-edge"), of("x-gone")), (vec!["a.test"], vec!["west"], vec![]));
    let reached = web.received().pop().expect("the backend is asked");
    assert_eq!((reached.fields("x-team"), reached.fields("x-edge")), (vec![], vec!["mine"]));
    // That of the ConfigMap is its operator's own.
    world.serve(1, &[], &[("global-auth-url", annotations[0].1), ("global-auth-snippet", "proxy_set_header X-All 1;")]);
    assert_eq!(world.get("/"), "10.78.1.1:8080");
    assert_eq!(auth.received().pop().expect("the auth server is asked").field("x-all"), Some("1"));
}

#[test]
fn a_backend_is_told_the_target_that_the_client_sent() {
    let world = World::enter("paoriginal");
    let web = backend("10.78.1.1:8080");
    world.serve(1, &[("rewrite-target", "/")], &[("proxy-add-original-uri-header", "true")]);
    world.get("/deep/a?b=c");
    let reached = web.received().pop().expect("the backend is asked");
    assert_eq!((reached.line(), reached.fields("x-original-uri")), ("GET /?b=c HTTP/1.1", vec!["/deep/a?b=c"]));
    world.serve(1, &[], &[]);
    world.get("/deep/a");
    assert_eq!(web.received().pop().expect("the backend is asked").field("x-original-uri"), None);
}

/// A backend that speaks TLS, and answers with the version and the suite that were chosen.
fn secure_backend(address: &str) {
    let made = certificate("web", &["web.example"]);
    let PrivateKey::Pkcs8(key) = made.key else { panic!("it is of PKCS #8") };
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let chain = made.chain.into_iter().map(Into::into).collect();
    let config = Arc::new(builder.with_single_cert(chain, PrivateKeyDer::Pkcs8(key.into())).expect("a pair"));
    let listener = TcpListener::bind(address).expect("bind");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = StreamOwned::new(connection, stream);
            // A client that goes is its own affair.
            let _ = stream.conn.complete_io(&mut stream.sock);
            let suite = stream.conn.negotiated_cipher_suite().map(|suite| suite.suite());
            let text = format!("{:?} {suite:?}", stream.conn.protocol_version());
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", text.len());
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all((head + &text).as_bytes()));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
}

#[test]
fn versions_and_suites_towards_backends_are_those_of_the_annotations() {
    let world = World::enter("paproxyssl");
    secure_backend("10.78.1.1:8080");
    let told = |annotations: &[(&str, &str)]| {
        world.serve(1, &[&[("backend-protocol", "HTTPS")], annotations].concat(), &[]);
        world.get("/")
    };
    assert!(told(&[]).contains("TLSv1_3"), "{}", told(&[]));
    let old = ("proxy-ssl-protocols", "TLSv1.1 TLSv1.2");
    assert!(told(&[old]).contains("TLSv1_2"), "{}", told(&[old]));
    let chacha = told(&[old, ("proxy-ssl-ciphers", "ECDHE+CHACHA20:!aRSA")]);
    assert!(chacha.contains("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"), "{chacha}");
}

#[test]
fn a_host_has_the_suites_of_its_oldest_ingress_that_names_some() {
    let world = World::enter("pasuites");
    let _backend = backend("10.78.1.1:8080");
    let chosen = |name: &str, version: &'static SupportedProtocolVersion| {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(Trusting::new().versions(&[version]), name).expect("a client");
        let stream = TcpStream::connect((EDGE, 443)).expect("the proxy listens");
        let mut stream = StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock).ok()?;
        stream.conn.negotiated_cipher_suite().map(|suite| suite.suite())
    };
    const CHACHA: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    world.serve(1, &[("ssl-ciphers", "ECDHE+CHACHA20:!aNULL")], &[]);
    assert_eq!(chosen("a.test", &TLS12), Some(CHACHA));
    assert!(chosen("a.test", &TLS13).is_some_and(|suite| suite != CHACHA), "TLS 1.3 has its own");
    assert!(chosen("b.test", &TLS12).is_some_and(|suite| suite != CHACHA), "another host has the listener's");
    world.serve(1, &[], &[]);
    assert!(chosen("a.test", &TLS12).is_some_and(|suite| suite != CHACHA));
    world.serve(1, &[], &[("ssl-ciphers", "HIGH:!AES:!aNULL")]);
    assert_eq!((chosen("a.test", &TLS12), chosen("b.test", &TLS12)), (Some(CHACHA), Some(CHACHA)));
    // It goes before the ConfigMap's.
    world.serve(1, &[("ssl-ciphers", "AES256:!aNULL")], &[("ssl-ciphers", "CHACHA20")]);
    assert_eq!(chosen("a.test", &TLS12), Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384));
}
