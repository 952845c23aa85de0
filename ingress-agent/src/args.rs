//! What was typed: command line and environment, as text. What it means, and whether it makes sense, is `config`'s business.

mod limits;

mod metrics;

mod migrate;

mod rules;

mod vrrp;

use clap::{Args as ClapArgs, Parser, Subcommand};

pub use limits::{LimitDropArgs, LimitsAction, LimitsArgs};
pub use metrics::MetricsArgs;
pub use migrate::MigrateArgs;
pub use rules::RulesArgs;
pub use vrrp::VrrpArgs;

/// Edge load balancer for bare-metal Kubernetes: XDP for TCP and UDP, HTTP and TLS in userspace, and the virtual addresses.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluicegate", version, propagate_version = true, max_term_width = 110)]
pub struct Args {
    /// How log lines on standard error look: text or json.
    #[arg(long, global = true, env = "SLUICEGATE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: String,
    /// Which log lines: error, warn, info, debug, trace, or a filter such as `info,ingress_agent::vip=debug`.
    #[arg(long, global = true, env = "SLUICEGATE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the load balancer (needs root).
    Run(Box<RunArgs>),
    /// Show addresses, services, backends, rates and problems of the running agent.
    Status(StatusArgs),
    /// Ask the running agent what happens to a packet or a request, and why.
    Explain(ExplainArgs),
    /// Show who holds which virtual address, and move them between the nodes.
    Vip(VipArgs),
    /// Show which clients are dropped for exceeding limits, and let one go.
    Limits(LimitsArgs),
    /// Run the admission webhook, which tells authors of objects in a cluster what is wrong with them.
    Webhook(Box<WebhookArgs>),
    /// Say what of an ingress-nginx's Ingresses, settings and flags is the same here, what differs, and what is not supported.
    Migrate(MigrateArgs),
    /// Turn a keepalived.conf into options and manifests, and list what could not be carried over.
    Import(ImportArgs),
    /// Detach the programs, remove the pinned maps, the virtual addresses and what was saved; where there is a cluster, the last node
    /// also takes back what was written there. Traffic stops; no agent may be running.
    Uninstall(UninstallArgs),
    /// Print the version and that of the pinned maps.
    Version,
}

#[derive(Clone, Debug, ClapArgs)]
pub struct RunArgs {
    /// Directory with Kubernetes manifests, instead of a cluster; changes in it are live at once.
    #[arg(long, env = "SLUICEGATE_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Directory where what the cluster said is kept for a start without its API server, or `off`. Holds private keys.
    #[arg(long, env = "SLUICEGATE_STATE_DIR", default_value = DEFAULT_STATE_DIR, value_name = "DIR|off")]
    pub state_dir: String,
    /// Interface on which clients and backends are reached; repeat it or separate several by commas. `auto`: the interfaces of
    /// the default routes.
    #[arg(long = "interface", env = "SLUICEGATE_INTERFACE", value_delimiter = ',', value_name = "NAME|auto")]
    pub interfaces: Vec<String>,
    /// Name of this node in EndpointSlices [default: the host name].
    #[arg(long, env = "SLUICEGATE_NODE", value_name = "NAME")]
    pub node: Option<String>,

    #[command(flatten)]
    pub rules: RulesArgs,
    /// DNS server for Services of type `ExternalName`; may be repeated [default: those of /etc/resolv.conf].
    #[arg(long = "dns-server", env = "SLUICEGATE_DNS_SERVER", value_delimiter = ',', value_name = "ADDR:PORT")]
    pub dns_servers: Vec<String>,
    /// Secret of the certificate for hosts that have none [default: self-signed].
    #[arg(long, env = "SLUICEGATE_DEFAULT_SSL_CERTIFICATE", value_name = "NS/NAME")]
    pub default_ssl_certificate: Option<String>,
    /// Service that answers requests for unknown hosts and paths [default: 404].
    #[arg(long, env = "SLUICEGATE_DEFAULT_BACKEND_SERVICE", value_name = "NS/NAME")]
    pub default_backend_service: Option<String>,

