//! htpasswd's hashes. Comparing takes the same time wherever two hashes first differ.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};

pub(super) fn verify(password: &[u8], hash: &str) -> bool {
    let equal = |a: &[u8], b: &[u8]| verify_slices_are_equal(a, b).is_ok();
    let sha1 = |parts: &[&[u8]]| digest(&SHA1_FOR_LEGACY_USE_ONLY, &parts.concat());
    for magic in ["$apr1$", "$1$"] {
        if let Some(rest) = hash.strip_prefix(magic) {
            let salt = rest.split('$').next().unwrap_or_default();
            return equal(md5_crypt(password, salt, magic).as_bytes(), hash.as_bytes());
        }
    }
    if let Some(encoded) = hash.strip_prefix("{SHA}") {
        return BASE64_STANDARD.decode(encoded).is_ok_and(|wanted| equal(sha1(&[password]).as_ref(), &wanted));
    }
    if let Some(encoded) = hash.strip_prefix("{SSHA}") {
        let Ok(bytes) = BASE64_STANDARD.decode(encoded) else { return false };
        return bytes.len() > 20 && equal(sha1(&[password, &bytes[20..]]).as_ref(), &bytes[..20]);
    }
    if let Some(plain) = hash.strip_prefix("{PLAIN}") {
        return equal(password, plain.as_bytes());
    }
    let Ok(text) = std::str::from_utf8(password) else { return false };
    if hash.starts_with("$2") {
        return bcrypt::verify(text, hash).unwrap_or(false);
    }
    if hash.starts_with("$5$") {
        return sha_crypt::sha256_check(text, hash).is_ok();
    }
    if hash.starts_with("$6$") {
        return sha_crypt::sha512_check(text, hash).is_ok();
    }
    false
}

/// Poul-Henning Kamp's MD5 crypt, of which apr1 is a variant by its magic only.
fn md5_crypt(password: &[u8], salt: &str, magic: &str) -> String {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let salt = &salt.as_bytes()[..salt.len().min(8)];
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for chunk in password.chunks(16) {
        outer.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut sum = outer.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        next.update(if round & 1 == 1 { password } else { &sum[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round & 1 == 1 { &sum[..] } else { password });
        sum = next.finalize();
    }
    let mut out = format!("{magic}{}$", String::from_utf8_lossy(salt));
    for (a, b, c, count) in [(0, 6, 12, 4), (1, 7, 13, 4), (2, 8, 14, 4), (3, 9, 15, 4), (4, 10, 5, 4), (16, 16, 11, 2)]
    {
        let byte = |at: usize| sum.get(at).map_or(0, |b| u32::from(*b));
        let mut value = byte(a) << 16 | byte(b) << 8 | byte(c);
        for _ in 0..count {
            out.push(ALPHABET[(value & 63) as usize] as char);
            value >>= 6;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_takes_its_password_and_no_other() {
        // By `openssl passwd` and htpasswd.
        for hash in [
            "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/",
            "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1",
            "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.",
            "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
            "{PLAIN}secret",
        ] {
            assert!(verify(b"secret", hash), "{hash}");
            assert!(!verify(b"Secret", hash), "{hash}");
            assert!(!verify(b"", hash), "{hash}");
        }
        for hash in ["", "x", "$5$", "$2y$", "$apr1$", "{SHA}", "{SHA}!", "{SSHA}AAAA", "$6$a"] {
            assert!(!verify(b"secret", hash), "{hash}");
        }
    }
}
