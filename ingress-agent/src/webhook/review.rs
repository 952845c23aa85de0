//! The wire form of a review: what the API server asks (`admission.k8s.io/v1`), and how it is answered. Borrowed from the
//! request's body, so that an object of a megabyte is read once, by the parser that the agent uses.
//!
//! kube has types for this, which build every object as a tree of values first, to be read again.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const VERSION: &str = "admission.k8s.io/v1";
/// What the API server passes on of all warnings together. One that is too much is left out by it, with all that follow.
const ALL_WARNINGS: usize = 4096;
/// Of one warning and of one reason: clients cut at about this length.
const LONGEST: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    pub(super) uid: String,
    pub(super) kind: Kind,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub(super) operation: String,
    #[serde(default)]
    pub(super) sub_resource: String,
    #[serde(borrow, default)]
    pub(super) object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) old_object: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Kind {
    pub(super) kind: String,
}

/// The parts of an object that are looked at before it is parsed.
#[derive(Debug, Deserialize)]
pub(super) struct Outline<'a> {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) namespace: Option<String>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

impl Outline<'_> {
    /// Whether nothing changed that is read here: a status, a finalizer, an owner. An object that is going may go.
    pub(super) fn says_the_same(&self, before: &Self) -> bool {
        let text = |part: Option<&RawValue>| part.map(|p| p.get().to_owned());
        self.metadata.deletion_timestamp.is_some()
            || (text(self.spec) == text(before.spec)
                && text(self.data) == text(before.data)
                && self.metadata.annotations == before.metadata.annotations
                && self.metadata.labels == before.metadata.labels)
    }
}

/// What is said about one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Empty: admitted.
    pub(super) denials: Vec<String>,
    pub(super) warnings: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

/// The request of a body, or what is wrong with it.
pub(super) fn read(body: &Bytes) -> Result<Request<'_>, String> {
    let asked: Asked<'_> =
        serde_json::from_slice(body).map_err(|e| format!("the body is not an AdmissionReview: {e}"))?;
    if asked.api_version != VERSION || asked.kind != "AdmissionReview" {
        let (version, kind) = (line(&asked.api_version), line(&asked.kind));
        return Err(format!("the body is `{version} {kind}`; `{VERSION} AdmissionReview` is answered here"));
    }
    asked.request.ok_or_else(|| "the AdmissionReview has no `request`".to_owned())
}

pub(super) fn answer(uid: &str, verdict: &Verdict) -> Bytes {
    let status = (!verdict.denials.is_empty()).then(|| Status {
        // As the API server itself refuses what is invalid.
        code: 422,
        reason: "Invalid",
        message: bounded(&verdict.denials, ALL_WARNINGS).join("; "),
    });
    let response =
        Response { uid, allowed: status.is_none(), status, warnings: bounded(&verdict.warnings, ALL_WARNINGS) };
    let answered = Answered { api_version: VERSION, kind: "AdmissionReview", response };
    // Strings and a flag: there is nothing in it that cannot be written.
    serde_json::to_vec(&answered).unwrap_or_default().into()
}

/// As many as fit, each on one line.
fn bounded(texts: &[String], all: usize) -> Vec<String> {
    let mut out = Vec::new();
    let mut left = all - 32;
    for (i, text) in texts.iter().enumerate() {
        let text = line(text);
        let Some(rest) = left.checked_sub(text.len() + 2) else {
            out.push(format!("and {} more", texts.len() - i));
            break;
        };
        left = rest;
        out.push(text);
    }
    out
}

/// Text from an object may hold anything, and ends up in headers and on terminals.
fn line(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        match c {
            c if c.is_control() => out.extend(c.escape_default()),
            // Bidirectional overrides and line separators: what a terminal shows would not be what is there.
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_review_is_refused_with_the_reason() {
        for (body, reason) in [
            ("", "the body is not an AdmissionReview: EOF"),
            ("{}", "missing field `apiVersion`"),
            (r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#, "admission.k8s.io/v1beta1"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "has no `request`"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7}}"#, "invalid type"),
        ] {
            let text = read(&Bytes::from(body)).expect_err(body);
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn what_an_answer_says_is_short_and_on_one_line() {
        let hostile = format!("a\nb\r\u{7}\u{202e}{}", "x".repeat(5000));
        let verdict = Verdict { denials: vec![hostile.clone()], warnings: vec![hostile; 100] };
        let answer: serde_json::Value = serde_json::from_slice(&answer("u", &verdict)).unwrap();
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&"u".into(), &false.into()));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.starts_with("a\\nb\\r\\u{7}\\u{202e}xxx") && message.len() < 300, "{message}");
        let warnings: Vec<_> = response["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
        assert!(warnings.iter().map(|w| w.len()).sum::<usize>() <= ALL_WARNINGS);
        assert_eq!(warnings.last(), Some(&format!("and {} more", 101 - warnings.len()).as_str()));
    }

    #[test]
    fn only_what_is_read_here_counts_as_a_change() {
        let outline = |text: &'static str| serde_json::from_str::<Outline<'_>>(text).unwrap();
        let old = outline(r#"{"metadata":{"name":"a","resourceVersion":"1"},"spec":{"a":1},"status":{}}"#);
        for (same, text) in [
            (
                true,
                r#"{"metadata":{"name":"a","resourceVersion":"2","finalizers":["x"]},"spec":{"a":1},"status":{"b":2}}"#,
            ),
            (true, r#"{"metadata":{"name":"a","deletionTimestamp":"2026-01-01T00:00:00Z"},"spec":{"a":2}}"#),
            (false, r#"{"metadata":{"name":"a"},"spec":{"a":2}}"#),
            (false, r#"{"metadata":{"name":"a","annotations":{"x":"y"}},"spec":{"a":1}}"#),
            (false, r#"{"metadata":{"name":"a"},"spec":{"a":1},"data":{}}"#),
        ] {
            assert_eq!(outline(text).says_the_same(&old), same, "{text}");
        }
    }
}