    /// The proxy sends requests to the endpoints that EndpointSlices mean for this node's zone (`service.kubernetes.io/topology-mode: auto` or
    /// `spec.trafficDistribution` of the Service), as long as there are any.
    #[arg(long, env = "SLUICEGATE_ENABLE_TOPOLOGY_AWARE_ROUTING", value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_topology_aware_routing: bool,

    /// Address or name that the status of Ingresses has instead of the virtual addresses on which they are served, for as long as they are;
    /// that of a router in front of the edges, for example. May be repeated.
    #[arg(
        long = "publish-status-address",
        env = "SLUICEGATE_PUBLISH_STATUS_ADDRESS",
        value_delimiter = ',',
        value_name = "ADDR|NAME"
    )]
    pub publish_status_addresses: Vec<String>,

    /// Source address towards backends that are not on this node [default: the VIP]; one for each family.
    #[arg(long = "snat-address", env = "SLUICEGATE_SNAT_ADDRESS", value_delimiter = ',', value_name = "ADDR")]
    pub snat_addresses: Vec<String>,
    /// Source ports towards those backends.
    #[arg(long, env = "SLUICEGATE_SNAT_PORTS", default_value = "1024-65535", value_name = "LOW-HIGH")]
    pub snat_ports: String,
    /// Flows that are remembered at once.
    #[arg(long, env = "SLUICEGATE_MAX_FLOWS", default_value = "1000000", value_name = "N")]
    pub max_flows: String,
    #[arg(long, env = "SLUICEGATE_MAX_FRONTENDS", default_value = "10000", value_name = "N")]
    pub max_frontends: String,
    #[arg(long, env = "SLUICEGATE_MAX_BACKENDS", default_value = "100000", value_name = "N")]
    pub max_backends: String,
    /// Slots for the Maglev tables of all services together, four bytes each.
    #[arg(long, env = "SLUICEGATE_RING_SLOTS", default_value = "33554432", value_name = "N")]
    pub ring_slots: String,
    /// Clients of Services with `sessionAffinity: ClientIP` that are remembered at once.
    #[arg(long, env = "SLUICEGATE_MAX_AFFINITY_CLIENTS", default_value = "65536", value_name = "N")]
    pub max_affinity_clients: String,
    /// Seed of the flow hash, up to 16 hexadecimal digits: the same on every node of a cluster, and secret [default: random,
    /// kept with the pinned maps].
    #[arg(long, env = "SLUICEGATE_HASH_SEED", value_name = "HEX", hide_env_values = true)]
    pub hash_seed: Option<String>,
    /// Directory on bpffs where programs and maps outlive the agent.
    #[arg(long, env = "SLUICEGATE_PIN_PATH", default_value = DEFAULT_PIN_PATH, value_name = "DIR")]
    pub pin_path: String,
    /// auto (native where the driver can, else generic), native or generic.
    #[arg(long, env = "SLUICEGATE_XDP_MODE", default_value = "auto", value_name = "MODE")]
    pub xdp_mode: String,

    /// Which virtual addresses this node holds: all, none, or a list.
    #[arg(long, env = "SLUICEGATE_HOLD_VIPS", default_value = "all", value_name = "all|none|ADDR,…")]
    pub hold_vips: String,
    /// Interface that carries the virtual addresses [default: the first --interface].
    #[arg(long, env = "SLUICEGATE_VIP_INTERFACE", value_name = "NAME")]
    pub vip_interface: Option<String>,
    #[command(flatten)]
    pub vrrp: VrrpArgs,

    /// Another edge node, with which flows are shared: established connections go on there when an address moves. May be repeated;
    /// this node's own addresses are passed over [default: flows are not shared].
    #[arg(long = "sync-peer", env = "SLUICEGATE_SYNC_PEER", value_delimiter = ',', value_name = "ADDR")]
    pub sync_peers: Vec<String>,
    /// UDP port for that, the same on every edge.
    #[arg(long, env = "SLUICEGATE_SYNC_PORT", default_value = "9254", value_name = "PORT")]
    pub sync_port: String,
    /// File with the key that all edges share for that, 16 bytes or more.
    #[arg(long, env = "SLUICEGATE_SYNC_KEY_FILE", value_name = "PATH")]
    pub sync_key_file: Option<String>,
    /// Flows told a second at most, counted for each peer. One takes 32 bytes over IPv4 and 80 over IPv6.
    #[arg(long, env = "SLUICEGATE_SYNC_RATE", default_value = "50000", value_name = "N")]
    pub sync_rate: String,

    /// Where /metrics, /livez, /readyz and the rest are served, or `off`.
    #[arg(long, env = "SLUICEGATE_ADMIN_ADDRESS", default_value = "127.0.0.1:10254", value_name = "ADDR:PORT")]
    pub admin_address: String,
    /// The same on a Unix socket, for `status` and `explain`.
    #[arg(long, env = "SLUICEGATE_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET, value_name = "PATH")]
    pub admin_socket: String,
    #[command(flatten)]
    pub metrics: MetricsArgs,
    #[command(flatten)]
    pub limit_drop: LimitDropArgs,
    /// Proxy threads [default: one a core].
    #[arg(long, env = "SLUICEGATE_WORKERS", value_name = "N")]
    pub workers: Option<String>,
    /// Access log of the proxy: stdout, off or a file (reopened on SIGHUP).
    #[arg(long, env = "SLUICEGATE_ACCESS_LOG", default_value = "stdout", value_name = "stdout|off|PATH")]
    pub access_log: String,
    /// json or combined (nginx's).
    #[arg(long, env = "SLUICEGATE_ACCESS_LOG_FORMAT", default_value = "json", value_name = "FORMAT")]
    pub access_log_format: String,
    /// How long requests and connections may take to end after SIGTERM, and after another node took their address over.
    #[arg(long, env = "SLUICEGATE_DRAIN_TIMEOUT", default_value = "30s", value_name = "TIME")]
    pub drain_timeout: String,
    /// Where kernel settings are written. In a container /proc/sys is read-only; the host's is then mounted elsewhere.
    #[arg(long, env = "SLUICEGATE_PROC_SYS", default_value = "/proc/sys", value_name = "DIR")]
    pub proc_sys: String,
}

