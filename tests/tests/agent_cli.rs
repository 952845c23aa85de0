//! The command line of the real binary, without root's powers and without a network: mistakes all at once, exit codes, and
//! what each command says when it cannot do its work.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use ingress_tests::edge::sibling;

fn sluicegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(sibling("sluicegate").expect("the agent's binary"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLUICEGATE_")) {
        command.env_remove(name);
    }
    command
}

#[track_caller]
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

#[test]
fn flags_of_ingress_nginx_that_are_not_there_are_explained() {
    for (flag, why) in [
        ("--election-id=ingress-nginx", "--election-id of ingress-nginx is not needed: Leases have names of their own"),
        (
            "--validating-webhook=:8443",
            "--validating-webhook of ingress-nginx is not needed: `sluicegate webhook` does that",
        ),
        ("--healthz-port=10254", "--healthz-port of ingress-nginx is not needed: probes are `/livez` and `/readyz`"),
        (
            "--maxmind-license-key=x",
            "--maxmind-license-key of ingress-nginx is not supported; instead: look the client's",
        ),
    ] {
        let (code, _, err) = run(&mut sluicegate(&["run", "--interface=eth0", flag]));
        assert!(code == 2 && err.contains("unexpected argument") && err.contains(why), "{err}");
    }
    let (_, _, err) = run(&mut sluicegate(&["run", "--elections=1"]));
    assert!(!err.contains("ingress-nginx"), "{err}");
    for (flags, mistake) in [
        (
            &["--manifests=/", "--publish-status-address=edge"][..],
            "--publish-status-address means something in a cluster only",
        ),
        (&["--publish-status-address=a b"], "--publish-status-address a b: is neither an IP address nor a DNS name"),
        (
            &["--annotations-prefix=sluicegate.io"],
            "--annotations-prefix sluicegate.io: is the prefix of annotations of another",
        ),
    ] {
        let (code, _, err) = run(&mut sluicegate(&[&["run", "--interface=eth0"], flags].concat()));
        assert!(code == 2 && err.contains(mistake), "{err}");
    }
}

#[test]
fn all_mistakes_are_printed_at_once() {
    let (code, out, err) = run(&mut sluicegate(&[
        "run",
        "--manifests=/does/not/exist",
        "--interface=eth0,way-too-long-a-name",
        "--http-port=0",
        "--ingress-vip=0.0.0.0",
        "--snat-ports=5",
        "--xdp-mode=warp",
        "--hash-seed=s3cr3t",
        "--access-log-format=xml",
        "--drain-timeout=never",
        "--admin-address=here",
        "--workers=0",
        "--tcp-services-configmap=x",
    ]));
    assert_eq!((code, out.as_str()), (2, ""));
    let wanted = [
        "--manifests /does/not/exist: No such file or directory",
        "--interface way-too-long-a-name: is not a name that an interface can have",
        "--http-port 0: is not a port (1 to 65535)",
        "--ingress-vip 0.0.0.0: is not an address that a client can reach",
        "--snat-ports 5: is not a range such as 1024-65535",
        "--xdp-mode warp: is none of auto, native, generic",
        "--hash-seed is not 1 to 16 hexadecimal digits",
        "--access-log-format xml: is none of json, combined",
        "--drain-timeout never: is not a time such as 500ms, 30s or 2m",
        "--admin-address here: is not an address and port",
        "--workers 0: is not a number from 1 to 1024",
        "--tcp-services-configmap x: is not of the form namespace/name",
    ];
    for line in wanted {
        assert!(err.lines().any(|l| l.starts_with(&format!("sluicegate: {line}"))), "{line}\nnot in\n{err}");
    }
    assert_eq!(err.lines().count(), wanted.len() + 1, "{err}");
    assert!(!err.contains("s3cr3t"), "a secret is not repeated");
}

#[test]
fn mistakes_in_the_environment_name_the_option() {
    let mut command = sluicegate(&["run", "--manifests=/", "--interface=eth0"]);
    let (code, _, err) = run(command.env("SLUICEGATE_MAX_FLOWS", "many").env("SLUICEGATE_NODE", "A b"));
    assert_eq!(code, 2);
    assert!(err.contains("--max-flows many:") && err.contains("--node A b:"), "{err}");
}

#[test]
fn missing_and_unknown_options() {
    let (code, _, err) = run(&mut sluicegate(&["run"]));
    assert_eq!(code, 2);
    assert!(err.contains("--kubeconfig is missing") && err.contains("--interface is missing"), "{err}");
    let (code, _, err) = run(&mut sluicegate(&["run", "--interfcae=eth0"]));
    assert_eq!(code, 2);
    assert!(err.contains("--interfcae") && err.contains("--interface"), "{err}");
    let (code, _, err) = run(&mut sluicegate(&["version", "--log-format=xml", "--log=a=b=c"]));
    assert_eq!(code, 2);
    assert!(err.contains("--log-format xml") && err.contains("--log a=b=c"), "{err}");
}

#[test]
fn version_names_the_schema() {
    let (code, out, _) = run(&mut sluicegate(&["version"]));
    assert_eq!(code, 0);
    let expected = format!("sluicegate {}, pinned maps of schema {}\n", env!("CARGO_PKG_VERSION"), xdp_ebpf::SCHEMA);
    assert_eq!(out, expected);
}

#[test]
fn without_root_it_says_so_at_once() {
    const NOBODY: u32 = 65_534;
    for arguments in [&["run", "--manifests=/", "--interface=eth0"][..], &["uninstall"]] {
        let copy = accessible_copy();
        let mut command = Command::new(&copy.0);
        command.args(arguments).uid(NOBODY).gid(NOBODY);
        let (code, _, err) = run(&mut command);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("needs root") && err.contains("sudo"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

/// The build directory may be closed to others.
fn accessible_copy() -> Removed {
    use std::os::unix::fs::PermissionsExt;
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("sluicegate-cli-{}-{number}", std::process::id()));
    std::fs::copy(sibling("sluicegate").expect("the agent's binary"), &path).expect("copy it");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("let others run it");
    Removed(path)
}

struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn without_an_agent_the_questions_say_so() {
    let nowhere = "--admin-socket=/does/not/exist.sock";
    for arguments in [&["status", nowhere][..], &["explain", "https://a.example/", nowhere]] {
        let (code, out, err) = run(&mut sluicegate(arguments));
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("no agent answers on /does/not/exist.sock") && err.contains("sluicegate run"), "{err}");
    }
}

#[test]
fn questions_that_make_no_sense_are_refused_before_they_are_asked() {
    #[track_caller]
    fn check(arguments: &[&str], says: &[&str]) {
        let (code, _, err) = run(&mut sluicegate(&[&["explain"], arguments].concat()));
        assert_eq!(code, 2, "{err}");
        for line in says {
            assert!(err.contains(line), "{line}\nnot in\n{err}");
        }
    }
    check(&["icmp", "1.2.3.4", "x:1"], &["icmp: is neither tcp nor udp", "1.2.3.4: is not an address", "x:1: is not"]);
    check(&["tcp", "1.2.3.4:5"], &["CLIENT:PORT VIP:PORT"]);
    check(&["tcp", "1.2.3.4:5", "[::1]:5"], &["different families"]);
    check(&["tcp", "1.2.3.4:0", "1.2.3.4:5"], &["1.2.3.4:0: is not an address and port"]);
    check(&["shop.example/cart", "--header=oops", "-o=xml"], &["is not a URL", "--header oops", "--output xml"]);
}
