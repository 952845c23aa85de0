//! What dashboards for ingress-nginx read at `/metrics`, from an agent that was asked for it.

#[path = "agent_run/world.rs"]
#[expect(dead_code, reason = "each program uses a part of the world")]
mod world;

use std::collections::BTreeSet;
use std::fmt::Display;

use ingress_tests::edge::Agent;
use ingress_tests::wait::until;
use world::World;

const WEB: &str = "10.1.0.100";
const OWN: &str = "controller_class=\"sluicegate.io/ingress-controller\",controller_namespace=\"sluicegate-system\",controller_pod=\"edge\"";

/// A wildcard, a canary of one path, and paths without Service and without endpoints.
const MORE: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: more, namespace: demo }
spec:
  ingressClassName: sluicegate
  rules:
    - host: '*.wild.example'
      http: { paths: [{ path: /a, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] }
    - host: shop.example
      http:
        paths:
          - { path: /lost, pathType: Exact, backend: { service: { name: nobody, port: { number: 80 } } } }
          - { path: /idle, pathType: Exact, backend: { service: { name: idle, port: { number: 80 } } } }
---
apiVersion: v1
kind: Service
metadata: { name: idle, namespace: demo }
spec: { ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: next, namespace: demo }
spec: { ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: next-1, namespace: demo, labels: { kubernetes.io/service-name: next } }
addressType: IPv4
ports: [{ port: 8080, protocol: TCP }]
endpoints: [{ addresses: [10.1.0.3], nodeName: worker, conditions: { ready: true } }]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: next
  namespace: demo
  annotations:
    nginx.ingress.kubernetes.io/canary: 'true'
    nginx.ingress.kubernetes.io/canary-by-header: X-Next
spec:
  ingressClassName: sluicegate
  rules:
    - host: shop.example
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: next, port: { number: 80 } } } }] }
";

fn start(world: &World, more: &[&str]) -> Agent {
    let mut arguments = vec!["--max-flows", "10000", "--workers", "1"];
    arguments.extend_from_slice(more);
    Agent::start(&world.edge, &world.place.directory, &world.place.pins, &arguments).expect("the agent becomes ready")
}

/// An Ingress with TLS for a host, and its certificate.
fn secure() -> String {
    let made = rcgen::generate_simple_self_signed(["tls.example".to_owned()]).expect("a certificate");
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{ name: cert, namespace: demo }}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: tls, namespace: demo }}
spec:
  ingressClassName: sluicegate
  tls: [{{ hosts: [tls.example], secretName: cert }}]
  rules:
    - host: tls.example
      http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}] }}
",
        indented(&made.cert.pem()),
        indented(&made.signing_key.serialize_pem()),
    )
}

fn metrics(agent: &Agent) -> String {
    agent.get("/metrics").expect("metrics").1
}

/// The value of a sample.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

fn labels(
    host: &str,
    ingress: &str,
    method: &str,
    path: &str,
    service: &str,
    status: impl Display,
    canary: &str,
) -> String {
    let host = if host.is_empty() { String::new() } else { format!(",host=\"{host}\"") };
    format!(
        "{OWN},canary=\"{canary}\",ingress=\"{ingress}\",method=\"{method}\",namespace=\"demo\",path=\"{path}\",\
         service=\"{service}\",status=\"{status}\"{host}"
    )
}

