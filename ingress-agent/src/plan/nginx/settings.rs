//! The ConfigMap of settings: what holds for every host, and the defaults of annotations. A value that cannot be used is passed over and
//! told; the default stands.

mod client;

mod compression;

mod heeded;

mod log;

mod tls;

pub use heeded::{SettingUse, setting_use};

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use super::read::{flag, plain, ranges, size};
use super::risk::Risk;
use super::template::template;
use crate::model::difference::{Contrast, Difference};
use crate::model::facts::{ConfigMapFacts, Facts};
use crate::model::policy::{FieldPattern, ListenerSettings, Names, ProxyHeader, RetryOn, Template};
use crate::model::rejection::Rejection;
use crate::model::route::Timeouts;
use crate::model::snapshot::ObjectName;
use crate::plan::PlanOptions;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::plan) struct Settings {
    pub(in crate::plan) listener: Arc<ListenerSettings>,
    pub(super) ssl_redirect: bool,
    pub(super) force_ssl_redirect: bool,
    pub(super) redirect_code: u16,
    pub(super) no_tls_redirect: Vec<String>,
    pub(super) no_auth: Vec<String>,
    pub(super) body: Option<u64>,
    pub(super) timeouts: Timeouts,
    pub(super) tries: u32,
    pub(super) retry_on: RetryOn,
    pub(super) allow: Vec<IpNet>,
    pub(super) deny: Vec<IpNet>,
    pub(super) errors: Vec<u16>,
    pub(super) rate_status: StatusCode,
    pub(super) connection_status: StatusCode,
    pub(super) cross_namespace: bool,
    pub(super) response_headers: Vec<String>,
    pub(in crate::plan) strict_paths: bool,
    /// `global-auth-*`, without the prefix.
    pub(super) global_auth: std::collections::BTreeMap<String, String>,
    pub(super) default_backend: Option<ObjectName>,
    pub(super) snippets: bool,
    /// Not `--disable-catch-all`.
    pub(in crate::plan) catch_all: bool,
    /// `--enable-topology-aware-routing`.
    pub(super) by_zone: bool,
    /// `--enable-ssl-passthrough`.
    pub(super) passthrough: bool,
    /// `--enable-limit-drop`.
    pub(super) limit_drop: bool,
    /// [`PlanOptions::alone`].
    pub(super) alone: bool,
    pub(super) risk: Risk,
    /// That must not stand in an annotation's value.
    pub(super) words: Vec<String>,
    /// What annotations of these names say where an Ingress does not.
    pub(super) defaults: std::collections::BTreeMap<&'static str, String>,
}

/// Keys that are annotations as well, and mean the same.
const SHARED: [&str; 11] = [
    "proxy-buffering",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "relative-redirects",
    "limit-rate",
    "limit-rate-after",
    "load-balance",
    "service-upstream",
    "use-port-in-redirects",
];

struct Values<'a> {
    map: Option<&'a ConfigMapFacts>,
    rejections: &'a mut Vec<Rejection>,
}

impl Values<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.map?.data.get(key).map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    fn take<T>(&mut self, key: &str, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(key)?.to_owned();
        let value = if plain(&text) { read(&text) } else { None };
        if value.is_none() {
            self.ignore(key, &format!("`{text}` is not {what}"));
        }
        value
    }

    fn ignore(&mut self, key: &str, reason: &str) {
        if let Some(map) = self.map {
            self.rejections.push(map.origin.warn(
                "ConfigMap",
                format!("data[{key}]"),
                format!("{reason}; the default holds"),
            ));
        }
    }

    /// Of what was said last: how ingress-nginx takes it, where that is not as we do.
    fn contrast(&mut self, contrast: Contrast) {
        if let Some(last) = self.rejections.pop() {
            self.rejections.push(last.contrasted(contrast));
        }
    }

    /// It holds, and there is something to know.
    fn remark(&mut self, key: &str, text: &str) {
        if let Some(map) = self.map {
            self.rejections.push(map.origin.warn("ConfigMap", format!("data[{key}]"), text));
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.take(key, "`true` or `false`", flag).unwrap_or(default)
    }

    fn seconds(&mut self, key: &str) -> Option<Duration> {
        let read = |text: &str| text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs);
        self.take(key, "a number of seconds", read)
    }

    fn count(&mut self, key: &str) -> Option<u32> {
        self.take(key, "a whole number", |text| text.parse().ok())
    }

    fn ranges(&mut self, key: &str) -> Vec<IpNet> {
        self.take(key, "a list of addresses and ranges", |text| ranges(text).ok()).unwrap_or_default()
    }

    fn list(&mut self, key: &str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default().to_owned();
        text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect()
    }

    fn status(&mut self, key: &str) -> StatusCode {
        let read =
            |text: &str| StatusCode::from_bytes(text.as_bytes()).ok().filter(|s| (400..600).contains(&s.as_u16()));
        self.take(key, "a status from 400 to 599", read).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// `~regex`, `~*regex`, or the whole field.
    fn patterns(&mut self, key: &str) -> Vec<FieldPattern> {
        let mut patterns = Vec::new();
        for text in self.list(key) {
            let regex = |pattern: &str, case_insensitive| {
                regex::Regex::new(pattern)
                    .ok()
                    .map(|_| FieldPattern::Regex { pattern: pattern.to_owned(), case_insensitive })
            };
            let pattern = match (text.strip_prefix("~*"), text.strip_prefix('~')) {
                (Some(pattern), _) => regex(pattern, true),
                (None, Some(pattern)) => regex(pattern, false),
                (None, None) => Some(FieldPattern::Exact(text.clone())),
            };
            if let Some(pattern) = pattern {
                patterns.push(pattern);
            } else {
                self.ignore(key, &format!("`{text}` is not a regular expression"));
                self.contrast(Contrast::Differs(Difference::Expressions));
            }
        }
        patterns
    }
}

