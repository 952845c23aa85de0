//! What may stand on a path besides: as annotations for us, and as the directives that ingress-nginx makes of them for nginx.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::peers::{AUTHORITY, Peer};
use crate::site::{BACKENDS, LOCATION};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directive {
    Nothing,
    BasicMd5,
    BasicSha,
    External,
    Rate,
    Cors,
}

/// `secret`, as `htpasswd -m` and `htpasswd -s` write it.
const MD5: &str = "user:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/";
const SHA: &str = "user:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
/// `user:secret`.
const CREDENTIALS: &str = "dXNlcjpzZWNyZXQ=";
/// So high that nobody is refused: what is measured is the counting.
const RATE: u32 = 100_000;

impl Directive {
    pub(crate) const ALL: &[Self] =
        &[Self::Nothing, Self::BasicMd5, Self::BasicSha, Self::External, Self::Rate, Self::Cors];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no directive",
            Self::BasicMd5 => "basic auth (apr1)",
            Self::BasicSha => "basic auth ({SHA})",
            Self::External => "external auth",
            Self::Rate => "rate limit",
            Self::Cors => "CORS",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::BasicMd5 => "md5",
            Self::BasicSha => "sha",
            Self::External => "external",
            Self::Rate => "rate",
            Self::Cors => "cors",
        }
    }

    pub(crate) fn host(self) -> String {
        format!("{}.example", self.label())
    }

    /// Of its requests, in Lua.
    pub(crate) fn fields(self) -> &'static str {
        match self {
            Self::BasicMd5 | Self::BasicSha => "['Authorization']='Basic dXNlcjpzZWNyZXQ='",
            Self::Cors => "['Origin']='https://x.example'",
            Self::Nothing | Self::External | Self::Rate => "",
        }
    }

    fn annotations(self) -> String {
        let nginx = "nginx.ingress.kubernetes.io";
        match self {
            Self::Nothing => String::new(),
            Self::BasicMd5 | Self::BasicSha => {
                format!("{nginx}/auth-type: basic, {nginx}/auth-secret: {}", self.label())
            }
            Self::External => format!("{nginx}/auth-url: \"http://{AUTHORITY}:8080/granted\""),
            Self::Rate => format!("{nginx}/limit-rps: \"{RATE}\""),
            Self::Cors => format!("{nginx}/enable-cors: \"true\""),
        }
    }

    fn directives(self, directory: &Path) -> Result<String> {
        let basic = |hash: &str| {
            let file = directory.join(format!("{}.htpasswd", self.label()));
            std::fs::write(&file, hash)?;
            anyhow::Ok(format!("auth_basic \"\"; auth_basic_user_file {};\n", file.display()))
        };
        Ok(match self {
            Self::Nothing => String::new(),
            Self::BasicMd5 => basic(MD5)?,
            Self::BasicSha => basic(SHA)?,
            Self::External => "auth_request /_external-auth; auth_request_set $auth_cookie $upstream_http_set_cookie;\n".to_owned(),
            Self::Rate => format!("limit_req zone=rate burst={} nodelay;\n", RATE * 5),
            Self::Cors => "add_header Access-Control-Allow-Origin '*' always; add_header Access-Control-Allow-Credentials 'true' always;\n\
                 add_header Access-Control-Allow-Methods 'GET, PUT, POST, DELETE, PATCH, OPTIONS' always;\n\
                 add_header Access-Control-Allow-Headers 'DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,\
                 Content-Type,Range,Authorization' always; add_header Access-Control-Max-Age '1728000' always;\n"
                .to_owned(),
        })
    }
}

pub(crate) fn manifests() -> String {
    let mut text = crate::site::base(1);
    for (name, hash) in [("md5", MD5), ("sha", SHA)] {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: {name}, namespace: scale }}\ndata: {{ auth: \"{}\" }}\n",
            BASE64_STANDARD.encode(hash)
        );
    }
    for directive in Directive::ALL {
        let _ = write!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n\
             metadata: {{ name: {label}, namespace: scale, annotations: {{ {annotations} }} }}\n\
             spec:\n  ingressClassName: nginx\n  rules:\n    - host: {host}\n      http:\n        paths:\n\
             \x20         - path: /\n            pathType: Prefix\n\
             \x20           backend: {{ service: {{ name: s0, port: {{ number: 80 }} }} }}\n",
            label = directive.label(),
            annotations = directive.annotations(),
            host = directive.host(),
        );
    }
    text
}