#[test]
fn dashboards_of_ingress_nginx_find_their_series_until_the_ingress_is_gone() {
    let world = World::new("nm1");
    world.place.manifest("more.yaml", MORE).expect("write");
    world.place.manifest("tls.yaml", &secure()).expect("write");
    let agent = start(&world, &["--nginx-metrics"]);
    let ask = |head: &str| world.http(WEB, &format!("{head}\r\n\r\n"));
    for _ in 0..3 {
        assert!(ask("GET /cart HTTP/1.1\r\nhost: shop.example").starts_with("HTTP/1.1 200"));
    }
    ask("GET /cart HTTP/1.1\r\nhost: shop.example\r\nx-next: always");
    ask("BREW /cart HTTP/1.1\r\nhost: shop.example");
    ask("GET /idle HTTP/1.1\r\nhost: shop.example");
    ask("GET /a/b HTTP/1.1\r\nhost: one.wild.example");
    ask("GET /a/b HTTP/1.1\r\nhost: two.wild.example");
    ask("GET / HTTP/1.1\r\nhost: nobody-has-this.example");
    let plain = labels("shop.example", "shop", "GET", "/", "web", 200, "");
    let wild = labels("*.wild.example", "more", "GET", "/a", "web", 200, "");
    let text = until("all requests are counted", || {
        let text = metrics(&agent);
        let counted = |labels: &str| value(&text, &format!("nginx_ingress_controller_requests{{{labels}}}"));
        (counted(&plain) == Some(3.0) && counted(&wild) == Some(2.0)).then_some(text)
    });
    let counted = |name: &str, labels: &str| value(&text, &format!("nginx_ingress_controller_{name}{{{labels}}}"));

    assert_eq!(counted("requests", &labels("shop.example", "shop", "GET", "/", "web", 200, "demo-next-80")), Some(1.0));
    assert_eq!(counted("requests", &labels("shop.example", "shop", "other", "/", "web", 200, "")), Some(1.0));
    assert_eq!(counted("requests", &labels("shop.example", "more", "GET", "/idle", "idle", 503, "")), Some(1.0));
    for client in ["one.wild", "two.wild", "nobody-has-this", "BREW"] {
        assert!(!text.contains(client), "{client} came from a client");
    }
    for histogram in
        ["request_duration_seconds", "response_duration_seconds", "header_duration_seconds", "connect_duration_seconds"]
    {
        assert_eq!(counted(&format!("{histogram}_count"), &plain), Some(3.0), "{histogram}");
        let all = text.lines().filter(|l| l.contains(&format!("{histogram}_bucket{{le=\"+Inf\",{plain}}} 3")));
        assert_eq!(all.count(), 1, "{histogram}");
    }
    let sum = |name: &str| counted(&format!("{name}_sum"), &plain).expect(name);
    assert!(sum("request_duration_seconds") >= sum("response_duration_seconds"));
    assert!(sum("response_duration_seconds") >= sum("header_duration_seconds"));
    assert!(sum("header_duration_seconds") >= sum("connect_duration_seconds"));
    // `GET /cart HTTP/1.1`, the host, `connection: close`, and line ends.
    assert!((sum("request_size") - 3.0 * 61.0).abs() < 1.0, "{}", sum("request_size"));
    let answer = sum("response_size") / 3.0;
    assert!(answer > 17.0 + "backend GET /cart".len() as f64 && answer < 200.0, "{answer}");
    assert!((sum("bytes_sent") - sum("response_size")).abs() < f64::EPSILON);

    assert_eq!(counted("nginx_process_connections_total", &format!("{OWN},state=\"accepted\"")), Some(9.0));
    assert_eq!(counted("nginx_process_requests_total", OWN), Some(9.0));
    assert_eq!(counted("config_last_reload_successful", OWN), Some(1.0));
    assert!(counted("config_last_reload_successful_timestamp_seconds", OWN) > Some(1.7e9));
    assert!(counted("config_hash", OWN) > Some(0.0));
    for (ingress, kind, orphan) in [
        ("shop", "no-endpoint", 0.0),
        ("shop", "no-service", 0.0),
        ("more", "no-endpoint", 1.0),
        ("more", "no-service", 1.0),
    ] {
        let labels = format!("{OWN},ingress=\"{ingress}\",namespace=\"demo\",type=\"{kind}\"");
        assert_eq!(counted("orphan_ingress", &labels), Some(orphan), "{ingress} {kind}");
    }
    let certificate = "class=\"sluicegate.io/ingress-controller\",host=\"tls.example\"";
    let expires = format!("{certificate},namespace=\"sluicegate-system\",secret_name=\"cert\"");
    assert!(counted("ssl_expire_time_seconds", &expires) > Some(1.9e9), "{text}");
    let info = |l: &&str| l.starts_with(&format!("nginx_ingress_controller_ssl_certificate_info{{{certificate},"));
    let info = text.lines().find(info).expect("what certificate the host has");
    for part in
        ["issuer_common_name=\"rcgen self signed cert\"", "namespace=\"demo\"", "public_key_algorithm=\"ECDSA\""]
    {
        assert!(info.contains(part), "{part} not in {info}");
    }
    well_formed(&text);

    let (successes, hash) = (counted("success", OWN), counted("config_hash", OWN));
    for file in ["more.yaml", "tls.yaml"] {
        std::fs::remove_file(world.place.directory.join("manifests").join(file)).expect("remove");
    }
    let text = until("the series of what is gone are gone", || {
        let text = metrics(&agent);
        let gone = |part: &str| !text.lines().any(|l| l.starts_with("nginx_") && l.contains(part));
        // The plan is shown first, then the proxy has taken it.
        let taken = value(&text, &format!("nginx_ingress_controller_success{{{OWN}}}")) > successes;
        (taken && gone("ingress=\"more\"") && gone("*.wild.example") && gone("tls.example")).then_some(text)
    });
    let counted = |name: &str, labels: &str| value(&text, &format!("nginx_ingress_controller_{name}{{{labels}}}"));
    assert_eq!(counted("requests", &plain), Some(3.0), "what stays is counted on");
    assert!(counted("config_hash", OWN) != hash);
}

