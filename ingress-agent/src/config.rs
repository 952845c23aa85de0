//! What is meant: every value parsed, no `Option` that has a default, and all mistakes at once. Reads no cluster and
//! touches no kernel; whether an interface exists is found out by the room that needs it.

mod metrics;

mod migrate;

mod rules;

mod uplink;

mod value;

mod vrrp;

mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::admin::AdminOptions;
use crate::admin::query::NginxNames;
use crate::args::{RunArgs, UninstallArgs};
use crate::checks::Check;
use crate::dataplane::{DataplaneOptions, SyncOptions, XdpMode};
use crate::plan::{Hold, PlanOptions};
use crate::proxy::{AccessLog, AccessLogFormat, ProxyOptions};
use crate::sources::SourceOptions;
use crate::sources::kube::{KubeOptions, Namespaces};
use crate::status::{ClearOptions, StatusOptions};
use crate::vip::VipOptions;
use value::Reader;

/// The meaning of `sluicegate run …`: what each room is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub source: SourceConfig,
    pub sources: SourceOptions,
    /// `None`: there is no cluster to report to.
    pub status: Option<StatusOptions>,
    /// Who resolves Services of type `ExternalName`; empty: whom the machine asks. Nobody, where the plan's options say so.
    pub dns_servers: Vec<SocketAddr>,
    pub plan: PlanOptions,
    /// At least one interface, without repetition.
    pub dataplane: DataplaneOptions,
    /// At least one worker.
    pub proxy: ProxyOptions,
    pub vips: VipOptions,
    /// What else must work here before this node holds addresses.
    pub checks: Vec<Check>,
    pub admin: AdminOptions,
    /// `None`: metrics have our own names only.
    pub nginx_metrics: Option<NginxNames>,
    /// Clients that are never dropped for exceeding limits.
    pub limit_drop_exempt: Vec<IpNet>,
    pub drain_timeout: Duration,
}

/// Where the facts come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// A directory.
    Manifests(PathBuf),
    Cluster(KubeOptions),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Config {
    /// The configuration, or every mistake in it.
    pub fn parse(args: &RunArgs) -> Result<Self, Vec<String>> {
        let mut r = Reader::default();
        let interfaces = interfaces(&mut r, &args.interfaces);
        let vip_interface = match &args.vip_interface {
            Some(name) => r.read("--vip-interface", name, value::interface).unwrap_or_default(),
            None => interfaces.first().cloned().unwrap_or_default(),
        };
        let by_zone = args.enable_topology_aware_routing;
        let sources = SourceOptions { zones: by_zone, ..rules::sources(&mut r, &args.rules) };
        let drain_timeout = r.read("--drain-timeout", &args.drain_timeout, value::duration).unwrap_or_default();
        let elected = vrrp::parse(&mut r, &args.vrrp, drain_timeout);
        let election = elected.as_ref().map(|e| e.plan.clone());
        let plan = PlanOptions { election, ..plan(&mut r, args, &vip_interface) };
        let source = source(&mut r, args, &plan);
        let nginx_metrics = metrics::parse(&mut r, args);
        let mut config = Self {
            status: status(&mut r, args, &source, &plan.node),
            source,
            sources,
            dns_servers: r.list("--dns-server", &args.dns_servers, value::socket_address),
            plan,
            dataplane: dataplane(&mut r, args, interfaces),
            proxy: ProxyOptions {
                meters: nginx_metrics.as_ref().map(|n| Arc::clone(&n.bounds)),
                ..proxy(&mut r, args)
            },
            vips: VipOptions {
                interface: vip_interface,
                proc_sys: proc_sys(&mut r, args),
                vrrp: elected.as_ref().map(|e| e.vips.clone()),
            },
            checks: elected.map(|e| e.checks).unwrap_or_default(),
            admin: admin(&mut r, args),
            nginx_metrics,
            limit_drop_exempt: limit_drop_exempt(&mut r, args),
            drain_timeout,
        };
        config.plan.alone = config.dataplane.sync.is_none();
        r.finish(config)
    }
}

/// The meaning of `sluicegate uninstall`, as far as the cluster is concerned; `None`: there is none.
pub fn clear(args: &UninstallArgs) -> Result<Option<ClearOptions>, Vec<String>> {
    let mut r = Reader::default();
    let options = rules::clear(&mut r, &args.cluster);
    r.finish(options)
}

/// The format of `-o`, and of `--log-format`.
pub fn format(option: &str, text: &str) -> Result<Format, Vec<String>> {
    let mut r = Reader::default();
    let format = r.choose(option, text, &[("text", Format::Text), ("json", Format::Json)]).unwrap_or(Format::Text);
    r.finish(format)
}

