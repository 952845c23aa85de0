//! Bytes of a packet behind bounds that the compiler and the verifier both see. With `maps.rs` and `words.rs` the only file that says `unsafe`:
//! a [`Window`] exists only for bytes that were compared with the packet's end, and its accessors check their offsets at compile time.

use core::arch::asm;

use aya_ebpf::bindings::{__sk_buff, bpf_fib_lookup as FibParams, xdp_md};
use aya_ebpf::helpers::{
    bpf_check_mtu, bpf_csum_diff, bpf_fib_lookup, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_sk_lookup_udp,
    bpf_sk_release, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie,
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
};

use crate::next_hop::Fib;

/// `BPF_F_CURRENT_NETNS` of linux/bpf.h: that of the device.
const OWN_NETNS: u64 = u64::MAX;
/// `BPF_TCP_LISTEN` of linux/bpf.h.
const TCP_LISTEN: u32 = 10;
/// `BPF_TCP_TIME_WAIT` of linux/bpf.h. So the kernel keeps orphans that wait for a FIN, too.
const TCP_TIME_WAIT: u32 = 6;

/// A place in the packet that nobody has checked yet.
#[derive(Clone, Copy)]
pub struct Cursor(*mut u8);

/// `N` bytes that lie within the packet's linear part. Void after [`Frame::adjust_head`].
#[derive(Clone, Copy)]
pub struct Window<const N: usize>(*mut u8);

/// An XDP packet.
#[derive(Clone, Copy)]
pub struct Frame {
    ctx: *mut xdp_md,
}

impl Frame {
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    pub fn ctx(self) -> *mut xdp_md {
        self.ctx
    }

    #[inline(always)]
    pub fn ingress(self) -> u32 {
        // SAFETY: the kernel hands the program a valid context.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// Moves the start; every cursor and window before is void. False if there is no room.
    #[inline(always)]
    pub fn adjust_head(self, by: i32) -> bool {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_xdp_adjust_head(self.ctx, by) == 0 }
    }

    /// Moves the end; every cursor and window before is void.
    #[inline(always)]
    pub fn adjust_tail(self, by: i32) -> bool {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_xdp_adjust_tail(self.ctx, by) == 0 }
    }

    /// The kernel's answer (`BPF_FIB_LKUP_RET_*`, negative for a bad question); details are in `fib`.
    #[inline(always)]
    pub fn fib_lookup(self, fib: &mut Fib) -> i64 {
        // SAFETY: `Fib` has the layout of the kernel's struct (asserted beside it).
        unsafe {
            bpf_fib_lookup(self.ctx.cast(), core::ptr::from_mut(fib).cast::<FibParams>(), size_of::<Fib>() as i32, 0)
        }
    }

    /// The MTU of the ingress interface, or 0.
    #[inline(always)]
    pub fn ingress_mtu(self) -> u32 {
        let mut mtu = 0u32;
        // SAFETY: a helper on the program's own context and stack. It fills `mtu` also when the packet is longer.
        unsafe { bpf_check_mtu(self.ctx.cast(), 0, &raw mut mtu, 0, 0) };
        mtu
    }

    /// Whether a socket of this host has the connection of a TCP segment, or takes a datagram where `tcp` is `None`: source, destination
    /// and ports in `tuple`, as they lie in the packet (`struct bpf_sock_tuple`). A listener has a connection only if the segment brings
    /// a SYN cookie of its (bpf-helpers(7)), and one that is over (`TIME_WAIT`) counts for nothing: the client may have its port in use again.
    #[inline(always)]
    pub fn has_socket<T, const HEADER: usize>(self, tuple: &T, ip: Window<HEADER>, tcp: Option<Window<20>>) -> bool {
        // SAFETY: the tuple has the length said, both windows were compared with the packet's end, and the socket's reference, which
        // keeps it alive, is given back before the return.
        unsafe {
            let tuple = core::ptr::from_ref(tuple).cast_mut().cast();
            let Some(tcp) = tcp else {
                let socket = bpf_sk_lookup_udp(self.ctx.cast(), tuple, size_of::<T>() as u32, OWN_NETNS, 0);
                if !socket.is_null() {
                    bpf_sk_release(socket.cast());
                }
                return !socket.is_null();
            };
            let socket = bpf_skc_lookup_tcp(self.ctx.cast(), tuple, size_of::<T>() as u32, OWN_NETNS, 0);
            if socket.is_null() {
                return false;
            }
            let known = match (&raw const (*socket).state).read_volatile() {
                TCP_TIME_WAIT => false,
                TCP_LISTEN => bpf_tcp_check_syncookie(socket.cast(), ip.0.cast(), HEADER as u32, tcp.0.cast(), 20) == 0,
                _ => true,
            };
            bpf_sk_release(socket.cast());
            known
        }
    }
}

