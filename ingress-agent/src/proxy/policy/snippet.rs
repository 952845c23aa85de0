//! Statements of snippets, run over one request: an answer at once, fields for the backend, fields for the client.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use regex::bytes::Regex;

use super::Reply;
use super::view::View;
use crate::model::policy::{Against, Return, Snippet, Statement, Template, Test};

/// With its expressions compiled, in the order in which they stand.
pub(in crate::proxy) struct CompiledSnippet {
    source: Snippet,
    patterns: Vec<Option<Regex>>,
}

/// What statements ask for.
#[derive(Clone, Default)]
pub(in crate::proxy) struct Effects {
    pub(in crate::proxy) reply: Option<Reply>,
    /// For the backend; an empty value removes the field.
    pub(in crate::proxy) request: Vec<(HeaderName, HeaderValue)>,
    answer: Vec<(HeaderName, HeaderValue, Way)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Add,
    AddAlways,
    /// Instead of what there was; empty: nothing.
    Set,
}

impl CompiledSnippet {
    pub(in crate::proxy) fn new(source: &Snippet) -> Self {
        let mut patterns = Vec::new();
        collect(&source.0, &mut patterns);
        Self { source: source.clone(), patterns }
    }

    pub(in crate::proxy) fn run(&self, view: &View<'_>) -> Effects {
        let mut effects = Effects::default();
        let mut patterns = self.patterns.iter();
        statements(&self.source.0, &mut patterns, view, &mut effects, true);
        effects
    }
}

/// Passed over statements take their patterns along.
fn statements<'a>(
    list: &[Statement],
    patterns: &mut impl Iterator<Item = &'a Option<Regex>>,
    view: &View<'_>,
    effects: &mut Effects,
    live: bool,
) {
    let value = |template: &Template| HeaderValue::try_from(view.fill(template)).ok();
    for statement in list {
        let live = live && effects.reply.is_none();
        match statement {
            Statement::If(test, inner) => {
                let pattern = match test.against {
                    Against::Pattern { .. } => patterns.next().and_then(Option::as_ref),
                    Against::Truth | Against::Text(_) => None,
                };
                let holds = live && holds(test, pattern, view);
                statements(inner, patterns, view, effects, holds);
            }
            _ if !live => {}
            Statement::Return(wanted) => effects.reply = Some(reply(wanted, view)),
            Statement::AddHeader { name, value: template, always } => {
                let way = if *always { Way::AddAlways } else { Way::Add };
                let value = value(template).filter(|v| !v.is_empty());
                effects.answer.extend(value.map(|value| (name.clone(), value, way)));
            }
            Statement::SetHeader { name, value: template } => {
                effects.answer.extend(value(template).map(|value| (name.clone(), value, Way::Set)));
            }
            Statement::RequestHeader { name, value: template } => {
                effects.request.extend(value(template).map(|value| (name.clone(), value)));
            }
        }
    }
}

fn collect(statements: &[Statement], patterns: &mut Vec<Option<Regex>>) {
    for statement in statements {
        if let Statement::If(test, inner) = statement {
            if let Against::Pattern { pattern, case_insensitive } = &test.against {
                patterns.push(crate::proxy::hosts::expression(pattern, *case_insensitive));
            }
            collect(inner, patterns);
        }
    }
}

fn holds(test: &Test, pattern: Option<&Regex>, view: &View<'_>) -> bool {
    let value = view.fill(&test.value);
    let found = match &test.against {
        Against::Truth => !value.is_empty() && value != "0",
        Against::Text(text) => value == *text,
        Against::Pattern { .. } => pattern.is_some_and(|p| p.is_match(value.as_bytes())),
    };
    found != test.negated
}

fn reply(wanted: &Return, view: &View<'_>) -> Reply {
    let text = wanted.text.as_ref().map(|text| view.fill(text));
    match text {
        Some(location) if matches!(wanted.status.as_u16(), 301 | 302 | 303 | 307 | 308) => {
            Reply::location(wanted.status, &location)
        }
        text => Reply { empty: text.is_none() && wanted.status.is_success(), text, ..Reply::new(wanted.status) },
    }
}

impl Effects {
    pub(in crate::proxy) fn on_request(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.request {
            if value.is_empty() {
                headers.remove(name);
            } else {
                headers.insert(name.clone(), value.clone());
            }
        }
    }

    /// nginx's `add_header` is for answers that succeed or lead elsewhere.
    pub(in crate::proxy) fn on_answer(&self, status: http::StatusCode, headers: &mut HeaderMap) {
        let usual = matches!(status.as_u16(), 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
        for (name, value, way) in &self.answer {
            match way {
                Way::Set if value.is_empty() => drop(headers.remove(name)),
                Way::Set => drop(headers.insert(name.clone(), value.clone())),
                Way::Add if !usual => {}
                // There is one type, one place and one tag of an answer.
                _ if [header::CONTENT_TYPE, header::LOCATION, header::ETAG].contains(name) => {
                    headers.insert(name.clone(), value.clone());
                }
                Way::Add | Way::AddAlways => drop(headers.append(name.clone(), value.clone())),
            }
        }
    }
}
