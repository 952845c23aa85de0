//! The rules of comparison, as the recordings' README has them: a client and a backend could not tell the difference in anything that
//! they act on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::Answer;
use super::forms::{coded, malformed, named};

/// What differs, in words.
pub type Differences = Vec<String>;

/// A backend's name may differ where turns begin at random; it is compared over the whole case.
pub struct Outcome {
    pub differences: Differences,
    /// Recorded and real backend, request by request.
    pub backends: Vec<(String, String)>,
}

pub fn compare(request: &Value, expect: &Value, answer: &Answer, seen: &[Value]) -> Outcome {
    let mut outcome = Outcome { differences: Vec::new(), backends: Vec::new() };
    if let Some(text) = request["raw"].as_str() {
        raw(text, expect, answer, &mut outcome.differences);
    } else {
        one(request, expect, answer, &mut outcome.differences);
    }
    if let Some(wanted) = expect.get("cert") {
        certificate(wanted, answer, &mut outcome.differences);
    }
    let refused = answer.all.iter().any(|a| a.status.is_some_and(|s| s == 400 || s == 431));
    // A stricter refusal of what is malformed reaches nobody.
    if !(request["raw"].is_string() && refused && seen.is_empty()) {
        backends(request, expect, seen, &mut outcome);
    }
    outcome
}

fn one(request: &Value, expect: &Value, answer: &Answer, to: &mut Differences) {
    if let Some(wanted) = expect["tls_error"].as_str() {
        if answer.tls_error.is_none() && !(answer.alpn.is_none() && answer.status.is_none()) {
            to.push(format!("the handshake succeeds; recorded: {wanted}"));
        }
        return;
    }
    if expect["conn_error"].is_string() {
        if !answer.refused {
            to.push("the connection is accepted; recorded: refused".to_owned());
        }
        return;
    }
    if let Some(error) = &answer.tls_error {
        to.push(format!("TLS: {error}"));
        return;
    }
    if expect["end"] == "not-http" && answer.status == Some(502) {
        to.push("502 where the recorded one passes on what is no HTTP".to_owned());
        return;
    }
    let wanted = expect["status"].as_u64().map(|s| s as u16);
    if request["http_version"] == "2" && wanted.is_some_and(|s| s >= 400) && answer.reset == Some(1) {
        // RFC 9113 §8.1.1: a malformed request is a stream error of type PROTOCOL_ERROR.
        return;
    }
    if answer.status != wanted {
        let what = if answer.timed_out { " (timed out)" } else { "" };
        to.push(format!("status {}{what}, recorded {}", shown(answer.status), shown(wanted)));
        return;
    }
    let interim: Vec<u16> = numbers(&expect["interim"]);
    if interim != answer.interim {
        to.push(format!("interim {:?}, recorded {interim:?}", answer.interim));
    }
    if !answer.opaque {
        fields(request, expect, answer, to);
        if named(expect, "content-encoding").is_some() {
            coded(request, answer, to);
        } else {
            body(expect, answer, to);
        }
    }
    let trailers = pairs(&expect["trailers"]);
    if by_name(&trailers) != by_name(&answer.trailers) {
        to.push(format!("trailers {:?}, recorded {trailers:?}", answer.trailers));
    }
    if expect["end"] == "truncated" && answer.end != Some("truncated") {
        to.push(format!("the body ends as {:?}, recorded truncated", answer.end));
    }
    if let Some(messages) = expect["ws_received"].as_array() {
        let messages: Vec<&str> = messages.iter().filter_map(Value::as_str).collect();
        if answer.messages != messages {
            to.push(format!("messages {:?}, recorded {messages:?}", answer.messages));
        }
    }
    if let Some(seconds) = expect["seconds"].as_f64() {
        let off = (answer.seconds - seconds).abs();
        if off > (seconds * 0.2).max(0.3) {
            to.push(format!("took {:.1} s, recorded {seconds:.1} s", answer.seconds));
        }
    }
}

