//! What holds for every cluster, tried on random ones: planning with a memory gives what planning afresh gives, unchanged
//! parts keep their `Arc`, and neither the order of files nor the way that led to a state matters.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use ingress_agent::model::class_rule::ClassRule;
use ingress_agent::model::facts::Facts;
use ingress_agent::model::snapshot::{ObjectName, Snapshot};
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::dice::Dice;
use ingress_tests::plans::dump;

fn sources() -> SourceOptions {
    SourceOptions {
        tcp_services: Some(ObjectName::new("n0", "tcp")),
        udp_services: Some(ObjectName::new("n0", "udp")),
        zones: true,
        ..SourceOptions::default()
    }
}

fn options() -> PlanOptions {
    PlanOptions {
        node: "node-1".to_owned(),
        ingress_vips: vec!["203.0.113.80".parse().expect("an address")],
        classes: ClassRule { without_class: true, ..ClassRule::default() },
        external_ips: true,
        by_zone: true,
        default_backend: Some(ObjectName::new("n0", "s0")),
        ..PlanOptions::default()
    }
}

/// Of [`object`].
const INGRESS: usize = 5;

/// One object of a small world, in which names, addresses and hosts meet often. Some are wrong in part; all can be read.
fn object(dice: &mut Dice, kind: usize) -> String {
    let namespace = format!("n{}", dice.below(2));
    let service = format!("s{}", dice.below(6));
    let created = match dice.below(4) {
        0 => String::new(),
        n => format!(", creationTimestamp: 2026-01-0{n}T00:00:00Z"),
    };
    let meta = |name: &str, more: &str| format!("metadata: {{name: {name}, namespace: {namespace}{created}{more}}}\n");
    match kind {
        0 | 1 => {
            let kind = dice.pick(&["LoadBalancer", "LoadBalancer", "ClusterIP", "ExternalName"]);
            let annotations = dice.pick(&[
                "",
                ", annotations: {sluicegate.io/forwarding: local}",
                ", annotations: {sluicegate.io/table-size: '1021', sluicegate.io/balance: least-request}",
                ", annotations: {sluicegate.io/vips: '203.0.113.2, 2001:db8::1'}",
                ", annotations: {sluicegate.io/allow-shared-ip: k}",
                ", annotations: {sluicegate.io/allow-shared-ip: k, sluicegate.io/pool: p0}",
            ]);
            let families =
                dice.pick(&["", "", ", ipFamilyPolicy: PreferDualStack", ", ipFamilyPolicy: RequireDualStack"]);
            let policy = dice.pick(&["", "", ", externalTrafficPolicy: Local", ", externalIPs: [203.0.113.7]"]);
            let ports = dice.pick(&[
                "[{name: http, port: 80}]",
                "[{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]",
                "[{name: http, port: 8080}, {name: zero, port: 0}]",
                "[{port: 443}]",
            ]);
            let vip =
                dice.pick(&["203.0.113.1", "203.0.113.2", "203.0.113.80", "10.0.0.3", "127.0.0.1", "''", "''", "''"]);
            let status =
                dice.pick(&["", "status: {loadBalancer: {ingress: [{ip: 203.0.113.4}, {ip: '2001:db8::1'}]}}\n"]);
            let head = meta(&service, annotations);
            format!(
                "apiVersion: v1\nkind: Service\n{head}spec: {{type: {kind}, loadBalancerIP: {vip}, ports: {ports}{families}{policy}}}\n{status}"
            )
        }
        2..=4 => {
            let name = format!("e{}", dice.below(8));
            let head = meta(&name, &format!(", labels: {{kubernetes.io/service-name: {service}}}"));
            let mut endpoints = String::new();
            for _ in 0..dice.below(5) {
                let conditions =
                    dice.pick(&["{}", "{ready: false}", "{ready: false, serving: true, terminating: true}"]);
                let address = dice.pick(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "203.0.113.1", "0.0.0.0"]);
                let node = dice.below(3);
                let zones = dice.pick(&["", "{name: a}", "{name: a}", "{name: b}, {name: a}"]);
                let _ = write!(
                    endpoints,
                    "{{addresses: [{address}], nodeName: node-{node}, conditions: {conditions}, hints: {{forZones: [{zones}]}}}}, "
                );
            }
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{head}addressType: IPv4\n\
                 ports: [{{name: http, port: 8080}}, {{name: dns, port: 5353, protocol: UDP}}]\nendpoints: [{endpoints}]\n"
            )
        }
        INGRESS => {
            let asked = dice.pick(&[
                "",
                "",
                "nginx.ingress.kubernetes.io/server-alias: 'c.test, b.test, *.d.test'",
                "nginx.ingress.kubernetes.io/from-to-www-redirect: 'true'",
                "nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '20'",
                "nginx.ingress.kubernetes.io/use-regex: 'true'",
                "nginx.ingress.kubernetes.io/ssl-passthrough: 'true'",
                "nginx.ingress.kubernetes.io/limit-rps: '5', sluicegate.io/limit-shared: 'true'",
                "nginx.ingress.kubernetes.io/whitelist-source-range: nonsense",
            ]);
            let head = meta(&format!("i{}", dice.below(5)), &format!(", annotations: {{{asked}}}"));
            let mut paths = String::new();
            for _ in 0..=dice.below(4) {
                let path = dice.pick(&["/", "/foo", "/foo/", "/foo/bar", "bad"]);
                let kind = dice.pick(&["Prefix", "Exact", "ImplementationSpecific"]);
                let service = format!("s{}", dice.below(7));
                let backend = format!("{{service: {{name: {service}, port: {{name: http}}}}}}");
                let _ = write!(paths, "{{pathType: {kind}, path: {path}, backend: {backend}}}, ");
            }
            let host = dice.pick(&["host: a.test, ", "host: b.test, ", "host: '*.test', ", ""]);
            let more = dice.pick(&["", "", ", {host: c.test}", ", {host: b.test}"]);
            let tls = dice.pick(&["", "", "  tls: [{hosts: [a.test], secretName: missing}]\n"]);
            let class = dice.pick(&["", "  ingressClassName: c0\n", "  ingressClassName: c1\n"]);
            let default = dice.pick(&["", "  defaultBackend: {service: {name: s1, port: {name: http}}}\n"]);
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: Ingress\n{head}spec:\n{class}{default}{tls}  \
                 rules: [{{{host}http: {{paths: [{paths}]}}}}{more}]\n"
            )
        }
        6 => {
            let name = format!("c{}", dice.below(2));
            let controller = dice.pick(&["sluicegate.io/ingress-controller", "example.com/other"]);
            let vips = dice.pick(&[
                "",
                ", annotations: {sluicegate.io/vips: '203.0.113.81'}",
                ", annotations: {sluicegate.io/pool: p0}",
            ]);
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: IngressClass\n\
                 metadata: {{name: {name}{created}{vips}}}\nspec: {{controller: {controller}}}\n"
            )
        }
        7 => {
            let name = format!("p{}", dice.below(3));
            let addresses = dice.pick(&[
                "[203.0.113.0/29]",
                "[203.0.113.4-203.0.113.5, '2001:db8::1-2001:db8::2']",
                "['2001:db8::/126']",
                "[203.0.113.80, 10.0.0.0/30]",
            ]);
            let whom = dice.pick(&["", "", ", namespaces: [n0]", ", autoAssign: false", ", nodes: {names: [node-2]}"]);
            format!(
                "apiVersion: sluicegate.io/v1alpha1\nkind: VirtualIPPool\nmetadata: {{name: {name}{created}}}\n\
                 spec: {{addresses: {addresses}{whom}}}\n"
            )
        }
        8 => {
            let address = dice.pick(&["203.0.113.5", "192.0.2.1"]);
            let zone = dice.pick(&["a", "b"]);
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: node-1, labels: {{topology.kubernetes.io/zone: {zone}}}}}\n\
                 status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n"
            )
        }
        _ => {
            let name = dice.pick(&["tcp", "udp", "unrelated"]);
            let port = dice.pick(&["80", "53", "9000"]);
            let target = dice.pick(&["n0/s0:http", "n0/s1:80", "n0/s1:80:PROXY:PROXY", "n1/s0:dns", "n1/missing:1"]);
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: n0{created}}}\n\
                 data: {{\"{port}\": \"{target}\"}}\n"
            )
        }
    }
}