/// The bytes of a packet, at XDP or at TC.
pub trait Buffer: Copy {
    fn start(self) -> Cursor;
    /// The address behind the linear part.
    fn end(self) -> usize;
    /// Bytes in all, the part that is not linear included.
    fn whole(self) -> u64;

    /// `N` bytes from `at`, if the packet's linear part has them.
    #[inline(always)]
    fn window<const N: usize>(self, at: Cursor) -> Option<Window<N>> {
        if at.0 as usize + N > self.end() { None } else { Some(Window(at.0)) }
    }

    /// Whether `len` bytes from `at` arrived.
    #[inline(always)]
    fn holds(self, at: Cursor, len: u32) -> bool {
        let linear = (self.end() as u64).wrapping_sub(at.0 as u64);
        if linear >= u64::from(len) {
            return true;
        }
        let offset = (at.0 as u64).wrapping_sub(self.start().0 as u64);
        self.whole().wrapping_sub(offset) as i64 >= i64::from(len)
    }
}

impl Buffer for Frame {
    #[inline(always)]
    fn start(self) -> Cursor {
        // SAFETY: the kernel hands the program a valid context.
        Cursor(unsafe { (*self.ctx).data } as usize as *mut u8)
    }

    #[inline(always)]
    fn end(self) -> usize {
        // SAFETY: as in `start`.
        unsafe { (*self.ctx).data_end as usize }
    }

    #[inline(always)]
    fn whole(self) -> u64 {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.ctx) }
    }
}

/// A packet at TC. Read through windows, written through helpers, which know about checksums that the device completes.
#[derive(Clone, Copy)]
pub struct Skb {
    ctx: *mut __sk_buff,
}

impl Buffer for Skb {
    #[inline(always)]
    fn start(self) -> Cursor {
        // SAFETY: the kernel hands the program a valid context.
        Cursor(unsafe { (*self.ctx).data } as usize as *mut u8)
    }

    #[inline(always)]
    fn end(self) -> usize {
        // SAFETY: as in `start`.
        unsafe { (*self.ctx).data_end as usize }
    }

    #[inline(always)]
    fn whole(self) -> u64 {
        // SAFETY: as in `start`.
        u64::from(unsafe { (*self.ctx).len })
    }
}

impl Skb {
    /// Makes at least `header` bytes linear where the packet has them.
    #[inline(always)]
    pub fn new(ctx: *mut __sk_buff, header: u32) -> Self {
        let skb = Self { ctx };
        let linear = (skb.end() as u64).wrapping_sub(skb.start().0 as u64);
        if linear < u64::from(header) && linear < skb.whole() {
            let len = if skb.whole() < u64::from(header) { skb.whole() as u32 } else { header };
            // SAFETY: a helper on the program's own context; no window exists yet.
            unsafe { bpf_skb_pull_data(ctx, len) };
        }
        skb
    }

    /// Overwrites bytes at an offset from the packet's start.
    #[inline(always)]
    pub fn store<T>(self, at: u32, value: &T) -> bool {
        // SAFETY: the helper copies `size_of::<T>()` bytes from the reference.
        unsafe { bpf_skb_store_bytes(self.ctx, at, core::ptr::from_ref(value).cast(), size_of::<T>() as u32, 0) == 0 }
    }

