//! Clients that go on exceeding limits, as typed.

use clap::{Args as ClapArgs, Subcommand};

use super::DEFAULT_ADMIN_SOCKET;

#[derive(Clone, Debug, ClapArgs)]
pub struct LimitDropArgs {
    /// Clients, addresses or ranges, that are never dropped for exceeding limits; may be repeated. The node's own addresses, those of Nodes
    /// and other edges, virtual addresses and endpoints never are.
    #[arg(
        long = "limit-drop-exempt",
        env = "SLUICEGATE_LIMIT_DROP_EXEMPT",
        value_delimiter = ',',
        value_name = "ADDR|CIDR"
    )]
    pub limit_drop_exempt: Vec<String>,
}

#[derive(Clone, Debug, ClapArgs)]
pub struct LimitsArgs {
    #[command(subcommand)]
    pub action: LimitsAction,
    /// Unix socket of the running agent.
    #[arg(long, global = true, env = "SLUICEGATE_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET, value_name = "PATH")]
    pub admin_socket: String,
}

#[derive(Clone, Debug, Subcommand)]
pub enum LimitsAction {
    /// Every client that this node drops, for the limits of which Ingress, and for how long yet.
    List {
        /// text or json.
        #[arg(short, long, default_value = "text", value_name = "FORMAT")]
        output: String,
    },
    /// Let a client go. What it did is forgotten; it may earn the same again.
    Release {
        #[arg(value_name = "ADDR")]
        client: String,
    },
}
