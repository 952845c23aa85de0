//! `configuration-snippet`, `server-snippet` and `auth-snippet`, where the ConfigMap allows them: nginx's syntax, of which a few directives are taken. Anything
//! else rejects the whole snippet, with its line: half of one may mean the opposite.

mod syntax;

use http::{HeaderName, StatusCode};

use super::read::Reader;
use super::settings::Settings;
use super::template::template;
use crate::model::policy::{Against, Return, Snippet, Statement, Template, Test};
use crate::model::route::PathMatch;
use syntax::{Directive, Fault, parse};

const NOT_ALLOWED: &str = "snippets need `allow-snippet-annotations` and the risk level `Critical` in the ConfigMap";

/// What snippets of an Ingress come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snippets {
    /// Of all of its paths.
    pub(super) own: Option<Snippet>,
    /// More paths of its hosts.
    pub(super) locations: Vec<Location>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Location {
    pub(in crate::plan) path: PathMatch,
    /// As a regular expression.
    pub(in crate::plan) pattern: String,
    pub(in crate::plan) snippet: Snippet,
}

pub(super) fn read(reader: &mut Reader<'_>, settings: &Settings) -> Snippets {
    let mut snippets = Snippets::default();
    let mut statements = Vec::new();
    for (key, server) in [("server-snippet", true), ("configuration-snippet", false)] {
        let Some(text) = reader.text(key) else { continue };
        if !settings.snippets {
            reader.warn(key, format!("{NOT_ALLOWED}; it is ignored"));
            continue;
        }
        let mut locations = Vec::new();
        match parse(text).and_then(|directives| self::statements(directives, server.then_some(&mut locations), true)) {
            Ok(read) => {
                statements.extend(read);
                snippets.locations.append(&mut locations);
            }
            Err(Fault { line, what }) => {
                reader.warn(key, format!("line {line}: {what}; the snippet is ignored"));
                reader.unsupported("annotations for most of what snippets do, or the backend itself");
            }
        }
    }
    snippets.own = (!statements.is_empty()).then_some(Snippet(statements));
    snippets
}

/// `auth-snippet`, or the ConfigMap's: fields of the requests to the auth server. Whatever else it has spoils all of it.
pub(super) fn of_auth(reader: &mut Reader<'_>, text: &str, allowed: bool) -> Vec<(HeaderName, Template)> {
    const KEY: &str = "auth-snippet";
    if !allowed {
        reader.warn(KEY, format!("{NOT_ALLOWED}; it is ignored"));
        return Vec::new();
    }
    let fields = parse(text).and_then(|directives| {
        let mut fields = Vec::new();
        for directive in directives {
            let line = directive.line;
            for statement in statements(vec![directive], None, false)? {
                let Statement::RequestHeader { name, value } = statement else {
                    let what = "only proxy_set_header and more_set_input_headers mean something to a request to the auth server";
                    return Err(Fault { line, what: what.to_owned() });
                };
                fields.push((name, value));
            }
        }
        Ok(fields)
    });
    fields.unwrap_or_else(|Fault { line, what }| {
        reader.warn(KEY, format!("line {line}: {what}; the snippet is ignored"));
        reader.unsupported("`auth-proxy-set-headers` and `auth-method`");
        Vec::new()
    })
}

