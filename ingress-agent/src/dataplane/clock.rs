//! The kernel's jiffies, by which the programs date flows. No file tells them cheaply and exactly, so a two-instruction program
//! is asked: `return bpf_jiffies64()`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use super::kernel::bpf;

pub(super) struct Clock {
    program: OwnedFd,
    /// [`xdp_ebpf::Config::tick_shift`].
    shift: u32,
}

/// The head of `union bpf_attr` (linux/bpf.h) for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The head of `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct Run {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

impl Clock {
    pub(super) fn new(shift: u32) -> Result<Self> {
        /// `call bpf_jiffies64` (helper 118); `exit`.
        const CODE: [u64; 2] = [118 << 32 | 0x85, 0x95];
        let mut load = Load {
            prog_type: BPF_PROG_TYPE_SCHED_CLS,
            insn_cnt: 2,
            insns: CODE.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 4],
            kern_version: 0,
            prog_flags: 0,
            prog_name: *b"sluicegate_clock",
        };
        // The name ends with a NUL within its 16 bytes.
        load.prog_name[15] = 0;
        let fd = bpf(BPF_PROG_LOAD, &mut load).context("load the clock program")?;
        // SAFETY: the kernel just returned this descriptor, and nobody else has it.
        Ok(Self { program: unsafe { OwnedFd::from_raw_fd(fd) }, shift })
    }

    /// The programs' present tick; they keep its low 16 bits.
    pub(super) fn tick(&self) -> Result<u32> {
        Ok(self.jiffies()? >> self.shift)
    }

    /// Low 32 bits of jiffies.
    pub(super) fn jiffies(&self) -> Result<u32> {
        // The kernel runs it on a packet of its own making; it wants at least an Ethernet header to make it from.
        let packet = [0u8; 64];
        let mut run = Run {
            prog_fd: self.program.as_raw_fd() as u32,
            data_size_in: packet.len() as u32,
            data_in: packet.as_ptr() as u64,
            repeat: 1,
            ..Run::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut run).context("run the clock program")?;
        Ok(run.retval)
    }
}
