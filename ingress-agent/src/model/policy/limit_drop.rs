//! When a client that goes on exceeding limits is dropped before it reaches the proxy: what one Ingress asks for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// So many requests refused within a time that begins with the first of them, and the client is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitDrop {
    /// Never 0.
    pub refusals: u32,
    /// Never zero.
    pub within: Duration,
    /// For so long. Never zero.
    pub lasts: Duration,
}
