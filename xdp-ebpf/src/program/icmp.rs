//! ICMP at XDP: echo to a VIP is answered, errors follow the flow that they are about.

use xdp_ebpf::verdict::Verdict;

use crate::family::{Family, Payload};
use crate::packet::{Frame, Window};
use crate::verdict;

#[inline(always)]
pub fn message<F: Family>(_frame: Frame, _eth: Window<14>, _tags: u32, _ip: F::Header, _payload: &Payload) -> u32 {
    verdict::pass(Verdict::PassProtocol)
}
