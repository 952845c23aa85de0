//! A window into an `MMAPABLE` array map: reads, 8-byte stores and compare-and-swap without a system call. It must never hand
//! out a plain reference into the map, since BPF programs write there at the same time.
//!
//! The kernel maps all pages of a window at once (`remap_vmalloc_range`), and mapped pages count as this process's memory. So
//! small maps stay mapped, and the large ones (`RINGS`, the flow table) are looked at through windows that come and go.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

use super::plain::Plain;

/// Elements `first..first + count` of a map whose values are of type `T`.
pub(super) struct Region<T> {
    /// Start of the mapping: a page boundary.
    base: NonNull<u8>,
    mapped: usize,
    /// Bytes from `base` to element `first`; a multiple of 8.
    lead: usize,
    first: usize,
    count: usize,
    of: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway, and every access below is atomic; the mapping belongs to no thread.
unsafe impl<T> Send for Region<T> {}

impl<T: Plain> Region<T> {
    /// Maps the elements. `T` is the map's value, except for `u32`: slots of `RINGS`, whose pages follow without gaps.
    pub(super) fn map(map: BorrowedFd<'_>, first: usize, count: usize) -> Result<Self> {
        let size = size_of::<T>();
        let (start, end) = (first * size, (first + count) * size);
        let page = page_size();
        let offset = start / page * page;
        let mapped = (end - offset).next_multiple_of(page);
        ensure!(count > 0, "nothing to map");
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                libc::off_t::try_from(offset).context("offset into the map")?,
            )
        };
        ensure!(base != libc::MAP_FAILED, "mmap of {mapped} bytes: {}", std::io::Error::last_os_error());
        let base = NonNull::new(base.cast()).context("mmap gave address 0")?;
        Ok(Self { base, mapped, lead: start - offset, first, count, of: PhantomData })
    }

    /// Index after the last element.
    pub(super) fn end(&self) -> usize {
        self.first + self.count
    }

    /// Copies element `index` out, 8 bytes at a time. Words are never torn; the element as a whole may be.
    pub(super) fn load(&self, index: usize) -> T {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        for word in 0..size_of::<T>() / 8 {
            let bits = self.word(index, word).load(Ordering::Acquire);
            // SAFETY: `word` counts the 8-byte words of T; unaligned because T may be aligned to less than 8.
            unsafe { value.as_mut_ptr().cast::<u64>().add(word).write_unaligned(bits) };
        }
        // SAFETY: every byte was written, and `Plain` has a value for every bit pattern.
        unsafe { value.assume_init() }
    }

    /// Writes element `index`, 8 bytes at a time in ascending order: what the last word guards is there before it.
    pub(super) fn store(&self, index: usize, value: &T) {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: as in `load`; `Plain` has no padding, so all bytes are initialised.
            let bits = unsafe { std::ptr::from_ref(value).cast::<u64>().add(word).read_unaligned() };
            self.word(index, word).store(bits, Ordering::Release);
        }
    }

    /// The `word`-th 8 bytes of element `index`.
    pub(super) fn word(&self, index: usize, word: usize) -> &AtomicU64 {
        let at = self.offset(index, word * 8, 8);
        // SAFETY: `offset` checked the bounds; page base, `lead`, `size_of::<T>` and `word * 8` are multiples of 8.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// The `half`-th 4 bytes of element `index`.
    pub(super) fn half(&self, index: usize, half: usize) -> &AtomicU32 {
        let at = self.offset(index, half * 4, 4);
        // SAFETY: `offset` checked the bounds, and every term is a multiple of 4.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    fn offset(&self, index: usize, within: usize, len: usize) -> usize {
        let element = index.checked_sub(self.first).filter(|e| *e < self.count);
        let element = element.expect("the index lies in the window that the caller mapped");
        assert!(within + len <= size_of::<T>(), "inside the element");
        self.lead + element * size_of::<T>() + within
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; every reference into it borrows `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