fn file(dice: &mut Dice, ingresses: bool) -> String {
    let objects = (0..dice.below(4)).map(|_| {
        let kind = if ingresses { INGRESS } else { dice.below(10) };
        object(dice, kind)
    });
    let objects: Vec<String> = objects.collect();
    objects.join("---\n")
}

/// A directory, edited step by step: the store, and the files as they are.
struct World {
    store: Store,
    files: BTreeMap<String, String>,
    facts: Arc<Facts>,
}

impl World {
    fn new() -> Self {
        Self { store: Store::new(sources()), files: BTreeMap::new(), facts: Arc::default() }
    }

    /// `ingresses`: only files in which there is nothing else.
    fn edit(&mut self, dice: &mut Dice, ingresses: bool) {
        for _ in 0..=dice.below(2) {
            let name = format!("{}{}.yaml", if ingresses { "i" } else { "f" }, dice.below(12));
            if dice.one_in(5) {
                self.files.remove(&name);
                self.store.remove(&name);
            } else {
                let text = file(dice, ingresses);
                self.store.put(&name, Ok(&text));
                self.files.insert(name, text);
            }
        }
        if let Some(facts) = self.store.publish(SystemTime::UNIX_EPOCH, &[]) {
            self.facts = facts;
        }
    }
}

fn read<'a>(files: impl Iterator<Item = (&'a String, &'a String)>) -> Arc<Facts> {
    let mut store = Store::new(sources());
    for (name, text) in files {
        store.put(name, Ok(text));
    }
    store.publish(SystemTime::UNIX_EPOCH, &[]).expect("the first facts")
}

