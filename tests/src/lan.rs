//! A LAN of namespaces: hosts on a bridge that lives in a namespace of its own, where ARP, gratuitous ARP and multicast
//! behave as on a switch.

use std::sync::{Arc, Mutex};

use anyhow::Result;

use crate::netns::Namespace;

/// A switch and the hosts plugged into it. Dropping it removes everything.
#[derive(Debug)]
pub struct Lan {
    label: String,
    pub switch: Arc<Namespace>,
    ports: Mutex<u32>,
}

/// A host: its one link into the LAN is `eth0`.
#[derive(Clone, Debug)]
pub struct Host {
    pub ns: Arc<Namespace>,
}

impl std::ops::Deref for Host {
    type Target = Namespace;
    fn deref(&self) -> &Namespace {
        &self.ns
    }
}

impl Lan {
    /// `label` must be unique among the tests of one process.
    pub fn new(label: &str) -> Result<Self> {
        let switch = Namespace::new(&format!("{label}-sw"))?;
        switch.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"])?;
        switch.ip(&["link", "set", "br0", "up"])?;
        Ok(Self { label: label.into(), switch, ports: Mutex::new(0) })
    }

    /// Plugs in a host with addresses such as `10.0.0.2/24` and `fd00::2/64` on its `eth0`.
    pub fn host(&self, name: &str, addresses: &[&str]) -> Result<Host> {
        let host = Host { ns: Namespace::new(&format!("{}-{name}", self.label))? };
        self.plug(&host, "eth0", addresses)?;
        Ok(host)
    }

    /// Adds a link `link` between `host` and this switch. Both ends can take XDP frames: the switch's has a pass
    /// program, the host's gets one unless the test attaches its own ([`Host::receive_xdp`]).
    pub fn plug(&self, host: &Host, link: &str, addresses: &[&str]) -> Result<()> {
        let port = {
            let mut ports = self.ports.lock().expect("no panic under the lock");
            *ports += 1;
            format!("p{ports}")
        };
        self.switch.ip(&["link", "add", &port, "type", "veth", "peer", "name", link, "netns", &host.name])?;
        self.switch.ip(&["link", "set", &port, "master", "br0", "up"])?;
        self.switch.attach_pass(&port)?;
        // The bridge hands frames on with their checksum state; without offload they always carry real ones.
        offload_off(&self.switch, &port)?;
        host.bring_up(link, addresses)
    }
}

impl Host {
    fn bring_up(&self, link: &str, addresses: &[&str]) -> Result<()> {
        offload_off(&self.ns, link)?;
        for address in addresses {
            let mut args = vec!["addr", "add", address, "dev", link];
            if address.contains(':') {
                args.push("nodad");
            }
            self.ip(&args)?;
        }
        self.ip(&["link", "set", link, "up"])?;
        Ok(())
    }

    /// Default routes by these gateways.
    pub fn route_by(&self, gateways: &[&str]) -> Result<()> {
        for gateway in gateways {
            let family = if gateway.contains(':') { "-6" } else { "-4" };
            self.ip(&[family, "route", "add", "default", "via", gateway])?;
        }
        Ok(())
    }

    /// Makes this host forward IPv4 and IPv6.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// A pod-like namespace behind this host: `link` here, `eth0` there, a route to the pod here and a default route there.
    /// `addresses` are bare, such as `10.9.0.2` and `fd09::2`.
    pub fn pod(&self, label: &str, link: &str, addresses: &[&str]) -> Result<Host> {
        let pod = Host { ns: Namespace::new(label)? };
        self.ip(&["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &pod.name])?;
        offload_off(&self.ns, link)?;
        self.ip(&["link", "set", link, "up"])?;
        pod.bring_up("eth0", &[])?;
        for address in addresses {
            // A link-local gateway on the host's end serves every pod, as many CNIs do it.
            let (family, bits, gateway) =
                if address.contains(':') { ("-6", 128, "fe80::1") } else { ("-4", 32, "169.254.1.1") };
            let own = format!("{address}/{bits}");
            let nodad: &[&str] = if family == "-6" { &["nodad"] } else { &[] };
            pod.ip(&[&["addr", "add", own.as_str(), "dev", "eth0"], nodad].concat())?;
            let gw = format!("{gateway}/{bits}");
            self.ip(&[&["addr", "add", gw.as_str(), "dev", link], nodad].concat())?;
            self.ip(&[family, "route", "add", &own, "dev", link])?;
            pod.ip(&[family, "route", "add", "default", "via", gateway, "dev", "eth0", "onlink"])?;
        }
        self.forward()?;
        Ok(pod)
    }

    /// A pass program on `eth0`: needed where the other end sends by XDP and this one has no native program.
    pub fn receive_xdp(&self) -> Result<()> {
        self.attach_pass("eth0")
    }
}

/// veth senders leave the L4 checksum to the device; a packet that XDP rewrites needs a real one.
fn offload_off(ns: &Namespace, link: &str) -> Result<()> {
    ns.run("ethtool", &["-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]).map(drop)
}
