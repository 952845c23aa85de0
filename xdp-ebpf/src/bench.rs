//! What the benchmark's own programs share with `bench_xdp`. Nothing here is shipped.

/// Names in the benchmark's object file.
pub const PREPARE: &str = "bench_prepare";
pub const BASE: &str = "bench_base";
pub const PLAN: &str = "BENCH_PLAN";
pub const UNDER_TEST: &str = "BENCH_UNDER_TEST";

/// The longest header that is restored: Ethernet, IPv6, TCP, rounded up to words.
pub const HEADER: usize = 80;

/// What every run of the test starts from. The only entry of `BENCH_PLAN`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The packet's first bytes, written back before each run: the run before rewrote them.
    pub header: [u64; HEADER / 8],
    /// Length of the whole packet; a run that finds another one is void.
    pub len: u32,
    /// [`flows`].
    pub flows: u32,
    /// Runs so far.
    pub runs: u64,
    /// [`place`].
    pub place: u32,
    pub pad: u32,
}
const _: () = assert!(size_of::<Plan>() == HEADER + 24);

/// Where the client's address and port lie.
pub mod place {
    pub const V4: u32 = 0;
    pub const V6: u32 = 1;
    /// Nowhere: the packet stays as it is.
    pub const NONE: u32 = 2;
}

/// Whose packet the next one is.
pub mod flows {
    /// Always the same client's.
    pub const ONE: u32 = 0;
    /// One of 65,536 clients' at random.
    pub const RANDOM: u32 = 1;
    /// A client's that was not there before.
    pub const NEW: u32 = 2;
}

/// The client of run `n`: what is added to its address (in network order, as a number) and its port.
#[inline(always)]
pub const fn client(flows: u32, n: u64) -> (u16, u16) {
    match flows {
        flows::RANDOM => {
            let x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((x >> 62) as u16, ((x >> 40) as u16 & 0x3fff) + 1024)
        }
        flows::NEW => ((n >> 14) as u16, (n as u16 & 0x3fff) + 1024),
        _ => (0, 40_000),
    }
}
