//! What the demo shows on a cluster when things go wrong: an agent is killed, the API server is away, somebody writes an Ingress
//! that cannot work. Each under load, or with the reason where its owner looks for it.

use std::time::{Duration, Instant};

use anyhow::Result;
use ingress_tests::table::{Table, ms};

use super::show::{Loads, PATIENCE, Vips};
use super::world::{World, until};
use crate::show::{greeting, indent, step};
use crate::world::{Load, at};

const LATE: &str = include_str!("../../../../demo/cluster/late.yaml");
const WRONG: &str = include_str!("../../../../demo/cluster/wrong.yaml");

/// Forwarding does not need the agent to be alive. The proxy is the agent, though.
pub(crate) fn agent_dies(world: &mut World, vips: &Vips, table: &mut Table) -> Result<()> {
    step("The agent of edge-1 is killed with -9 under load, is gone for a second and a half, and comes back");
    println!(
        "   XDP forwards on without it. HTTP through edge-1 is away meanwhile: its addresses do not move in this release."
    );
    let mut hold = Load::start(&world.client, &["hold", &format!("{}:9000", vips.orders), "--connections", "100"])?;
    hold.first_line()?;
    let loads = Loads::but_web_of_edge_1(world, vips)?;
    std::thread::sleep(Duration::from_millis(300));
    world.edges[0].agent.kill()?;
    std::thread::sleep(Duration::from_millis(1500));
    let back = world.edges[0].agent.start_again()?;
    println!("   the agent is back and ready, after {}", ms(back));
    std::thread::sleep(Duration::from_millis(500));
    loads.finish(table, "while the agent of edge-1 was away")?;
    let hold = ingress_tests::load::Outcome::parse(&hold.finish()?)?;
    let lost = hold.failures.len();
    table.row(
        "held connections lost",
        format!("{lost} of {}", hold.ok + lost as u64),
        "0",
        lost == 0 && hold.ok == 100,
    );
    Ok(())
}

/// The last state serves on, and what is asked for afterwards comes.
pub(crate) fn api_server_away(world: &mut World, vips: &Vips, table: &mut Table) -> Result<()> {
    step("The API server is stopped under load, is away for three seconds, and comes back; then a Service is applied");
    let loads = Loads::start(world, vips)?;
    world.cluster.stop_api_server()?;
    std::thread::sleep(Duration::from_secs(3));
    let said = until("an agent says for how long changes may have been missed", PATIENCE, || {
        let (_, text) = world.edges[1].agent.get("/readyz")?;
        Ok(text.lines().find(|line| line.contains("may have been missed")).map(str::to_owned))
    })?;
    println!("   edge-2's /readyz: {said}");
    world.cluster.start_api_server()?;
    world.cluster.apply(LATE)?;
    let began = Instant::now();
    let vip = until("the Service late has its address", PATIENCE, || {
        Ok(world.addresses("service/late")?.into_iter().next())
    })?;
    let told = began.elapsed();
    until("it answers", PATIENCE, || Ok(greeting(&world.client, at(&vip, 9000)?).ok()))?;
    for edge in &world.edges {
        until("the agents have heard everything", PATIENCE, || {
            Ok((edge.agent.get("/readyz")?.1 == "ok\n").then_some(()))
        })?;
    }
    let current = began.elapsed();
    loads.finish(table, "while the API server was away")?;
    let limit = Duration::from_secs(45);
    println!(
        "   The edges ask again after a time that chance gives them, up to 15 s, so that a hundred do not ask at once."
    );
    table.row("after its return: a new Service has its address after", ms(told), "at most 45 s", told < limit);
    table.row("after its return: both edges are up to date after", ms(current), "at most 50 s", current.as_secs() < 50);
    Ok(())
}

/// Who looks at the object finds the reason there.
pub(crate) fn wrong_ingress(world: &World, vips: &Vips, table: &mut Table) -> Result<()> {
    step("kubectl apply of an Ingress that cannot work; its owner asks why");
    let loads = Loads::start(world, vips)?;
    let began = Instant::now();
    world.cluster.apply(WRONG)?;
    let reasons = ["there is no Service shop/wbe", "has no TCP port 8081", "not-there"];
    let mut heard = String::new();
    let told = until("the events of the Ingress say what is wrong", PATIENCE, || {
        heard = world.shop(&["events", "--for", "ingress/wrong"])?;
        Ok(reasons.iter().all(|reason| heard.contains(reason)).then(|| began.elapsed()))
    });
    println!("   $ kubectl events --for ingress/wrong\n{}", indent(heard.trim_end()));
    let told = told?;
    std::thread::sleep(Duration::from_millis(500));
    loads.finish(table, "while a wrong Ingress was applied")?;
    let limit = Duration::from_secs(10);
    table.row("the reasons are in its events after", ms(told), "at most 10 s", told < limit);
    Ok(())
}
