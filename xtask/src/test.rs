//! `cargo xtask test`: every check and every test, to the end even if an early one fails, closed by one line that sums
//! them all. Nothing is skipped: what lacks root or a tool fails and says so. A test that fails while the machine stands still is run once more, alone,
//! and the closing lines say so.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::pauses::Pauses;
use crate::{build, control_plane, helm, licences, setup, steps, tidy};

/// A test program that prints nothing for so long hangs: it is ended, and the others still run. The slowest test takes
/// two minutes on two cores.
const PATIENCE: Duration = Duration::from_mins(10);

/// A pause of the machine that may fail a test: three adverts of the quickest election that is tested.
const PAUSE: Duration = Duration::from_millis(60);

#[derive(Args)]
pub(crate) struct Options {
    /// Run only the tests whose names contain one of these, and no other check.
    names: Vec<String>,
}

/// What the closing line sums up. A check (fmt, clippy, …) counts as one.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
    /// Failed tests during whose program the machine stood still for so long: the program, the test.
    doubtful: Vec<(String, String, Duration)>,
    repeated: Vec<String>,
}

impl Tally {
    fn check(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("    {error:#}");
                self.fail(what);
            }
        }
    }

    fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    /// After a second run in which these passed.
    fn settle(&mut self, doubtful: Vec<(String, String, Duration)>, passed: &[(String, String)]) {
        for (program, test, pause) in doubtful {
            let name = format!("{program}: {test}");
            if passed.contains(&(program, test)) {
                self.failures.retain(|failure| *failure != name);
                self.failed -= 1;
                self.passed += 1;
                let pause = pause.as_millis();
                self.repeated.push(format!(
                    "{name} failed while the machine stood still for {pause} ms, and passed when repeated"
                ));
            }
        }
    }
}

