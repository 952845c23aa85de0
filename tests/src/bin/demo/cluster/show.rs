//! What the demo shows on a cluster while all is well: an application is applied, gets its addresses, answers, and is rolled out anew
//! under load. Clients are real programs in the client's namespace; the cluster is asked by kubectl.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ingress_tests::load::Outcome;
use ingress_tests::table::{Table, ms};

use super::trouble;
use super::world::{CLIENT, World, until};
use crate::show::{greeting, indent, step};
use crate::world::{Load, at};

const SHOP: &str = include_str!("../../../../demo/cluster/shop.yaml");

/// For controllers, pods and agents on a busy machine; the table wants less.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The VIPs of the application, as the cluster says them.
pub(crate) struct Vips {
    /// Of the Service `orders`, on edge-1.
    pub(crate) orders: String,
    /// Of the Service `stock`, on edge-2.
    pub(crate) stock: String,
    /// Of the Ingress `shop`, on edge-1.
    pub(crate) shop: String,
    /// Of the Ingress `chat`, on edge-2.
    pub(crate) chat: String,
}

pub(crate) fn everything(world: &mut World) -> Result<()> {
    let mut table = Table::default();
    step("A cluster: an API server with its controllers, nodes edge-1, edge-2, worker-1 and worker-2, and a client");
    println!(
        "   kubectl apply -k deploy/kustomize/base; an agent on each edge, which logs in as that ServiceAccount, with its rights."
    );
    println!(
        "   In this release an address is held by the nodes that its VirtualIPPool names, and does not move by itself:"
    );
    println!("   so each edge has pools of its own, and both carry traffic.");
    println!("{}", indent(world.kubectl(&["get", "virtualippools,ingressclasses"])?.trim_end()));
    let vips = applied(world, &mut table)?;
    l4(world, &vips, &mut table)?;
    l7(world, &vips, &mut table)?;
    rollout(world, &vips, &mut table)?;
    trouble::agent_dies(world, &vips, &mut table)?;
    trouble::api_server_away(world, &vips, &mut table)?;
    trouble::wrong_ingress(world, &vips, &mut table)?;
    step("What the cluster says at the end: kubectl get svc,ing,events");
    println!("{}", indent(world.shop(&["get", "svc,ing"])?.trim_end()));
    let ours = "--field-selector=reportingComponent=sluicegate.io/status";
    let events = world.shop(&["get", "events", ours, "--sort-by=.metadata.creationTimestamp"])?;
    println!("{}", indent(events.trim_end()));
    table.close()
}

/// `kubectl apply`, and how long it takes until clients are served at the addresses that the cluster shows.
fn applied(world: &World, table: &mut Table) -> Result<Vips> {
    step(
        "kubectl apply of an application: a Deployment of four pods, two Services of type LoadBalancer, two Ingresses with TLS",
    );
    println!("{}", indent(world.cluster.apply(SHOP)?.trim_end()));
    let began = Instant::now();
    world.shop(&["rollout", "status", "deployment/shop", "--timeout=60s"])?;
    let ready = began.elapsed();
    let address = |object: &str| {
        let found = until(&format!("{object} has addresses"), PATIENCE, || {
            Ok(Some(world.addresses(object)?).filter(|found| found.len() == 2))
        })?;
        found.into_iter().next().context("an address")
    };
    let vips = Vips {
        orders: address("service/orders")?,
        stock: address("service/stock")?,
        shop: address("ingress/shop")?,
        chat: address("ingress/chat")?,
    };
    let addressed = began.elapsed();
    for vip in [&vips.orders, &vips.stock] {
        until(&format!("{vip} answers"), PATIENCE, || Ok(greeting(&world.client, at(vip, 9000)?).ok()))?;
    }
    for (vip, host) in [(&vips.shop, "shop.example"), (&vips.chat, "chat.example")] {
        until(&format!("{host} answers"), PATIENCE, || {
            Ok(Some(curl(world, vip, &format!("https://{host}/"))?).filter(|answer| answer.contains("200")))
        })?;
    }
    println!("{}", indent(world.shop(&["get", "svc,ing"])?.trim_end()));
    let limit = Duration::from_secs(30);
    table.row("applied: four pods ready after", ms(ready), "at most 30 s", ready < limit);
    table.row("applied: addresses in every status after", ms(addressed), "at most 30 s", addressed < limit);
    table.row("applied: all answer after", ms(began.elapsed()), "at most 30 s", began.elapsed() < limit);
    Ok(vips)
}

/// The controllers gather changes of pods for about a second.
const ENDPOINTS_WITHIN: Duration = Duration::from_secs(20);

