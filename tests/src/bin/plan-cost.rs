//! What a change costs between a manifest and the snapshot, at 1,000 Services of 100 endpoints, which have their addresses
//! from a pool, and 10,000 Ingress routes: a figure for each step. A measurement, not a test: it judges nothing.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use ingress_agent::model::class_rule::ClassRule;
use ingress_agent::model::facts::Facts;
use ingress_agent::plan::{Plan, PlanOptions, plan};
use ingress_agent::sources::store::Store;
use ingress_agent::sources::{SourceOptions, manifests};
use tokio::sync::watch;

const SERVICES: usize = 1000;
const ENDPOINTS: usize = 100;
const INGRESSES: usize = 1000;
const PATHS: usize = 10;
const CHANGES: usize = 200;
/// As good as full.
const POOL: &str = "apiVersion: sluicegate.io/v1alpha1\nkind: VirtualIPPool\nmetadata: {name: a}\n\
    spec: {addresses: [198.18.0.0/22]}\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = PlanOptions {
        node: "edge-1".to_owned(),
        ingress_vips: vec!["203.0.113.80".parse()?],
        classes: ClassRule { without_class: true, ..ClassRule::default() },
        ..PlanOptions::default()
    };
    let started = Instant::now();
    let mut store = Store::new(SourceOptions::default());
    store.put("pool.yaml", Ok(POOL));
    for i in 0..SERVICES {
        store.put(&format!("s{i}.yaml"), Ok(&service(i, 0)));
        store.put(&format!("i{i}.yaml"), Ok(&ingress(i, 0)));
    }
    let facts = store.publish(SystemTime::now(), &[]).context("facts")?;
    println!("all files parsed once                       {:>10.3?}", started.elapsed());
    let started = Instant::now();
    let mut last = plan(&facts, &options, None);
    println!("the first plan                              {:>10.3?}", started.elapsed());
    println!("resident                                    {:>7} MiB", resident()? >> 20);

    let mut change = |what: &str, files: &dyn Fn(usize) -> (String, String)| -> anyhow::Result<()> {
        let (mut reading, mut planning) = (Vec::new(), Vec::new());
        for n in 1..=CHANGES {
            let (name, text) = files(n);
            let started = Instant::now();
            store.put(&name, Ok(&text));
            let facts = store.publish(SystemTime::now(), &[]).context("facts")?;
            reading.push(started.elapsed());
            let started = Instant::now();
            let next: Plan = plan(&facts, &options, Some(&last));
            planning.push(started.elapsed());
            last = next;
        }
        println!("{what:<32} parse and fold {}", quantiles(&mut reading));
        println!("{what:<32} plan           {}", quantiles(&mut planning));
        Ok(())
    };
    change("one endpoint of 100,000", &|n| (format!("s{}.yaml", n % SERVICES), service(n % SERVICES, n)))?;
    change("one path of 10,000", &|n| (format!("i{}.yaml", n % INGRESSES), ingress(n % INGRESSES, n)))?;
    change("one Service's port", &|n| {
        (
            format!("s{}.yaml", n % SERVICES),
            service(n % SERVICES, 0).replace("port: 443", &format!("port: {}", 1000 + n)),
        )
    })?;
    println!("resident                                    {:>7} MiB", resident()? >> 20);

    let directory = std::env::temp_dir().join(format!("sluicegate-plan-cost-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let result = renames(&directory).await;
    std::fs::remove_dir_all(&directory)?;
    result
}

/// From the rename of a file to the facts that hold it, through inotify.
async fn renames(directory: &Path) -> anyhow::Result<()> {
    for i in 0..SERVICES {
        std::fs::write(directory.join(format!("s{i}.yaml")), service(i, 0))?;
    }
    let (sender, mut facts) = watch::channel(Arc::new(Facts::default()));
    let watching = tokio::spawn(manifests::watch(directory.to_owned(), SourceOptions::default(), sender));
    facts.wait_for(|f| f.revision > 0).await?;
    let mut times = Vec::new();
    for n in 1..=CHANGES {
        let file = directory.join(format!("s{}.yaml", n % SERVICES));
        std::fs::write(directory.join(".new"), service(n % SERVICES, n))?;
        // What the writing woke up is not part of it.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let revision = facts.borrow_and_update().revision;
        let started = Instant::now();
        std::fs::rename(directory.join(".new"), file)?;
        facts.wait_for(|f| f.revision > revision).await?;
        times.push(started.elapsed());
    }
    watching.abort();
    println!("a rename seen, parsed, published                {}", quantiles(&mut times));
    Ok(())
}

fn service(i: usize, change: usize) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: s{i}\n  namespace: shop\nspec:\n  type: LoadBalancer\n  \
         ports:\n  - name: https\n    port: 443\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s{i}-1\n  namespace: shop\n  \
         labels:\n    kubernetes.io/service-name: s{i}\naddressType: IPv4\nports:\n- name: https\n  port: 8443\nendpoints:\n"
    );
    for e in 0..ENDPOINTS {
        let address =
            format!("10.{}.{}.{}", i / 250, i % 250, if e == 0 && change > 0 { 200 + change % 50 } else { e });
        let node = e % 20;
        // Writing to a String cannot fail.
        let _ = write!(text, "- addresses:\n  - {address}\n  conditions:\n    ready: true\n  nodeName: node-{node}\n");
    }
    text
}

fn ingress(i: usize, change: usize) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: i{i}\n  namespace: shop\nspec:\n  rules:\n  \
         - host: h{i}.example\n    http:\n      paths:\n"
    );
    for p in 0..PATHS {
        let path = if p == 0 { change } else { p };
        let _ = write!(
            text,
            "      - path: /p{p}/{path}\n        pathType: Prefix\n        backend:\n          service:\n            \
             name: s{i}\n            port:\n              name: https\n"
        );
    }
    text
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("p50 {:>10.3?}  p99 {:>10.3?}", at(50), at(99))
}

/// Resident bytes of this process: proc(5), second field of statm, in pages.
fn resident() -> anyhow::Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).context("statm")?.parse()?;
    Ok(pages * 4096)
}