pub(crate) fn test(options: &Options) -> Result<()> {
    steps::need_root("test", "the tests make network namespaces and load BPF programs")?;
    let started = Instant::now();
    setup::tools(setup::For::Test)?;
    control_plane::prepare()?;
    helm::prepare()?;
    let mut tally = Tally::default();
    if options.names.is_empty() {
        checks(&mut tally)?;
    }
    steps::title("Tests");
    let mut build = build::cargo(&["build", "--workspace", "--all-targets"])?;
    let built = steps::run("build everything", &mut build);
    let runnable = built.is_ok();
    tally.check("build", built);
    if runnable {
        tests(&options.names, &mut tally)?;
    }
    steps::title(&format!("Finished in {}", steps::elapsed(started)));
    for repeated in &tally.repeated {
        println!("  ! {repeated}");
    }
    for failure in &tally.failures {
        println!("  ✗ {failure}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        bail!("not all passed; what each step printed is kept in {}", steps::target().join("xtask").display());
    }
    Ok(())
}

fn checks(tally: &mut Tally) -> Result<()> {
    steps::title("Checks");
    tally.check("fmt", steps::run("cargo fmt --check", &mut steps::cargo(&["fmt", "--all", "--check"])));
    tally.check("tidy", tidy::tidy());
    tally.check("licences", licences::check());
    let mut clippy = build::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    tally.check("clippy", steps::run("cargo clippy", &mut clippy));
    Ok(())
}

/// Runs the tests and shows one line a test program, or all that a failing one printed.
fn tests(names: &[String], tally: &mut Tally) -> Result<()> {
    let mut command = build::cargo(&["test", "--workspace", "--no-fail-fast", "--"])?;
    command.args(names);
    let mut program = Program { pauses: Some(Pauses::watch()), ..Program::default() };
    let before = tally.failed;
    let ended = steps::watch("cargo test", &mut command, Some(PATIENCE), |line| program.read(line, tally))?;
    // Whatever else ended cargo's run has been told by no line.
    if !ended.ok && tally.failed == before {
        tally.fail("a test program ended without a result");
        return ended.or_fail();
    }
    if tally.doubtful.is_empty() { Ok(()) } else { again(tally) }
}

/// Runs the doubtful ones once more, one at a time. What passes now has passed, and is named.
fn again(tally: &mut Tally) -> Result<()> {
    let doubtful = std::mem::take(&mut tally.doubtful);
    let mut command = build::cargo(&["test", "--workspace", "--no-fail-fast", "--", "--exact", "--test-threads=1"])?;
    command.args(doubtful.iter().map(|(_, test, _)| test));
    let (mut program, mut second) = (Program::default(), Tally::default());
    steps::watch("cargo test, what failed in a pause of the machine", &mut command, Some(PATIENCE), |line| {
        program.read(line, &mut second)
    })?;
    tally.settle(doubtful, &program.passed);
    Ok(())
}

/// The test program whose output is being read.
#[derive(Default)]
struct Program {
    name: String,
    /// Its closing line was read, or its hanging was told.
    ended: bool,
    said: Vec<String>,
    /// Tests that libtest has called slow and that have not ended since.
    slow: Vec<String>,
    failed: Vec<String>,
    /// Of all programs so far: the program, the test.
    passed: Vec<(String, String)>,
    pauses: Option<Pauses>,
}

impl Program {
    /// Returns what to show for this line.
    fn read(&mut self, line: &str, tally: &mut Tally) -> Option<String> {
        let trimmed = line.trim_start();
        if let Some(started) = trimmed.strip_prefix("Running ").or_else(|| trimmed.strip_prefix("Doc-tests ")) {
            self.name = program_name(started);
            self.ended = false;
            self.said.clear();
            self.slow.clear();
            self.failed.clear();
            self.pauses.as_ref().map(Pauses::longest);
            return None;
        }
        if line.starts_with(steps::SILENT) {
            self.ended = true;
            let slow = self.slow.join(", ");
            tally.fail(&format!("{}: {line}; what hangs: {slow}", self.name));
            return Some(format!("  ✗ {} · {line}; what hangs: {slow}", self.name));
        }
        // What cargo says of a program that exited or was killed in the middle of a test.
        if trimmed.starts_with("process didn't exit successfully") && !self.ended {
            self.ended = true;
            let said: Vec<String> = self.said.iter().map(|line| format!("    | {line}")).collect();
            tally.fail(&format!("{}: ended without a result", self.name));
            return Some(format!("  ✗ {} · {trimmed}\n{}", self.name, said.join("\n")));
        }
        if let Some(test) = line.strip_suffix(" has been running for over 60 seconds") {
            self.slow.push(test.trim_start_matches("test ").to_owned());
        } else if let Some((test, _)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            self.slow.retain(|slow| slow != test);
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            // A program that a test started may write before `test x ... FAILED`, so look at the end only.
            if let Some(test) = line.strip_suffix(" ... FAILED").and_then(|head| head.rsplit("test ").next()) {
                tally.failures.push(format!("{}: {test}", self.name));
                self.failed.push(test.to_owned());
            }
            if let Some(test) = line.strip_suffix(" ... ok").and_then(|head| head.rsplit("test ").next()) {
                self.passed.push((self.name.clone(), test.to_owned()));
            }
            self.said.push(line.to_owned());
            return None;
        };
        self.ended = true;
        let (passed, failed) = (count(result, " passed"), count(result, " failed"));
        tally.passed += passed;
        tally.failed += failed;
        // Skipping would look green.
        let ignored = count(result, " ignored");
        tally.failed += ignored;
        if ignored > 0 {
            tally.failures.push(format!("{}: {ignored} ignored tests", self.name));
        }
        if failed > 0 {
            let pause = self.pauses.as_ref().map_or(Duration::ZERO, Pauses::longest);
            if pause >= PAUSE {
                let failed = self.failed.drain(..).map(|test| (self.name.clone(), test, pause));
                tally.doubtful.extend(failed);
            }
            let report: Vec<String> =
                self.said.iter().skip_while(|line| *line != "failures:").map(|line| format!("    | {line}")).collect();
            return Some(format!("  ✗ {} · {passed} passed, {failed} failed\n{}", self.name, report.join("\n")));
        }
        let time = result.rsplit("finished in ").next().unwrap_or_default();
        (passed > 0).then(|| format!("  ✓ {} · {passed} passed in {time}", self.name))
    }
}

/// `tests/a.rs (target/debug/deps/a-0123)` is `a`; of several packages' `src/lib.rs` only this tells which.
fn program_name(started: &str) -> String {
    let (source, program) = started.split_once(" (").unwrap_or((started, ""));
    let program = program.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    let name = program.rsplit_once('-').map_or(program, |(name, _)| name);
    if name.is_empty() { format!("{source} (documentation)") } else { name.to_owned() }
}

/// The number before a word: `count("ok. 3 passed; 1 failed", " failed")` is 1.
fn count(result: &str, word: &str) -> u64 {
    let head = result.split(word).next().unwrap_or_default();
    head.rsplit([' ', ';', '.']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closing_line_is_counted() {
        let mut tally = Tally::default();
        let mut program = Program::default();
        assert_eq!(program.read("     Running tests/xdp_tables.rs (target/debug/deps/xdp_tables-1)", &mut tally), None);
        let shown =
            program.read("test result: ok. 48 passed; 0 failed; 0 ignored; 0 measured; finished in 3.10s", &mut tally);
        assert_eq!(shown.as_deref(), Some("  ✓ xdp_tables · 48 passed in 3.10s"));
        assert_eq!((tally.passed, tally.failed), (48, 0));
    }

    #[test]
    fn a_failing_test_is_named_and_its_report_shown() {
        let mut tally = Tally::default();
        let mut program = Program::default();
        let lines = ["     Running unittests src/lib.rs (x)", "noise test a::b ... FAILED", "failures:", "    why"];
        for line in lines {
            assert_eq!(program.read(line, &mut tally), None);
        }
        let shown = program.read("test result: FAILED. 1 passed; 2 failed; 0 ignored; finished in 0.1s", &mut tally);
        assert!(shown.is_some_and(|text| text.contains("| failures:\n    |     why") && !text.contains("noise")));
        assert_eq!((tally.passed, tally.failed, tally.failures.len()), (1, 2, 1));
    }

    #[test]
    fn a_program_ended_for_its_silence_names_the_test_that_hangs() {
        let mut tally = Tally::default();
        let mut program = Program::default();
        let silent = format!("{} 10 min 00 s", steps::SILENT);
        program.read("     Running tests/a.rs (target/debug/deps/a-1)", &mut tally);
        for slow in ["one", "two"] {
            program.read(&format!("test {slow} has been running for over 60 seconds"), &mut tally);
        }
        program.read("test one ... ok", &mut tally);
        let shown = program.read(&silent, &mut tally).expect("it is shown");
        assert!(shown.ends_with("what hangs: two"), "{shown}");
        assert_eq!((tally.failed, tally.failures), (1, vec![format!("a: {silent}; what hangs: two")]));
    }

    #[test]
    fn a_program_that_ends_in_the_middle_is_named_with_what_it_said() {
        let mut tally = Tally::default();
        let mut program = Program::default();
        for line in ["     Running tests/a.rs (target/debug/deps/a-1)", "error: no such option"] {
            assert_eq!(program.read(line, &mut tally), None);
        }
        let shown = program.read("  process didn't exit successfully: `a` (exit status: 2)", &mut tally);
        assert!(shown.is_some_and(|text| text.contains("a · process") && text.contains("| error: no such option")));
        assert_eq!((tally.failed, tally.failures), (1, vec!["a: ended without a result".to_owned()]));

        let mut tally = Tally::default();
        program.read("     Running tests/b.rs (target/debug/deps/b-1)", &mut tally);
        program.read("test result: FAILED. 1 passed; 1 failed; 0 ignored; finished in 0.1s", &mut tally);
        assert_eq!(program.read("  process didn't exit successfully: `b` (exit status: 101)", &mut tally), None);
        assert_eq!(tally.failed, 1);
    }

    #[test]
    fn only_what_passes_when_repeated_has_passed_and_it_is_named() {
        let mut tally = Tally::default();
        let mut program = Program::default();
        for line in ["     Running tests/a.rs (target/debug/deps/a-1)", "test x ... FAILED", "test y ... FAILED"] {
            program.read(line, &mut tally);
        }
        program.read("test result: FAILED. 0 passed; 2 failed; 0 ignored; finished in 0.1s", &mut tally);
        assert!(tally.doubtful.is_empty(), "the machine did not pause");
        let pause = Duration::from_millis(300);
        let doubtful = ["x", "y"].map(|test| ("a".to_owned(), test.to_owned(), pause)).to_vec();
        let mut again = Program::default();
        let others = "     Running tests/b.rs (target/debug/deps/b-1)";
        for line in [others, "test y ... ok", "     Running tests/a.rs (a-1)", "test x ... ok", "test y ... FAILED"] {
            again.read(line, &mut Tally::default());
        }
        tally.settle(doubtful, &again.passed);
        assert_eq!((tally.passed, tally.failed, &tally.failures[..]), (1, 1, &["a: y".to_owned()][..]));
        assert_eq!(tally.repeated.len(), 1);
        assert!(tally.repeated[0].starts_with("a: x failed while the machine stood still for 300 ms"));
    }

    #[test]
    fn an_ignored_test_counts_as_failed() {
        let mut tally = Tally::default();
        Program::default().read("test result: ok. 1 passed; 0 failed; 3 ignored; finished in 0.1s", &mut tally);
        assert_eq!(tally.failed, 3);
    }
}