impl Settings {
    pub(in crate::plan) fn read(facts: &Facts, options: &PlanOptions, rejections: &mut Vec<Rejection>) -> Self {
        let map = options.config_map.as_ref().and_then(|name| facts.config_maps.find(name));
        if let (Some(name), None) = (&options.config_map, map) {
            let origin = crate::plan::http::option("--configmap");
            rejections.push(origin.warn("Option", "", format!("there is no ConfigMap {name}; the defaults hold")));
        }
        let mut v = Values { map: map.map(AsRef::as_ref), rejections };
        heeded::tell(&mut v);
        let risk = v.take("annotations-risk-level", "`Low`, `Medium`, `High` or `Critical`", Risk::of_text);
        let risk = risk.unwrap_or_default();
        let hsts = v.flag("hsts", true).then(|| {
            let age = v.take("hsts-max-age", "a number of seconds", |t| t.parse::<u64>().ok()).unwrap_or(31_536_000);
            let subdomains = if v.flag("hsts-include-subdomains", true) { "; includeSubDomains" } else { "" };
            let preload = if v.flag("hsts-preload", false) { "; preload" } else { "" };
            format!("max-age={age}{subdomains}{preload}")
        });
        let defaults = Timeouts::default();
        let timeouts = Timeouts {
            request: None,
            connect: v.seconds("proxy-connect-timeout").unwrap_or(defaults.connect),
            read: v.seconds("proxy-read-timeout").or(defaults.read),
            send: v.seconds("proxy-send-timeout").or(defaults.send),
        };
        let mut retry_on = v.text("proxy-next-upstream").map_or_else(RetryOn::default, super::upstream::retry_on);
        retry_on.non_idempotent |= v.flag("retry-non-idempotent", false);
        retry_on.within = v.seconds("proxy-next-upstream-timeout").filter(|d| !d.is_zero());
        let acme = || vec!["/.well-known/acme-challenge".to_owned()];
        let or_acme = |list: Vec<String>, given: bool| if given { list } else { acme() };
        let codes = v.list("custom-http-errors");
        let redirect_codes = |t: &str| t.parse().ok().filter(|c| [301, 302, 307, 308].contains(c));
        let prefix = "global-auth-";
        let global =
            v.map.into_iter().flat_map(|m| &m.data).filter_map(|(k, value)| Some((k.strip_prefix(prefix)?, value)));
        let global_auth = global.map(|(k, value)| (k.to_owned(), value.trim().to_owned())).collect();
        Self {
            ssl_redirect: v.flag("ssl-redirect", true),
            force_ssl_redirect: v.flag("force-ssl-redirect", false),
            redirect_code: v.take("http-redirect-code", "301, 302, 307 or 308", redirect_codes).unwrap_or(308),
            no_tls_redirect: or_acme(
                v.list("no-tls-redirect-locations"),
                v.text("no-tls-redirect-locations").is_some(),
            ),
            no_auth: or_acme(v.list("no-auth-locations"), v.text("no-auth-locations").is_some()),
            body: v.take("proxy-body-size", "a size", size).unwrap_or(Some(1 << 20)),
            timeouts,
            tries: v.take("proxy-next-upstream-tries", "a whole number", |t| t.parse().ok()).unwrap_or(3),
            retry_on,
            allow: v.ranges("whitelist-source-range"),
            deny: v.ranges("denylist-source-range"),
            errors: codes.iter().filter_map(|c| c.parse().ok()).filter(|c| (300..600).contains(c)).collect(),
            rate_status: v.status("limit-req-status-code"),
            connection_status: v.status("limit-conn-status-code"),
            cross_namespace: v.flag("allow-cross-namespace-resources", false),
            response_headers: v
                .list("global-allowed-response-headers")
                .iter()
                .map(|n| n.to_ascii_lowercase())
                .collect(),
            strict_paths: v.flag("strict-validate-path-type", true),
            global_auth,
            default_backend: options.default_backend.clone(),
            catch_all: options.catch_all,
            by_zone: options.by_zone,
            passthrough: options.ssl_passthrough,
            limit_drop: options.limit_drop,
            alone: options.alone,
            snippets: v.flag("allow-snippet-annotations", false) && risk == Risk::Critical,
            risk,
            words: v.list("annotation-value-word-blocklist"),
            defaults: SHARED.iter().filter_map(|key| Some((*key, v.text(key)?.to_owned()))).collect(),
            listener: Arc::new(ListenerSettings {
                hsts: hsts.and_then(|text| HeaderValue::try_from(text).ok()),
                ..listener(&mut v, facts)
            }),
        }
    }
}

