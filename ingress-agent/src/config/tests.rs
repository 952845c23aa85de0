//! What is typed against what is meant, and mistakes all at once.

use std::net::IpAddr;

use clap::Parser;

use super::*;
use crate::args::{Args, Command};
use crate::checks::Probe;
use crate::model::snapshot::ObjectName;
use crate::sources::kube::Namespaces;
use crate::vip::Checksum;

fn parse(more: &[&str]) -> Result<Config, Vec<String>> {
    let mut line = vec!["sluicegate", "run"];
    line.extend(more);
    match Args::try_parse_from(line).expect("the command line itself is well-formed").command {
        Command::Run(run) => Config::parse(&run),
        other => panic!("{other:?}"),
    }
}

#[test]
fn least_that_must_be_said() {
    let c = parse(&["--manifests", "/", "--interface", "eth0", "--node", "edge-1"]).expect("valid");
    assert_eq!(c.vips.interface, "eth0");
    assert_eq!((c.plan.http_port, c.plan.https_port), (80, 443));
    assert_eq!(c.dataplane.snat_ports, 1024..=65535);
    assert_eq!(c.dataplane.max_flows, 1_000_000);
    assert_eq!(c.plan.hold, Hold::All);
    assert!(c.plan.watch_services_without_class && !c.plan.external_ips);
    assert_eq!(c.drain_timeout, Duration::from_secs(30));
    assert!(c.proxy.workers >= 1);
    assert!(!c.plan.limit_drop && !c.dataplane.limit_drop && c.limit_drop_exempt.is_empty());
}

