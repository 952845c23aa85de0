//! The closing table of the demo and of the benchmarks: what was measured, what it had to be, and whether it was.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    measured: String,
    wanted: String,
    held: bool,
}

impl Table {
    /// Notes a measure and says at once what it was.
    pub fn row(&mut self, what: &str, measured: impl Into<String>, wanted: impl Into<String>, held: bool) {
        let measured = measured.into();
        println!("   {} {what}: {measured}", mark(held));
        self.rows.push(Row { what: what.to_owned(), measured, wanted: wanted.into(), held });
    }

    /// Prints all.
    pub fn print(&self) {
        let width = |of: fn(&Row) -> &str| self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
        let (what, measured) = (width(|row| &row.what), width(|row| &row.measured));
        let mut text = String::new();
        for row in &self.rows {
            let mark = mark(row.held);
            let _ = writeln!(text, " {mark} {:what$} │ {:measured$} │ {}", row.what, row.measured, row.wanted);
        }
        println!("\n   {:what$} │ {:measured$} │ wanted\n{text}", "what", "measured");
    }

    /// Prints all, and fails if one did not hold.
    pub fn close(&self) -> Result<()> {
        self.print();
        let failed: Vec<&str> = self.rows.iter().filter(|row| !row.held).map(|row| row.what.as_str()).collect();
        ensure!(failed.is_empty(), "did not hold: {}", failed.join("; "));
        Ok(())
    }
}

const fn mark(held: bool) -> char {
    if held { '✓' } else { '✗' }
}

/// The exit code of a program that ended so; says why it failed.
pub fn ended(what: &str, result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("\nthe {what} failed: {error:#}");
    ExitCode::FAILURE
}

/// For a table: `12.3 ms`.
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The value below which this share of all lies; sorts them.
pub fn quantile<T: Copy + PartialOrd>(values: &mut [T], share: f64) -> Option<T> {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let index = (values.len() as f64 * share) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_hundred() {
        let mut values: Vec<u32> = (0..100).rev().collect();
        assert_eq!(quantile(&mut values, 0.5), Some(50));
        assert_eq!(quantile(&mut values, 0.99), Some(99));
        assert_eq!(quantile::<u32>(&mut [], 0.5), None);
    }

    #[test]
    fn a_row_that_does_not_hold_fails_the_table() {
        let mut table = Table::default();
        table.row("lost", "0", "0", true);
        assert!(table.close().is_ok());
        table.row("failed", "1", "0", false);
        assert!(table.close().is_err_and(|error| error.to_string().ends_with("failed")));
    }
}
