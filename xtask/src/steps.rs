//! Running other programs so that a person can follow: one line a step, the elapsed time while it runs, the output of
//! what failed. Everything a step prints is kept under `target/xtask/`. Never reads standard input.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Without a terminal there is no ticking line; then a sign of life is printed this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// Lines of a failed command's output that are shown; the rest is in its log.
const SHOWN_ON_FAILURE: usize = 60;

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Fails at once, before minutes of building, when the user may not make namespaces or install packages.
pub(crate) fn need_root(verb: &str, why: &str) -> Result<()> {
    // SAFETY: geteuid takes no pointer and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return Ok(());
    }
    bail!("`cargo xtask {verb}` needs root: {why}\n\n    sudo -E env \"PATH=$PATH\" cargo xtask {verb}\n")
}

/// A title above a group of steps.
pub(crate) fn title(text: &str) {
    println!("\n{}", bold(text));
}

/// A remark below a title.
pub(crate) fn note(text: &str) {
    println!("  {text}");
}

/// A cargo that builds this workspace as the current one was started.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).env("CARGO_TERM_COLOR", "never");
    command
}

/// What a command says on standard output, without showing anything. Fails with its error output.
pub(crate) fn ask(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let said = command.stdin(Stdio::null()).output().with_context(|| format!("start {program}"))?;
    if !said.status.success() {
        bail!("{program} failed ({}): {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Runs a step to its end: a line while it runs, a line when it is done, its output only if it failed.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    watch(what, command, None, |_| None)?.or_fail()
}

/// How a watched command ended.
pub(crate) struct Ended {
    what: String,
    pub(crate) ok: bool,
    log: PathBuf,
    last: VecDeque<String>,
}

impl Ended {
    /// Shows the end of the output where the command failed.
    pub(crate) fn or_fail(self) -> Result<()> {
        if self.ok {
            return Ok(());
        }
        for line in &self.last {
            println!("    | {line}");
        }
        bail!("{} failed; all of its output: {}", self.what, self.log.display())
    }
}

/// Runs a command with both outputs merged, each line given to `on_line`; what that returns is printed at once.
/// Where a `patience` is given and nothing was printed for so long, the programs that the command started are ended, and
/// a line says so; the command itself goes on.
pub(crate) fn watch(
    what: &str,
    command: &mut Command,
    patience: Option<Duration>,
    mut on_line: impl FnMut(&str) -> Option<String>,
) -> Result<Ended> {
    let directory = target().join("xtask");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let log_path = directory.join(format!("{}.log", name.to_lowercase()));
    let mut log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;

    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("share a pipe")?).stderr(writer);
    let mut child = spawn(command)?;
    // The command holds the write end of the pipe; let go of it, or the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });

    let mut progress = Progress::new(what);
    let mut last = VecDeque::new();
    let mut heard = Instant::now();
    loop {
        let mut next = lines.recv_timeout(Duration::from_millis(500));
        if next == Err(RecvTimeoutError::Timeout) && patience.is_some_and(|patience| heard.elapsed() > patience) {
            end_children(child.id());
            next = Ok(format!("{SILENT} {}", elapsed(heard)));
        }
        match next {
            Ok(line) => {
                heard = Instant::now();
                writeln!(log, "{line}").with_context(|| format!("write {}", log_path.display()))?;
                if let Some(text) = on_line(&line) {
                    progress.print(&text);
                }
                progress.tick(&line);
                if last.len() == SHOWN_ON_FAILURE {
                    last.pop_front();
                }
                last.push_back(line);
            }
            // A daemon that outlives the command may hold the pipe open for ever.
            Err(RecvTimeoutError::Timeout) if child.try_wait().context("wait for a command")?.is_some() => break,
            Err(RecvTimeoutError::Timeout) => progress.tick(""),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let ok = child.wait().context("wait for a command")?.success();
    progress.done(ok);
    Ok(Ended { what: what.to_owned(), ok, log: log_path, last })
}

/// What a line begins with that tells of programs ended for their silence.
pub(crate) const SILENT: &str = "ended: it had printed nothing for";

/// Asks the programs that a process started to end. Those that cannot be found any more have ended by themselves.
fn end_children(parent: u32) {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        // SAFETY: kill(2) takes no pointer.
        unsafe { libc::kill(child, libc::SIGTERM) };
    }
}

/// Becomes another program, which then owns the terminal and its signals. Returns only if that failed.
pub(crate) fn become_program(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    Err(command.exec()).with_context(|| format!("start {program}"))
}

fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and takes no pointer here.
    unsafe {
        command.pre_exec(|| {
            // A step must not go on when its xtask was killed.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    command
        .spawn()
        .with_context(|| format!("start {program}; is it installed? `cargo xtask setup` installs what is missing"))
}

/// The line that a person looks at while a step runs.
struct Progress {
    what: String,
    started: Instant,
    shown: Instant,
    last: String,
    terminal: bool,
}

impl Progress {
    fn new(what: &str) -> Self {
        let terminal = std::io::stdout().is_terminal() && std::env::var_os("CI").is_none();
        let now = Instant::now();
        let progress = Self { what: what.to_owned(), started: now, shown: now, last: String::new(), terminal };
        if !terminal {
            println!("  … {what}");
        }
        progress
    }

    fn tick(&mut self, line: &str) {
        if !line.trim().is_empty() {
            line.trim().clone_into(&mut self.last);
        }
        let pause = if self.terminal { Duration::from_millis(200) } else { SIGN_OF_LIFE };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let line = format!("  … {} {} · {}", self.what, elapsed(self.started), self.last);
        let line: String = line.chars().take(110).collect();
        if self.terminal {
            print!("\r\x1b[K{line}");
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }

    fn print(&self, text: &str) {
        if self.terminal {
            print!("\r\x1b[K");
        }
        println!("{text}");
    }

    fn done(&self, ok: bool) {
        let mark = if ok { "✓" } else { "✗" };
        self.print(&format!("  {mark} {} ({})", self.what, elapsed(self.started)));
    }
}

/// `4.2 s` or `3 min 05 s`.
pub(crate) fn elapsed(since: Instant) -> String {
    let time = since.elapsed();
    let seconds = time.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", time.as_secs_f64());
    }
    format!("{} min {:02} s", seconds / 60, seconds % 60)
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}