#[test]
fn everything_said() {
    let c = parse(&[
        "--manifests=/",
        "--interface=eth0,eth1",
        "--interface=eth2",
        "--node=edge-1.example",
        "--ingress-vip=203.0.113.1",
        "--ingress-vip=2001:db8::1",
        "--http-port=8080",
        "--https-port=8443",
        "--controller-class=k8s.io/ingress-nginx",
        "--watch-ingress-without-class",
        "--watch-services-without-class=false",
        "--external-ips",
        "--ingress-pool=edge",
        "--tcp-services-configmap=a/b",
        "--udp-services-configmap=a/c",
        "--default-ssl-certificate=a/d.e",
        "--default-backend-service=a/f",
        "--snat-address=10.0.0.1,fd00::1",
        "--snat-ports=20000-30000",
        "--max-flows=2_000_000",
        "--max-frontends=5",
        "--max-backends=6",
        "--ring-slots=7",
        "--hash-seed=0xDEADbeef",
        "--pin-path=/sys/fs/bpf/x",
        "--xdp-mode=generic",
        "--hold-vips=203.0.113.1,2001:db8::1",
        "--vip-interface=bond0",
        "--sync-peer=10.0.0.2,fd00::2",
        "--sync-port=7000",
        "--sync-key-file=/etc/key",
        "--sync-rate=1000",
        "--admin-address=off",
        "--admin-socket=/tmp/s",
        "--workers=3",
        "--access-log=/var/log/a",
        "--access-log-format=combined",
        "--drain-timeout=1500ms",
        "--proc-sys=/host/proc/sys",
        "--enable-limit-drop",
        "--limit-drop-exempt=198.51.100.7,10.1.2.3/8",
        "--limit-drop-exempt=2001:db8::/32",
    ])
    .expect("valid");
    assert_eq!(c.dataplane.interfaces, ["eth0", "eth1", "eth2"]);
    assert_eq!(c.plan.default_certificate, Some(ObjectName::new("a", "d.e")));
    assert_eq!(c.sources.udp_services, Some(ObjectName::new("a", "c")));
    assert!(c.plan.classes.without_class && !c.plan.watch_services_without_class && c.plan.external_ips);
    assert_eq!((c.plan.ingress_pool, c.plan.vip_interface.as_str()), (Some(ObjectName::new("", "edge")), "bond0"));
    assert_eq!(c.plan.snat, ["10.0.0.1", "fd00::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert_eq!((c.dataplane.hash_seed, c.dataplane.xdp_mode), (Some(0xdead_beef), XdpMode::Generic));
    assert_eq!(c.plan.hold, Hold::Only(c.plan.ingress_vips.iter().copied().collect()));
    assert_eq!((c.vips.interface.as_str(), c.admin.address, c.proxy.workers), ("bond0", None, 3));
    assert_eq!(c.proxy.access_log, AccessLog::File("/var/log/a".into()));
    assert_eq!(c.drain_timeout, Duration::from_millis(1500));
    assert!(c.plan.limit_drop && c.dataplane.limit_drop);
    let exempt: Vec<_> = c.limit_drop_exempt.iter().map(ToString::to_string).collect();
    assert_eq!(exempt, ["198.51.100.7/32", "10.0.0.0/8", "2001:db8::/32"]);
    let sync = c.dataplane.sync.expect("it has peers");
    assert_eq!(sync.peers, ["10.0.0.2", "fd00::2"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert_eq!((sync.port, sync.key_file.to_str(), sync.rate), (7000, Some("/etc/key"), 1000));
    assert_eq!(
        (c.dataplane.proc_sys.to_str(), c.vips.proc_sys.to_str()),
        (Some("/host/proc/sys"), Some("/host/proc/sys"))
    );
}

#[test]
fn a_cluster_instead_of_a_directory() {
    let run = |more: &[&str]| {
        let mut line = vec!["--interface=eth0", "--node=n"];
        line.extend(more);
        parse(&line).map(|c| c.source)
    };
    let Ok(SourceConfig::Cluster(c)) = run(&["--kubeconfig=/dev/null", "--default-ssl-certificate=a/b"]) else {
        panic!("no cluster");
    };
    assert_eq!((c.kubeconfig.as_deref(), c.namespace.as_str()), (Some("/dev/null".as_ref()), "sluicegate-system"));
    assert_eq!(c.state_dir.as_deref(), Some("/var/lib/sluicegate".as_ref()));
    assert_eq!((c.namespaces, c.default_certificate), (Namespaces::All, Some(ObjectName::new("a", "b"))));
    // In a pod.
    let inside =
        ["--kubernetes-service-host=10.96.0.1", "--watch-namespace=a,b", "--watch-namespace=a", "--state-dir=off"];
    let Ok(SourceConfig::Cluster(c)) = run(&inside) else { panic!("no cluster") };
    assert_eq!((c.kubeconfig, c.state_dir), (None, None));
    assert_eq!(c.namespaces.named(), ["a", "b"]);
    let Ok(SourceConfig::Cluster(c)) = run(&["--kubeconfig=/dev/null", "--watch-namespace-selector=a in (b)"]) else {
        panic!("no cluster")
    };
    assert_eq!(c.namespaces, Namespaces::Labelled("a in (b)".to_owned()));
    let both = run(&["--kubeconfig=/dev/null", "--watch-namespace=a", "--watch-namespace-selector=a=b"]).unwrap_err();
    assert_eq!(both, ["--watch-namespace-selector excludes --watch-namespace: namespaces are chosen by one of them"]);
    // A directory is said, wherever the agent runs.
    assert_eq!(run(&["--kubernetes-service-host=10.96.0.1", "--manifests=/"]), Ok(SourceConfig::Manifests("/".into())));
}

/// ingress-nginx's flags mean what they mean there, its default included.
#[test]
fn whose_ingresses_are_ours() {
    let rule = |more: &[&str]| {
        let line = [&["--manifests=/", "--interface=eth0", "--node=n"], more].concat();
        parse(&line).map(|c| c.plan.classes)
    };
    let nginx = "--controller-class=k8s.io/ingress-nginx";
    assert_eq!(rule(&[]).unwrap().annotation, None);
    assert_eq!(rule(&[nginx]).unwrap().annotation.as_deref(), Some("nginx"));
    let front = rule(&[nginx, "--ingress-class=front", "--ingress-class-by-name"]).unwrap();
    assert_eq!((front.annotation.as_deref(), front.by_name), (Some("front"), true));
    assert!(rule(&[nginx, "--ingress-class-by-name"]).unwrap().by_name, "by the name nginx");
    let mistakes = rule(&["--ingress-class-by-name"]).unwrap_err();
    assert!(mistakes.len() == 1 && mistakes[0].contains("needs --ingress-class"), "{mistakes:?}");
}

#[test]
fn mistakes_are_reported_together() {
    let mistakes =
        parse(&["--http-port=0", "--snat-ports=9-1", "--xdp-mode=fast", "--drain-timeout=soon"]).unwrap_err();
    let wanted =
        ["--kubeconfig", "--interface", "--http-port 0", "--snat-ports 9-1", "--xdp-mode fast", "--drain-timeout soon"];
    for w in wanted {
        assert!(mistakes.iter().any(|m| m.starts_with(w)), "{w}: {mistakes:?}");
    }
    assert_eq!(mistakes.len(), wanted.len(), "{mistakes:?}");
}

#[test]
fn single_mistakes() {
    #[track_caller]
    fn check(option: &str, says: &str) {
        let mut line = vec!["--manifests=/", "--node=n", option];
        if !option.starts_with("--interface") {
            line.push("--interface=eth0");
        }
        let mistakes = parse(&line).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(says), "{mistakes:?}");
    }
    check("--interface=a/b", "is not a name that an interface can have");
    check("--interface=abcdefghijklmnop", "is not a name that an interface can have");
    check("--interface=eth0,eth0", "is given twice");
    check("--https-port=80", "the same as --http-port");
    check("--ingress-vip=224.0.0.1", "is not an address that a client can reach");
    check("--ingress-vip=::ffff:10.0.0.1", "IPv6's clothes");
    check("--ingress-vip=300.0.0.1", "is not an IP address");
    check("--snat-address=10.0.0.1,10.0.0.2", "more than one IPv4");
    check("--tcp-services-configmap=nothing", "namespace/name");
    check("--ingress-pool=a/b", "is not an object's name");
    check("--hash-seed=xyz", "hexadecimal");
    check("--pin-path=here", "absolute");
    check("--max-flows=0", "is not a number from 1");
    check("--max-flows=-1", "is not a number from 1");
    check("--sync-port=0", "is not a port");
    check("--sync-rate=99", "is not a number from 100");
    check("--hold-vips=some", "is not an IP address");
    check("--admin-address=localhost", "is not an address and port");
    check("--kubeconfig=/dev/null", "excludes --kubeconfig");
    check("--workers=0", "is not a number from 1");
    check("--access-log-format=xml", "is none of json, combined");
    check("--drain-timeout=99999999999999999999s", "up to a day");
}

#[test]
fn mistakes_about_a_cluster() {
    #[track_caller]
    fn check(options: &[&str], says: &str) {
        let mut line = vec!["--interface=eth0", "--node=n"];
        line.extend(options);
        let mistakes = parse(&line).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(says), "{mistakes:?}");
    }
    check(&[], "is missing: the kubeconfig of the cluster to watch, or --manifests");
    check(&["--kubeconfig=/nonexistent"], "/nonexistent: No such file");
    check(&["--kubeconfig=/dev/null", "--namespace=A"], "is not the name of a namespace");
    check(&["--kubeconfig=/dev/null", "--watch-namespace=a/b"], "is not the name of a namespace");
    check(&["--kubeconfig=/dev/null", "--state-dir=here"], "absolute");
}

#[test]
fn sharing_flows_takes_a_key_and_a_seed() {
    let mistakes = parse(&["--manifests=/", "--interface=eth0", "--node=n", "--sync-peer=10.0.0.2"]).unwrap_err();
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(mistakes[0].contains("--sync-key-file is missing") && mistakes[1].contains("--hash-seed is missing"));
    let alone = parse(&["--manifests=/", "--interface=eth0", "--node=n", "--sync-key-file=/nonexistent"]);
    assert_eq!(alone.expect("it is off").dataplane.sync, None);
}

#[test]
fn secret_seed_is_not_repeated() {
    let mistakes = parse(&["--manifests=/", "--interface=eth0", "--node=n", "--hash-seed=s3cr3t"]).unwrap_err();
    assert!(!mistakes[0].contains("s3cr3t"), "{mistakes:?}");
}

const RUN: [&str; 3] = ["--manifests=/", "--interface=eth0", "--node=a"];

fn elected(more: &[&str]) -> Result<Config, Vec<String>> {
    parse(&[&RUN[..], &["--vip-mode=vrrp"], more].concat())
}

#[test]
fn elections_are_off_until_asked_for() {
    let c = parse(&RUN).expect("valid");
    assert_eq!((c.vips.vrrp, c.plan.election), (None, None));
    let c = elected(&[]).expect("valid");
    let (vrrp, election) = (c.vips.vrrp.expect("elections"), c.plan.election.expect("elections"));
    assert_eq!(
        (vrrp.interval, vrrp.preempt, vrrp.checksum),
        (Duration::from_millis(100), true, Checksum::WithPseudoHeader)
    );
    assert_eq!((election.vrids, election.priority), (1..=255, None));
}

#[test]
fn elections_as_keepalived_users_say_them() {
    let c = elected(&[
        "--vrrp-vrid=51=10.0.0.1/24,10.0.0.2",
        "--vrrp-vrid=51=fe80::1,fd00::1",
        "--vrrp-priority=1",
        "--vrrp-version=2",
        "--vrrp-interval-ms=1000",
        "--vrrp-auth-pass=s3cret",
        "--vrrp-peer=10.0.0.7,fe80::7",
        "--vrrp-nopreempt",
        "--vrrp-preempt-delay=5s",
        "--vrrp-node=a,b",
        "--vrrp-vrids=60-70",
        "--vrrp-check=-50=exec:/bin/check -x",
        "--vrrp-check=0=http://127.0.0.1:8080/healthz?a=b",
    ]);
    let c = c.expect("valid");
    let (vrrp, election) = (c.vips.vrrp.expect("elections"), c.plan.election.expect("elections"));
    let lists: Vec<usize> = election.fixed.iter().map(|f| f.addresses.len()).collect();
    assert_eq!((lists, election.fixed[0].vrid, election.priority, election.vrids), (vec![2, 2], 51, Some(1), 60..=70));
    assert_eq!((vrrp.password, vrrp.peers.len(), vrrp.preempt), (Some(*b"s3cret\0\0"), 2, false));
    assert_eq!(election.nodes, ["a", "b"]);
    assert_eq!(c.checks.iter().map(|c| c.weight).collect::<Vec<_>>(), [-50, 0]);
    assert_eq!(c.checks[0].probe, Probe::Command { program: "/bin/check".into(), arguments: vec!["-x".into()] });
    assert_eq!(c.checks[1].probe, Probe::Http { authority: "127.0.0.1:8080".into(), path: "/healthz?a=b".into() });
}

#[test]
fn signed_adverts_as_keepalived_users_say_them() {
    let auth = |more: &[&str]| {
        let c = elected(&[&["--vrrp-auth-hmac-key=2=/new,1=/old"], more].concat()).expect("valid");
        c.vips.vrrp.expect("elections").auth.expect("signed")
    };
    let plain = auth(&[]);
    let keys: Vec<_> = plain.keys.iter().map(|k| (k.id, k.path.to_str())).collect();
    assert_eq!(keys, [(2, Some("/new")), (1, Some("/old"))]);
    assert_eq!((plain.permissive, plain.window), (false, Some(Duration::from_secs(5))));
    // keepalived's default: three intervals, or five seconds.
    assert_eq!(auth(&["--vrrp-interval-ms=3000"]).window, Some(Duration::from_secs(9)));
    assert_eq!(auth(&["--vrrp-auth-hmac-window=30s"]).window, Some(Duration::from_secs(30)));
    assert_eq!(auth(&["--vrrp-auth-hmac-window=none"]).window, None);
    assert!(auth(&["--vrrp-auth-hmac-mode=permissive"]).permissive);
    let two = elected(&["--vrrp-version=2", "--vrrp-interval-ms=1000", "--vrrp-auth-hmac-key=1=/key"]);
    assert!(two.expect_err("version 2")[0].contains("is of VRRP version 3"));
}

#[test]
fn mistakes_about_elections_are_told_all_at_once() {
    for (typed, part) in [
        ("--vrrp-interval-ms=5", "is not a number from 10 to 40950"),
        ("--vrrp-interval-ms=15", "is not a multiple of 10"),
        ("--vrrp-version=4", "is none of 2, 3"),
        ("--vrrp-priority=256", "is not a number from 1 to 255"),
        ("--vrrp-vrid=0=10.0.0.1", "does not begin with a VRID"),
        ("--vrrp-vrid=7", "is not of the form"),
        ("--vrrp-vrid=7=10.0.0.x", "10.0.0.x is not an IP address"),
        ("--vrrp-vrids=9-3", "ends before it begins"),
        ("--vrrp-vrids=0-3", "is not a range"),
        ("--vrrp-peer=fd00::1", "is not link-local"),
        ("--vrrp-auth-pass=secret", "is of VRRP version 2"),
        ("--vrrp-auth-hmac-key=/etc/key", "is not of the form 1=/"),
        ("--vrrp-auth-hmac-key=0=/etc/key", "does not begin with an id from 1 to 255"),
        ("--vrrp-auth-hmac-key=256=/etc/key", "does not begin with an id from 1 to 255"),
        ("--vrrp-auth-hmac-key=1=", "names no file"),
        ("--vrrp-auth-hmac-key=1=/a,1=/b", "has an id twice"),
        ("--vrrp-auth-hmac-mode=monotonic", "is none of enforce, permissive"),
        ("--vrrp-auth-hmac-window=301s", "from 1s to 300s, nor none"),
        ("--vrrp-auth-hmac-window=500ms", "from 1s to 300s, nor none"),
        ("--vrrp-check=50=exec:/bin/true", "weight from -253 to 0"),
        ("--vrrp-check=-50=exec:true", "absolute path"),
        ("--vrrp-check=-50=https://a/b", "is not a URL of the form http://"),
    ] {
        let mistakes = elected(&[typed]).expect_err(typed);
        assert!(mistakes.len() == 1 && mistakes[0].contains(part), "{typed}: {mistakes:?}");
    }
    let mode = parse(&[&RUN[..], &["--vip-mode=keepalived"]].concat()).expect_err("no such mode");
    assert!(mode[0].contains("is none of static, vrrp"), "{mode:?}");
    let twice = elected(&["--vrrp-vrid=7=10.0.0.1", "--vrrp-vrid=7=10.0.0.2", "--vrrp-vrid=8=10.0.0.1"]);
    assert_eq!(twice.expect_err("twice").len(), 2);
    let seconds = elected(&["--vrrp-version=2"]).expect_err("100 ms in version 2");
    assert!(seconds[0].contains("whole seconds"), "{seconds:?}");
}