    /// Updates the IPv4 header checksum at an offset for a replaced word.
    #[inline(always)]
    pub fn replace_l3(self, at: u32, old: u32, new: u32) -> bool {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_l3_csum_replace(self.ctx, at, u64::from(old), u64::from(new), 4) == 0 }
    }

    /// Updates a TCP, UDP or ICMP checksum for a difference of all replaced words.
    #[inline(always)]
    pub fn replace_l4(self, at: u32, delta: u64, flags: u32) -> bool {
        let delta = (delta & 0xffff_ffff) + (delta >> 32);
        let delta = (delta & 0xffff_ffff) + (delta >> 32);
        // SAFETY: a helper on the program's own context. Size 0 says that the last number is a difference.
        unsafe { bpf_l4_csum_replace(self.ctx, at, 0, delta, u64::from(flags)) == 0 }
    }
}

impl Cursor {
    #[inline(always)]
    pub fn plus(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Adds a length that the packet told, at most `MAX` (2^n - 1). In assembly, so that the optimiser cannot compute the sum twice:
    /// the verifier relates a bounds check to one register, not to a value.
    #[inline(always)]
    pub fn plus_told<const MAX: usize>(self, bytes: usize) -> Self {
        let mut at = self.0;
        // SAFETY: arithmetic on registers.
        unsafe {
            asm!("{n} &= {max}", "{at} += {n}", n = inout(reg) bytes => _, at = inout(reg) at, max = const MAX, options(pure, nomem, nostack))
        };
        Self(at)
    }
}

impl<const N: usize> Window<N> {
    #[inline(always)]
    pub fn start(self) -> Cursor {
        Cursor(self.0)
    }

    #[inline(always)]
    pub fn end(self) -> Cursor {
        Cursor(self.0.wrapping_add(N))
    }

    #[inline(always)]
    fn at<T, const AT: usize>(self) -> *mut T {
        const { assert!(AT + size_of::<T>() <= N, "outside of the window") };
        self.0.wrapping_add(AT).cast()
    }

    /// A window inside of this one.
    #[inline(always)]
    pub fn sub<const AT: usize, const M: usize>(self) -> Window<M> {
        const { assert!(AT + M <= N, "outside of the window") };
        Window(self.0.wrapping_add(AT))
    }

    #[inline(always)]
    pub fn u8<const AT: usize>(self) -> u8 {
        // SAFETY: within the window, which was compared with the packet's end.
        unsafe { *self.at::<u8, AT>() }
    }

    #[inline(always)]
    pub fn set_u8<const AT: usize>(self, v: u8) {
        // SAFETY: as in `u8`.
        unsafe { *self.at::<u8, AT>() = v }
    }
}

/// Multi-byte fields, read and written in the packet's byte order. BPF loads need no alignment on the architectures with efficient
/// unaligned access, which the verifier checks when it loads the program; `read_unaligned` would load byte by byte.
macro_rules! fields {
    ($($get:ident $set:ident $t:ty,)+) => { impl<const N: usize> Window<N> { $(
        #[inline(always)]
        pub fn $get<const AT: usize>(self) -> $t {
            // SAFETY: within the window; see above for the alignment.
            unsafe { *self.at::<$t, AT>() }
        }
        #[inline(always)]
        pub fn $set<const AT: usize>(self, v: $t) {
            // SAFETY: as in the getter.
            unsafe { *self.at::<$t, AT>() = v }
        }
    )+ } };
}
fields! { u16 set_u16 u16, u32 set_u32 u32, u64 set_u64 u64, }

/// The ones' complement sum of a window whose length is a multiple of 4 and at most 512.
#[inline(always)]
pub fn sum<const N: usize>(window: Window<N>) -> u64 {
    const { assert!(N % 4 == 0 && N <= 512) };
    // SAFETY: the helper reads `N` bytes of the window.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, window.0.cast(), N as u32, 0) as u64 }
}
