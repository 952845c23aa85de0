//! The demo's closing table: what was measured, what it had to be, and whether it was.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    measured: String,
    wanted: &'static str,
    held: bool,
}

impl Table {
    /// Notes a measure and says at once what it was.
    pub(crate) fn row(&mut self, what: &str, measured: impl Into<String>, wanted: &'static str, held: bool) {
        let measured = measured.into();
        println!("   {} {what}: {measured}", mark(held));
        self.rows.push(Row { what: what.to_owned(), measured, wanted, held });
    }

    /// Prints all, and fails if one did not hold.
    pub(crate) fn close(&self) -> Result<()> {
        let width = |of: fn(&Row) -> &str| self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
        let (what, measured) = (width(|row| &row.what), width(|row| &row.measured));
        let mut text = String::new();
        for row in &self.rows {
            let mark = mark(row.held);
            let _ = writeln!(text, " {mark} {:what$} │ {:measured$} │ {}", row.what, row.measured, row.wanted);
        }
        println!("\n   {:what$} │ {:measured$} │ wanted\n{text}", "what", "measured");
        let failed: Vec<&str> = self.rows.iter().filter(|row| !row.held).map(|row| row.what.as_str()).collect();
        ensure!(failed.is_empty(), "did not hold: {}", failed.join("; "));
        Ok(())
    }
}

const fn mark(held: bool) -> char {
    if held { '✓' } else { '✗' }
}
