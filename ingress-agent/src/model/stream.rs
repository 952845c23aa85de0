//! TCP that goes through the proxy byte by byte: because one of its ends speaks the PROXY protocol, or because TLS ends in the backend.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::route::Balance;
use super::snapshot::{ObjectName, PoolName};

/// One (address, port), and whom its connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub vip: IpAddr,
    pub port: u16,
    pub pool: PoolName,
    pub balance: Balance,
    pub proxy_protocol: ProxyProtocol,
}

/// Whom the TLS connections of a host go to, which are not ended here (ingress-nginx's `ssl-passthrough`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// The Ingress that asks for it.
    pub owner: ObjectName,
    pub pool: PoolName,
    pub balance: Balance,
}

/// Who says in front of the bytes whose connection it is (haproxy, proxy-protocol.txt).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProtocol {
    /// The client (a load balancer in front of us) does: version 1 or 2. A connection without it is refused.
    pub received: bool,
    /// We do, to the backend: version 1.
    pub sent: bool,
}

impl ProxyProtocol {
    pub fn is_spoken(self) -> bool {
        self.received || self.sent
    }
}
