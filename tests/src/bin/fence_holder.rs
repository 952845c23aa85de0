//! Holds the VIPs of [`Edges`] in the namespace that it is started in, as an agent does: on the interface, in the data plane, and with a
//! heart that beats every 20 ms. It says `holds` and goes on until it is killed, which is what the test of the fence wants it for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ingress_agent::dataplane::Dataplane;
use ingress_agent::model::election::{RouterKey, Standing};
use ingress_agent::vip::{VipOptions, Vips};
use ingress_tests::edges::{Edges, VIP, VIP6};
use ingress_tests::l4::PinPath;

/// As in the test.
const VRID: u8 = 51;

fn main() -> Result<()> {
    let pins = std::env::args_os().nth(1).context("the pin path is the argument")?;
    // Never dropped: the pins are the test's.
    let pins = std::mem::ManuallyDrop::new(PinPath(PathBuf::from(pins)));
    let mut dataplane = Dataplane::open(ingress_tests::l4::options(&pins, &["eth0"]))?;
    dataplane.apply(&Edges::snapshots().build())?;
    let vips = [VIP, VIP6].map(|vip| vip.parse::<SocketAddr>().expect("a VIP").ip());
    dataplane.guard(&vips.map(|vip| (vip, RouterKey { vrid: VRID, v6: vip.is_ipv6() })).into(), &BTreeSet::new())?;
    let fence = dataplane.fence()?;
    for v6 in [false, true] {
        fence.set_standing(RouterKey { vrid: VRID, v6 }, Standing::Here);
    }
    let holder = Vips::start(VipOptions { interface: "eth0".into(), proc_sys: "/proc/sys".into(), vrrp: None })?;
    holder.apply(vips.into());
    let mut said = false;
    loop {
        fence.beat(Duration::from_millis(250));
        let holding = holder.holding();
        if !said && vips.iter().all(|vip| holding.addresses.get(vip).is_some_and(|held| held.present)) {
            println!("holds");
            said = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
