//! The safe part of nginx's snippets, as values: fields, answers, and simple conditions on them. Nothing here can name a file, a program or
//! another server.

use http::{HeaderName, StatusCode};

use super::Template;

/// In the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snippet(pub Vec<Statement>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    If(Test, Vec<Statement>),
    Return(Return),
    /// One more field of the answer: of those that succeed or lead elsewhere, or of all.
    AddHeader {
        name: HeaderName,
        value: Template,
        always: bool,
    },
    /// The field of the answer, instead of what it was; empty: none.
    SetHeader {
        name: HeaderName,
        value: Template,
    },
    /// The field that the backend gets, instead of the client's; empty: none.
    RequestHeader {
        name: HeaderName,
        value: Template,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    pub status: StatusCode,
    /// The body, or where a redirect leads.
    pub text: Option<Template>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub value: Template,
    pub against: Against,
    /// It holds where that does not.
    pub negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Against {
    /// It is neither empty nor `0`.
    Truth,
    Text(String),
    /// Found anywhere.
    Pattern {
        pattern: String,
        case_insensitive: bool,
    },
}