#[test]
fn planning_with_a_memory_gives_what_planning_afresh_gives() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let (mut world, options) = (World::new(), options());
        let mut last = plan(&world.facts, &options, None);
        for step in 0..40 {
            world.edit(&mut dice, step % 3 != 0);
            let fresh = plan(&world.facts, &options, None);
            let next = plan(&world.facts, &options, Some(&last));
            let (with, without) = (dump(&next.snapshot), dump(&fresh.snapshot));
            assert_eq!(with, without, "seed {seed}, step {step}");
            assert_eq!(next.snapshot.listeners, fresh.snapshot.listeners, "seed {seed}, step {step}");
            assert_eq!(next.snapshot.assigned, fresh.snapshot.assigned, "seed {seed}, step {step}");
            assert_eq!(next.snapshot.pools, fresh.snapshot.pools, "seed {seed}, step {step}");
            let same = dump(&last.snapshot) == with && last.snapshot.assigned == next.snapshot.assigned;
            assert_eq!(
                same,
                Arc::ptr_eq(&last.snapshot, &next.snapshot),
                "seed {seed}, step {step}: a snapshot for nothing"
            );
            unchanged_parts_are_shared(&last.snapshot, &next.snapshot);
            everything_named_is_there(&next.snapshot);
            last = next;
        }
    }
}

fn unchanged_parts_are_shared(old: &Snapshot, new: &Snapshot) {
    for (name, pool) in &new.pools {
        assert!(old.pools.get(name).is_none_or(|o| Arc::ptr_eq(o, pool) || o != pool), "pool {name}");
    }
    for (key, frontend) in &new.frontends {
        assert!(old.frontends.get(key).is_none_or(|o| Arc::ptr_eq(o, frontend) || o != frontend), "frontend {key}");
    }
    for listener in &new.listeners {
        let same = old.listeners.iter().find(|o| (o.vip, o.port) == (listener.vip, listener.port));
        assert!(same.is_none_or(|o| Arc::ptr_eq(o, listener) || o != listener), "{}:{}", listener.vip, listener.port);
        for (name, host) in &listener.hosts.exact {
            let same = same.and_then(|o| o.hosts.exact.get(name));
            assert!(same.is_none_or(|o| Arc::ptr_eq(o, host) || o != host), "host {name}");
        }
    }
}

/// What the consumers rely on.
fn everything_named_is_there(snapshot: &Snapshot) {
    use ingress_agent::model::route::Action;
    use ingress_agent::model::snapshot::{BackendState, FrontendKind};
    for (key, frontend) in &snapshot.frontends {
        assert!(snapshot.vips.contains_key(&key.vip) && key.port != 0, "{key}");
        match &frontend.kind {
            FrontendKind::L4 { pool, .. } => assert!(snapshot.pools.contains_key(pool), "{key}"),
            FrontendKind::L7 => {
                let here = |vip, port| (vip, port) == (key.vip, key.port);
                let listened = snapshot.listeners.iter().any(|l| here(l.vip, l.port));
                assert!(listened || snapshot.streams.iter().any(|s| here(s.vip, s.port)), "{key}");
            }
        }
    }
    for listener in &snapshot.listeners {
        let hosts = &listener.hosts;
        let all = hosts.exact.values().chain(hosts.wildcard.values().map(|w| &w.host)).chain(&hosts.any);
        for route in all.flat_map(|h| &h.routes) {
            if let Action::Forward(pools) = &route.action {
                assert!(pools.iter().all(|p| snapshot.pools.contains_key(&p.pool)), "{}", route.rule);
            }
        }
    }
    assert!(snapshot.streams.iter().all(|s| snapshot.pools.contains_key(&s.pool)));
    for pool in snapshot.pools.values() {
        assert!(pool.backends.is_sorted_by(|a, b| a.address < b.address), "{}", pool.name);
        assert!(pool.backends.iter().all(|b| b.address.port() != 0 && !snapshot.vips.contains_key(&b.address.ip())));
        let _ = pool.backends.iter().filter(|b| b.state == BackendState::Ready).count();
    }
    assert!(snapshot.rejections.is_sorted_by(|a, b| a < b), "rejections are sorted and said once");
}

#[test]
fn the_order_of_files_and_the_way_to_a_state_do_not_matter() {
    for seed in 100..140 {
        let mut dice = Dice::new(seed);
        let mut world = World::new();
        for step in 0..30 {
            world.edit(&mut dice, step % 3 != 0);
        }
        let wanted = dump(&plan(&world.facts, &options(), None).snapshot);
        for facts in [read(world.files.iter()), read(world.files.iter().rev())] {
            assert_eq!(dump(&plan(&facts, &options(), None).snapshot), wanted, "seed {seed}");
            assert!(facts.services == world.facts.services && facts.slices == world.facts.slices, "seed {seed}");
        }
    }
}
