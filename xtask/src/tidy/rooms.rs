//! The room table: what each room of the agent may import. Rooms meet in `model`; none calls another.

use super::Fault;
use super::source::{Named, Source};

/// A room of `ingress-agent/src`: a folder or a file of that name.
struct Room {
    name: &'static str,
    /// Crates that it must not name.
    never: Never,
    /// Neither a clock nor `async`: time and chance are arguments.
    pure: bool,
}

enum Never {
    These(&'static [&'static str]),
    /// Everything but these (and `std`).
    AllBut(&'static [&'static str]),
}

const KUBERNETES: &str = "k8s_openapi";

const ROOMS: &[Room] = &[
    // `serde` only for its derives: facts are saved on disk, by `sources`.
    Room { name: "model", never: Never::AllBut(&["http", "ipnet", "serde"]), pure: true },
    // `xdp_ebpf` for Maglev's table sizes: its library is as pure as `model`. `regex` and `rustls_pki_types` are pure readers, too: whether an
    // annotation's expression can be used, and what a Secret that it names holds, decides what is served, and is told with the rest.
    Room {
        name: "plan",
        never: Never::AllBut(&["http", "ipnet", "regex", "rustls_pki_types", "xdp_ebpf"]),
        pure: true,
    },
    // For `sources` and `status`: it knows Kubernetes, so nobody else may call it.
    Room {
        name: "apiserver",
        never: Never::AllBut(&["anyhow", "http", "kube", "tokio", "tower_service", "tracing"]),
        pure: false,
    },
    Room { name: "sources", never: Never::These(&["aya", "aya_log", "hyper", "hyper_util"]), pure: false },
    Room { name: "dataplane", never: Never::These(&["kube", KUBERNETES, "hyper", "hyper_util"]), pure: false },
    Room { name: "proxy", never: Never::These(&["kube", KUBERNETES, "aya", "aya_log"]), pure: false },
    Room {
        name: "vip",
        never: Never::These(&["kube", KUBERNETES, "aya", "aya_log", "hyper", "hyper_util"]),
        pure: false,
    },
    Room { name: "status", never: Never::These(&["aya", "aya_log", "hyper", "hyper_util"]), pure: false },
    // A program of its own, like `agent`: it asks `sources` and `plan`, which are pure, and nobody who serves.
    Room { name: "webhook", never: Never::These(&["aya", "aya_log", "rtnetlink", "socket2", "xdp_ebpf"]), pure: false },
    // The same: it asks what the agent would make of objects, and writes text.
    Room {
        name: "migrate",
        never: Never::These(&["aya", "aya_log", "rtnetlink", "socket2", "xdp_ebpf", "hyper", "hyper_util"]),
        pure: false,
    },
    // Reads a file and writes text: it knows what Kubernetes objects look like, and nothing that runs.
    Room { name: "import", never: Never::AllBut(&["anyhow", KUBERNETES, "serde", "serde_saphyr"]), pure: false },
    Room { name: "admin", never: Never::These(&["aya", "aya_log", "kube", KUBERNETES]), pure: false },
];

/// Dependencies of the agent: a path that starts with one of these names a crate, any other a module.
const CRATES: &[&str] = &[
    "anyhow",
    "aws_lc_rs",
    "aya",
    "aya_log",
    "base64",
    "bcrypt",
    "bytes",
    "clap",
    "domain",
    "futures_util",
    "http",
    "http_body",
    "http_body_util",
    "httparse",
    "httpdate",
    "hyper",
    "hyper_util",
    "ipnet",
    "itoa",
    "k8s_openapi",
    "kube",
    "libc",
    "libmimalloc_sys",
    "md5",
    "mimalloc",
    "notify",
    "ppp",
    "prometheus_client",
    "rcgen",
    "regex",
    "regex_automata",
    "rtnetlink",
    "rustls",
    "rustls_pki_types",
    "schemars",
    "serde",
    "serde_json",
    "serde_saphyr",
    "sha_crypt",
    "smallvec",
    "socket2",
    "tokio",
    "tokio_rustls",
    "tower_service",
    "tracing",
    "tracing_subscriber",
    "x509_parser",
    "xdp_ebpf",
];

pub(crate) fn check(source: &Source) -> Vec<Fault> {
    let Some(inside) = source.path.strip_prefix("ingress-agent/src/") else { return Vec::new() };
    let first = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some(room) = ROOMS.iter().find(|room| room.name == first) else { return Vec::new() };
    // A room's own tests may build their input with what the room itself must not touch.
    let shipped: Vec<usize> = source.shipped().map(|(line, _)| line).collect();
    let mut faults = Vec::new();
    for named in source.paths() {
        if shipped.binary_search(&named.line).is_err() {
            continue;
        }
        if let Some(text) = forbidden(room, inside, &named) {
            faults.push(Fault::new(&source.path, named.line, text));
        }
    }
    if room.pure {
        faults.extend(impure(room, source));
    }
    faults
}

