//! The options of elections, as typed.

use clap::Args as ClapArgs;

#[derive(Clone, Debug, ClapArgs)]
pub struct VrrpArgs {
    /// static: this node holds every address that it may. vrrp: the nodes elect who holds which, and another takes over when one
    /// dies.
    #[arg(long, env = "SLUICEGATE_VIP_MODE", default_value = "static", value_name = "static|vrrp")]
    pub vip_mode: String,
    /// Time between two VRRP adverts; another node takes over after a little more than three of them.
    #[arg(long, env = "SLUICEGATE_VRRP_INTERVAL_MS", default_value = "100", value_name = "MS")]
    pub vrrp_interval_ms: String,
    /// 3, or 2 for old routers (IPv4 only, intervals of whole seconds).
    #[arg(long, env = "SLUICEGATE_VRRP_VERSION", default_value = "3", value_name = "2|3")]
    pub vrrp_version: String,
    /// Priority of this node, 1 to 255, for everything that it may hold [default: by an order of nodes that differs from address to
    /// address, so that all of them have work].
    #[arg(long, env = "SLUICEGATE_VRRP_PRIORITY", value_name = "N")]
    pub vrrp_priority: Option<String>,
    /// Node that stands for election; may be repeated [default: Nodes of the cluster, or of the manifests, with the label
    /// node-role.kubernetes.io/edge, or all if none has it; of these, those that the address's VirtualIPPool allows].
    #[arg(long = "vrrp-node", env = "SLUICEGATE_VRRP_NODES", value_delimiter = ',', value_name = "NAME")]
    pub vrrp_nodes: Vec<String>,
    /// Address of another node, where multicast does not get through: adverts then go to these only, and come from these only; may be
    /// repeated.
    #[arg(long = "vrrp-peer", env = "SLUICEGATE_VRRP_PEERS", value_delimiter = ',', value_name = "ADDR")]
    pub vrrp_peers: Vec<String>,
    /// VRIDs to use.
    #[arg(long, env = "SLUICEGATE_VRRP_VRIDS", default_value = "1-255", value_name = "LOW-HIGH")]
    pub vrrp_vrids: String,
    /// VRID of given addresses, such as keepalived's `virtual_router_id` with all of its `virtual_ipaddress`; may be repeated.
    #[arg(long = "vrrp-vrid", env = "SLUICEGATE_VRRP_VRID", value_delimiter = ';', value_name = "VRID=ADDR,…")]
    pub vrrp_vrid: Vec<String>,
    /// Do not take addresses from a node of lower priority that has them.
    #[arg(long, env = "SLUICEGATE_VRRP_NOPREEMPT", value_parser = clap::builder::BoolishValueParser::new())]
    pub vrrp_nopreempt: bool,
    /// Take them only after it has had them for this time.
    #[arg(long, env = "SLUICEGATE_VRRP_PREEMPT_DELAY", default_value = "0s", value_name = "TIME")]
    pub vrrp_preempt_delay: String,
    /// Checksum of version 3 over IPv4: pseudo-header (keepalived's default) or plain (RFC 9568). Both are understood.
    #[arg(long, env = "SLUICEGATE_VRRP_CHECKSUM", default_value = "pseudo-header", value_name = "KIND")]
    pub vrrp_checksum: String,
    /// keepalived's `auth_pass` of version 2: up to eight characters, no secret on the link.
    #[arg(long, env = "SLUICEGATE_VRRP_AUTH_PASS", value_name = "TEXT", hide_env_values = true)]
    pub vrrp_auth_pass: Option<String>,
    /// keepalived's `auth_hmac` (version 3): the file with the key of this id, 32 to 64 bytes as they are, or `hex:` and hexadecimal
    /// digits. Adverts are signed with the first key, and taken when signed with any; may be repeated.
    #[arg(
        long = "vrrp-auth-hmac-key",
        env = "SLUICEGATE_VRRP_AUTH_HMAC_KEYS",
        value_delimiter = ',',
        value_name = "ID=PATH"
    )]
    pub vrrp_auth_hmac_keys: Vec<String>,
    /// enforce: adverts that are not signed have no effect. permissive: they have, while not every node signs.
    #[arg(long, env = "SLUICEGATE_VRRP_AUTH_HMAC_MODE", default_value = "enforce", value_name = "enforce|permissive")]
    pub vrrp_auth_hmac_mode: String,
    /// How far the clocks of two nodes may be apart, 1s to 300s; none: they may be anything, and an advert is only not to be older than one
    /// that was heard [default: three intervals, 5s at least].
    #[arg(long, env = "SLUICEGATE_VRRP_AUTH_HMAC_WINDOW", value_name = "TIME|none")]
    pub vrrp_auth_hmac_window: Option<String>,
    /// What else must work here, asked every second: `WEIGHT=http://HOST:PORT/PATH` or `WEIGHT=exec:COMMAND`. A failure adds the
    /// (negative) weight to the priority; 0 takes this node out. May be repeated.
    #[arg(
        long = "vrrp-check",
        env = "SLUICEGATE_VRRP_CHECKS",
        value_delimiter = ';',
        value_name = "WEIGHT=WHAT",
        allow_hyphen_values = true
    )]
    pub vrrp_checks: Vec<String>,
}
