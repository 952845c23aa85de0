//! The whole agent as an operator runs it: started in a namespace, asked, changed, stopped, killed, started wrongly.

#[path = "agent_run/world.rs"]
mod world;

#[path = "agent_run/health.rs"]
mod health;

use std::collections::BTreeSet;
use std::time::Duration;

use ingress_tests::wait::until;
use serde_json::Value;
use world::{World, request};

const WEB: &str = "10.1.0.100";
const ECHO: &str = "10.1.0.101";
const ECHO6: &str = "fd01::101";

#[test]
fn it_becomes_ready_and_answers_questions() {
    let world = World::new("run1");
    let agent = world.start();
    assert_eq!(agent.get("/livez").expect("livez").0, 200);
    assert_eq!(agent.get("/readyz").expect("readyz").1, "ok\n");

    // Ready means that a client is served.
    let answer = world.http(WEB, "GET /cart HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("backend GET /cart"), "{answer}");
    until("an L4 connection is echoed", || world.echo(ECHO).filter(|t| t.starts_with("backend")));

    let text = agent.status().expect("status");
    for part in ["ready", WEB, ECHO, "held", "demo/echo", "nat", "10.1.0.3:9000", "native", "1/1 ready", "forward_nat"]
    {
        assert!(text.contains(part), "{part} not in\n{text}");
    }
    let json = world.sluicegate(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&json.1).expect("status is JSON");
    assert_eq!(status["ready"], true);
    assert_eq!(status["interfaces"][0]["mode"], "native");
    let echo = status["services"].as_array().expect("services").iter().find(|s| s["frontend"] == "tcp 10.1.0.101:9000");
    let echo = echo.expect("the echo service");
    assert!(
        echo["traffic"]["rx_packets"].as_u64() > Some(3) && echo["traffic"]["tx_bytes"].as_u64() > Some(0),
        "{echo}"
    );
    assert_eq!(echo["backends"][0]["traffic"]["new_flows"], echo["traffic"]["new_flows"]);

    let snapshot: Value = serde_json::from_str(&agent.get("/debug/snapshot").expect("snapshot").1).expect("JSON");
    assert_eq!(snapshot["vips"].as_array().map(Vec::len), Some(3), "{snapshot}");
    assert!(!snapshot.to_string().contains("PRIVATE KEY"));
}

#[test]
fn explain_says_which_rule_and_which_backend() {
    let world = World::new("run2");
    let _agent = world.start();
    let (code, out, err) = world.sluicegate(&["explain", "tcp", "10.1.0.4:40000", "10.1.0.101:9000"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("forwarded to 10.1.0.3:9000, by address translation"), "{out}");
    assert!(out.contains("demo/echo:9000") && out.contains("frontend"), "{out}");
    let (_, out, _) = world.sluicegate(&["explain", "udp", "10.1.0.4:40000", "10.1.0.101:9"]);
    assert!(out.starts_with("not forwarded: not a frontend of ours"), "{out}");
    let (_, out, _) = world.sluicegate(&["explain", "tcp", "10.1.0.4:40000", "10.1.0.100:80"]);
    assert!(out.starts_with("passed up to the proxy"), "{out}");

    let (code, out, err) =
        world.sluicegate(&["explain", "http://shop.example/cart", "--client", "10.1.0.4", "-o", "json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(told["facts"]["owner"], "demo/shop", "{told}");
    assert_eq!(told["facts"]["backends"], "10.1.0.3:8080");
    assert_eq!(told["facts"]["listener"], "10.1.0.100:80");
    assert!(
        told["steps"].as_array().is_some_and(|s| s.len() > 4),
        "the packet's steps come before the request's: {told}"
    );
    let (_, out, _) = world.sluicegate(&["explain", "http://other.example/"]);
    assert!(out.contains("404"), "{out}");
}

#[test]
fn metrics_are_prometheus_text() {
    let world = World::new("run3");
    let agent = world.start();
    until("a request is counted", || {
        world.http(WEB, "GET /cart HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
        world.echo(ECHO)?;
        let text = agent.get("/metrics").ok()?.1;
        let has = |start: &str| text.lines().any(|l| l.starts_with(start) && !l.ends_with(" 0"));
        (has("sluicegate_http_requests_total{namespace=\"demo\",ingress=\"shop\"")
            && has("sluicegate_backend_tx_packets_total{namespace=\"demo\",service=\"echo\""))
        .then_some(())
    });
    let (status, text) = agent.get("/metrics").expect("metrics");
    assert_eq!(status, 200);
    let mut families = BTreeSet::new();
    let mut samples = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().expect("a name").to_owned()), "{line} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(name.to_owned()), "{name} twice");
            let family = name.split('{').next().expect("a name");
            let known = |suffix: &str| family.strip_suffix(suffix).is_some_and(|f| families.contains(f));
            assert!(
                families.contains(family) || ["_total", "_sum", "_count", "_bucket"].iter().any(|s| known(s)),
                "{line}"
            );
        }
    }
    for sample in [
        "sluicegate_ready 1.0",
        "sluicegate_xdp_attached{interface=\"eth0\",mode=\"native\"} 1.0",
        "sluicegate_vip_held{address=\"10.1.0.101\",interface=\"eth0\"} 1.0",
    ] {
        assert!(text.lines().any(|l| l == sample), "{sample} not in\n{text}");
    }
    assert!(samples.iter().any(|s| s.starts_with("sluicegate_http_request_duration_seconds_bucket{")));
    assert!(samples.contains("process_resident_memory_bytes") && samples.contains("process_cpu_seconds_total"));
}

#[test]
fn the_window_survives_hostile_input() {
    let world = World::new("run4");
    let agent = world.start();
    for (input, answer) in [
        ("POST /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 9\r\n\r\n", "HTTP/1.1 405"),
        ("GET /nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "HTTP/1.1 404"),
        ("GET /api/explain HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "HTTP/1.1 400"),
        (
            "GET /api/explain?what=%ff%00&what=%&bogus=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 400",
        ),
        (
            "GET /api/explain?what=tcp&what=1.2.3.4:5&what=[::1]:6 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 400",
        ),
        ("GET /api/explain?what=http://%25%25/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "HTTP/1.1 "),
        ("\0\0\0\0\0\0\0\0\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 "),
    ] {
        let got = world.edge.inside(|| request("127.0.0.1:10254", input));
        assert!(got.starts_with(answer), "{input:?}: {got}");
    }
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let got = world.edge.inside(|| request("127.0.0.1:10254", &huge));
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 431"), "{got}");
    // A client that says nothing does not stay, and holds up nobody.
    let silent = world.edge.inside(|| std::net::TcpStream::connect("127.0.0.1:10254")).expect("connect");
    assert_eq!(agent.get("/livez").expect("livez").0, 200);
    drop(silent);
}

#[test]
fn what_is_not_taken_is_told_once_and_its_end_as_well() {
    let world = World::new("run5");
    let agent = world.start();
    agent
        .write(
            "broken.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: demo}\nspec: {ports: [{port: 0}]}\n",
        )
        .expect("write");
    let told = |what: &str| world.log().lines().filter(|l| l.contains(what) && l.contains("broken.yaml")).count();
    until("it is in the list", || agent.get("/debug/rejections").ok().filter(|(_, t)| t.contains("broken.yaml")));
    assert_eq!(agent.get("/readyz").expect("readyz").0, 200, "one bad object harms nothing else");
    let metrics = agent.get("/metrics").expect("metrics").1;
    assert!(metrics.contains("sluicegate_rejections{kind=\"Service\",severity=\"rejected\"} 1.0"), "{metrics}");
    assert!(agent.status().expect("status").contains("NOT TAKEN"));
    // Another change makes another plan, and no second line.
    agent.write("more.yaml", &world::service("more", "10.1.0.102")).expect("write");
    until("the other change is live", || agent.get("/api/status").ok().filter(|(_, t)| t.contains("10.1.0.102")));
    assert_eq!(told("not taken"), 1, "{}", world.log());
    std::fs::remove_file(agent.manifests().join("broken.yaml")).expect("remove");
    until("its end is told", || (told("no longer") == 1).then_some(()));
}

#[test]
fn sigterm_finishes_requests_then_removes_the_addresses_and_leaves_the_pins() {
    let world = World::new("run6");
    let mut agent = world.start();
    let held = |address: &str| {
        world.edge.ip(&["address", "show", "dev", "eth0"]).expect("ip").contains(&format!("{address}/"))
    };
    assert!(held(ECHO) && held(WEB) && held(ECHO6));
    std::thread::scope(|s| {
        let slow = s.spawn(|| world.http(WEB, "GET /slow HTTP/1.1\r\nhost: shop.example\r\n\r\n"));
        until("the slow request is at the backend", || (world.slow_requests() == 1).then_some(()));
        let stopping = s.spawn(|| agent.stop().expect("it ends"));
        until("it is not ready any more", || {
            let answer = world
                .edge
                .inside(|| request("127.0.0.1:10254", "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
            answer.contains("draining").then_some(())
        });
        world.let_slow_requests_go();
        let answer = slow.join().expect("the client");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("slow"),
            "the request under way was finished: {answer}"
        );
        stopping.join().expect("stopped");
    });
    assert!(!held(ECHO) && !held(WEB) && !held(ECHO6), "addresses are gone after a graceful stop");
    assert!(world.edge.ip(&["link", "show", "eth0"]).expect("ip").contains("xdp"), "the program stays");
    agent.start_again().expect("start again");
    assert!(held(ECHO) && world.log().contains("adopted=true"), "{}", world.log());
    until("served again", || world.echo(ECHO));
}

#[test]
fn sigkill_leaves_everything_and_the_next_agent_adopts_it() {
    let world = World::new("run7");
    let mut agent = world.start();
    until("served", || world.echo(ECHO));
    agent.kill().expect("kill -9");
    let addresses = world.edge.ip(&["address", "show", "dev", "eth0"]).expect("ip");
    assert!([ECHO, WEB, ECHO6].iter().all(|a| addresses.contains(&format!("{a}/"))), "{addresses}");
    for _ in 0..20 {
        assert!(world.echo(ECHO).is_some(), "L4 goes on without an agent, new connections too");
    }
    agent.start_again().expect("start again");
    assert!(world.log().contains("adopted=true"), "{}", world.log());
    let log = world.log();
    let added = log.lines().filter(|l| l.contains(&format!("{ECHO} added"))).count();
    assert_eq!(added, 1, "the address was adopted, not added again: {log}");
}

#[test]
fn second_agent_is_refused() {
    let world = World::new("run8");
    let agent = world.start();
    let own = |name: &str| world.place.directory.join(name).display().to_string();
    let (pins, other_pins) = (world.place.pins.display().to_string(), format!("{}-2", world.place.pins.display()));
    let socket = own("second.sock");
    let check = |pins: &str, socket: &str, admin: &str, says: &str| {
        let (code, _, err) = world.run_wrongly(&[
            "--interface=eth0",
            "--pin-path",
            pins,
            "--admin-socket",
            socket,
            "--admin-address",
            admin,
        ]);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(says), "{says}\nnot in\n{err}");
    };
    check(&other_pins, &socket, "off", "another agent is attached to interface eth0");
    check(&pins, &socket, "off", "another agent uses the pin path");
    check(&other_pins, &socket, "127.0.0.1:10254", "the admin address 127.0.0.1:10254 is taken");
    check(&other_pins, &agent.socket().display().to_string(), "off", "another agent answers on the admin socket");
    let (code, _, err) = world.sluicegate(&["uninstall", "--pin-path", &pins, "--state-dir", "/nonexistent"]);
    assert!(code == 1 && err.contains("another agent uses the pin path"), "{err}");
    // The first is none the worse for it.
    assert_eq!(agent.get("/readyz").expect("readyz").0, 200);
    assert!(world.echo(ECHO).is_some());
    let _ = std::fs::remove_dir_all(other_pins);
}

#[test]
fn bad_surroundings_are_named_at_the_start() {
    let world = World::new("run9");
    let pins = world.place.pins.display().to_string();
    let socket = world.place.directory.join("s").display().to_string();
    let common = ["--admin-address=off", "--admin-socket", &socket];
    let (code, _, err) = world.run_wrongly(&[&common[..], &["--interface=eth9", "--pin-path", &pins]].concat());
    assert!(code == 1 && err.contains("there is no interface eth9") && err.contains("eth0"), "{err}");
    // A bridge has no native XDP.
    world.edge.ip(&["link", "add", "br7", "type", "bridge"]).expect("make a bridge");
    let native = ["--interface=br7", "--xdp-mode=native", "--pin-path", &pins];
    let (code, _, err) = world.run_wrongly(&[&common[..], &native].concat());
    assert!(code == 1 && err.contains("br7") && err.contains("native"), "{err}");
    let elsewhere = world.place.directory.join("pins").display().to_string();
    let (code, _, err) = world.run_wrongly(&[&common[..], &["--interface=eth0", "--pin-path", &elsewhere]].concat());
    assert!(code == 1 && err.contains("mount -t bpf"), "{err}");
    let unwritable = ["--interface=eth0", "--pin-path", &pins, "--access-log=/proc/nowhere/log"];
    let (code, _, err) = world.run_wrongly(&[&common[..], &unwritable].concat());
    assert!(code == 1 && err.contains("/proc/nowhere/log"), "{err}");
}

#[test]
fn taken_port_is_named_and_served_as_soon_as_it_is_free() {
    let world = World::new("run10");
    let taken = world.edge.inside(|| std::net::TcpListener::bind("0.0.0.0:80")).expect("take the port");
    let agent = world.start_unready();
    until("it says which port", || {
        let (status, text) = agent.get("/readyz").ok()?;
        (status == 503 && text.contains("10.1.0.100:80") && text.contains("taken by another process")).then_some(())
    });
    until("what does not need the port is served", || world.echo(ECHO));
    drop(taken);
    until("ready", || agent.get("/readyz").ok().filter(|(status, _)| *status == 200));
    let answer = world.http(WEB, "GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn link_that_goes_down_is_not_ready_until_it_is_back() {
    let world = World::new("run11");
    let agent = world.start();
    world.edge.ip(&["link", "set", "eth0", "down"]).expect("down");
    until("not ready", || {
        let (status, text) = agent.get("/readyz").ok()?;
        (status == 503 && text.contains("interface eth0 is down")).then_some(())
    });
    world.edge.ip(&["link", "set", "eth0", "up"]).expect("up");
    until("ready", || agent.get("/readyz").ok().filter(|(status, _)| *status == 200));
    until("served", || world.echo(ECHO));
}

#[test]
fn missing_vip_interface_is_a_state_and_not_an_end() {
    let world = World::new("run15");
    let agent = world.start_with(&["--access-log=off", "--vip-interface=vips0"]);
    until("it says what is missing", || {
        let (status, text) = agent.get("/readyz").ok()?;
        (status == 503 && text.contains("interface vips0 does not exist; 3 addresses wait for it")).then_some(())
    });
    world.edge.ip(&["link", "add", "vips0", "type", "veth", "peer", "name", "vips1"]).expect("make it");
    for link in ["vips0", "vips1"] {
        world.edge.ip(&["link", "set", link, "up"]).expect("up");
    }
    until("ready", || agent.get("/readyz").ok().filter(|(status, _)| *status == 200));
    let addresses = world.edge.ip(&["address", "show", "dev", "vips0"]).expect("ip");
    assert!(addresses.contains(&format!("{ECHO}/32")), "{addresses}");
}

#[test]
fn sighup_opens_the_access_log_again() {
    let world = World::new("run12");
    let log = world.place.directory.join("access.log");
    let agent = world.start_with(&["--access-log", &log.display().to_string()]);
    let visit = |path: &str| {
        world.http(WEB, &format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n"))
    };
    let has = |file: &std::path::Path, what: &str| std::fs::read_to_string(file).is_ok_and(|t| t.contains(what));
    until("the first request is logged", || {
        visit("/first");
        has(&log, "/first").then_some(())
    });
    let moved = log.with_extension("log.1");
    std::fs::rename(&log, &moved).expect("rotate");
    agent.signal(libc::SIGHUP);
    until("requests are logged in a new file", || {
        visit("/second");
        has(&log, "/second").then_some(())
    });
    assert!(has(&moved, "/first"));
}

#[test]
fn uninstall_leaves_nothing() {
    let world = World::new("run13");
    let mut agent = world.start();
    agent.kill().expect("kill -9");
    let pins = world.place.pins.display().to_string();
    let (code, out, err) = world.sluicegate(&["uninstall", "--pin-path", &pins, "--state-dir", "/nonexistent"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in [&pins, ECHO, ECHO6, WEB] {
        assert!(out.contains(part), "{out}");
    }
    assert!(!world.place.pins.exists());
    // The kernel frees an unpinned link in its own time.
    until("the program is detached", || {
        world.edge.ip(&["-d", "link", "show", "eth0"]).ok().filter(|link| !link.contains("prog/xdp"))
    });
    let addresses = world.edge.ip(&["address", "show", "dev", "eth0"]).expect("ip");
    assert!(!addresses.contains(&format!("{ECHO}/")) && addresses.contains("10.1.0.2/24"), "{addresses}");
    let (code, out, _) = world.sluicegate(&["uninstall", "--pin-path", &pins, "--state-dir", "/nonexistent"]);
    assert!(code == 0 && out.contains("nothing is pinned"), "a second time is no mistake: {out}");
    // And the next agent starts from nothing.
    agent.start_again().expect("start again");
    until("served", || world.echo(ECHO));
}

#[test]
fn manifests_that_come_late_and_an_empty_directory_are_fine() {
    let world = World::empty("run14");
    let agent = world.start();
    assert_eq!(agent.get("/readyz").expect("readyz").0, 200, "nothing to serve is served");
    let written = agent.write("echo.yaml", &world::service("echo", ECHO)).expect("write");
    until("served", || world.echo(ECHO));
    eprintln!("served {:?} after the manifest appeared", written.elapsed());
    std::fs::remove_file(agent.manifests().join("echo.yaml")).expect("remove");
    until("the address is given up", || {
        let addresses = world.edge.ip(&["address", "show", "dev", "eth0"]).ok()?;
        (!addresses.contains(&format!("{ECHO}/"))).then_some(())
    });
    assert!(Duration::from_mins(1) > written.elapsed());
}