#[test]
fn without_the_flag_there_are_none_and_without_hosts_they_are_added_up() {
    let world = World::new("nm2");
    world.place.manifest("more.yaml", MORE).expect("write");
    let agent = start(&world, &[]);
    assert!(world.http(WEB, "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").starts_with("HTTP/1.1 200"));
    assert!(!metrics(&agent).contains("nginx_"));
    drop(agent);

    let agent = start(&world, &["--nginx-metrics", "--metrics-per-host=false"]);
    world.http(WEB, "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
    let sample = format!("nginx_ingress_controller_requests{{{}}}", labels("", "shop", "GET", "/", "web", 200, ""));
    let text = until("the request is counted", || {
        let text = metrics(&agent);
        (value(&text, &sample) == Some(1.0)).then_some(text)
    });
    assert!(!text.lines().any(|l| l.starts_with("nginx_") && l.contains("host=")));
    drop(agent);

    let agent = start(&world, &["--nginx-metrics", "--metrics-per-host=false", "--report-status-classes"]);
    for path in ["/", "/idle", "/idle"] {
        world.http(WEB, &format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n\r\n"));
    }
    let of = |labels: String| format!("nginx_ingress_controller_requests{{{labels}}}");
    let good = of(labels("", "shop", "GET", "/", "web", "2xx", ""));
    let idle = of(labels("", "more", "GET", "/idle", "idle", "5xx", ""));
    until("both are counted by class", || {
        let text = metrics(&agent);
        (value(&text, &good) == Some(1.0) && value(&text, &idle) == Some(2.0)).then_some(())
    });
    drop(agent);

    let own = "--time-buckets=0.001,2.5,30";
    let agent = start(&world, &["--nginx-metrics", own, "--length-buckets=8,4096", "--size-buckets=1000000"]);
    world.http(WEB, "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
    let labels = labels("shop.example", "shop", "GET", "/", "web", 200, "");
    let counted = format!("nginx_ingress_controller_requests{{{labels}}} 1");
    let text = until("the request is counted", || Some(metrics(&agent)).filter(|text| text.contains(&counted)));
    for (histogram, bounds) in [
        ("request_duration_seconds", &["0.001", "2.5", "30.0", "+Inf"][..]),
        ("connect_duration_seconds", &["0.001", "2.5", "30.0", "+Inf"]),
        ("response_size", &["8.0", "4096.0", "+Inf"]),
        ("bytes_sent", &["1000000.0", "+Inf"]),
    ] {
        let begins = format!("nginx_ingress_controller_{histogram}_bucket{{le=\"");
        let of = |line: &str| Some(line.strip_prefix(&begins)?.split_once('"')?.0.to_owned());
        assert_eq!(text.lines().filter_map(of).collect::<Vec<_>>(), bounds, "{histogram}");
    }
    let within = |le: &str| format!("nginx_ingress_controller_response_size_bucket{{le=\"{le}\",{labels}}} ");
    assert!(text.contains(&(within("8.0") + "0")) && text.contains(&(within("4096.0") + "1")), "{text}");
    drop(agent);

    for (flag, why) in [
        ("--time-buckets=0.1,nonsense", "--time-buckets nonsense: is not a bound of a bucket"),
        ("--time-buckets=0.1,0.0000001", "--time-buckets 0.0000001: is not a bound of a bucket"),
        ("--length-buckets=100,10", "--length-buckets does not ascend"),
        ("--size-buckets=NaN", "--size-buckets NaN: is not a bound of a bucket"),
    ] {
        let (code, _, error) = world.run_wrongly(&["--interface=eth0", "--nginx-metrics", flag]);
        assert!(code == 2 && error.contains(why), "{error}");
    }
    for flag in ["--metrics-per-host=false", "--report-status-classes", "--time-buckets=1"] {
        let (code, _, error) = world.run_wrongly(&["--interface=eth0", flag]);
        assert_eq!(code, 2);
        let name = flag.split('=').next().expect("a name");
        assert!(error.contains(&format!("{name} means something with --nginx-metrics only")), "{error}");
    }
}

/// No sample twice, and each of a family that was announced.
fn well_formed(text: &str) {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().expect("a name")), "{line} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(name), "{name} twice");
        }
    }
}