/// Exactly one source: two would have to agree on whose objects win.
fn source(r: &mut Reader, args: &RunArgs, plan: &PlanOptions) -> SourceConfig {
    let manifests_in = args.manifests.as_deref().filter(|directory| !directory.is_empty());
    let kubeconfig = match manifests_in {
        Some(directory) => {
            if args.cluster.kubeconfig.as_ref().is_some_and(|path| !path.is_empty()) {
                r.mistake("--manifests", "excludes --kubeconfig: facts come from one of them");
            }
            if rules::namespaces(r, &args.cluster) != Namespaces::All {
                r.mistake(
                    "--manifests",
                    "excludes --watch-namespace and --watch-namespace-selector: all in it is served",
                );
            }
            return SourceConfig::Manifests(manifests(r, directory));
        }
        None => rules::kubeconfig(r, &args.cluster, ", or --manifests with a directory to read instead"),
    };
    SourceConfig::Cluster(KubeOptions {
        kubeconfig,
        namespace: r.read("--namespace", &args.cluster.namespace, value::namespace).unwrap_or_default(),
        namespaces: rules::namespaces(r, &args.cluster),
        state_dir: match args.state_dir.as_str() {
            "off" => None,
            text => r.read("--state-dir", text, value::absolute_path),
        },
        default_certificate: plan.default_certificate.clone(),
        classes: plan.classes.clone(),
        claims_only: false,
    })
}

/// Who reads a cluster reports to it.
fn status(r: &mut Reader, args: &RunArgs, source: &SourceConfig, node: &str) -> Option<StatusOptions> {
    let option = "--publish-status-address";
    let published = r.list(option, &args.publish_status_addresses, value::published);
    let SourceConfig::Cluster(kube) = source else {
        if !published.is_empty() {
            r.mistake(option, "means something in a cluster only");
        }
        return None;
    };
    Some(StatusOptions {
        kubeconfig: kube.kubeconfig.clone(),
        namespace: kube.namespace.clone(),
        watch_namespaces: kube.namespaces.named().to_vec(),
        node: node.to_owned(),
        published,
    })
}

fn manifests(r: &mut Reader, text: &str) -> PathBuf {
    let path = PathBuf::from(text);
    match std::fs::metadata(&path) {
        Ok(m) if m.is_dir() => {}
        Ok(_) => r.mistake("--manifests", format!("{text}: is not a directory")),
        Err(e) => r.mistake("--manifests", format!("{text}: {e}")),
    }
    path
}

fn interfaces(r: &mut Reader, typed: &[String]) -> Vec<String> {
    if typed.is_empty() {
        r.mistake("--interface", "is missing: the interface on which clients arrive");
    }
    let mut interfaces = Vec::new();
    for name in typed.iter().filter(|name| *name != "auto") {
        let Some(name) = r.read("--interface", name, value::interface) else { continue };
        if interfaces.contains(&name) {
            r.mistake("--interface", format!("{name}: is given twice"));
            continue;
        }
        interfaces.push(name);
    }
    if typed.iter().any(|name| name == "auto") {
        match uplink::interfaces() {
            Ok(found) => interfaces.extend(found.into_iter().filter(|name| !typed.contains(name))),
            Err(why) => r.mistake("--interface", format!("auto: {why}")),
        }
    }
    interfaces
}

fn proc_sys(r: &mut Reader, args: &RunArgs) -> PathBuf {
    r.read("--proc-sys", &args.proc_sys, value::absolute_path).unwrap_or_default()
}

fn node(r: &mut Reader, typed: Option<&str>) -> String {
    let text = match typed {
        Some(text) => text.to_owned(),
        None => match std::fs::read_to_string("/proc/sys/kernel/hostname") {
            Ok(name) => name.trim().to_owned(),
            Err(e) => {
                r.mistake("--node", format!("is missing, and the host name cannot be read: {e}"));
                return String::new();
            }
        },
    };
    r.read("--node", &text, value::node_name).unwrap_or_default()
}

fn plan(r: &mut Reader, args: &RunArgs, vip_interface: &str) -> PlanOptions {
    let snat = r.list("--snat-address", &args.snat_addresses, value::vip);
    for (family, is) in [("IPv4", true), ("IPv6", false)] {
        if snat.iter().filter(|a| a.is_ipv4() == is).count() > 1 {
            r.mistake("--snat-address", format!("has more than one {family} address"));
        }
    }
    PlanOptions {
        node: node(r, args.node.as_deref()),
        vip_interface: vip_interface.to_owned(),
        default_certificate: r.object("--default-ssl-certificate", args.default_ssl_certificate.as_ref()),
        default_backend: r.object("--default-backend-service", args.default_backend_service.as_ref()),
        snat,
        hold: hold(r, &args.hold_vips),
        by_zone: args.enable_topology_aware_routing,
        // A directory has one reader. In a cluster, Services without a class may be another controller's, and two that answer
        // for one Service fight over its status.
        ..rules::plan(r, &args.rules, args.manifests.is_some())
    }
}

