//! The access log: formatted by the worker into its own buffer, handed over in batches to one writer thread. A writer
//! that lags costs lines, which are counted, and never a request's time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use http::{HeaderValue, Method, Version};

use super::log_format::{self, Outcome};
use crate::model::policy::ListenerSettings;
use crate::model::snapshot::{ObjectName, PoolName};

/// Where access log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    #[default]
    Off,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    #[default]
    Json,
    /// nginx's `combined` with ingress-nginx's additions.
    Combined,
}

/// A worker hands its lines over when it has so many bytes, and once a round.
const BATCH: usize = 32 * 1024;
/// Batches that may wait for the writer.
const WAITING: usize = 256;

/// One request, as far as the log is concerned.
pub(super) struct Line {
    pub(super) peer: IpAddr,
    pub(super) method: Method,
    /// Path and query as sent.
    pub(super) target: Vec<u8>,
    pub(super) version: Version,
    pub(super) host: Option<HeaderValue>,
    pub(super) referer: Option<HeaderValue>,
    pub(super) agent: Option<HeaderValue>,
    /// Of `Authorization: Basic`, believed or not.
    pub(super) user: Option<String>,
    pub(super) scheme: &'static str,
    pub(super) port: u16,
    /// Those that a format of the listener's own has, in its order.
    pub(super) fields: Vec<Option<HeaderValue>>,
    pub(super) custom: Option<Arc<ListenerSettings>>,
    /// The Ingress that answered.
    pub(super) owner: Option<ObjectName>,
    pub(super) request_length: u64,
    pub(super) request_id: Vec<u8>,
    pub(super) pool: Option<PoolName>,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) upstream_time: Duration,
    pub(super) upstream_status: u16,
}

/// A worker's end.
pub(super) struct LogBuffer {
    format: AccessLogFormat,
    bytes: Vec<u8>,
    lines: u64,
    writer: SyncSender<Vec<u8>>,
    /// The second that `stamp` shows.
    second: u64,
    stamp: String,
}

/// The writer's end as the proxy keeps it.
pub(super) struct LogWriter {
    sender: SyncSender<Vec<u8>>,
    reopen: Arc<AtomicBool>,
}

impl LogWriter {
    pub(super) fn start(target: AccessLog) -> anyhow::Result<Option<Self>> {
        let path = match target {
            AccessLog::Off => return Ok(None),
            AccessLog::Stdout => None,
            AccessLog::File(path) => Some(path),
        };
        let file = path.as_ref().map(open).transpose()?;
        let (sender, receiver) = sync_channel(WAITING);
        let reopen = Arc::new(AtomicBool::new(false));
        let wanted = Arc::clone(&reopen);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&receiver, path.as_ref(), file, &wanted))
            .context("start the access log's thread")?;
        Ok(Some(Self { sender, reopen }))
    }

    /// After the file was moved away: the next batch goes to a new one of the same name.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    pub(super) fn buffer(&self, format: AccessLogFormat) -> LogBuffer {
        LogBuffer {
            format,
            bytes: Vec::with_capacity(BATCH + 1024),
            lines: 0,
            writer: self.sender.clone(),
            second: u64::MAX,
            stamp: String::new(),
        }
    }
}

fn open(path: &PathBuf) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("open the access log {}", path.display()))
}

fn write_all(batches: &Receiver<Vec<u8>>, path: Option<&PathBuf>, mut file: Option<File>, reopen: &AtomicBool) {
    while let Ok(batch) = batches.recv() {
        if reopen.swap(false, Ordering::AcqRel)
            && let Some(path) = path
        {
            match open(path) {
                Ok(opened) => file = Some(opened),
                Err(error) => tracing::error!("{error:#}; the old file goes on"),
            }
        }
        let result = match &mut file {
            Some(file) => file.write_all(&batch),
            None => io::stdout().lock().write_all(&batch),
        };
        if let Err(error) = result {
            tracing::error!(%error, "write the access log");
        }
    }
}

impl LogBuffer {
    /// Returns how many lines were lost because the writer lags.
    pub(super) fn add(&mut self, line: &Line, status: u16, sent: u64, took: Duration) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.as_secs() != self.second {
            self.second = now.as_secs();
            self.stamp = match self.format {
                AccessLogFormat::Combined => nginx_time(self.second),
                AccessLogFormat::Json => iso_time(self.second),
            };
        }
        // 499: nginx's code for a client that went away before an answer.
        let status = if status == 0 { 499 } else { status };
        if let Some(format) = line.custom.as_ref().and_then(|settings| settings.log.format.as_ref()) {
            log_format::write(&mut self.bytes, format, line, &Outcome { status, sent, took, now });
            return self.written();
        }
        let written = match self.format {
            AccessLogFormat::Combined => combined(&mut self.bytes, &self.stamp, line, status, sent, took),
            AccessLogFormat::Json => json(&mut self.bytes, &self.stamp, line, status, sent, took),
        };
        // Writing to a Vec cannot fail.
        debug_assert!(written.is_ok());
        self.written()
    }

    fn written(&mut self) -> u64 {
        self.lines += 1;
        if self.bytes.len() >= BATCH { self.flush() } else { 0 }
    }

    pub(super) fn flush(&mut self) -> u64 {
        if self.bytes.is_empty() {
            return 0;
        }
        let batch = std::mem::replace(&mut self.bytes, Vec::with_capacity(BATCH + 1024));
        let lines = std::mem::take(&mut self.lines);
        match self.writer.try_send(batch) {
            Ok(()) => 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => lines,
        }
    }
}

pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// The line of ingress-nginx's default `log-format-upstream`.
fn combined(out: &mut Vec<u8>, stamp: &str, l: &Line, status: u16, sent: u64, took: Duration) -> io::Result<()> {
    write!(out, "{} - ", l.peer)?;
    escape_nginx(out, l.user.as_ref().map_or(b"-", |user| user.as_bytes()));
    write!(out, " [{stamp}] \"{} ", l.method)?;
    escape_nginx(out, target(l));
    write!(out, " {}\" {status} {sent} \"", version(l.version))?;
    escape_nginx(out, l.referer.as_ref().map_or(b"-", HeaderValue::as_bytes));
    out.extend_from_slice(b"\" \"");
    escape_nginx(out, l.agent.as_ref().map_or(b"-", HeaderValue::as_bytes));
    write!(out, "\" {} {:.3} [", l.request_length, took.as_secs_f64())?;
    if let Some(pool) = &l.pool {
        write!(out, "{}-{}-{}", pool.service.namespace, pool.service.name, pool.port)?;
    }
    out.extend_from_slice(b"] [] ");
    match l.upstream {
        Some(upstream) if l.upstream_status != 0 => {
            write!(out, "{upstream} {sent} {:.3} {} ", l.upstream_time.as_secs_f64(), l.upstream_status)?;
        }
        Some(upstream) => write!(out, "{upstream} 0 {:.3} {status} ", l.upstream_time.as_secs_f64())?,
        None => out.extend_from_slice(b"- - - - "),
    }
    escape_nginx(out, &l.request_id);
    out.push(b'\n');
    Ok(())
}

fn json(out: &mut Vec<u8>, stamp: &str, l: &Line, status: u16, sent: u64, took: Duration) -> io::Result<()> {
    write!(out, "{{\"time\":\"{stamp}\",\"remote_addr\":\"{}\",\"method\":\"{}\",\"host\":\"", l.peer, l.method)?;
    escape_json(out, l.host.as_ref().map_or(b"", HeaderValue::as_bytes));
    out.extend_from_slice(b"\",\"uri\":\"");
    escape_json(out, target(l));
    write!(out, "\",\"protocol\":\"{}\",\"status\":{status},\"body_bytes_sent\":{sent},", version(l.version))?;
    write!(out, "\"request_length\":{},\"request_time\":{:.6},\"referer\":\"", l.request_length, took.as_secs_f64())?;
    escape_json(out, l.referer.as_ref().map_or(b"", HeaderValue::as_bytes));
    out.extend_from_slice(b"\",\"user_agent\":\"");
    escape_json(out, l.agent.as_ref().map_or(b"", HeaderValue::as_bytes));
    out.extend_from_slice(b"\",\"request_id\":\"");
    escape_json(out, &l.request_id);
    out.push(b'"');
    if let Some(pool) = &l.pool {
        out.extend_from_slice(b",\"upstream\":\"");
        escape_json(out, pool.to_string().as_bytes());
        out.push(b'"');
    }
    if let Some(upstream) = l.upstream {
        write!(out, ",\"upstream_addr\":\"{upstream}\",\"upstream_time\":{:.6}", l.upstream_time.as_secs_f64())?;
        write!(out, ",\"upstream_status\":{}", l.upstream_status)?;
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

pub(super) fn target(line: &Line) -> &[u8] {
    &line.target
}

/// nginx's default escaping: `"`, `\` and whatever is not printable ASCII as `\xXX`.
pub(super) fn escape_nginx(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f..) {
            let _ = write!(out, "\\x{byte:02X}");
        } else {
            out.push(byte);
        }
    }
}

/// Bytes that are not UTF-8 become U+FFFD: the log must stay JSON.
pub(super) fn escape_json(out: &mut Vec<u8>, text: &[u8]) {
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Year, month (from 1), day, hour, minute, second in UTC.
fn civil(unix: u64) -> (u64, u64, u64, u64, u64, u64) {
    let (days, rest) = (unix / 86_400, unix % 86_400);
    // Days since 0000-03-01 in eras of 400 years: H. Hinnant, "chrono-compatible low-level date algorithms".
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

pub(super) fn nginx_time(unix: u64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, second) = civil(unix);
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or("Jan");
    format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

pub(super) fn iso_time(unix: u64) -> String {
    let (year, month, day, hour, minute, second) = civil(unix);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, iso, nginx) in [
            (0, "1970-01-01T00:00:00Z", "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "2000-02-28T23:59:59Z", "28/Feb/2000:23:59:59 +0000"),
            (951_868_799, "2000-02-29T23:59:59Z", "29/Feb/2000:23:59:59 +0000"),
            (1_795_261_167, "2026-11-21T11:39:27Z", "21/Nov/2026:11:39:27 +0000"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(iso_time(unix), iso);
            assert_eq!(nginx_time(unix), nginx);
        }
    }

    #[test]
    fn hostile_text_stays_inside_its_quotes() {
        let mut out = Vec::new();
        escape_nginx(&mut out, b"a\"b\\c\nd\xff");
        assert_eq!(out, b"a\\x22b\\x5Cc\\x0Ad\\xFF");
        out.clear();
        escape_json(&mut out, b"a\"b\\c\nd\xff");
        assert_eq!(out, "a\\\"b\\\\c\\u000ad\u{fffd}".as_bytes());
    }
}
