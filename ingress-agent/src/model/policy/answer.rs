//! What is done to answers on their way to the client: addresses and cookies rewritten, bodies compressed and slowed down.

use super::Template;

/// `proxy_redirect`, `proxy_cookie_domain`, `proxy_cookie_path`: what a backend says of itself becomes what its clients see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerEdits {
    /// The beginning of `Location` and `Refresh`.
    pub location: Option<(String, Template)>,
    /// The whole attribute, without regard to case and a leading dot.
    pub cookie_domain: Option<(String, Template)>,
    /// The attribute's beginning.
    pub cookie_path: Option<(String, Template)>,
}

/// How fast a body is sent: the first bytes as fast as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRate {
    /// Bytes a second; never 0.
    pub rate: u64,
    /// Bytes.
    pub after: u64,
}

/// Bodies that clients want compressed. Statuses 200, 403 and 404 only, as nginx does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// In the order in which they are chosen.
    pub codings: Vec<Coding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coding {
    pub algorithm: Algorithm,
    pub level: u32,
    /// Bytes, where the length is known.
    pub min_length: u64,
    /// Media types in lower case, without parameters; `*` is every one.
    pub types: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Gzip,
    Brotli,
    Zstd,
}

impl Algorithm {
    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}
