//! Fuzzing of manifests: random damage to the golden ones. Nothing panics, other files go on serving, and what the damaged
//! file said before stays until it can be read again. `FUZZ_SEED` and `FUZZ_ROUNDS` make longer or other runs.

use std::path::Path;
use std::time::SystemTime;

use ingress_agent::model::class_rule::ClassRule;
use ingress_agent::model::snapshot::ObjectName;
use ingress_agent::plan::{Plan, PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::dice::Dice;

const OTHER: &str = "apiVersion: v1
kind: Service
metadata: {name: other, namespace: other, creationTimestamp: 1990-01-01T00:00:00Z}
spec: {type: LoadBalancer, loadBalancerIP: 198.51.100.200, ports: [{port: 4711}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: other, namespace: other, labels: {kubernetes.io/service-name: other}}
addressType: IPv4
ports: [{port: 4712}]
endpoints: [{addresses: [10.255.255.1]}]
---
# Any pool forbids addresses that are in none.
apiVersion: sluicegate.io/v1alpha1
kind: VirtualIPPool
metadata: {name: other, creationTimestamp: 1990-01-01T00:00:00Z}
spec: {addresses: [198.51.100.200]}
";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn damaged_manifests_harm_only_themselves() {
    let (seed, rounds) = (number("FUZZ_SEED", 1), number("FUZZ_ROUNDS", 1500));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut texts: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .map(|p| std::fs::read_to_string(p).unwrap())
        .collect();
    texts.sort();
    let options = PlanOptions {
        ingress_vips: vec!["203.0.113.80".parse().unwrap()],
        classes: ClassRule { without_class: true, ..ClassRule::default() },
        ..PlanOptions::default()
    };
    let sources = SourceOptions { tcp_services: Some(ObjectName::new("ingress", "tcp")), ..SourceOptions::default() };
    let mut store = Store::new(sources);
    store.put("other.yaml", Ok(OTHER));
    let mut last: Option<Plan> = None;
    for round in 0..rounds {
        // A round can be repeated alone: its chance does not depend on those before.
        let mut dice = Dice::new(seed.wrapping_mul(1 << 32).wrapping_add(round));
        let mut text = dice.pick(&texts).clone();
        for _ in 0..=dice.below(6) {
            text = damage(&text, &texts, &mut dice);
        }
        let name = dice.pick(&["a.yaml", "z.yaml", "m.json"]);
        store.put(name, Ok(&text));
        let Some(facts) = store.publish(SystemTime::UNIX_EPOCH, &[]) else {
            continue;
        };
        let next = plan(&facts, &options, last.as_ref());
        let pool = next.snapshot.pools.values().find(|p| p.name.service.name == "other");
        let serves = pool.is_some_and(|p| p.backends.iter().any(|b| b.address.to_string() == "10.255.255.1:4712"));
        let frontend = next.snapshot.frontends.keys().any(|k| k.vip.to_string() == "198.51.100.200" && k.port == 4711);
        assert!(serves && frontend, "FUZZ_SEED={seed}, round {round}: another file's objects went\n{text}");
        last = Some(next);
    }
}

#[test]
fn an_unreadable_file_takes_nothing_away() {
    let text = OTHER.to_owned();
    for at in 0..text.len() {
        let mut store = Store::new(SourceOptions::default());
        store.put("a.yaml", Ok(&text));
        store.publish(SystemTime::UNIX_EPOCH, &[]);
        // An unclosed bracket, somewhere.
        let broken = format!("{}\n[{}", &text[..at], &text[at..]);
        store.put("a.yaml", Ok(&broken));
        let Some(facts) = store.publish(SystemTime::UNIX_EPOCH, &[]) else {
            continue;
        };
        assert_eq!((facts.services.len(), facts.slices.len()), (1, 1), "broken at byte {at}:\n{broken}");
    }
}

/// One of the accidents that files have.
fn damage(text: &str, others: &[String], dice: &mut Dice) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = dice.below(lines.len());
    let byte = |dice: &mut Dice| {
        let at = dice.below(text.len() + 1);
        (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
    };
    match dice.below(9) {
        0 => text[..byte(dice)].to_owned(),
        1 => text[byte(dice)..].to_owned(),
        2 if !lines.is_empty() => {
            lines.remove(at);
            lines.concat()
        }
        3 if !lines.is_empty() => {
            let other = dice.below(lines.len());
            lines.swap(at, other);
            lines.concat()
        }
        4 => {
            let other = dice.pick(others);
            let other: Vec<&str> = other.split_inclusive('\n').collect();
            if !other.is_empty() {
                lines.insert(at, other[dice.below(other.len())]);
            }
            lines.concat()
        }
        5 => {
            let odd = dice.pick(&[
                "\t", "\0", "\u{feff}", "---\n", "...", "{", "]", "&a ", "*a", "!!int ", "|\n", "? ", "\u{85}", "é",
                "<<: ",
            ]);
            let at = byte(dice);
            format!("{}{odd}{}", &text[..at], &text[at..])
        }
        6 => {
            let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(i, _)| i).collect();
            let Some(at) = (!digits.is_empty()).then(|| *dice.pick(&digits)) else {
                return text.to_owned();
            };
            let number = dice.pick(&["-1", "0", "65536", "99999999999999999999", "1e3", "0x10", "~", "\"\""]);
            format!("{}{number}{}", &text[..at], &text[at + 1..])
        }
        7 => {
            let words = ["LoadBalancer", "IPv4", "name", "namespace", "port", "Prefix", "kind", "spec", "true", "TCP"];
            let (from, to) = (dice.pick(&words), dice.pick(&words));
            text.replacen(from, to, 1 + dice.below(3))
        }
        _ => text.repeat(2),
    }
}
