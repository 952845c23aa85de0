//! `sluicegate import`: a keepalived.conf as people have them, with the real binary; what comes out is read again as manifests and
//! as options.

use std::fs;
use std::process::{self, Output};
use std::time::{Duration, SystemTime};

use clap::Parser;
use ingress_agent::args::{Args, Command};
use ingress_agent::config::Config;
use ingress_agent::model::rejection::Severity;
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::edge::sibling;
use ingress_tests::place::Place;
use ingress_tests::plans::dump;

const CONFIG: &str = r#"! Configuration File for keepalived
global_defs {
    router_id edge-1
    vrrp_version 3
    smtp_server 192.0.2.1
}
vrrp_script chk_dns {
    script "/usr/local/bin/check-dns --fast"
    interval 1
    weight -20
}
vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 150
    advert_int 0.5
    nopreempt
    unicast_peer {
        192.0.2.12
    }
    track_script {
        chk_dns
    }
    virtual_ipaddress {
        203.0.113.10/24 dev eth0 label eth0:1
        203.0.113.11/24
    }
    notify_master "/usr/local/bin/page me"
}
virtual_server_group web {
    203.0.113.10-11 443
}
virtual_server group web {
    delay_loop 6
    lb_algo wlc
    lb_kind DR
    persistence_timeout 600
    protocol TCP
    sorry_server 192.0.2.99 443
    real_server 10.0.0.1 8443 {
        weight 3
        TCP_CHECK {
            connect_timeout 3
        }
    }
    real_server 10.0.0.2 8443 {
        weight 0
    }
}
virtual_server 203.0.113.10 53 {
    protocol UDP
    lb_algo mh
    real_server 10.0.0.3 5353
    real_server 2001:db8::3 5353
}
virtual_server fwmark 7 {
    real_server 10.0.0.3 80
}
"#;

fn import(file: &str) -> Output {
    process::Command::new(sibling("sluicegate").expect("the agent's binary"))
        .args(["import", file])
        .output()
        .expect("start sluicegate")
}

#[test]
fn a_configuration_becomes_options_and_manifests_and_the_rest_is_listed_by_line() {
    let place = Place::new("import").expect("make a place");
    let file = place.directory.join("keepalived.conf");
    fs::write(&file, CONFIG).expect("write");
    let out = import(file.to_str().expect("a name"));
    assert!(out.status.success(), "{out:?}");
    let (yaml, told) = (String::from_utf8(out.stdout).expect("text"), String::from_utf8(out.stderr).expect("text"));
    let options: Vec<&str> = yaml.lines().take_while(|l| l.starts_with('#')).collect();
    assert_eq!(
        options,
        [
            "# sluicegate run --manifests DIR \\",
            "#   --vip-mode vrrp \\",
            "#   --interface eth0 \\",
            "#   --vrrp-version 3 \\",
            "#   --vrrp-interval-ms 500 \\",
            "#   --vrrp-priority 150 \\",
            "#   --vrrp-vrid 51=203.0.113.10,203.0.113.11 \\",
            "#   --vrrp-nopreempt \\",
            "#   --vrrp-peer 192.0.2.12 \\",
            "#   --vrrp-check '-20=exec:/usr/local/bin/check-dns --fast'",
        ]
    );
    // What was printed is what the agent takes.
    let words = options[1..].iter().flat_map(|line| line.trim_matches(['#', ' ', '\\']).splitn(2, ' '));
    let typed = ["sluicegate", "run", "--manifests", "/", "--node", "edge-1"].into_iter();
    let Command::Run(run) = Args::parse_from(typed.chain(words.map(|word| word.trim_matches('\'')))).command else {
        panic!("it was `run`");
    };
    let config = Config::parse(&run).expect("the options make sense");
    assert_eq!(config.vips.vrrp.map(|vrrp| vrrp.interval), Some(Duration::from_millis(500)));
    // By line: nothing that was written is passed over in silence.
    let lines: Vec<(usize, &str)> = told
        .lines()
        .map(|l| {
            let rest = l.strip_prefix(&format!("{}:", file.display())).unwrap_or_else(|| panic!("names its file: {l}"));
            let (line, why) = rest.split_once(": ").expect("a line");
            (line.parse().expect("a number"), why)
        })
        .collect();
    for (line, wanted) in [
        (5, "`smtp_server 192.0.2.1` is not carried over"),
        (29, "`notify_master /usr/local/bin/page me` is not carried over"),
        (36, "`lb_algo wlc`: connections are spread by a consistent hash"),
        (37, "`lb_kind DR`: packets go out with the virtual address as source"),
        (40, "`sorry_server 192.0.2.99 443` is not carried over"),
        (43, "`TCP_CHECK` is not carried over"),
        (57, "`virtual_server fwmark 7` is not carried over"),
    ] {
        assert!(lines.iter().any(|(l, why)| *l == line && why.starts_with(wanted)), "line {line}: {wanted}\n{told}");
    }
    assert_eq!(lines.len(), 7, "{told}");
    assert!(lines.is_sorted_by_key(|(line, _)| *line), "{told}");

    let mut store = Store::new(SourceOptions::default());
    store.put("imported.yaml", Ok(&yaml));
    let facts = store.publish(SystemTime::now(), &[]).expect("the first facts");
    let options = PlanOptions { node: "edge-1".into(), ..PlanOptions::default() };
    let snapshot = plan(&facts, &options, None).snapshot;
    let wrong: Vec<_> = snapshot.rejections.iter().filter(|r| r.severity != Severity::Warning).collect();
    assert!(wrong.is_empty(), "the manifests are ours to read: {wrong:?}");
    let text = dump(&snapshot);
    let frontends: Vec<&str> = text.lines().filter(|l| l.starts_with("frontend ")).collect();
    assert_eq!(frontends.len(), 3, "{text}");
    for wanted in [
        "frontend tcp 203.0.113.10:443 to pool default/tcp-203-0-113-10-443",
        "frontend tcp 203.0.113.11:443 to pool default/tcp-203-0-113-10-443",
        "frontend udp 203.0.113.10:53 to pool default/udp-203-0-113-10-53",
        "client affinity",
        "10.0.0.1:8443 ready nat, weight 3",
        "10.0.0.3:5353 ready nat, weight 1",
    ] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    assert!(!text.contains("10.0.0.2:8443 ready"), "weight 0 takes no new connection\n{text}");
}

#[test]
fn a_file_that_is_not_there_or_no_configuration_is_said() {
    let out = import("/nonexistent/keepalived.conf");
    assert!(!out.status.success() && out.stdout.is_empty(), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("read /nonexistent/keepalived.conf"), "{out:?}");
    let place = Place::new("importbad").expect("make a place");
    let file = place.directory.join("k.conf");
    fs::write(&file, "vrrp_instance A {\n virtual_router_id 0\n interface eth0\n nonsense\n").expect("write");
    let out = import(file.to_str().expect("a name"));
    let told = String::from_utf8_lossy(&out.stderr);
    for wanted in
        ["k.conf:1: a `{` that is never closed", "no virtual_router_id from 1 to 255", "`nonsense` is not carried over"]
    {
        assert!(told.contains(wanted), "{wanted}\n{told}");
    }
}