/// Which cluster, and what of it.
#[derive(Clone, Debug, ClapArgs)]
pub struct ClusterArgs {
    /// Kubeconfig of the cluster to watch [default: that of the pod it runs in].
    #[arg(long, env = "SLUICEGATE_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<String>,
    /// Kubernetes sets it in every pod.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub kubernetes_service_host: Option<String>,
    /// Its own namespace in the cluster.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sluicegate-system", value_name = "NAME")]
    pub namespace: String,
    /// Namespace whose Services and Ingresses are watched; may be repeated [default: all].
    #[arg(long = "watch-namespace", env = "SLUICEGATE_WATCH_NAMESPACE", value_delimiter = ',', value_name = "NAME")]
    pub watch_namespaces: Vec<String>,
    /// Label selector (`team=edge,stage in (prod)`) of the namespaces that are watched, instead of their names. What chooses a namespace
    /// or no longer does is heeded at once.
    #[arg(long, env = "SLUICEGATE_WATCH_NAMESPACE_SELECTOR", value_name = "SELECTOR")]
    pub watch_namespace_selector: Option<String>,
}

#[derive(Clone, Debug, ClapArgs)]
pub struct WebhookArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Where the API server asks, over HTTPS.
    #[arg(long, env = "SLUICEGATE_WEBHOOK_ADDRESS", default_value = "[::]:8443", value_name = "ADDR:PORT")]
    pub listen_address: String,
    /// Where /metrics, /livez and /readyz are served.
    #[arg(long, env = "SLUICEGATE_WEBHOOK_ADMIN_ADDRESS", default_value = "[::]:8081", value_name = "ADDR:PORT")]
    pub admin_address: String,
    /// Directory with tls.crt and tls.key that somebody else renews (cert-manager), and tells the API server to trust
    /// [default: a certificate of its own, which it renews itself].
    #[arg(long, env = "SLUICEGATE_WEBHOOK_CERTIFICATE_DIR", value_name = "DIR")]
    pub certificate_dir: Option<String>,
    /// Secret in its own namespace where the replicas keep that certificate.
    #[arg(
        long,
        env = "SLUICEGATE_WEBHOOK_CERTIFICATE_SECRET",
        default_value = "sluicegate-webhook-certificate",
        value_name = "NAME"
    )]
    pub certificate_secret: String,
    /// Service by which the API server finds it.
    #[arg(long, env = "SLUICEGATE_WEBHOOK_SERVICE", default_value = "sluicegate-webhook", value_name = "NAME")]
    pub service: String,
    /// `ValidatingWebhookConfiguration` that is told to trust that certificate.
    #[arg(long, env = "SLUICEGATE_WEBHOOK_CONFIGURATION", default_value = "sluicegate", value_name = "NAME")]
    pub configuration: String,
    /// An Ingress whose host and path another one is served on: deny it, or warn.
    #[arg(long, env = "SLUICEGATE_WEBHOOK_CONFLICTS", default_value = "deny", value_name = "deny|warn")]
    pub conflicts: String,
    /// The same as the agents are told, by the same variables of the environment, or the two come to different conclusions.
    #[command(flatten)]
    pub rules: RulesArgs,
}

