//! The cookie that keeps a client at its backend, and hashing. Which backend it is stands in the cookie as a digest of its address: the client
//! learns no address, and a cookie that was made up leads to a backend as any other.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::HeaderValue;

use super::view::{View, cookie};
use crate::model::policy::Affinity;

/// What a request says about its backend.
pub(in crate::proxy) struct Sticky {
    /// Of the backend that it had.
    pub(in crate::proxy) had: Option<u64>,
}

impl Sticky {
    pub(in crate::proxy) fn read(affinity: &Affinity, view: &View<'_>) -> Self {
        let value = cookie(&view.parts.headers, &affinity.cookie, false).and_then(|v| std::str::from_utf8(v).ok());
        let had = value.and_then(|v| v.rsplit('|').next()).filter(|v| v.len() == 16);
        Self { had: had.and_then(|digits| u64::from_str_radix(digits, 16).ok()) }
    }

    /// The cookie for an answer, unless the client has it already.
    pub(in crate::proxy) fn cookie(
        &self,
        affinity: &Affinity,
        backend: SocketAddr,
        view: &View<'_>,
    ) -> Option<HeaderValue> {
        let digest = digest(backend);
        if self.had == Some(digest) {
            return None;
        }
        let mut text = format!("{}={:016x}|{digest:016x}", affinity.cookie, spread(digest));
        if let Some(seconds) = affinity.expires {
            let at = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
            // Writing to a String cannot fail.
            let _ = write!(text, "; Expires={}", httpdate::fmt_http_date(at));
        }
        for (name, value) in [("Max-Age", &affinity.max_age), ("Domain", &affinity.domain), ("Path", &affinity.path)] {
            if let Some(value) = value {
                let _ = write!(text, "; {name}={value}");
            }
        }
        if affinity.secure.unwrap_or(view.origin.scheme == "https") {
            text += "; Secure";
        }
        text += "; HttpOnly";
        let agent = view.parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if let Some(same_site) = &affinity.same_site
            && !(affinity.conditional_none && same_site.eq_ignore_ascii_case("none") && misreads_none(agent))
        {
            let _ = write!(text, "; SameSite={same_site}");
        }
        HeaderValue::try_from(text).ok()
    }
}

/// Browsers that take `SameSite=None` for `Strict`: old `WebKit` and Chrome 51 to 66.
fn misreads_none(agent: &str) -> bool {
    let chrome = agent.split_once("Chrome/").map(|(_, v)| v).and_then(|v| v.split('.').next()?.parse().ok());
    chrome.is_some_and(|v: u32| (51..=66).contains(&v))
        || agent.contains("iPhone OS 12_")
        || agent.contains("iPad; CPU OS 12_")
}

/// The same on every node and after every restart, so that a client stays where it is.
pub(in crate::proxy) fn digest(backend: SocketAddr) -> u64 {
    hash(backend.to_string().as_bytes())
}

/// FNV-1a, then mixed: no secret, and nothing that a client could gain by steering it.
pub(in crate::proxy) fn hash(bytes: &[u8]) -> u64 {
    spread(
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
    )
}

pub(in crate::proxy) fn spread(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
