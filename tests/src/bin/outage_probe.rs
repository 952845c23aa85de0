//! Asks an address every millisecond, from the namespace that it is started in: see `ingress_tests::outage`.

use anyhow::Result;

fn main() -> Result<()> {
    ingress_tests::outage::probe::main(&std::env::args().skip(1).collect::<Vec<_>>())
}
