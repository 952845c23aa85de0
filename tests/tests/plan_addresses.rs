//! What holds for the giving of addresses, tried on random sets of Services: what a status records stays, nobody gets what
//! is another's, and a thousand Services are done in milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ingress_agent::model::facts::Facts;
use ingress_agent::model::snapshot::ObjectName;
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::dice::Dice;

type Given = BTreeMap<ObjectName, Vec<IpAddr>>;

const POOLS: &str = "apiVersion: sluicegate.io/v1alpha1\nkind: VirtualIPPool\nmetadata: {name: a}\n\
    spec: {addresses: [203.0.113.0/28, '2001:db8::/124']}\n---\n\
    apiVersion: sluicegate.io/v1alpha1\nkind: VirtualIPPool\nmetadata: {name: b}\n\
    spec: {addresses: [198.51.100.1-198.51.100.9], avoidBuggyIPs: true}\n";

/// A Service of a random kind, without its status.
fn service(dice: &mut Dice) -> String {
    let annotations = dice.pick(&[
        "",
        "",
        ", annotations: {sluicegate.io/allow-shared-ip: k}",
        ", annotations: {sluicegate.io/pool: b}",
        ", annotations: {sluicegate.io/vips: '203.0.113.3'}",
    ]);
    let families = dice.pick(&["", "", ", ipFamilyPolicy: PreferDualStack", ", ipFamilyPolicy: RequireDualStack"]);
    let (day, port) = (1 + dice.below(9), 1000 + dice.below(4));
    format!(
        "creationTimestamp: 2026-01-0{day}T00:00:00Z{annotations}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: {port}}}]{families}}}\n"
    )
}

fn facts(services: &BTreeMap<String, String>, recorded: &Given) -> Arc<Facts> {
    let mut store = Store::new(SourceOptions::default());
    store.put("pools.yaml", Ok(POOLS));
    for (name, text) in services {
        let mut object = format!("apiVersion: v1\nkind: Service\nmetadata: {{namespace: n, name: {name}, {text}");
        if let Some(given) = recorded.get(&ObjectName::new("n", name.as_str())) {
            let ips: Vec<String> = given.iter().map(|a| format!("{{ip: '{a}'}}")).collect();
            let _ = writeln!(object, "status: {{loadBalancer: {{ingress: [{}]}}}}", ips.join(", "));
        }
        store.put(&format!("{name}.yaml"), Ok(&object));
    }
    store.publish(SystemTime::UNIX_EPOCH, &[]).expect("the first facts")
}

fn given(facts: &Facts) -> Given {
    plan(facts, &PlanOptions::default(), None).snapshot.assigned.services.clone()
}

#[test]
fn what_the_status_records_outlives_every_change_of_others() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mut services: BTreeMap<String, String> = BTreeMap::new();
        let mut recorded = Given::new();
        for step in 0..12 {
            for _ in 0..=dice.below(3) {
                let name = format!("s{}", dice.below(30));
                if services.contains_key(&name) && dice.one_in(2) {
                    services.remove(&name);
                    recorded.remove(&ObjectName::new("n", name));
                } else {
                    let text = service(&mut dice);
                    services.entry(name).or_insert(text);
                }
            }
            let now = given(&facts(&services, &recorded));
            for (name, before) in &recorded {
                let kept = before.iter().all(|address| now[name].contains(address));
                assert!(kept, "seed {seed}, step {step}: {name} had {before:?} and has {:?}", now[name]);
            }
            nobody_has_what_is_anothers(&services, &now);
            recorded = now;
        }
    }
}

/// An address is one Service's, or theirs who share a key and no port.
fn nobody_has_what_is_anothers(services: &BTreeMap<String, String>, given: &Given) {
    let mut ports: BTreeSet<(IpAddr, &str)> = BTreeSet::new();
    let mut keyless: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut all: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (name, addresses) in given {
        let text = &services[&name.name];
        let port = &text[text.find("port: ").expect("a port")..][..10];
        for address in addresses {
            assert!(ports.insert((*address, port)), "{address} {port} twice");
            *all.entry(*address).or_default() += 1;
            *keyless.entry(*address).or_default() += usize::from(!text.contains("allow-shared-ip"));
        }
    }
    for (address, without) in keyless {
        assert!(without == 0 || all[&address] == 1, "{address} is shared with one that has no key");
    }
}

#[test]
fn a_thousand_services_are_done_in_milliseconds() {
    let mut store = Store::new(SourceOptions::default());
    store.put(
        "pool.yaml",
        // As good as full in the end, which is the slow way to find a free one.
        Ok("apiVersion: sluicegate.io/v1alpha1\nkind: VirtualIPPool\nmetadata: {name: a}\n\
            spec: {addresses: [10.0.0.0/22], avoidBuggyIPs: true}\n"),
    );
    for i in 0..1000 {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{i}, namespace: n}}\n\
             spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
        );
        store.put(&format!("s{i}.yaml"), Ok(&text));
    }
    let facts = store.publish(SystemTime::UNIX_EPOCH, &[]).expect("the first facts");
    let started = Instant::now();
    let found = given(&facts);
    let took = started.elapsed();
    let different: BTreeSet<&IpAddr> = found.values().flatten().collect();
    assert_eq!(different.len(), 1000);
    println!("1,000 Services planned from nothing in {took:?}");
    // The whole plan, in a debug build on a busy machine: some 50 ms.
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn an_address_outlives_a_status_that_is_empty_because_nobody_announces() {
    let pool = POOLS.split("---").next().expect("the first pool");
    let mut store = Store::new(SourceOptions::default());
    store.put("pool.yaml", Ok(pool));
    let service = |name: &str, annotation: &str, created: u32| {
        format!(
            "apiVersion: v1\nkind: Service\n\
             metadata: {{namespace: n, name: {name}, creationTimestamp: 202{created}-01-01T00:00:00Z, \
             annotations: {{{annotation}}}}}\n\
             spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
        )
    };
    let of = |given: &Given, name: &str| given[&ObjectName::new("n", name)][0].to_string();
    let put = |store: &mut Store, name: &str, annotation: &str, created: u32| {
        store.put(&format!("{name}.yaml"), Ok(&service(name, annotation, created)));
        given(&store.publish(SystemTime::UNIX_EPOCH, &[]).expect("facts"))
    };
    let first = of(&put(&mut store, "a", "", 1), "a");
    // It had another one than its name's hash finds, before everybody stopped.
    let other = if first == "203.0.113.9" { "203.0.113.8" } else { "203.0.113.9" };
    let had = format!("sluicegate.io/assigned: {other}");
    assert_eq!(of(&put(&mut store, "a", &had, 1), "a"), other);
    // A younger one that claims to have had the same, or wishes it, does not get it; an older one's wish is an older wish.
    let both = put(&mut store, "b", &had, 2);
    assert_eq!((of(&both, "a").as_str(), of(&both, "b") == other), (other, false));
    let wish = format!("sluicegate.io/vips: {other}");
    assert_eq!(of(&put(&mut store, "b", &wish, 2), "a"), other);
    assert_eq!(of(&put(&mut store, "b", &wish, 0), "b"), other);
}
