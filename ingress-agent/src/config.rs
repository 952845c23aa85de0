//! What is meant: every value parsed, no `Option` that has a default, and all mistakes at once. Reads no cluster and
//! touches no kernel; whether an interface exists is found out by the room that needs it.

mod value;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::args::RunArgs;
use crate::model::snapshot::ObjectName;
use value::Reader;

/// The meaning of `sluicegate run …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub manifests: PathBuf,
    /// At least one, without repetition.
    pub interfaces: Vec<String>,
    pub node: String,
    pub ingress: IngressConfig,
    pub l4: L4Config,
    pub hold: Hold,
    pub vip_interface: String,
    pub admin_address: Option<SocketAddr>,
    pub admin_socket: PathBuf,
    /// At least 1.
    pub workers: usize,
    pub access_log: AccessLog,
    pub access_log_format: AccessLogFormat,
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressConfig {
    pub vips: Vec<IpAddr>,
    pub http_port: u16,
    pub https_port: u16,
    pub controller_class: String,
    pub without_class: bool,
    pub tcp_services: Option<ObjectName>,
    pub udp_services: Option<ObjectName>,
    pub default_certificate: Option<ObjectName>,
    pub default_backend: Option<ObjectName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Config {
    pub snat_v4: Option<IpAddr>,
    pub snat_v6: Option<IpAddr>,
    /// First and last source port.
    pub snat_ports: (u16, u16),
    pub max_flows: u32,
    pub max_frontends: u32,
    pub max_backends: u32,
    pub ring_slots: u32,
    /// `None`: that of the pinned maps, or a random one.
    pub hash_seed: Option<u64>,
    pub pin_path: PathBuf,
    pub xdp_mode: XdpMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    Auto,
    Native,
    Generic,
}

/// Which VIPs this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    All,
    These(BTreeSet<IpAddr>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Json,
    Combined,
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
        let config = Self {
            manifests: manifests(&mut r, args.manifests.as_deref()),
            node: node(&mut r, args.node.as_deref()),
            ingress: ingress(&mut r, args),
            l4: l4(&mut r, args),
            hold: hold(&mut r, &args.hold_vips),
            vip_interface,
            interfaces,
            admin_address: match args.admin_address.as_str() {
                "off" => None,
                text => r.read("--admin-address", text, value::socket_address),
            },
            admin_socket: r.read("--admin-socket", &args.admin_socket, value::unix_socket).unwrap_or_default(),
            workers: match &args.workers {
                Some(text) => r.read("--workers", text, |t| value::number(t, 1, 1024)).unwrap_or(1) as usize,
                None => std::thread::available_parallelism().map_or(1, usize::from),
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
            access_log_format: r
                .choose(
                    "--access-log-format",
                    &args.access_log_format,
                    &[("json", AccessLogFormat::Json), ("combined", AccessLogFormat::Combined)],
                )
                .unwrap_or(AccessLogFormat::Json),
            drain_timeout: r.read("--drain-timeout", &args.drain_timeout, value::duration).unwrap_or_default(),
        };
        r.finish(config)
    }
}

/// The format of `-o`, and of `--log-format`.
pub fn format(option: &str, text: &str) -> Result<Format, Vec<String>> {
    let mut r = Reader::default();
    let format = r.choose(option, text, &[("text", Format::Text), ("json", Format::Json)]).unwrap_or(Format::Text);
    r.finish(format)
}

fn manifests(r: &mut Reader, text: Option<&str>) -> PathBuf {
    let Some(text) = text else {
        r.mistake("--manifests", "is missing: the directory to read Kubernetes manifests from");
        return PathBuf::new();
    };
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
    for name in typed {
        let Some(name) = r.read("--interface", name, value::interface) else { continue };
        if interfaces.contains(&name) {
            r.mistake("--interface", format!("{name}: is given twice"));
            continue;
        }
        interfaces.push(name);
    }
    interfaces
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

fn ingress(r: &mut Reader, args: &RunArgs) -> IngressConfig {
    let mut name = |option: &str, text: &Option<String>| {
        text.as_ref().filter(|t| !t.is_empty()).and_then(|t| r.read(option, t, value::object_name))
    };
    let tcp_services = name("--tcp-services-configmap", &args.tcp_services_configmap);
    let udp_services = name("--udp-services-configmap", &args.udp_services_configmap);
    let default_certificate = name("--default-ssl-certificate", &args.default_ssl_certificate);
    let default_backend = name("--default-backend-service", &args.default_backend_service);
    let http_port = r.read("--http-port", &args.http_port, value::port).unwrap_or(80);
    let https_port = r.read("--https-port", &args.https_port, value::port).unwrap_or(443);
    if http_port == https_port {
        r.mistake("--https-port", format!("{https_port}: is the same as --http-port"));
    }
    if args.controller_class.trim().is_empty() {
        r.mistake("--controller-class", "is empty");
    }
    IngressConfig {
        vips: r.list("--ingress-vip", &args.ingress_vips, value::vip),
        http_port,
        https_port,
        controller_class: args.controller_class.clone(),
        without_class: args.watch_ingress_without_class,
        tcp_services,
        udp_services,
        default_certificate,
        default_backend,
    }
}

fn l4(r: &mut Reader, args: &RunArgs) -> L4Config {
    let snat = r.list("--snat-address", &args.snat_addresses, value::vip);
    for (family, is) in [("IPv4", true), ("IPv6", false)] {
        if snat.iter().filter(|a| a.is_ipv4() == is).count() > 1 {
            r.mistake("--snat-address", format!("has more than one {family} address"));
        }
    }
    let mut number = |option, text: &str, most| r.read(option, text, |t| value::number(t, 1, most)).unwrap_or(1);
    let max_flows = number("--max-flows", &args.max_flows, 1 << 28);
    let max_frontends = number("--max-frontends", &args.max_frontends, 1 << 20);
    let max_backends = number("--max-backends", &args.max_backends, 1 << 24);
    let ring_slots = number("--ring-slots", &args.ring_slots, 1 << 30);
    L4Config {
        snat_v4: snat.iter().find(|a| a.is_ipv4()).copied(),
        snat_v6: snat.iter().find(|a| a.is_ipv6()).copied(),
        snat_ports: r.read("--snat-ports", &args.snat_ports, value::port_range).unwrap_or((1024, 65535)),
        max_flows,
        max_frontends,
        max_backends,
        ring_slots,
        hash_seed: args
            .hash_seed
            .as_ref()
            .filter(|t| !t.is_empty())
            .and_then(|t| r.read_secret("--hash-seed", t, value::seed)),
        pin_path: r.read("--pin-path", &args.pin_path, value::absolute_path).unwrap_or_default(),
        xdp_mode: r
            .choose(
                "--xdp-mode",
                &args.xdp_mode,
                &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)],
            )
            .unwrap_or(XdpMode::Auto),
    }
}

fn hold(r: &mut Reader, text: &str) -> Hold {
    match text {
        "all" => Hold::All,
        "none" => Hold::These(BTreeSet::new()),
        "" => {
            r.mistake("--hold-vips", "is empty; all, none or a list of addresses is wanted");
            Hold::All
        }
        list => {
            let items: Vec<_> = list.split(',').map(str::to_owned).collect();
            Hold::These(r.list("--hold-vips", &items, value::vip).into_iter().collect())
        }
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