/// `locations`: where they may stand, what becomes of them.
fn statements(
    directives: Vec<Directive>,
    mut locations: Option<&mut Vec<Location>>,
    conditions: bool,
) -> Result<Vec<Statement>, Fault> {
    let mut out = Vec::new();
    for directive in directives {
        let fault = |what: String| Fault { line: directive.line, what };
        let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
        match (words.as_slice(), directive.block) {
            (["if", test @ ..], Some(block)) if conditions => {
                let test = self::test(test).map_err(fault)?;
                out.push(Statement::If(test, statements(block, None, false)?));
            }
            (["location", place @ ..], Some(block)) if locations.is_some() => {
                let (path, pattern) = place_of(place).map_err(fault)?;
                let snippet = Snippet(statements(block, None, true)?);
                if !snippet.0.iter().any(|s| matches!(s, Statement::Return(_))) {
                    return Err(fault("a `location` without `return` is not taken".to_owned()));
                }
                if let Some(locations) = &mut locations {
                    locations.push(Location { path, pattern, snippet });
                }
            }
            (["return", arguments @ ..], None) => out.push(Statement::Return(answer(arguments).map_err(fault)?)),
            (["add_header", name, value], None) => out.push(added(name, value, false).map_err(fault)?),
            (["add_header", name, value, "always"], None) => out.push(added(name, value, true).map_err(fault)?),
            (["proxy_set_header", name, value], None) => {
                let (name, value) = (field(name).map_err(fault)?, filled(value).map_err(fault)?);
                out.push(Statement::RequestHeader { name, value });
            }
            (["more_set_headers", lines @ ..], None) if !lines.is_empty() => {
                for line in lines {
                    let (name, value) = pair(line).map_err(fault)?;
                    out.push(Statement::SetHeader { name, value });
                }
            }
            (["more_clear_headers", names @ ..], None) if !names.is_empty() => {
                for name in names {
                    let name = field(name).map_err(fault)?;
                    out.push(Statement::SetHeader { name, value: Template::default() });
                }
            }
            (["more_set_input_headers", lines @ ..], None) if !lines.is_empty() => {
                for line in lines {
                    let (name, value) = pair(line).map_err(fault)?;
                    out.push(Statement::RequestHeader { name, value });
                }
            }
            (words, _) => {
                let name = words.first().copied().unwrap_or_default();
                let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
                return Err(fault(format!(
                    "`{shown}` is not among what is taken from snippets, or not in this form: add_header, more_set_headers, \
                     more_clear_headers, more_set_input_headers, proxy_set_header, return, if, and location in a server-snippet"
                )));
            }
        }
    }
    Ok(out)
}

fn added(name: &str, value: &str, always: bool) -> Result<Statement, String> {
    Ok(Statement::AddHeader { name: field(name)?, value: filled(value)?, always })
}

/// `Name: value`. Without a value the field goes.
fn pair(line: &str) -> Result<(HeaderName, Template), String> {
    if line.starts_with('-') {
        return Err(format!("the option `{line}` is not taken"));
    }
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    Ok((field(name.trim())?, filled(value.trim())?))
}

/// Framing, and whom a request is for, are not a snippet's business.
fn field(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a field name"))?;
    let ours = ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive"];
    if ours.contains(&parsed.as_str()) {
        return Err(format!("`{name}` cannot be set by a snippet"));
    }
    Ok(parsed)
}

fn filled(value: &str) -> Result<Template, String> {
    if !super::read::plain(value) {
        return Err("a value has a control character".to_owned());
    }
    template(value).map_err(|variable| format!("{variable} is not known here"))
}

fn answer(arguments: &[&str]) -> Result<Return, String> {
    let (status, text) = match arguments {
        [address] if address.starts_with("http://") || address.starts_with("https://") => ("302", Some(*address)),
        [status] => (*status, None),
        [status, text] => (*status, Some(*text)),
        _ => return Err("`return` has a status, and perhaps a text".to_owned()),
    };
    let known = status.parse::<u16>().ok().filter(|s| (200..600).contains(s) && *s != 444);
    let status = known.and_then(|s| StatusCode::from_u16(s).ok()).ok_or(format!("`{status}` is not a status"))?;
    let text = text.map(filled).transpose()?;
    if text.is_none() && matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Err(format!("`return {}` leads nowhere", status.as_u16()));
    }
    Ok(Return { status, text })
}

