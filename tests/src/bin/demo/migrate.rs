//! The chapter of whoever comes from ingress-nginx: what `migrate` says of its manifests, the class switched, its requests answered, and
//! the class switched back. A chapter of its own, so that it can stand anywhere in the demo while the agent runs.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ingress_tests::edge::sibling;
use ingress_tests::table::Table;
use serde_json::Value;

use crate::show::{indent, step};
use crate::traces;
use crate::world::{WEB_V4, World};

const SHOP: &str = include_str!("../../../demo/migrate/shop.yaml");
const CONTROLLER: &str = include_str!("../../../demo/migrate/controller.yaml");
/// Beside those that the demo has.
const SERVED: &str = "migrated.yaml";
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn show(world: &World, table: &mut Table) -> Result<()> {
    step(
        "Four Ingresses of ingress-nginx, with its ConfigMap and Deployment: `sluicegate migrate DIR` says what becomes of them",
    );
    let directory = manifests()?;
    let (_, text) = migrate(&directory, "text")?;
    println!("{}", indent(text.split("SUMMARY").next().unwrap_or_default().trim_end()));
    let (code, json) = migrate(&directory, "json")?;
    let report: Value = serde_json::from_str(&json).context("read the report")?;
    let count = |verdict: &str| report["summary"]["ingresses"][verdict].as_u64().unwrap_or_default();
    let counted = format!("{} same, {} unsupported, exit code {code}", count("same"), count("unsupported"));
    let held = counted == "3 same, 1 unsupported, exit code 2";
    table.row("migrate, of four Ingresses", counted, "3 same, 1 unsupported, exit code 2", held);

    step("The class is switched from nginx to ours: the same manifests, and no other change");
    world.agent.write(SERVED, &SHOP.replace("ingressClassName: nginx", "ingressClassName: sluicegate"))?;
    until(world, "http://old.example/v1/items", "200")?;
    for (what, arguments, wanted) in [
        ("rewrite-target /$2", &["http://old.example/v1/items"][..], "200 b3 old.example /items"),
        (
            "cors-allow-origin",
            &["-H", "Origin: https://shop.example", "-X", "OPTIONS", "http://old.example/v1/items"],
            "204 https://shop.example",
        ),
        ("auth-type: basic, without a password", &["http://members.example/"], "401"),
        ("auth-type: basic, with it", &["-u", "ada:secret", "http://members.example/"], "200 b3"),
        ("permanent-redirect", &["http://moved.example/"], "308 https://shop.example/new"),
    ] {
        let answer = curl(world, arguments)?;
        table.row(what, answer.clone(), wanted, answer.starts_with(wanted));
    }
    let explained = explain(world, "http://old.example/v1/items")?;
    let location = explained.lines().find_map(|line| line.split("In ingress-nginx: ").nth(1)).unwrap_or_default();
    let wanted = "location ~* \"^/v1(/|$)(.*)\" of server old.example.";
    table.row("explain, the location of ingress-nginx", location, wanted, location == wanted);

    step("And back: the class says nginx again, and these hosts are not ours any more");
    world.agent.write(SERVED, SHOP)?;
    until(world, "http://old.example/v1/items", "404")?;
    let answer = curl(world, &["http://old.example/v1/items"])?;
    table.row("after the switch back", answer.clone(), "404", answer.starts_with("404"));
    Ok(())
}

/// Where the demo's traces are, so that it goes with them.
fn manifests() -> Result<PathBuf> {
    let directory = traces::directory(std::process::id()).join("ingress-nginx");
    for (name, text) in [("shop.yaml", SHOP), ("controller.yaml", CONTROLLER)] {
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        fs::write(directory.join(name), text).with_context(|| format!("write {name}"))?;
    }
    // It names Services that the demo has.
    let api = include_str!("../../../demo/api.yaml");
    fs::write(directory.join("api.yaml"), api).context("write api.yaml")?;
    Ok(directory)
}

fn migrate(directory: &std::path::Path, format: &str) -> Result<(i32, String)> {
    let mut command = std::process::Command::new(sibling("sluicegate")?);
    let out = command.arg("migrate").arg(directory).args(["-o", format]).output().context("run sluicegate migrate")?;
    let code = out.status.code().context("it was killed")?;
    ensure!(code < 3, "sluicegate migrate failed: {}", String::from_utf8_lossy(&out.stderr));
    Ok((code, String::from_utf8(out.stdout).context("its output is no text")?))
}

/// Status, `Location` or `Access-Control-Allow-Origin` where there is one, and the body.
fn curl(world: &World, arguments: &[&str]) -> Result<String> {
    let url = arguments.last().copied().unwrap_or_default();
    let name = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let resolve = format!("{name}:80:{WEB_V4}");
    let written = "\n%{http_code} %header{location}%header{access-control-allow-origin}";
    let mut line = vec!["-s", "--max-time", "5", "--resolve", &resolve, "-w", written];
    line.extend(arguments);
    let answer = world.client4.ns.run("curl", &line)?;
    let (body, said) = answer.trim_end().rsplit_once('\n').unwrap_or(("", answer.trim_end()));
    let body = if body.contains('<') { "" } else { body.trim() };
    Ok(format!("{} {}", said.trim(), body.replace('\n', " ")).trim().to_owned())
}

/// A manifest is live within milliseconds; a busy machine may need more.
fn until(world: &World, url: &str, status: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !curl(world, &[url])?.starts_with(status) {
        ensure!(Instant::now() < deadline, "{url} is not answered with {status}");
    }
    Ok(())
}

fn explain(world: &World, url: &str) -> Result<String> {
    let mut command = std::process::Command::new(sibling("sluicegate")?);
    let out = command.args(["explain", url, "--admin-socket"]).arg(world.agent.socket()).output();
    let out = out.context("run sluicegate explain")?;
    ensure!(out.status.success(), "sluicegate explain failed: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).context("its output is no text")
}
