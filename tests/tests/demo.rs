//! The demo as a test: it holds, it leaves nothing behind, and an interrupted one leaves nothing behind either. What it claims
//! is checked by the demo itself; only its ends are looked at here.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ingress_tests::wait;

fn start() -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the demo")
}

/// Namespaces, directories and pins that carry this process id.
fn traces(id: u32) -> Vec<String> {
    let suffix = format!("-{id}");
    let mut left = Vec::new();
    for place in [Path::new("/run/netns"), Path::new("/sys/fs/bpf"), &std::env::temp_dir()] {
        let Ok(entries) = std::fs::read_dir(place) else { continue };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        left.extend(names.filter(|name| name.contains("demo") && name.ends_with(&suffix)));
    }
    left
}

/// One test for both ends: two demos at once would share two cores, and their measures would not hold.
#[test]
fn a_demo_leaves_nothing_behind_whether_it_ends_or_is_interrupted() {
    let demo = start();
    let id = demo.id();
    let ended = demo.wait_with_output().expect("wait for the demo");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains("All held."), "{said}");
    assert_eq!(traces(id), Vec::<String>::new());

    let mut demo = start();
    let id = demo.id();
    wait::until("the demo has made its namespaces", || (traces(id).len() > 5).then_some(()));
    // SAFETY: kill takes no pointer; the child is not reaped, so the id is its own.
    unsafe { libc::kill(id.cast_signed(), libc::SIGINT) };
    let ended = wait::within(Duration::from_secs(20), "the demo ends on Ctrl-C", || demo.try_wait().expect("wait"));
    assert_eq!(ended.code(), Some(130));
    assert_eq!(traces(id), Vec::<String>::new());
}
