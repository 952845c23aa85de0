//! `use-gzip`, `enable-brotli` and their kin; `enable-zstd` is ours.

use super::Values;
use crate::model::policy::{Algorithm, Coding, Compression};

/// ingress-nginx's `gzip-types` and `brotli-types`.
const TYPES: &str = "application/atom+xml application/javascript application/x-javascript application/json application/rss+xml \
     application/vnd.ms-fontobject application/x-font-ttf application/x-web-app-manifest+json application/xhtml+xml application/xml \
     font/opentype image/svg+xml image/x-icon text/css text/javascript text/plain text/x-component";

pub(super) fn read(v: &mut Values<'_>) -> Option<Compression> {
    let mut codings = Vec::new();
    // nginx's order: brotli is asked first.
    for (enable, name, algorithm, level, most, length) in [
        ("enable-brotli", "brotli", Algorithm::Brotli, 4, 11, 20),
        ("enable-zstd", "zstd", Algorithm::Zstd, 3, 19, 256),
        ("use-gzip", "gzip", Algorithm::Gzip, 1, 9, 256),
    ] {
        if !v.flag(enable, false) {
            continue;
        }
        let read = |text: &str| text.parse().ok().filter(|l: &u32| (1..=most).contains(l));
        let level = v.take(&format!("{name}-level"), &format!("a number from 1 to {most}"), read).unwrap_or(level);
        let min_length =
            v.take(&format!("{name}-min-length"), "a number of bytes", |t| t.parse().ok()).unwrap_or(length);
        let types = v.text(&format!("{name}-types")).unwrap_or(TYPES);
        let mut types: Vec<String> = types.split_whitespace().map(str::to_ascii_lowercase).collect();
        // nginx adds it always.
        types.push("text/html".to_owned());
        codings.push(Coding { algorithm, level, min_length, types });
    }
    (!codings.is_empty()).then_some(Compression { codings })
}
