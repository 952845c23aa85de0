//! Who clients are: passwords, another server's word, certificates.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use super::Template;

#[derive(PartialEq, Eq)]
pub struct BasicAuth {
    pub realm: String,
    /// Name and hash in htpasswd's forms, sorted by name.
    pub users: Vec<(String, String)>,
}

/// Never prints the hashes.
impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth").field("realm", &self.realm).field("users", &self.users.len()).finish()
    }
}

/// A question to another server before each request: 2xx lets it pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAuth {
    pub secure: bool,
    pub host: String,
    pub port: u16,
    /// Path and query, with variables.
    pub target: Template,
    /// GET, and less is told, where none is named.
    pub method: Option<Method>,
    pub signin: Option<Template>,
    /// The parameter of the sign-in address that carries the request's own.
    pub signin_parameter: String,
    /// Fields of the answer that the backend gets.
    pub response_headers: Vec<HeaderName>,
    pub request_redirect: Option<Template>,
    /// Set-Cookie of the answer goes to the client whatever the status.
    pub always_set_cookie: bool,
    /// Fields for the question.
    pub set_headers: Vec<(HeaderName, Template)>,
    pub cache: Option<AuthCache>,
}

/// Answers of an external authority that hold for a while, for requests of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthCache {
    pub key: Template,
    /// How long answers of a status hold; 0 is every status.
    pub holds: Vec<(u16, Duration)>,
}

impl AuthCache {
    pub fn holds(&self, status: StatusCode) -> Option<Duration> {
        let found = self.holds.iter().find(|(s, _)| *s == status.as_u16() || *s == 0);
        found.map(|(_, time)| *time).filter(|time| !time.is_zero())
    }
}

/// Certificates that the clients of a host show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// DER: who signs them. `None`: nobody could be read, and nobody gets in.
    pub authorities: Option<Vec<Vec<u8>>>,
    /// DER: lists of what they took back. Where there is one, every authority needs one.
    pub revoked: Vec<Vec<u8>>,
    /// Certificates that may stand between a client's and an authority's.
    pub depth: u32,
    pub demand: Demand,
    /// Found anywhere in the subject's name (`CN=client,O=Org`); else 403.
    pub match_subject: Option<String>,
    /// Where a client without a good certificate is sent, instead of 400.
    pub error_page: Option<String>,
    /// The backend gets the certificate.
    pub pass: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Without a good one the answer is 400.
    Always,
    /// One that is shown has to be good.
    IfShown,
    /// The backend is told what it was.
    Unchecked,
}
