//! nginx's variables in values, parsed once. Only those that are known: a value with another one is refused, so that nothing that a
//! client sends is ever looked up by name.

use http::HeaderName;

use crate::model::policy::{Part, Template, Variable};

/// `Err` is the variable that is not known.
pub(super) fn template(text: &str) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let (name, next) = if let Some(braced) = after.strip_prefix('{') {
            braced.split_once('}').ok_or_else(|| "${".to_owned())?
        } else {
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            after.split_at(end)
        };
        parts.push(Part::Variable(variable(name).ok_or_else(|| format!("${name}"))?));
        rest = next;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(Template(parts))
}

fn variable(name: &str) -> Option<Variable> {
    Some(match name {
        "scheme" | "pass_access_scheme" => Variable::Scheme,
        "http_host" | "best_http_host" => Variable::HttpHost,
        "host" => Variable::Host,
        "request_uri" => Variable::RequestUri,
        "escaped_request_uri" => Variable::EscapedRequestUri,
        "uri" | "document_uri" => Variable::Uri,
        "args" | "query_string" => Variable::Args,
        "is_args" => Variable::IsArgs,
        "request_method" => Variable::Method,
        "remote_addr" | "binary_remote_addr" | "the_real_ip" => Variable::RemoteAddr,
        "remote_user" => Variable::RemoteUser,
        "server_port" | "pass_server_port" | "pass_port" => Variable::ServerPort,
        "req_id" | "request_id" => Variable::RequestId,
        _ => {
            if let Some(cookie) = name.strip_prefix("cookie_") {
                Variable::Cookie(cookie.to_owned())
            } else if let Some(argument) = name.strip_prefix("arg_") {
                Variable::Argument(argument.to_owned())
            } else {
                let field = name.strip_prefix("http_")?.replace('_', "-");
                Variable::Field(HeaderName::from_bytes(field.as_bytes()).ok()?)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_variables_become_parts_and_others_are_named() {
        let parts = template("http://a$request_uri/${host}x").expect("known").0;
        assert_eq!(parts.len(), 5, "{parts:?}");
        assert_eq!(template("a$nope"), Err("$nope".to_owned()));
        assert_eq!(template("$"), Err("$".to_owned()));
        assert_eq!(template("${host"), Err("${".to_owned()));
    }
}
