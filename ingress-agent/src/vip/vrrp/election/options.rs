//! What an operator decides about elections.

use std::net::IpAddr;
use std::time::Duration;

use crate::vip::vrrp::keys::AuthOptions;
use crate::vip::vrrp::packet::{Checksum, Password, Version};

/// How to elect. The same on every node, or they will not understand each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpOptions {
    /// Between two adverts: tens of milliseconds up to 40.95 s in version 3, whole seconds up to 255 in version 2.
    pub interval: Duration,
    /// Of adverts over IPv4; over IPv6 it is always 3.
    pub version: Version,
    pub checksum: Checksum,
    pub password: Option<Password>,
    /// Signs adverts of version 3.
    pub auth: Option<AuthOptions>,
    pub preempt: bool,
    pub preempt_delay: Duration,
    /// Other nodes, if multicast does not reach them. Empty: multicast.
    pub peers: Vec<IpAddr>,
    /// For how long connections of this node's proxy to an address that another node took over may go on. Zero: not at all.
    pub drain: Duration,
}

impl Default for VrrpOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            version: Version::V3,
            checksum: Checksum::default(),
            password: None,
            auth: None,
            preempt: true,
            preempt_delay: Duration::ZERO,
            peers: Vec::new(),
            drain: Duration::ZERO,
        }
    }
}
