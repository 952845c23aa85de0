//! Rules about single lines: nothing unfinished or skipped, nothing that panics in shipped code, `unsafe` only where it has an
//! address, and no trace of the machine on which somebody worked.

use super::Fault;
use super::source::Source;

/// Where `unsafe` may stand, and why. Everything else is safe Rust.
const UNSAFE: &[(&str, &str)] = &[
    ("xdp-ebpf/src/program/", "packet and map memory, by pointers that the verifier checks"),
    ("xdp-ebpf/src/bench/", "a BPF program of the benchmarks, by the same rules"),
    ("ingress-agent/src/agent/precedence.rs", "sched_setattr(2)"),
    ("ingress-agent/src/dataplane/", "map memory shared with the kernel, and bpf(2)"),
    ("ingress-agent/src/vip/", "raw sockets"),
    ("ingress-agent/src/memory.rs", "a function of the allocator"),
    ("ingress-agent/src/proxy/client.rs", "hyper's and tokio's buffers of memory that is not initialised yet"),
    ("ingress-agent/src/proxy/upstream/h1.rs", "the same: reads without clearing memory first"),
    ("xtask/src/steps.rs", "geteuid and prctl"),
    ("xtask/src/pauses.rs", "the scheduler's system calls"),
    ("tests/", "setns, signals and system calls of the fixtures"),
];

pub(crate) fn check(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, code) in source.code.iter().enumerate() {
        let line = index + 1;
        if code.contains("#[ignore") {
            faults.push(Fault::new(&source.path, line, "an ignored test looks green: fix it or delete it"));
        }
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            if code.contains(word) {
                faults.push(Fault::new(&source.path, line, format!("`{word}…)`: unfinished")));
            }
        }
        if has_word(code, "unsafe") {
            faults.extend(unsafe_code(source, index));
        }
    }
    for (line, code) in source.shipped() {
        if code.contains(".unwrap()") {
            faults.push(Fault::new(
                &source.path,
                line,
                "`unwrap()` in shipped code: return an error, or state the invariant",
            ));
        }
    }
    faults
}

/// Paths of somebody's machine, in any text file of the project.
pub(crate) fn no_machine_path(path: &str, text: &str) -> Vec<Fault> {
    // Written in two parts, so that this file passes its own rule.
    let roots = [concat!("/wo", "rk/"), concat!("/ro", "ot/."), concat!("/ho", "me/"), concat!("/tmp/", "wt/")];
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(root) = roots.iter().find(|root| starts_a_path(line, root)) {
            faults.push(Fault::new(path, index + 1, format!("names a path of one machine (`{root}…`)")));
        }
    }
    faults
}

/// Whether `root` stands there as the beginning of an absolute path, not in the middle of one.
fn starts_a_path(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '}' | '/' | '~'))
    })
}

fn unsafe_code(source: &Source, index: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    let code = &source.code[index];
    // Attributes such as `#[unsafe(no_mangle)]` and `unsafe_code` lints are not blocks.
    if code.contains("#[unsafe(") || code.contains("#![") {
        return faults;
    }
    if !UNSAFE.iter().any(|(place, _)| source.path.starts_with(place)) {
        faults.push(Fault::new(&source.path, index + 1, "`unsafe` outside the places that tidy lists with a reason"));
    }
    let block = code.contains("unsafe {") || code.contains("unsafe impl");
    if block && !explained(source, index) {
        faults.push(Fault::new(&source.path, index + 1, "`unsafe` without a `// SAFETY:` comment above it"));
    }
    faults
}

/// A SAFETY comment on the same line, or in the comment above the statement (which may have begun some lines earlier).
fn explained(source: &Source, index: usize) -> bool {
    let from = index.saturating_sub(12);
    let above = source.lines[from..=index].iter().rposition(|line| line.contains("SAFETY:"));
    let Some(comment) = above.map(|at| from + at) else { return false };
    // No other statement may end between the comment and the block.
    source.code[comment..index].iter().all(|code| !code.trim_end().ends_with([';', '}']))
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn nothing_is_skipped_or_unfinished() {
        for text in ["#[ignore]\nfn a() {}", "fn a() { todo!() }", "fn a() { unimplemented!(\"b\") }", "dbg!(a);"] {
            assert_eq!(faults("tests/a.rs", text), 1, "{text}");
        }
        assert_eq!(faults("tests/a.rs", "// todo!() is banned"), 0);
    }

    #[test]
    fn unwrap_is_for_tests() {
        assert_eq!(faults("ingress-agent/src/a.rs", "fn a() { b.unwrap(); }"), 1);
        assert_eq!(faults("ingress-agent/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { b.unwrap(); } }"), 0);
        assert_eq!(faults("ingress-agent/src/a/tests.rs", "fn a() { b.unwrap(); }"), 0);
    }

    #[test]
    fn unsafe_has_an_address_and_a_reason() {
        let explained = "// SAFETY: bounded above.\nlet a =\n    unsafe { b() };";
        assert_eq!(faults("ingress-agent/src/dataplane/a.rs", explained), 0);
        assert_eq!(faults("ingress-agent/src/plan/a.rs", explained), 1);
        assert_eq!(faults("ingress-agent/src/dataplane/a.rs", "let a = unsafe { b() };"), 1);
        let another = "// SAFETY: for a.\nlet a = unsafe { b() };\nlet c = unsafe { d() };";
        assert_eq!(faults("ingress-agent/src/dataplane/a.rs", another), 1);
        assert_eq!(faults("ingress-agent/src/plan/a.rs", "#![forbid(unsafe_code)]"), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let bad = concat!("see /ho", "me/somebody/x");
        assert_eq!(no_machine_path("README.md", bad).len(), 1);
        assert_eq!(no_machine_path("README.md", concat!("https://shop.example/ho", "me/x and ../wo", "rk/y")).len(), 0);
    }
}
