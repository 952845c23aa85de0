//! A program that the tests need and that Go modules have: built once from a `go.mod` under `tests/`, into cargo's target directory.
//! After that the check takes milliseconds.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup::go, steps};

pub(crate) struct GoProgram {
    /// Of the binary, of its directory below the target directory, and of that of its sources below `tests`.
    pub(crate) name: &'static str,
    /// Said while it is built.
    pub(crate) what: &'static str,
    /// How long that takes, and why so long.
    pub(crate) note: &'static str,
    /// What it is made of; the stamp beside the binary holds their text.
    pub(crate) sources: &'static [&'static str],
    /// `go build`'s argument.
    pub(crate) package: &'static str,
    /// The linker's flags, from the text of `go.mod`.
    pub(crate) flags: fn(&str) -> Result<String>,
}

const STAMP: &str = "built-from";

impl GoProgram {
    /// Where the tests look for it.
    fn binary(&self) -> PathBuf {
        self.directory().join(self.name)
    }

    fn directory(&self) -> PathBuf {
        steps::target().join(self.name)
    }

    /// Builds it unless it is built from just these sources; gets a Go tool chain first where there is none.
    pub(crate) fn prepare(&self) -> Result<()> {
        let sources = steps::root().join("tests").join(self.name);
        let mut stamp = String::new();
        for name in self.sources {
            let path = sources.join(name);
            stamp += &fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        }
        let module = fs::read_to_string(sources.join("go.mod")).context("read go.mod")?;
        let flags = (self.flags)(&module)?;
        stamp += &flags;
        let directory = self.directory();
        if self.binary().is_file() && fs::read_to_string(directory.join(STAMP)).is_ok_and(|built| built == stamp) {
            return Ok(());
        }
        let go = go::prepare(word_after(&module, "\ngo ").context("go.mod names no Go version")?)?;
        steps::note(self.note);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        // Names each package as it is compiled, for the line that shows progress. The tool chain at hand is the one to use, and
        // the user's flags are for his own modules.
        let mut build = Command::new(go);
        build.args(["build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &flags, "-o"]);
        build.arg(self.binary()).arg(self.package).current_dir(sources);
        build.env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("GOWORK", "off");
        steps::run(&format!("build {}", self.what), &mut build)?;
        fs::write(directory.join(STAMP), stamp).with_context(|| format!("note what {} was built from", self.name))
    }
}

/// The first word after some text.
pub(crate) fn word_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_whitespace().next()
}
