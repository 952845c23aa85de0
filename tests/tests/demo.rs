//! The demo as a test: it holds, it leaves nothing behind, and an interrupted one leaves nothing behind either. What it claims
//! is checked by the demo itself; only its ends are looked at here.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ingress_tests::wait;

/// A cluster takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn start(arguments: &[&str]) -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(arguments);
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

/// One test for both demos and both ends: two at once would share two cores, and their measures would not hold.
#[test]
fn a_demo_leaves_nothing_behind_whether_it_ends_or_is_interrupted() {
    for arguments in [&[][..], &["--cluster"]] {
        let demo = start(arguments);
        let id = demo.id();
        let ended = demo.wait_with_output().expect("wait for the demo");
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success(), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
        assert!(said.contains("All held."), "{said}");
        let failover = ["the owner's cable cut", "its `nat` connections lost", "planned move"];
        let shown = failover.iter().all(|row| said.matches(row).count() >= 2);
        assert_eq!(shown, arguments.is_empty(), "each is said when it is measured, and again in the table: {said}");
        assert_eq!(traces(id), Vec::<String>::new());

        let mut demo = start(arguments);
        let id = demo.id();
        // On a cluster: while pods start.
        let enough = if arguments.is_empty() { 5 } else { 12 };
        wait::within(PATIENCE, "the demo has made its namespaces", || (traces(id).len() > enough).then_some(()));
        // SAFETY: kill takes no pointer; the child is not reaped, so the id is its own.
        unsafe { libc::kill(id.cast_signed(), libc::SIGINT) };
        let ended = wait::within(PATIENCE, "the demo ends on Ctrl-C", || demo.try_wait().expect("wait"));
        assert_eq!(ended.code(), Some(130));
        assert_eq!(traces(id), Vec::<String>::new());
    }
}