/// `($variable)`, `($variable = text)`, and with `!=`, `~`, `~*`, `!~`, `!~*`.
fn test(words: &[&str]) -> Result<Test, String> {
    let whole = words.join(" ");
    let inner = whole.strip_prefix('(').and_then(|w| w.strip_suffix(')'));
    let inner = inner.ok_or("the condition has no parentheses")?.trim();
    let mut parts = inner.splitn(3, ' ').filter(|p| !p.is_empty());
    let (variable, operator, operand) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if !variable.starts_with('$') {
        return Err(format!("`{inner}` is not a test of a variable"));
    }
    let value = filled(variable)?;
    let operand = operand.map(str::trim);
    let pattern = |case_insensitive: bool| {
        let pattern = operand.ok_or("a pattern is missing")?.trim_matches(['"', '\'']).to_owned();
        match super::expression_fault(&pattern) {
            None => Ok(Against::Pattern { pattern, case_insensitive }),
            Some(fault) => Err(format!("`{pattern}` is not a regular expression that is taken here ({fault})")),
        }
    };
    let text = || Ok(Against::Text(operand.ok_or("a text is missing")?.trim_matches(['"', '\'']).to_owned()));
    let (against, negated): (Result<Against, String>, bool) = match operator {
        None => (Ok(Against::Truth), false),
        Some("=") => (text(), false),
        Some("!=") => (text(), true),
        Some("~") => (pattern(false), false),
        Some("~*") => (pattern(true), false),
        Some("!~") => (pattern(false), true),
        Some("!~*") => (pattern(true), true),
        Some(other) => return Err(format!("`{other}` is not a test that is taken")),
    };
    Ok(Test { value, against: against?, negated })
}

/// nginx's forms: a prefix of the path, `= ` the whole of it, `~` and `~*` an expression found in it.
fn place_of(words: &[&str]) -> Result<(PathMatch, String), String> {
    let expression = |pattern: String, case_insensitive: bool| {
        if let Some(fault) = super::expression_fault(&pattern) {
            return Err(format!("`{pattern}` is not a regular expression that is taken here ({fault})"));
        }
        Ok((PathMatch::Regex { pattern: pattern.clone(), case_insensitive }, pattern))
    };
    match words {
        ["=", path] if path.starts_with('/') => {
            Ok((PathMatch::Exact((*path).to_owned()), format!("{}$", regex::escape(path))))
        }
        ["~", pattern] => expression(anchored(pattern), false),
        ["~*", pattern] => expression(anchored(pattern), true),
        ["^~", path] | [path] if path.starts_with('/') => expression(regex::escape(path), false),
        _ => Err("the `location` names no path".to_owned()),
    }
}

/// Routes match from the beginning of the path on.
fn anchored(pattern: &str) -> String {
    pattern.strip_prefix('^').map_or_else(|| format!(".*(?:{pattern})"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> Result<(Vec<Statement>, Vec<Location>), String> {
        let mut locations = Vec::new();
        let read = parse(text).and_then(|directives| statements(directives, Some(&mut locations), true));
        read.map(|statements| (statements, locations)).map_err(|fault| format!("line {}: {}", fault.line, fault.what))
    }

    #[test]
    fn the_safe_directives_are_taken() {
        let text = "# a remark\nadd_header X-A \"a b\" always;\nmore_set_headers 'X-B: $host' \"X-C: 1\";\n\
            if ($http_user_agent ~* bot) { return 403; }\nproxy_set_header X-D $remote_addr;\nlocation = /x { return 200 ok; }";
        let (statements, locations) = compiled(text).expect("all are taken");
        assert_eq!(statements.len(), 5, "{statements:?}");
        assert_eq!(locations.len(), 1);
        assert_eq!(locations[0].path, PathMatch::Exact("/x".to_owned()));
    }

    #[test]
    fn anything_else_rejects_the_snippet_with_its_line() {
        for (text, expected) in [
            ("add_header X 1;\nload_module x;", "line 2: `load_module`"),
            ("return 200", "line 1: "),
            ("if ($host = a) { if ($host = b) { return 200; } }", "line 1: `if`"),
            ("if (-f /etc/passwd) { return 200; }", "line 1: `-f /etc/passwd` is not a test"),
            ("add_header X $nope;", "line 1: $nope"),
            ("more_set_headers \"Content-Length: 1\";", "line 1: `Content-Length` cannot"),
            ("content_by_lua_block { ngx.say(1) }", "line 1: "),
            ("return 301;", "line 1: `return 301` leads nowhere"),
            ("}", "line 1: "),
            ("location /x { proxy_pass http://a; }", "line 1: `proxy_pass`"),
            ("if ($host ~ '(?=a)') { return 200; }", "line 1: "),
        ] {
            let told = compiled(text).expect_err(text);
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }
}
