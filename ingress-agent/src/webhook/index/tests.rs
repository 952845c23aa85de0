//! The index after many changes is the one that is made at once of the result.

use super::*;
use crate::model::facts::{ClassChoice, LoadBalancerFacts, Origin, PathFacts, PathKind, PortRef, VipFacts};
use crate::model::objects::Objects;

fn ingress(name: &str, created: i64, paths: &[(&str, &str)]) -> Arc<IngressFacts> {
    let origin = Origin { name: ObjectName::new("n", name), created, ..Origin::default() };
    let service = ObjectName::new("n", "web");
    let path = |path: &str| PathFacts {
        field: String::new(),
        path: path.to_owned(),
        kind: PathKind::Prefix,
        backend: BackendRef { field: String::new(), service: service.clone(), port: PortRef::Number(80) },
    };
    let rule = |(host, text): &(&str, &str)| RuleFacts {
        field: String::new(),
        host: HostFacts::Exact((*host).to_owned()),
        paths: vec![path(text)],
    };
    Arc::new(IngressFacts {
        origin,
        class: ClassChoice::None,
        catch_all: false,
        default_backend: None,
        rules: paths.iter().map(rule).collect(),
        tls: Vec::new(),
        balance: None,
        limit_shared: false,
        care: None,
        retry_budget: None,
        limit_drop: None,
        annotations: BTreeMap::new(),
        annotations_prefix: None,
        secrets: Vec::new(),
        config_maps: Vec::new(),
        unheeded: Vec::new(),
    })
}

fn service(name: &str, address: &str, key: &str) -> Arc<ServiceFacts> {
    let vip = VipFacts { address: address.parse().unwrap(), field: String::new() };
    let asks = LoadBalancerFacts {
        wanted: Some(vec![vip]),
        share_key: Some(key.to_owned()).filter(|key| !key.is_empty()),
        ..LoadBalancerFacts::default()
    };
    Arc::new(ServiceFacts {
        origin: Origin { name: ObjectName::new("n", name), ..Origin::default() },
        labels: BTreeMap::new(),
        exposure: Exposure::LoadBalancer(Box::new(asks)),
        external_ips: Vec::new(),
        cluster_ip: None,
        bound_elsewhere: Vec::new(),
        selector: BTreeMap::new(),
        ports: Vec::new(),
        client_ip_affinity: None,
        source_ranges: None,
        external_traffic_local: false,
        publish_not_ready: false,
        forwarding: None,
        table_size: None,
        balance: None,
    })
}

#[test]
fn changes_leave_what_a_new_index_would_hold() {
    let (mut index, mut facts) = (Index::default(), Facts::default());
    let mut state = 11_u64;
    let mut dice = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for step in 1..400_u64 {
        for _ in 0..=dice(5) {
            let name = format!("o{}", dice(300));
            if dice(3) == 0 {
                facts.ingresses.remove(&ObjectName::new("n", name.as_str()));
                facts.services.remove(&ObjectName::new("n", name.as_str()));
                continue;
            }
            let (host, path) = (format!("h{}", dice(20)), format!("/p{}", dice(3)));
            let more = [(host.as_str(), path.as_str()), (host.as_str(), "/p0/"), ("all", "/")];
            facts.ingresses.insert(ingress(&name, dice(50) as i64, &more[..=dice(3) as usize % 3]));
            let key = ["", "k1", "k2"][dice(3) as usize];
            facts.services.insert(service(&name, &format!("10.0.0.{}", dice(9)), key));
        }
        facts.revision = step;
        index.update(&Arc::new(facts.clone()));
        if step % 40 == 0 {
            let mut fresh = Index::default();
            fresh.update(&Arc::new(facts.clone()));
            let names = |index: &Index| -> Vec<_> {
                let hosts = index.paths.iter().flat_map(|(h, paths)| paths.iter().map(move |(p, c)| (h, p, c)));
                let seniors = |c: &[Arc<IngressFacts>]| -> Vec<_> {
                    c.iter().map(|i| (i.origin.created, i.origin.name.clone())).collect()
                };
                hosts.map(|(h, p, c)| (h.clone(), p.clone(), seniors(c))).collect()
            };
            assert_eq!(names(&index), names(&fresh));
            assert_eq!((&index.addresses, &index.keys), (&fresh.addresses, &fresh.keys));
        }
    }
}

#[test]
fn rivals_are_those_of_the_same_host_and_path_and_only_their_contested_part() {
    let mut index = Index::default();
    let many: Vec<(&str, &str)> = vec![("a", "/x/"), ("a", "/y"), ("b", "/x")];
    let ingresses: Objects<IngressFacts> =
        [ingress("one", 1, &many), ingress("two", 2, &[("b", "/y")])].into_iter().collect();
    index.update(&Arc::new(Facts { revision: 1, ingresses, ..Facts::default() }));
    let around = index.around_ingress(&[&ingress("new", 3, &[("a", "/x"), ("c", "/")])]);
    let rivals: Vec<_> = around.ingresses.iter().map(|i| (i.origin.name.name.as_str(), i.rules.len())).collect();
    assert_eq!(rivals, [("one", 1)]);
    // Itself it is not.
    assert!(index.around_ingress(&[&ingress("one", 1, &many)]).ingresses.is_empty());
}

#[test]
fn the_number_of_rivals_is_bounded() {
    let mut index = Index::default();
    let ingresses = (0..3000).map(|i| ingress(&format!("i{i}"), i, &[("a", "/"), (&format!("h{i}"), "/")])).collect();
    index.update(&Arc::new(Facts { revision: 1, ingresses, ..Facts::default() }));
    let around = index.around_ingress(&[&ingress("new", i64::MAX, &[("a", "/")])]);
    let created: Vec<_> = around.ingresses.iter().map(|i| i.origin.created).collect();
    assert_eq!(created.len(), RIVALS_A_PATH);
    assert!(created.iter().all(|c| *c < RIVALS_A_PATH as i64), "the oldest ones: {created:?}");
    let hosts: Vec<_> = (0..3000).map(|i| format!("h{i}")).collect();
    let all: Vec<(&str, &str)> = hosts.iter().map(|h| (h.as_str(), "/")).collect();
    assert_eq!(index.around_ingress(&[&ingress("new", i64::MAX, &all)]).ingresses.len(), RIVALS);
}