pub(crate) fn servers(directory: &Path, listen: &str) -> Result<String> {
    let members = BACKENDS.map(|address| format!("server {address}:8080; ")).concat();
    // With `auth-keepalive`: without it nginx would open a connection for each question, and the comparison would be of that.
    let mut text = format!(
        "upstream s0 {{ {members}keepalive 320; keepalive_requests 10000; keepalive_timeout 60s; }}\n\
         upstream authority {{ server {AUTHORITY}:8080; keepalive 320; keepalive_requests 10000; keepalive_timeout 60s; }}\n\
         limit_req_zone $binary_remote_addr zone=rate:5m rate={RATE}r/s;\n\
         server {{ listen {listen} reuseport default_server; server_name _; return 404; }}\n"
    );
    for directive in Directive::ALL {
        let _ = writeln!(
            text,
            "server {{ listen {listen}; server_name {};\nlocation / {{ {LOCATION}{}proxy_pass http://s0; }}",
            directive.host(),
            directive.directives(directory)?
        );
        if *directive == Directive::External {
            text.push_str(
                "location = /_external-auth { internal; proxy_pass_request_body off; proxy_set_header Content-Length \"\";\n\
                 proxy_set_header X-Forwarded-Proto \"\"; proxy_set_header X-Request-ID $req_id; proxy_set_header Host $host;\n\
                 proxy_set_header X-Original-URL $scheme://$http_host$request_uri; proxy_set_header X-Original-Method $request_method;\n\
                 proxy_set_header X-Sent-From \"nginx-ingress-controller\"; proxy_set_header X-Real-IP $remote_addr;\n\
                 proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Auth-Request-Redirect $request_uri;\n\
                 proxy_set_header Connection \"\"; proxy_http_version 1.1; proxy_buffering off; proxy_buffer_size 4k; proxy_buffers 4 4k;\n\
                 proxy_request_buffering on; proxy_ssl_server_name on; client_max_body_size 1m; proxy_pass http://authority/granted; }\n",
            );
        }
        text.push_str("}\n");
    }
    Ok(text)
}

/// The directive is in force at both: without credentials they refuse, and with them the answers have the same fields of CORS.
pub(crate) fn same_answers(directive: Directive, ours: &Peer, nginx: &Peer) -> Result<()> {
    for peer in [ours, nginx] {
        let full = match directive {
            Directive::BasicMd5 | Directive::BasicSha => format!("Authorization: Basic {CREDENTIALS}\r\n"),
            Directive::Cors => "Origin: https://x.example\r\n".to_owned(),
            Directive::Nothing | Directive::External | Directive::Rate => String::new(),
        };
        let (status, fields) = ask(directive, peer, &full)?;
        ensure!(status == 200, "{} answers {} with {status}", peer.name, directive.name());
        let wanted = if directive == Directive::Cors { 5 } else { 0 };
        ensure!(fields.len() == wanted, "{} has these fields of CORS for {}: {fields:?}", peer.name, directive.name());
        if matches!(directive, Directive::BasicMd5 | Directive::BasicSha) {
            let (status, _) = ask(directive, peer, "")?;
            ensure!(status == 401, "{} answers a stranger with {status}", peer.name);
        }
    }
    Ok(())
}

fn ask(directive: Directive, peer: &Peer, fields: &str) -> Result<(u16, BTreeSet<String>)> {
    let mut stream = TcpStream::connect(&peer.address).with_context(|| format!("connect to {}", peer.name))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\n", directive.host())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok((status, head.lines().filter(|line| line.starts_with("access-control-")).map(str::to_owned).collect()))
}
