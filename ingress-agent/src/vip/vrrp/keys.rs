//! The keys of `auth_hmac`, in files: nothing secret is in an option or in the environment.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;

use super::auth::Auth;

/// As keepalived has it: bytes of a key.
const LEAST: usize = 32;
const MOST: usize = 64;

/// How adverts are signed. The same keys, by the same ids, on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthOptions {
    /// Never empty, no id twice. The first one signs, all of them verify.
    pub keys: Vec<KeyFile>,
    /// Adverts without a signature are taken as well, as long as not every node signs.
    pub permissive: bool,
    /// How far the clocks of two nodes may be apart: 1 to 300 whole seconds. `None`: a sender's numbers must grow, and that is all.
    pub window: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// As in keepalived's `key ID`.
    pub id: u8,
    /// `hex:` and hexadecimal digits, or the key as it is.
    pub path: PathBuf,
}

/// An error names the file, and never what is in it.
pub(in crate::vip) fn read(options: &AuthOptions) -> Result<Auth> {
    let keys: Result<Vec<_>> = options.keys.iter().map(|k| Ok((k.id, key(&k.path)?))).collect();
    Ok(Auth::new(keys?, options.permissive, options.window, (Instant::now(), since_1970())))
}

/// A clock that is before 1970 is as good as one that stands there.
pub(in crate::vip) fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn key(path: &Path) -> Result<hmac::Key> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("read --vrrp-auth-hmac-key {shown}"))?;
    let text = bytes.trim_ascii();
    let key = match text.strip_prefix(b"hex:") {
        Some(digits) => unhex(digits)
            .with_context(|| format!("--vrrp-auth-hmac-key {shown}: what follows hex: is not hexadecimal"))?,
        None => text.to_vec(),
    };
    ensure!(
        (LEAST..=MOST).contains(&key.len()),
        "--vrrp-auth-hmac-key {shown} holds a key of {} bytes; {LEAST} to {MOST} are wanted (`hex:` and what `openssl rand -hex 32` \
         says make a good one)",
        key.len()
    );
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |d: u8| char::from(d).to_digit(16).map(|n| n as u8);
    let pairs = digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?));
    pairs.collect()
}