/// Through each edge to pods on each node; a pod behind the edge itself sees the client.
fn l4(world: &World, vips: &Vips, table: &mut Table) -> Result<()> {
    step("L4: XDP on each edge spreads connections over all four pods, `local` behind itself and `nat` elsewhere");
    let nodes = pods(world)?;
    for (edge, vip) in [("edge-1", &vips.orders), ("edge-2", &vips.stock)] {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut right = true;
        let mut sent = 0;
        // A pod is ready some moments before the slice of endpoints says so.
        let latest = Instant::now() + ENDPOINTS_WITHIN;
        while sent < 100 || counts.len() < 4 && Instant::now() < latest {
            if sent == 100 {
                (sent, counts) = (0, BTreeMap::new());
            }
            sent += 1;
            let line = greeting(&world.client, at(vip, 9000)?)?;
            let (pod, client) = line.split_once(' ').context("a pod's name and whom it sees")?;
            let client: SocketAddr = client.parse().context("whom the pod sees")?;
            let node = nodes.get(pod).with_context(|| format!("{pod} is none of the Deployment's pods"))?;
            *counts.entry(node).or_default() += 1;
            right &= client.ip().to_string() == if node == edge { CLIENT } else { vip.as_str() };
        }
        let text = counts.iter().map(|(node, count)| format!("{node} {count}")).collect::<Vec<_>>().join(", ");
        table.row(&format!("100 connections to {edge}, by node"), text, "all nodes", counts.len() == 4);
        let words = if right { "its own pod the client, others the VIP" } else { "somebody else" };
        table.row(&format!("whom pods see behind {edge}"), words, "its own pod the client, others the VIP", right);
    }
    let answer = world.client.ns.run("curl", &["-s", "--max-time", "5", &format!("http://{}/", vips.stock)])?;
    let held = nodes.keys().any(|pod| answer.starts_with(&format!("{pod} ")));
    table.row("curl to the Service stock", answer.trim(), "a pod", held);
    Ok(())
}

/// Pods of the application and their nodes.
fn pods(world: &World) -> Result<BTreeMap<String, String>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
    let text = world.shop(&["get", "pods", "-l", "app=shop", "-o", path])?;
    Ok(text.lines().filter_map(|line| line.split_once(' ')).map(|(pod, node)| (pod.into(), node.into())).collect())
}

fn l7(world: &World, vips: &Vips, table: &mut Table) -> Result<()> {
    step("L7: HTTPS through each edge, with curl and a certificate that it verifies");
    for (host, vip) in [("shop.example", &vips.shop), ("chat.example", &vips.chat)] {
        let answer = curl(world, vip, &format!("https://{host}/"))?;
        let held = answer.contains("200 HTTP/2") && answer.contains(host) && answer.contains(CLIENT);
        table.row(&format!("https://{host}/ on {vip}"), answer, "200, HTTP/2, client in header", held);
    }
    Ok(())
}

fn curl(world: &World, vip: &str, url: &str) -> Result<String> {
    let name = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    let (resolve, authority) = (format!("{name}:443:{vip}"), world.authority().display().to_string());
    let line = ["-s", "--max-time", "5", "--resolve", &resolve, "--cacert", &authority];
    let line = [&line[..], &["-w", "%{http_code} HTTP/%{http_version}", url]].concat();
    Ok(world.client.ns.run("curl", &line)?.replace('\n', " · "))
}

/// Clients of all four VIPs.
pub(crate) struct Loads(Vec<(&'static str, Load)>);

impl Loads {
    /// New TCP connections to both Services, HTTPS requests to both Ingresses.
    pub(crate) fn start(world: &World, vips: &Vips) -> Result<Self> {
        let mut loads = Self::but_web_of_edge_1(world, vips)?;
        loads.0.push(("HTTPS, edge-1", web(world, &vips.shop, "shop.example")?));
        Ok(loads)
    }

    /// The same without HTTPS through edge-1.
    pub(crate) fn but_web_of_edge_1(world: &World, vips: &Vips) -> Result<Self> {
        let connect = |vip: &str| Load::start(&world.client, &["connect", &format!("{vip}:9000")]);
        Ok(Self(vec![
            ("TCP, edge-1", connect(&vips.orders)?),
            ("TCP, edge-2", connect(&vips.stock)?),
            ("HTTPS, edge-2", web(world, &vips.chat, "chat.example")?),
        ]))
    }

    /// Ends them, and notes whether a request or connection failed.
    pub(crate) fn finish(self, table: &mut Table, meanwhile: &str) -> Result<()> {
        let (mut failed, mut all, mut enough) = (0, 0, true);
        let mut counts = Vec::new();
        for (what, load) in self.0 {
            let outcome = Outcome::parse(&load.finish()?)?;
            counts.push(format!("{what}: {}", outcome.ok));
            enough &= outcome.ok > 100;
            failed += outcome.failures.len();
            all += outcome.ok + outcome.failures.len() as u64;
            for (began, why) in outcome.failures.iter().take(3) {
                println!("     {what}: began {began}: {why}");
            }
        }
        println!("   answered: {}", counts.join("; "));
        table.row(&format!("failed {meanwhile}"), format!("{failed} of {all}"), "0", failed == 0 && enough);
        Ok(())
    }
}

fn web(world: &World, vip: &str, host: &str) -> Result<Load> {
    let authority = world.authority();
    let arguments = ["https", &format!("{vip}:443"), "--host", host, "--ca", &authority.to_string_lossy()];
    Load::start(&world.client, &arguments)
}

/// Every pod is replaced while clients ask.
fn rollout(world: &World, vips: &Vips, table: &mut Table) -> Result<()> {
    step("kubectl rollout restart of all pods, under load");
    println!(
        "   The pods do what a pod must do: they serve on for 2 s (preStop) while the edges hear of it, then finish what they have."
    );
    let before = pods(world)?;
    let loads = Loads::start(world, vips)?;
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    world.shop(&["rollout", "restart", "deployment/shop"])?;
    world.shop(&["rollout", "status", "deployment/shop", "--timeout=60s"])?;
    let gone = |pods: &BTreeMap<String, String>| before.keys().all(|pod| !pods.contains_key(pod));
    until("the old pods are gone", PATIENCE, || Ok(gone(&pods(world)?).then_some(())))?;
    let time = began.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    loads.finish(table, "while all pods were replaced")?;
    table.row("rollout: all four pods replaced, old ones gone, after", ms(time), "at most 45 s", time.as_secs() < 45);
    Ok(())
}
