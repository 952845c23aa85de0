//! A pod's readiness, as its first container's probe sees it: by a TCP connection or an HTTP answer, from the node.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::time::Instant;

use crate::netns::Namespace;

/// Between two looks at a pod that is not ready. A real kubelet waits its period of seconds; tests need not.
const EAGER: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Check {
    Tcp(u16),
    Http { port: u16, path: String },
}

/// Readiness as it is now, and when to look again.
#[derive(Debug)]
pub(super) struct Readiness {
    check: Option<Check>,
    pub(super) ready: bool,
    misses: i32,
    misses_allowed: i32,
    period: Duration,
    timeout: Duration,
    next: Instant,
}

impl Readiness {
    /// Of a container that starts now. Without a probe it is ready at once.
    pub(super) fn of(container: &Container) -> Result<Self> {
        let probe = container.readiness_probe.as_ref();
        let check = probe.map(|probe| check(container, probe)).transpose()?;
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        Ok(Self {
            ready: check.is_none(),
            check,
            misses: 0,
            misses_allowed: probe.and_then(|probe| probe.failure_threshold).unwrap_or(3),
            period: seconds(probe.and_then(|probe| probe.period_seconds), 10),
            timeout: seconds(probe.and_then(|probe| probe.timeout_seconds), 1),
            next: Instant::now() + seconds(probe.and_then(|probe| probe.initial_delay_seconds), 0),
        })
    }

    /// Waits until readiness has changed. May be dropped and called again at any time.
    pub(super) async fn change(&mut self, node: &Arc<Namespace>, pod: IpAddr) {
        let Some(check) = self.check.clone() else { return std::future::pending().await };
        loop {
            tokio::time::sleep_until(self.next).await;
            let (node, check, timeout) = (Arc::clone(node), check.clone(), self.timeout);
            let look = tokio::task::spawn_blocking(move || node.inside(|| passes(&check, pod, timeout)));
            let passed = look.await.unwrap_or(false);
            self.next = Instant::now() + if passed || self.ready { self.period } else { EAGER };
            self.misses = if passed { 0 } else { self.misses + 1 };
            let ready = if self.ready { self.misses < self.misses_allowed } else { passed };
            if ready != self.ready {
                self.ready = ready;
                return;
            }
        }
    }
}

fn check(container: &Container, probe: &Probe) -> Result<Check> {
    if let Some(tcp) = &probe.tcp_socket {
        return Ok(Check::Tcp(port(container, &tcp.port)?));
    }
    if let Some(http) = &probe.http_get {
        let path = http.path.clone().unwrap_or_else(|| "/".into());
        return Ok(Check::Http { port: port(container, &http.port)?, path });
    }
    bail!("the test kubelet knows readiness probes by tcpSocket and httpGet only")
}

fn port(container: &Container, port: &IntOrString) -> Result<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name));
            named.with_context(|| format!("the container has no port named {name}"))?.container_port
        }
    };
    u16::try_from(number).with_context(|| format!("{number} is no port"))
}

fn passes(check: &Check, pod: IpAddr, timeout: Duration) -> bool {
    let (Check::Tcp(port) | Check::Http { port, .. }) = check;
    let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::new(pod, *port), timeout) else { return false };
    let Check::Http { path, .. } = check else { return true };
    let mut status = [0; 12];
    let asked = stream
        .set_read_timeout(Some(timeout))
        .and_then(|()| write!(stream, "GET {path} HTTP/1.1\r\nHost: {pod}\r\nConnection: close\r\n\r\n"))
        .and_then(|()| stream.read_exact(&mut status));
    // `HTTP/1.1 204`: as with a real kubelet, 200 to 399 is success.
    asked.is_ok() && matches!(status[9], b'2' | b'3')
}