fn listener(v: &mut Values<'_>, facts: &Facts) -> ListenerSettings {
    let mut settings = ListenerSettings::default();
    if v.flag("use-forwarded-headers", false) || v.flag("enable-real-ip", false) {
        settings.trusted = v.ranges("proxy-real-ip-cidr");
        if settings.trusted.is_empty() {
            v.ignore(
                "use-forwarded-headers",
                "names nobody who is believed, since `proxy-real-ip-cidr` is empty: say there which addresses your proxies have",
            );
            v.contrast(Contrast::Differs(Difference::ForwardedFields));
        }
    }
    let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).ok();
    if let Some(name) = v.take("forwarded-for-header", "a field name", name) {
        settings.forwarded_for = name;
    }
    settings.append_forwarded_for = v.flag("compute-full-forwarded-for", false);
    settings.request_id = v.flag("generate-request-id", true);
    settings.hide = v.list("hide-headers").iter().filter_map(|n| name(n)).collect();
    settings.pass_server = v.flag("allow-backend-server-header", false);
    settings.http2 = v.flag("use-http2", true);
    let underscores = v.flag("enable-underscores-in-headers", false);
    settings.names = match (v.flag("ignore-invalid-headers", true), underscores) {
        (false, _) => Names::All,
        (true, true) => Names::Underscores,
        (true, false) => Names::Plain,
    };
    settings.head = client::head(v);
    settings.tls = tls::read(v);
    settings.streams = v.count("http2-max-concurrent-streams").filter(|n| *n > 0).unwrap_or(settings.streams);
    settings.proxy_protocol = v.flag("use-proxy-protocol", false).then(|| {
        let from = v.ranges("proxy-real-ip-cidr");
        let timeout = v.seconds("proxy-protocol-header-timeout").unwrap_or(Duration::from_secs(5));
        ProxyHeader { from, timeout }
    });
    settings.client = client::limits(v);
    settings.keep = client::keep(v);
    settings.compression = compression::read(v);
    settings.log = log::read(v);
    settings.block.addresses = v.ranges("block-cidrs");
    settings.block.agents = v.patterns("block-user-agents");
    settings.block.referers = v.patterns("block-referers");
    settings.add = filled(v, facts, "add-headers");
    settings.set = filled(v, facts, "proxy-set-headers");
    if v.flag("proxy-add-original-uri-header", false)
        && let Ok(target) = template("$request_uri")
    {
        settings.set.insert(0, (HeaderName::from_static("x-original-uri"), target));
    }
    settings
}

/// Such fields, whose values may have variables in them.
fn filled(v: &mut Values<'_>, facts: &Facts, key: &str) -> Vec<(HeaderName, Template)> {
    let mut fields = Vec::new();
    for (name, value) in named(v, facts, key) {
        match template(&value) {
            Ok(value) => fields.push((name, value)),
            Err(variable) => {
                v.ignore(key, &format!("{name} has {variable}, which is not known here"));
                v.contrast(Contrast::Unsupported { instead: super::OTHER_VARIABLE });
            }
        }
    }
    fields
}

/// The fields of a ConfigMap that a setting names, `namespace/name`.
fn named(v: &mut Values<'_>, facts: &Facts, key: &str) -> Vec<(HeaderName, String)> {
    let Some(text) = v.text(key).map(str::to_owned) else { return Vec::new() };
    let found =
        text.split_once('/').and_then(|(namespace, name)| facts.config_maps.find(&ObjectName::new(namespace, name)));
    let Some(found) = found else {
        v.ignore(key, &format!("there is no ConfigMap {text}"));
        return Vec::new();
    };
    let mut fields = Vec::new();
    for (name, value) in &found.data {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if plain(value.trim()) => fields.push((name, value.trim().to_owned())),
            _ => v.ignore(key, &format!("`{name}` of ConfigMap {text} is not a field that can be sent")),
        }
    }
    fields
}
