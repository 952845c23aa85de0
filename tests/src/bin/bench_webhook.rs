//! The admission webhook on a large cluster: how long a review takes by itself, and what it adds to a write through a real API
//! server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures_util::{StreamExt, stream};
use ingress_tests::http::tls::client_config;
use ingress_tests::load;
use ingress_tests::table::{self, Table, ms, quantile};
use ingress_tests::webhook_site::WebhookSite;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

/// Requests to the API server at one time, while it is filled.
const AT_ONCE: usize = 32;

/// The admission webhook on a large cluster.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    ingresses: usize,
    /// How many reviews, and how many writes, are timed.
    #[arg(long, default_value_t = 1_000)]
    reviews: usize,
}

fn main() -> ExitCode {
    table::ended("benchmark", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    load::allow_many_files();
    let mut site = WebhookSite::new("bwebhook");
    let began = Instant::now();
    site.cluster.with_client(async |client| {
        let api = Api::<Ingress>::namespaced(client, "shop");
        let all = (0..arguments.ingresses).map(|i| ingress("shop", &format!("i-{i}"), &format!("h-{i}.example")));
        let mut done = stream::iter(all)
            .map(async |object| {
                let object = serde_json::from_value(object).context("make an Ingress")?;
                api.create(&PostParams::default(), &object).await.context("create an Ingress").map(drop)
            })
            .buffer_unordered(AT_ONCE);
        while let Some(result) = done.next().await {
            result?;
        }
        Ok(())
    })?;
    println!("   {} Ingresses, written in {} s", arguments.ingresses, began.elapsed().as_secs());
    let mut table = Table::default();
    // A new host and a taken one, in turn.
    let mut without = writes(&site, arguments)?;
    let began = Instant::now();
    site.start(&[]);
    let ready = began.elapsed();
    table.row("webhook, from exec to ready", ms(ready), "at most 5 s", ready <= Duration::from_secs(5));
    site.is_asked();
    let mut alone = reviews(&site, arguments)?;
    figures(&mut table, "review over HTTPS, one after another", &mut alone, Some(Duration::from_millis(10)));
    let mut with = writes(&site, arguments)?;
    figures(&mut table, "create (dry run) through the API server, without", &mut without, None);
    figures(&mut table, "create (dry run) through the API server, with it", &mut with, None);
    let added =
        quantile(&mut with, 0.5).unwrap_or_default().saturating_sub(quantile(&mut without, 0.5).unwrap_or_default());
    table.row("what it adds to a write, medians", ms(added), "at most 10 ms", added <= Duration::from_millis(10));
    println!();
    table.print();
    Ok(())
}

fn figures(table: &mut Table, what: &str, times: &mut [Duration], bar: Option<Duration>) {
    let [median, high, worst] = [0.5, 0.99, 1.0].map(|share| quantile(times, share).unwrap_or_default());
    let text = format!("p50 {}, p99 {}, worst {}", ms(median), ms(high), ms(worst));
    let wanted = bar.map_or_else(String::new, |bar| format!("p99 at most {}", ms(bar)));
    table.row(what, text, &wanted, bar.is_none_or(|bar| high <= bar));
}

fn host(turn: usize, arguments: &Arguments) -> String {
    let taken = turn * 7 % arguments.ingresses.max(1);
    if turn.is_multiple_of(2) { format!("fresh-{turn}.example") } else { format!("h-{taken}.example") }
}

/// Creations that nothing is stored of: admission is all the same.
fn writes(site: &WebhookSite, arguments: &Arguments) -> Result<Vec<Duration>> {
    site.cluster.with_client(async |client| {
        let api = Api::<Ingress>::namespaced(client, "tenant");
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let mut times = Vec::new();
        for turn in 0..arguments.reviews {
            // Only fresh hosts: a denied write ends sooner than one that is made.
            let object = serde_json::from_value(ingress("tenant", "new", &host(turn * 2, arguments)))?;
            let began = Instant::now();
            api.create(&params, &object).await.context("try an Ingress out")?;
            times.push(began.elapsed());
        }
        ensure!(api.delete("new", &DeleteParams::default()).await.is_err(), "a dry run was stored");
        Ok(times)
    })
}

/// On one connection that is kept, as the API server's is.
fn reviews(site: &WebhookSite, arguments: &Arguments) -> Result<Vec<Duration>> {
    site.ns.inside(|| {
        let stream = TcpStream::connect((site.address, 443)).context("connect to the webhook")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let name = rustls::pki_types::ServerName::try_from("x.example")?;
        let mut tls = rustls::StreamOwned::new(rustls::ClientConnection::new(client_config(&[]), name)?, stream);
        let mut times = Vec::new();
        for turn in 0..arguments.reviews {
            let mut object = ingress("tenant", "new", &host(turn, arguments));
            object["apiVersion"] = "networking.k8s.io/v1".into();
            object["kind"] = "Ingress".into();
            let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
                "uid": "u", "kind": {"kind": "Ingress"}, "operation": "CREATE", "object": object}});
            let body = body.to_string();
            let request = format!("POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let began = Instant::now();
            tls.write_all(request.as_bytes())?;
            let answer = answer(&mut tls)?;
            times.push(began.elapsed());
            let denied = answer["response"]["allowed"] == false;
            ensure!(denied != turn.is_multiple_of(2), "host {} is answered with {answer}", host(turn, arguments));
        }
        Ok(times)
    })
}

fn answer(stream: &mut impl Read) -> Result<Value> {
    let mut read = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let n = stream.read(&mut part)?;
        ensure!(n > 0, "the connection ended");
        read.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.context("a length")? {
            return serde_json::from_str(body).context("read the answer");
        }
    }
}

fn ingress(namespace: &str, name: &str, host: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    json!({"metadata": {"name": name, "namespace": namespace},
        "spec": {"ingressClassName": "sluicegate", "rules": [{"host": host,
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
}
