//! The thread of elections runs before all ordinary ones, in locked memory; where that is not permitted, elections are held all the same,
//! and say what is missing.

use std::fs;

use ingress_agent::vip::{VipOptions, Vips};
use ingress_tests::edge::Agent;
use ingress_tests::place::Place;
use ingress_tests::vip_site::{Node, Site, VIP4, VIP6, VRID, group, manifests, options, until_has};
use ingress_tests::wait::until;

/// `linux/capability.h`.
const CAP_SYS_NICE: u32 = 23;

#[test]
fn elections_have_real_time_priority_and_locked_memory() {
    let site = Site::new("vrt1");
    let host = site.host(2);
    let place = Place::new("vrt1").expect("a place");
    place.manifest("demo.yaml", &manifests("10.1.0.9")).expect("write the manifests");
    let arguments = ["--node", "a", "--vip-mode", "vrrp"];
    let agent = Agent::start(&host, &place.directory, &place.pins, &arguments).expect("start the agent");
    until_has(&host, VIP4, true);
    let id = agent.id().expect("it runs");
    let mut seen = Vec::new();
    for task in fs::read_dir(format!("/proc/{id}/task")).expect("list its threads") {
        let task = task.expect("a thread").file_name().to_string_lossy().into_owned();
        let name = fs::read_to_string(format!("/proc/{id}/task/{task}/comm")).unwrap_or_default();
        let thread: libc::pid_t = task.parse().expect("an id");
        let mut parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: `parameters` is valid for writes; the thread's id names no memory of ours.
        let policy = unsafe {
            libc::sched_getparam(thread, &raw mut parameters);
            libc::sched_getscheduler(thread)
        };
        let real_time = policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO && parameters.sched_priority == 10;
        seen.push((name.trim().to_owned(), real_time));
    }
    let with = |name: &str| seen.iter().filter(|(n, _)| n == name).map(|(_, real_time)| *real_time).collect::<Vec<_>>();
    assert_eq!((with("vrrp"), with("vip")), (vec![true], vec![true]), "{seen:?}");
    assert_eq!(
        seen.iter().filter(|(_, real_time)| *real_time).count(),
        2,
        "no other thread is above the others: {seen:?}"
    );
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("read its status");
    let locked = status.lines().find_map(|l| l.strip_prefix("VmLck:")?.split_whitespace().next()?.parse::<u64>().ok());
    assert!(locked.is_some_and(|kib| kib > 0), "{status}");
}

#[test]
fn without_the_right_to_real_time_elections_are_held_and_say_so() {
    let site = Site::new("vrt2");
    let (a, b) = (site.host(2), site.host(3));
    let groups = |priority| [group(VRID, &[VIP4, VIP6], priority)];
    let a = Node::start(&a, options(100), &groups(250));
    a.until("active");
    assert!(a.vips().elections().notes.iter().all(|n| !n.contains("real-time")), "{:?}", a.vips().elections().notes);
    // Threads inherit the rights of the one that starts them.
    let vips = b.inside(|| {
        lose(CAP_SYS_NICE);
        let options = VipOptions { interface: "eth0".into(), proc_sys: "/proc/sys".into(), vrrp: Some(options(100)) };
        Vips::start(options)
    });
    let vips = vips.expect("start the holder");
    vips.elect(groups(246).to_vec().into());
    let b = Node { host: b, vips: Some(vips) };
    b.until("backup");
    let note = until("what is missing is told", || {
        b.vips().elections().notes.into_iter().find(|n| n.contains("no real-time priority"))
    });
    assert!(note.contains("CAP_SYS_NICE"), "{note}");
    site.cable(2, false);
    b.until("active");
    until_has(&b.host, VIP4, true);
}

/// Takes a capability from the calling thread for good.
fn lose(capability: u32) {
    // `linux/capability.h`: version 3, this thread; effective, permitted and inheritable, 32 capabilities each time.
    let header = [0x2008_0522_u32, 0];
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: both pointers are valid for what version 3 reads and writes.
    let read = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(read, 0, "capget: {}", std::io::Error::last_os_error());
    for set in &mut sets[capability as usize / 32] {
        *set &= !(1 << (capability % 32));
    }
    // SAFETY: as above.
    let written = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(written, 0, "capset: {}", std::io::Error::last_os_error());
}