fn hold(r: &mut Reader, text: &str) -> Hold {
    match text {
        "all" => Hold::All,
        "none" => Hold::None,
        "" => {
            r.mistake("--hold-vips", "is empty; all, none or a list of addresses is wanted");
            Hold::None
        }
        list => {
            let items: Vec<_> = list.split(',').map(str::to_owned).collect();
            Hold::Only(r.list("--hold-vips", &items, value::vip).into_iter().collect())
        }
    }
}

fn dataplane(r: &mut Reader, args: &RunArgs, interfaces: Vec<String>) -> DataplaneOptions {
    let mut number = |option, text: &str, most| r.read(option, text, |t| value::number(t, 1, most)).unwrap_or(1);
    let max_flows = number("--max-flows", &args.max_flows, 1 << 28);
    let max_frontends = number("--max-frontends", &args.max_frontends, 1 << 20);
    let max_backends = number("--max-backends", &args.max_backends, 1 << 24);
    let ring_slots = number("--ring-slots", &args.ring_slots, 1 << 30);
    let max_affinity_clients = number("--max-affinity-clients", &args.max_affinity_clients, 1 << 24);
    let seed = args.hash_seed.as_ref().filter(|t| !t.is_empty());
    let modes = [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
    DataplaneOptions {
        interfaces,
        pin_path: r.read("--pin-path", &args.pin_path, value::absolute_path).unwrap_or_default(),
        proc_sys: PathBuf::from(&args.proc_sys),
        xdp_mode: r.choose("--xdp-mode", &args.xdp_mode, &modes).unwrap_or_default(),
        max_flows,
        max_frontends,
        max_backends,
        ring_slots,
        max_affinity_clients,
        hash_seed: seed.and_then(|t| r.read_secret("--hash-seed", t, value::seed)),
        sync: sync(r, args),
        limit_drop: args.rules.enable_limit_drop,
        snat_ports: r.read("--snat-ports", &args.snat_ports, value::port_range).unwrap_or(1024..=65535),
        ..DataplaneOptions::default()
    }
}

/// Peers switch it on.
fn sync(r: &mut Reader, args: &RunArgs) -> Option<SyncOptions> {
    let peers = r.list("--sync-peer", &args.sync_peers, value::node_address);
    let port = r.read("--sync-port", &args.sync_port, value::port).unwrap_or(1);
    let rate = r.read("--sync-rate", &args.sync_rate, |t| value::number(t, 100, 10_000_000)).unwrap_or(1);
    let key_file = args.sync_key_file.as_ref().filter(|t| !t.is_empty());
    if peers.is_empty() {
        return None;
    }
    if key_file.is_none() {
        r.mistake("--sync-key-file", "is missing: with --sync-peer, the file with the key that all edges share");
    }
    // Without a seed of the cluster's the tables differ, and what is too young to be shared is lost with its edge.
    if args.hash_seed.as_ref().is_none_or(String::is_empty) {
        r.mistake("--hash-seed", "is missing: with --sync-peer, the same seed on every edge");
    }
    Some(SyncOptions { peers, port, key_file: PathBuf::from(key_file?), rate })
}

fn proxy(r: &mut Reader, args: &RunArgs) -> ProxyOptions {
    let formats = [("json", AccessLogFormat::Json), ("combined", AccessLogFormat::Combined)];
    let default = ProxyOptions::default();
    ProxyOptions {
        workers: match &args.workers {
            Some(text) => r.read("--workers", text, |t| value::number(t, 1, 1024)).unwrap_or(1) as usize,
            None => default.workers,
        },
        access_log: match args.access_log.as_str() {
            "off" => AccessLog::Off,
            "stdout" => AccessLog::Stdout,
            "" => {
                r.mistake("--access-log", "is empty; stdout, off or a file is wanted");
                AccessLog::Off
            }
            path => AccessLog::File(path.into()),
        },
        access_log_format: r.choose("--access-log-format", &args.access_log_format, &formats).unwrap_or_default(),
        ..default
    }
}

fn limit_drop_exempt(r: &mut Reader, args: &RunArgs) -> Vec<IpNet> {
    let exempt = r.list("--limit-drop-exempt", &args.limit_drop.limit_drop_exempt, value::range);
    if !exempt.is_empty() && !args.rules.enable_limit_drop {
        r.mistake("--limit-drop-exempt", "means something with --enable-limit-drop only");
    }
    exempt
}

fn admin(r: &mut Reader, args: &RunArgs) -> AdminOptions {
    AdminOptions {
        address: match args.admin_address.as_str() {
            "off" => None,
            text => r.read("--admin-address", text, value::socket_address),
        },
        socket: r.read("--admin-socket", &args.admin_socket, value::unix_socket).unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
