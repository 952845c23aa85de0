//! The BPF objects that `build.rs` compiled, as bytes. Knows nothing of what is in them; `dataplane` loads the first, the packet
//! benchmark both.

use aya::include_bytes_aligned;

/// `sluicegate_ingress` (XDP) and `sluicegate_egress` (TC) with all their maps; see `xdp-ebpf`.
pub static PROGRAM: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluicegate-bpf"));

/// What `bench_xdp` measures the first with. The agent's binary does not contain it.
pub static BENCH: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluicegate-bench-bpf"));