pub const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/sluicegate";
pub const DEFAULT_STATE_DIR: &str = "/var/lib/sluicegate";
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/sluicegate/admin.sock";

#[derive(Clone, Debug, ClapArgs)]
pub struct StatusArgs {
    /// Unix socket of the running agent.
    #[arg(long, env = "SLUICEGATE_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET, value_name = "PATH")]
    pub admin_socket: String,
    /// text or json.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: String,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  sluicegate explain tcp 198.51.100.7:40000 203.0.113.10:443
  sluicegate explain udp [2001:db8::7]:5353 [2001:db8::10]:53
  sluicegate explain https://shop.example/cart --method POST --header 'x-canary: 1'")]
pub struct ExplainArgs {
    /// `tcp|udp CLIENT:PORT VIP:PORT`, or a URL.
    #[arg(num_args = 1..=3, required = true, value_name = "WHAT")]
    pub what: Vec<String>,
    /// Method of the request (with a URL).
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// Header of the request, `name: value` (with a URL); may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Address that the request comes from (with a URL).
    #[arg(long, value_name = "ADDR")]
    pub client: Option<String>,
    /// Unix socket of the running agent.
    #[arg(long, env = "SLUICEGATE_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET, value_name = "PATH")]
    pub admin_socket: String,
    /// text or json.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: String,
}

#[derive(Clone, Debug, ClapArgs)]
pub struct VipArgs {
    #[command(subcommand)]
    pub action: VipAction,
    /// Unix socket of the running agent.
    #[arg(long, global = true, env = "SLUICEGATE_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET, value_name = "PATH")]
    pub admin_socket: String,
}

#[derive(Clone, Debug, Subcommand)]
pub enum VipAction {
    /// Every address, its virtual router, who has it and who comes next.
    List {
        /// text or json.
        #[arg(short, long, default_value = "text", value_name = "FORMAT")]
        output: String,
    },
    /// Move an address, and what moves together with it, to a node. On that node: it takes it over. On the node that has it: it gives
    /// it up for the next one.
    Move {
        #[arg(value_name = "VIP")]
        vip: String,
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Give all addresses to the other nodes, and take none until `undrain` or a restart.
    Drain,
    /// Stand for election again.
    Undrain,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Options (as comments) and manifests go to standard output, remarks to standard error, a line each with file and line.
Nothing is executed, and keepalived is not touched."
)]
pub struct ImportArgs {
    /// The file; what it includes is read, too.
    #[arg(value_name = "KEEPALIVED.CONF")]
    pub file: String,
}

#[derive(Clone, Debug, ClapArgs)]
pub struct UninstallArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Directory on bpffs given to `run`.
    #[arg(long, env = "SLUICEGATE_PIN_PATH", default_value = DEFAULT_PIN_PATH, value_name = "DIR")]
    pub pin_path: String,
    /// Directory given to `run` where facts are saved.
    #[arg(long, env = "SLUICEGATE_STATE_DIR", default_value = DEFAULT_STATE_DIR, value_name = "DIR")]
    pub state_dir: String,
    /// Then wait for SIGTERM, so that a DaemonSet can do it once on each node.
    #[arg(long)]
    pub wait: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        super::Args::command().debug_assert();
    }
}