fn raw(request: &str, expect: &Value, answer: &Answer, to: &mut Differences) {
    if expect["conn_error"].is_string() {
        return one(&Value::Null, expect, answer, to);
    }
    // README, "Rules of comparison": of what is malformed, the recorded status or a stricter refusal.
    if malformed(request) && answer.all.len() == 1 && answer.all[0].status == Some(400) && answer.closed == Some(true) {
        return;
    }
    let recorded = expect["responses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted: Vec<Option<u64>> = recorded.iter().map(|r| r["status"].as_u64()).collect();
    let got: Vec<Option<u64>> = answer.all.iter().map(|a| a.status.map(u64::from)).collect();
    let malformed = wanted.iter().any(|s| s.is_some_and(|s| [400, 405, 414, 501, 505].contains(&s)));
    if malformed && wanted != got {
        // The recorded status or a stricter refusal, never more lenient.
        let refused =
            got.last().copied().flatten().is_some_and(|s| (400..600).contains(&s)) && answer.closed == Some(true);
        if !(refused && got.len() <= wanted.len()) {
            to.push(format!("answers {got:?} (closed: {:?}), recorded {wanted:?}", answer.closed));
        }
        return;
    }
    if wanted != got {
        to.push(format!("answers {got:?} (closed: {:?}), recorded {wanted:?}", answer.closed));
        return;
    }
    for (recorded, answer) in recorded.iter().zip(&answer.all) {
        fields(&Value::Null, recorded, answer, to);
        body(recorded, answer, to);
    }
    let closes = expect["closed"].as_bool() == Some(true) || expect["closed"].is_string();
    if closes && answer.closed != Some(true) {
        to.push("the connection stays open; recorded: closed".to_owned());
    }
}

/// A page that nginx wrote itself.
fn is_page(expect: &Value) -> bool {
    expect["body"].as_str().is_some_and(|b| b.contains("<center>nginx"))
}

fn fields(request: &Value, expect: &Value, answer: &Answer, to: &mut Differences) {
    let page = is_page(expect);
    let empty_body = expect["body"].is_null() || expect["body"] == "";
    let ignored = |name: &str| {
        matches!(name, "date" | "server" | "connection" | "keep-alive")
            || (page && matches!(name, "content-length" | "content-type" | "transfer-encoding"))
    };
    let mut wanted = by_name(&pairs(&expect["headers"]));
    let mut got = by_name(&answer.fields);
    wanted.retain(|name, _| !ignored(name));
    got.retain(|name, _| !ignored(name));
    // The length of an echo is the echo's own affair.
    let echoed = expect["body"] == "<echo>" || expect["body"] == "<grpc-echo>";
    let own = request["method"] == "HEAD" || (empty_body && expect["status"] == 304) || echoed;
    let grpc = expect["body"].as_str().is_some_and(|b| b.starts_with('\u{0}'));
    if own || grpc {
        for map in [&mut wanted, &mut got] {
            if let Some(values) = map.get_mut("content-length") {
                *values = vec!["<echo-len>".to_owned()];
            }
        }
    }
    if grpc || expect["body"] == "<grpc-echo>" {
        wanted.remove("content-length");
        got.remove("content-length");
        wanted.remove("transfer-encoding");
        got.remove("transfer-encoding");
    }
    // RFC 9110 §8.6: no Content-Length in a 204, where nginx says 0.
    if expect["status"] == 204 {
        wanted.remove("content-length");
    }
    let names: std::collections::BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
    for name in names {
        let (w, g) = (wanted.get(name), got.get(name));
        let same = match (w, g) {
            (Some(w), Some(g)) => w.len() == g.len() && w.iter().zip(g).all(|(w, g)| same_value(name, w, g)),
            _ => false,
        };
        // Which of several backends it was is compared over the case.
        let either = name == "x-backend" && w.is_some() && g.is_some();
        if !same && !either {
            to.push(format!("{name}: {}, recorded {}", listed(g), listed(w)));
        }
    }
}

fn listed(values: Option<&Vec<String>>) -> String {
    values.map_or("absent".to_owned(), |v| format!("{v:?}"))
}

fn same_value(name: &str, wanted: &str, got: &str) -> bool {
    match wanted {
        "<hex32>" => return got.len() == 32 && got.bytes().all(|b| b.is_ascii_hexdigit()),
        "<date>" => return true,
        _ => {}
    }
    if name == "set-cookie" {
        return cookie(wanted) == cookie(got);
    }
    wanted == got
}

/// The value by its shape: a proxy's own cookie is what only it reads.
fn cookie(text: &str) -> Vec<String> {
    let mut parts = text.split(';').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let first = match first.split_once('=') {
        Some((name, value)) if value.contains('|') => format!("{name}=<affinity>"),
        _ => first.to_owned(),
    };
    let rest =
        parts.map(|p| if p.to_ascii_lowercase().starts_with("expires=") { "expires".to_owned() } else { p.to_owned() });
    std::iter::once(first).chain(rest).collect()
}

fn body(expect: &Value, answer: &Answer, to: &mut Differences) {
    if is_page(expect) {
        let length = answer.body.as_ref().map_or(0, Vec::len);
        if length > 2000 {
            to.push(format!("a page of {length} bytes"));
        }
        return;
    }
    let got = answer.body_value();
    let wanted = &expect["body"];
    let nothing = |v: &Value| v.is_null() || v == "";
    let same = (nothing(&got) && nothing(wanted))
        || got == *wanted
        || (wanted.is_object() && wanted["len"] == got["len"] && wanted["sha256"] == got["sha256"])
        // A message of gRPC that was recorded as text.
        || (got == "<grpc-echo>" && wanted.as_str().is_some_and(|w| w.starts_with('\u{0}')));
    if !same {
        let short = |v: &Value| v.to_string().chars().take(160).collect::<String>();
        to.push(format!("body {}, recorded {}", short(&got), short(wanted)));
    }
}

fn certificate(wanted: &Value, answer: &Answer, to: &mut Differences) {
    let subject = wanted["subject"].as_str().unwrap_or_default();
    if subject.contains("Fake Certificate") {
        let own = answer.certificate.as_ref().is_some_and(|c| !c["cn"].as_str().unwrap_or_default().contains(".test"));
        if !own {
            to.push(format!("certificate {:?}, recorded the default one", answer.certificate));
        }
        return;
    }
    let got = answer.certificate.as_ref();
    let same = got.is_some_and(|c| {
        c["san"] == wanted["san"] && subject.contains(&format!("CN={}", c["cn"].as_str().unwrap_or_default()))
    });
    if !same {
        to.push(format!("certificate {got:?}, recorded {wanted}"));
    }
}

fn backends(request: &Value, expect: &Value, seen: &[Value], outcome: &mut Outcome) {
    let wanted: Vec<&Value> = match &expect["upstream_all"] {
        Value::Array(all) => all.iter().collect(),
        _ if expect["upstream_saw"].is_null() => Vec::new(),
        _ => vec![&expect["upstream_saw"]],
    };
    let to = &mut outcome.differences;
    if wanted.len() != seen.len() {
        let names = |list: &[&Value]| list.iter().map(|v| shown_request(v)).collect::<Vec<_>>().join(", ");
        let seen: Vec<&Value> = seen.iter().collect();
        to.push(format!("backends saw [{}], recorded [{}]", names(&seen), names(&wanted)));
        return;
    }
    // Copies to a mirror come when they come.
    let order = |v: &Value| v["backend"] == "mirror";
    let (mut wanted, mut seen): (Vec<&Value>, Vec<&Value>) = (wanted, seen.iter().collect());
    wanted.sort_by_key(|v| order(v));
    seen.sort_by_key(|v| order(v));
    for (wanted, seen) in wanted.into_iter().zip(seen) {
        let name = |v: &Value| v["backend"].as_str().unwrap_or_default().to_owned();
        outcome.backends.push((name(wanted), name(seen)));
        for what in ["method", "target", "body_len"] {
            // The line of the PROXY protocol ends in the proxy's own port.
            let ports = wanted["method"] == "PROXY" && what == "target";
            let line = |v: &Value| v[what].as_str().and_then(|t| t.rsplit_once(' ')).map(|(l, _)| l.to_owned());
            if ports && line(wanted) == line(seen) {
                continue;
            }
            if wanted[what] != seen[what] {
                to.push(format!("backend saw {what} {}, recorded {}", seen[what], wanted[what]));
            }
        }
        if wanted["body"].is_string() && wanted["body"] != seen["body"] {
            to.push(format!("backend saw body {}, recorded {}", seen["body"], wanted["body"]));
        }
        if wanted["body_sha256"].is_string() && wanted["body_sha256"] != seen["body_sha256"] {
            to.push("backend saw another body".to_owned());
        }
        if let Some(tls) = wanted.get("tls") {
            for what in ["sni", "client_cn"] {
                if tls[what] != seen["tls"][what] {
                    to.push(format!("backend saw {what} {}, recorded {}", seen["tls"][what], tls[what]));
                }
            }
        }
        upstream_fields(request, wanted, seen, to);
    }
}

fn upstream_fields(request: &Value, wanted: &Value, seen: &Value, to: &mut Differences) {
    // HTTP/2 says the host in `:authority`; nginx repeats it in `host`.
    let framing = |name: &str| {
        matches!(name, "connection" | "content-length" | "transfer-encoding")
            || (wanted["proto"] == "HTTP/2.0" && matches!(name, "host"))
    };
    let upgrades = wanted["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|f| f[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case("upgrade")));
    let mut w = by_name(&pairs(&wanted["headers"]));
    let mut g = by_name(&pairs(&seen["headers"]));
    w.retain(|n, _| !framing(n));
    g.retain(|n, _| !framing(n));
    // RFC 9113 §8.2.3: the crumbs of a cookie may be put together.
    for map in [&mut w, &mut g] {
        if request["http_version"] == "2"
            && let Some(values) = map.get_mut("cookie")
        {
            *values = vec![values.join("; ")];
        }
        for values in map.values_mut() {
            values.sort();
        }
    }
    if upgrades
        && seen["headers"]
            .as_array()
            .is_some_and(|h| !h.iter().any(|f| f[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case("upgrade"))))
    {
        to.push("backend saw no Upgrade".to_owned());
    }
    let names: std::collections::BTreeSet<&String> = w.keys().chain(g.keys()).collect();
    for name in names {
        let (wv, gv) = (w.get(name), g.get(name));
        let same = match (wv, gv) {
            (Some(wv), Some(gv)) => wv.len() == gv.len() && wv.iter().zip(gv).all(|(w, g)| same_value(name, w, g)),
            _ => false,
        };
        if !same {
            to.push(format!("backend saw {name}: {}, recorded {}", listed(gv), listed(wv)));
        }
    }
}

fn shown_request(v: &Value) -> String {
    let text = |what: &str| v[what].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", text("backend"), text("method"), text("target"))
}

fn shown(status: Option<u16>) -> String {
    status.map_or("none".to_owned(), |s| s.to_string())
}

fn numbers(value: &Value) -> Vec<u16> {
    value.as_array().into_iter().flatten().filter_map(|n| Some(n.as_u64()? as u16)).collect()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let pair = |f: &Value| Some((f[0].as_str()?.to_owned(), f[1].as_str()?.to_owned()));
    value.as_array().into_iter().flatten().filter_map(pair).collect()
}

fn by_name(fields: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in fields {
        map.entry(name.to_ascii_lowercase()).or_default().push(value.clone());
    }
    map
}