fn forbidden(room: &Room, inside: &str, named: &Named) -> Option<String> {
    let first = named.segments[0].as_str();
    let no = match room.never {
        Never::These(list) => list.contains(&first),
        Never::AllBut(list) => CRATES.contains(&first) && !list.contains(&first),
    };
    if no {
        return Some(format!("the room `{}` must not import `{first}`", room.name));
    }
    let other = room_named(inside, named)?;
    let known = ROOMS.iter().any(|room| room.name == other) || other == "agent";
    let shared = match room.name {
        "sources" | "status" => other == "apiserver",
        "webhook" | "migrate" => ["apiserver", "sources", "plan"].contains(&other.as_str()),
        _ => false,
    };
    (known && other != room.name && other != "model" && !shared)
        .then(|| format!("the room `{}` must not call `{other}`: rooms meet in `model`", room.name))
}

/// The first module below the crate's root that a path leads to.
fn room_named(inside: &str, named: &Named) -> Option<String> {
    let first = named.segments[0].as_str();
    if first == "crate" {
        return named.segments.get(1).cloned();
    }
    if first != "super" {
        return None;
    }
    let mut module: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let ups = named.segments.iter().take_while(|segment| *segment == "super").count();
    if ups != module.len() + named.depth {
        return None;
    }
    named.segments.get(ups).cloned()
}

fn impure(room: &Room, source: &Source) -> Vec<Fault> {
    const CLOCKS: [&str; 4] = ["async fn", ".await", "Instant::now", "SystemTime::now"];
    let mut faults = Vec::new();
    for (line, code) in source.shipped() {
        for word in CLOCKS {
            if code.contains(word) {
                faults.push(Fault::new(&source.path, line, format!("the room `{}` is pure: no `{word}`", room.name)));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text)).into_iter().map(|fault| fault.text).collect()
    }

    #[test]
    fn each_room_refuses_what_its_row_forbids() {
        for (path, text) in [
            ("ingress-agent/src/model/a.rs", "use tokio::sync::watch;"),
            ("ingress-agent/src/plan/a.rs", "fn f() { serde_json::to_string(x) }"),
            ("ingress-agent/src/sources/a.rs", "use aya::Ebpf;"),
            ("ingress-agent/src/dataplane/a.rs", "use hyper::Request;"),
            ("ingress-agent/src/proxy/a.rs", "use k8s_openapi::api;"),
            ("ingress-agent/src/vip.rs", "use {aya::Ebpf, std::net};"),
            ("ingress-agent/src/status/a.rs", "use hyper;"),
            ("ingress-agent/src/admin/a.rs", "use aya as b;"),
        ] {
            assert_eq!(faults(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn no_room_calls_another() {
        assert_eq!(faults("ingress-agent/src/proxy/a.rs", "use crate::apiserver::client;").len(), 1);
        assert!(faults("ingress-agent/src/status/a.rs", "use crate::apiserver::client;").is_empty());
        for text in ["use crate::proxy::Proxy;", "use crate::{model::Vip, vip};", "use super::super::sources::x;"] {
            assert_eq!(faults("ingress-agent/src/dataplane/a.rs", text).len(), 1, "{text}");
        }
        assert_eq!(faults("ingress-agent/src/dataplane/a.rs", "use crate::agent::start;").len(), 1);
        assert!(faults("ingress-agent/src/webhook/a.rs", "use crate::{apiserver, plan, sources};").is_empty());
        assert_eq!(faults("ingress-agent/src/webhook/a.rs", "use crate::proxy;").len(), 1);
        assert_eq!(faults("ingress-agent/src/agent/a.rs", "use crate::webhook;").len(), 0);
        assert_eq!(faults("ingress-agent/src/admin/a.rs", "use crate::webhook;").len(), 1);
    }

    #[test]
    fn a_submodule_with_a_rooms_name_is_its_own() {
        assert!(faults("ingress-agent/src/plan/mod.rs", "use self::status::x; use super::model::Vip;").is_empty());
        assert!(faults("ingress-agent/src/plan/a.rs", "use super::status::x;").is_empty());
        assert!(faults("ingress-agent/src/plan/a.rs", "mod tests { use super::super::status::x; }").is_empty());
    }

    #[test]
    fn what_is_allowed_passes() {
        assert!(
            faults("ingress-agent/src/plan/a.rs", "use std::net::IpAddr; use http::Uri; use crate::model::x;")
                .is_empty()
        );
        assert!(faults("ingress-agent/src/agent.rs", "use crate::{proxy, dataplane}; use aya::Ebpf;").is_empty());
    }

    #[test]
    fn pure_rooms_have_no_clock_and_no_async() {
        for text in ["async fn f() {}", "let a = Instant::now();", "let a = SystemTime::now();"] {
            assert_eq!(faults("ingress-agent/src/plan/a.rs", text).len(), 1, "{text}");
            assert!(faults("ingress-agent/src/vip/a.rs", text).is_empty(), "{text}");
        }
    }
}
