//! Words of the maps that several CPUs write at once, and the order in which others see what was written.

use core::arch::asm;
use core::cell::UnsafeCell;

/// A word that other CPUs write.
#[repr(transparent)]
pub struct Word(UnsafeCell<u32>);

// SAFETY: every access is one aligned load, store or atomic instruction.
unsafe impl Sync for Word {}

impl Word {
    #[inline(always)]
    pub fn load(&self) -> u32 {
        // SAFETY: aligned, in a map's value; volatile, so that it is one load at this place.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    pub fn store(&self, v: u32) {
        // SAFETY: as in `load`.
        unsafe { self.0.get().write_volatile(v) }
    }

    /// Compare-and-swap with full ordering. (Rust's BPF target has none, LLVM's and the kernel's have.)
    #[inline(always)]
    pub fn swap_if(&self, old: u32, new: u32) -> bool {
        let mut seen = u64::from(old);
        // SAFETY: one atomic instruction on an aligned word of a map's value.
        unsafe {
            asm!("w0 = cmpxchg32_32(r1 + 0, w0, w2)", inout("r0") seen, in("r1") self.0.get(), in("r2") u64::from(new), options(nostack));
        }
        seen as u32 == old
    }

    /// Stores so that what was written before is visible to whoever sees the new value.
    #[inline(always)]
    pub fn publish(&self, v: u32) {
        // x86 keeps the order of stores, and an exchange would wait for the record's cache line.
        if cfg!(bpf_target_arch = "x86_64") {
            barrier();
            self.store(v);
            return;
        }
        // SAFETY: as in `swap_if`.
        unsafe {
            asm!("w2 = xchg32_32(r1 + 0, w2)", inout("r2") u64::from(v) => _, in("r1") self.0.get(), options(nostack))
        };
    }
}

/// A [`ReplyEntry`](xdp_ebpf::ReplyEntry) as the one word that it is stored with.
#[repr(transparent)]
pub struct Entry(UnsafeCell<u64>);

// SAFETY: as for `Word`.
unsafe impl Sync for Entry {}

impl Entry {
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // SAFETY: as in `Word::load`.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    pub fn store(&self, v: u64) {
        // SAFETY: as in `Word::store`.
        unsafe { self.0.get().write_volatile(v) }
    }

    #[inline(always)]
    pub fn swap_if(&self, old: u64, new: u64) -> bool {
        let mut seen = old;
        // SAFETY: as in `Word::swap_if`.
        unsafe {
            asm!("r0 = cmpxchg_64(r1 + 0, r0, r2)", inout("r0") seen, in("r1") self.0.get(), in("r2") new, options(nostack));
        }
        seen == old
    }
}

/// Keeps loads before it from being moved behind it.
#[inline(always)]
pub fn barrier() {
    // SAFETY: the template is empty; it is said to touch memory.
    unsafe { asm!("", options(nostack)) };
}
