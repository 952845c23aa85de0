//! Lines of the access log, compared by the README's rule: fields exactly, times and lengths by shape.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::wait;

/// The worker hands its lines over once a second.
const FLUSHED: Duration = Duration::from_millis(2500);

/// The log of one case; the file goes with it.
pub struct AccessLines {
    file: PathBuf,
    read: usize,
}

impl AccessLines {
    pub fn in_a_file() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let file = std::env::temp_dir().join(format!("golden-{}-{number}.log", std::process::id()));
        Self { file, read: 0 }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.file).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// What differs from the lines that were recorded for one request.
    pub fn compare(&mut self, recorded: &[Value]) -> Vec<String> {
        let wanted = self.read + recorded.len().max(1);
        // Where there is to be none, this waits for one that must not come.
        wait::holds(FLUSHED, || self.lines().len() >= wanted);
        let lines = self.lines().split_off(self.read);
        self.read += lines.len();
        if lines.len() != recorded.len() {
            return vec![format!("log {lines:?}, recorded {recorded:?}")];
        }
        let recorded = recorded.iter().map(|line| line.as_str().unwrap_or_default());
        let pairs = lines.iter().zip(recorded);
        pairs.filter(|(got, wanted)| !alike(got, wanted)).map(|(g, w)| format!("log {g}, recorded {w}")).collect()
    }
}

impl Drop for AccessLines {
    fn drop(&mut self) {
        // There is none where nothing was logged.
        let _ = std::fs::remove_file(&self.file);
    }
}

fn alike(got: &str, wanted: &str) -> bool {
    if let (Ok(Value::Object(got)), Ok(Value::Object(wanted))) =
        (serde_json::from_str(got), serde_json::from_str(wanted))
    {
        let same = |(name, value): (&String, &Value)| match (got.get(name), value) {
            (Some(Value::String(got)), Value::String(wanted)) => shape(got, wanted),
            (got, wanted) => got == Some(wanted),
        };
        return got.len() == wanted.len() && wanted.iter().all(same);
    }
    // The time has a blank in it.
    let got = match (got.split_once('['), got.split_once(" +0000]")) {
        (Some((before, _)), Some((_, after))) => format!("{before}[<time>]{after}"),
        _ => got.to_owned(),
    };
    let (got, wanted): (Vec<&str>, Vec<&str>) = (got.split(' ').collect(), wanted.split(' ').collect());
    got.len() == wanted.len() && got.iter().zip(&wanted).all(|(got, wanted)| shape(got, wanted))
}

fn shape(got: &str, wanted: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match wanted {
        "<sec>" => got.split_once('.').is_some_and(|(whole, part)| digits(whole) && part.len() == 3 && digits(part)),
        "<hex32>" => got.len() == 32 && got.bytes().all(|b| b.is_ascii_hexdigit()),
        "<iso>" => got.len() == 25 && got.as_bytes()[10] == b'T' && got.ends_with("+00:00"),
        // A status is exact; so is whatever has letters.
        _ if digits(wanted) && wanted != "200" => digits(got),
        _ => got == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_by_shape() {
        let wanted = "10.0.0.1 - - [<time>] \"GET /p HTTP/1.1\" 200 545 <sec> [t-b-80] <hex32>";
        let id = "0123456789abcdef0123456789abcdef";
        let got = |status: &str, pool: &str| {
            format!("10.0.0.1 - - [28/Nov/2026:07:00:00 +0000] \"GET /p HTTP/1.1\" {status} 99 0.001 [{pool}] {id}")
        };
        assert!(alike(&got("200", "t-b-80"), wanted));
        assert!(!alike(&got("404", "t-b-80"), wanted));
        assert!(!alike(&got("200", "t-c-80"), wanted));
        assert!(alike("{\"a\":\"x\",\"rt\":\"0.001\"}", "{\"a\":\"x\",\"rt\":\"<sec>\"}"));
        assert!(!alike("{\"a\":\"y\",\"rt\":\"0.001\"}", "{\"a\":\"x\",\"rt\":\"<sec>\"}"));
    }
}
