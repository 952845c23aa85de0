//! Where we deliberately answer otherwise than ingress-nginx: the table that `docs/ingress-nginx.md` shows and `migrate` goes by. A test
//! compares the two. What a finding of the plan means to somebody who comes from there is a [`Contrast`].

/// How ingress-nginx takes what a finding is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contrast {
    /// As we do: it ignores, refuses or denies the same.
    #[default]
    Alike,
    /// Several names in one sentence, each of which has its own place where they are listed one by one.
    Listed,
    Differs(Difference),
    /// It does something that we do not. `instead`: what its owner can do, without a full stop.
    Unsupported {
        instead: &'static str,
    },
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    ForwardedFields,
    HopByHop,
    Malformed,
    AbsoluteForm,
    OpenConnections,
    Expressions,
    OldTls,
    NotHttp,
    InternalRedirects,
    ErrorsWithoutBackend,
    ErrorPagesOfAuth,
    TlsConnections,
    SecondCanary,
    Bodies,
    ManyFields,
    Retries,
    ShutdownTimeout,
    LogPath,
}

/// In Markdown, as the documentation has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub here: &'static str,
    pub there: &'static str,
    pub why: &'static str,
    /// Which annotation, key or object brings it about.
    pub concerns: &'static str,
}

/// [`Row::concerns`] of what no object can change.
pub const EVERYBODY: &str = "everybody";

impl Difference {
    /// In the order of the documentation.
    pub const ALL: [Self; 18] = [
        Self::ForwardedFields,
        Self::HopByHop,
        Self::Malformed,
        Self::AbsoluteForm,
        Self::OpenConnections,
        Self::Expressions,
        Self::OldTls,
        Self::NotHttp,
        Self::InternalRedirects,
        Self::ErrorsWithoutBackend,
        Self::ErrorPagesOfAuth,
        Self::TlsConnections,
        Self::SecondCanary,
        Self::Bodies,
        Self::ManyFields,
        Self::Retries,
        Self::ShutdownTimeout,
        Self::LogPath,
    ];

    /// Whether it is how HTTP itself is treated, whatever the objects say.
    pub fn is_everybodys(self) -> bool {
        self.row().concerns == EVERYBODY
    }

    pub fn row(self) -> Row {
        let [here, there, why, concerns] = match self {
            Self::ForwardedFields => [
                "forwarded fields are believed from the addresses in `proxy-real-ip-cidr` only, which is empty by default",
                "from anybody",
                "whoever may choose his address passes every allow-list",
                "`use-forwarded-headers` and `enable-real-ip` of the ConfigMap",
            ],
            Self::HopByHop => [
                "a client's `HTTP2-Settings` is not passed on, nor `Upgrade` to h2c",
                "passed on",
                "RFC 9113 §3.1; a tunnel to a backend past all rules",
                EVERYBODY,
            ],
            Self::Malformed => [
                "malformed heads and framing get 400 and the end of the connection",
                "some are repaired and passed on",
                "two readers of one request disagree about where it ends",
                EVERYBODY,
            ],
            Self::AbsoluteForm => [
                "in absolute form the host of the target is what the backend sees",
                "the Host header",
                "RFC 9112 §3.2.2: a backend must not see another host than the route was chosen by",
                EVERYBODY,
            ],
            Self::OpenConnections => [
                "a change of the configuration closes no connection",
                "a reload closes idle ones, sometimes under a request",
                "a request is lost",
                EVERYBODY,
            ],
            Self::Expressions => [
                "expressions with back-references, or with look-around in other places than behind plain text, are refused",
                "PCRE",
                "they cannot run in bounded time",
                "paths with `use-regex` or `rewrite-target`, `server-alias`, `auth-tls-match-cn`, `canary-by-header-pattern`, \
                 `block-user-agents`, `block-referers`",
            ],
            Self::OldTls => [
                "TLS before 1.2 is not served, nor are suites without forward secrecy and authenticated encryption",
                "where they are named",
                "RFC 8996, RFC 9325 §4.2",
                "`ssl-protocols`, `ssl-ciphers`, `proxy-ssl-protocols`, `proxy-ssl-ciphers`",
            ],
            Self::NotHttp => [
                "answers of backends that are no HTTP, or end in two ways, become 502",
                "passed on as HTTP/0.9",
                "the same as of requests",
                EVERYBODY,
            ],
            Self::InternalRedirects => [
                "`X-Accel-Redirect` and the like from backends are dropped",
                "obeyed",
                "a backend could reach what its clients may not",
                EVERYBODY,
            ],
            Self::ErrorsWithoutBackend => [
                "`custom-http-errors` without a backend to ask leaves 401 and 403 as they are; other statuses become 500 or 404, as \
                 there",
                "500 or 404",
                "a browser acts on them",
                "`custom-http-errors` with 401 or 403, and neither `default-backend` nor `--default-backend-service`",
            ],
            Self::ErrorPagesOfAuth => [
                "an error page never turns 401 or 403 into a success",
                "it may",
                "CVE-2026-24513",
                "`custom-http-errors` with 401 or 403, and a backend to ask",
            ],
            Self::TlsConnections => [
                "connections to TLS backends are not shared by Ingresses that check them differently",
                "shared",
                "a check that was never made",
                "Ingresses with one Service and different `proxy-ssl-*`",
            ],
            Self::SecondCanary => [
                "a canary that is the second of its rule takes its part",
                "it is ignored",
                "its owner asked for it",
                "Ingresses with `canary` and the host and path of an older one with `canary`",
            ],
            Self::Bodies => [
                "request bodies are passed on as they come",
                "stored first",
                "a backend sees the beginning of a body that is never finished; nothing is written to disk",
                EVERYBODY,
            ],
            Self::ManyFields => {
                ["a head has at most 256 fields", "as many as fit", "a bound that no browser comes near", EVERYBODY]
            }
            Self::Retries => [
                "a request that a backend failed is tried again within a budget: a fifth of the requests, and some a second \
                 (`sluicegate.io/retry-budget: \"off\"` lifts it)",
                "as often as `proxy-next-upstream-tries` says",
                "backends that are too slow for their load would get three times of it",
                EVERYBODY,
            ],
            Self::ShutdownTimeout => [
                "after SIGTERM requests have the time that the option `--drain-timeout` gives, and no change ends any before",
                "`worker-shutdown-timeout`, after each reload as well",
                "addresses must have moved before the pod's grace period is over, which a ConfigMap does not know",
                "`worker-shutdown-timeout` of the ConfigMap",
            ],
            Self::LogPath => [
                "where the access log is written the option `--access-log` says, and standard output is meant by default",
                "`access-log-path`, which is standard output by default, too",
                "who may write a ConfigMap must not choose a file that root appends chosen lines to",
                "`access-log-path` and `http-access-log-path` of the ConfigMap, unless it means standard output",
            ],
        };
        Row { here, there, why, concerns }
    }
}
