//! The maps, and the only place besides `packet.rs` that may say `unsafe`.
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMapHash, HashMap, PerCpuArray};
use xdp_ebpf::{
    Addr, AddrFilter, Backend, Config, Flow, FlowBucket, Frontend, FrontendInfo, FrontendKey, Pool, ReplyBucket,
    RingPage, Traffic, Vip, verdict::Verdict,
};

const MMAPABLE: u32 = 1 << 10;

#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, MMAPABLE);
#[map]
pub static ADDR_FILTER: Array<AddrFilter> = Array::with_max_entries(1, MMAPABLE);
#[map]
pub static VIPS: HashMap<Addr, Vip> = HashMap::with_max_entries(1024, 0);
#[map]
pub static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(1024, 0);
#[map]
pub static FRONTEND_INFO: Array<FrontendInfo> = Array::with_max_entries(1024, MMAPABLE);
#[map]
pub static POOLS: Array<Pool> = Array::with_max_entries(1024, MMAPABLE);
#[map]
pub static RINGS: Array<RingPage> = Array::with_max_entries(64, MMAPABLE);
#[map]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(1024, MMAPABLE);
#[map]
pub static FLOW_INDEX: Array<FlowBucket> = Array::with_max_entries(128, MMAPABLE);
#[map]
pub static FLOWS: Array<Flow> = Array::with_max_entries(1024, MMAPABLE);
#[map]
pub static REPLY_INDEX: Array<ReplyBucket> = Array::with_max_entries(256, MMAPABLE);
#[map]
pub static DEVICES: DevMapHash = DevMapHash::with_max_entries(64, 0);
#[map]
pub static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::ALL.len() as u32, 0);
#[map]
pub static FRONTEND_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(1024, 0);
#[map]
pub static BACKEND_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(1024, 0);

pub fn touch() {
    if let Some(p) = VERDICTS.get_ptr_mut(0) {
        unsafe { *p += 1 };
    }
}
