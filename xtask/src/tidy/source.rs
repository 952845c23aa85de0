//! A Rust file as tidy's rules see it: its code without comments and strings, which lines are tests, and every path
//! that it names. An approximation by tokens: it knows no macros and no types, and needs none.

/// One `.rs` file.
pub(crate) struct Source {
    /// From the workspace's root, with `/`.
    pub(crate) path: String,
    /// As it stands.
    pub(crate) lines: Vec<String>,
    /// The same lines, with comments and the contents of literals blanked.
    pub(crate) code: Vec<String>,
    /// Whether a line is inside `#[cfg(test)]`.
    pub(crate) test: Vec<bool>,
}

/// A path such as `crate::model::Vip`, as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// How many inline `mod x { … }` surround it: `super` counts from there.
    pub(crate) depth: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code: Vec<String> = blank(text).split('\n').map(str::to_owned).collect();
        let test = test_lines(&code);
        Self { path: path.to_owned(), lines: text.split('\n').map(str::to_owned).collect(), code, test }
    }

    /// Whether the whole file is test code or benchmarks.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Lines of code that are shipped, from 1.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let whole = self.is_test_file();
        let numbered = self.code.iter().zip(&self.test).enumerate();
        numbered.filter(move |(_, (_, test))| !whole && !**test).map(|(index, (line, _))| (index + 1, line.as_str()))
    }

    /// Every path with at least one `::`, and single names that `use` brings in.
    pub(crate) fn paths(&self) -> Vec<Named> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        let mut modules: Vec<usize> = Vec::new();
        let mut braces = 0;
        let mut at = 0;
        while let Some((line, token)) = tokens.get(at) {
            let before = if at == 0 { "" } else { tokens[at - 1].1.as_str() };
            match token.as_str() {
                "mod" if tokens.get(at + 2).is_some_and(|(_, t)| t == "{") => {
                    modules.push(braces);
                    braces += 1;
                    at += 3;
                }
                "{" => {
                    braces += 1;
                    at += 1;
                }
                "}" => {
                    braces = usize::saturating_sub(braces, 1);
                    if modules.last() == Some(&braces) {
                        modules.pop();
                    }
                    at += 1;
                }
                // `use<'a>` is a capture list, not an import.
                "use" if tokens.get(at + 1).is_some_and(|(_, t)| t != "<") => {
                    at = tree(&tokens, at + 1, &[], modules.len(), &mut found);
                }
                word if is_name(word) && before != "::" && before != "." => {
                    let mut segments = vec![word.to_owned()];
                    at += 1;
                    while tokens.get(at).is_some_and(|(_, t)| t == "::")
                        && tokens.get(at + 1).is_some_and(|(_, t)| is_name(t))
                    {
                        segments.push(tokens[at + 1].1.clone());
                        at += 2;
                    }
                    if segments.len() > 1 {
                        found.push(Named { line: *line, segments, depth: modules.len() });
                    }
                }
                _ => at += 1,
            }
        }
        found
    }
}

/// Reads one branch of a `use` tree and returns where it ends.
fn tree(tokens: &[(usize, String)], mut at: usize, prefix: &[String], depth: usize, found: &mut Vec<Named>) -> usize {
    let mut segments = prefix.to_vec();
    while let Some((line, token)) = tokens.get(at) {
        match token.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, t)| t != "}") {
                    at = tree(tokens, at, &segments, depth, found);
                    if tokens.get(at).is_some_and(|(_, t)| t == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "*" => {
                segments.push("*".to_owned());
                at += 1;
            }
            word if is_name(word) => {
                segments.push(word.to_owned());
                at += 1;
            }
            _ => {
                found.push(Named { line: *line, segments, depth });
                return at;
            }
        }
    }
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(code: &[String]) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    for (index, line) in code.iter().enumerate() {
        let mut rest = line.as_str();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                tokens.push((index + 1, rest[..length].to_owned()));
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// Marks the item after each `#[cfg(test)]`.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    let mut at = 0;
    while at < code.len() {
        if !code[at].contains("#[cfg(test)]") {
            at += 1;
            continue;
        }
        let mut open = 0;
        let mut entered = false;
        'item: while at < code.len() {
            test[at] = true;
            for c in code[at].chars() {
                match c {
                    '{' => {
                        open += 1;
                        entered = true;
                    }
                    '}' => open -= 1,
                    ';' if !entered => break 'item,
                    _ => {}
                }
                if entered && open == 0 {
                    break 'item;
                }
            }
            at += 1;
        }
        at += 1;
    }
    test
}

/// Blanks comments and the contents of string and character literals; keeps every line break.
fn blank(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            '/' if bytes.get(at + 1) == Some(&'/') => line_end(&bytes, at),
            '/' if bytes.get(at + 1) == Some(&'*') => block_end(&bytes, at),
            '"' => string_end(&bytes, at),
            'r' if !follows_name(&bytes, at) => raw_end(&bytes, at),
            'b' if !follows_name(&bytes, at) && bytes.get(at + 1) == Some(&'r') => raw_end(&bytes, at + 1),
            '\'' => char_end(&bytes, at),
            _ => at,
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        out.extend(bytes[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

fn follows_name(text: &[char], at: usize) -> bool {
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_')
}

fn line_end(text: &[char], at: usize) -> usize {
    text[at..].iter().position(|c| *c == '\n').map_or(text.len(), |length| at + length)
}

/// Block comments nest.
fn block_end(text: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_end(text: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// `r"…"` and `r#"…"#`; anything else that starts with `r` stays.
fn raw_end(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
    if text.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let mut end = at + 2 + hashes;
    while end < text.len() {
        if text[end] == '"' && text[end + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return end + 1 + hashes;
        }
        end += 1;
    }
    end
}

/// `'x'` and `'\n'`; a lifetime stays.
fn char_end(text: &[char], at: usize) -> usize {
    if text.get(at + 1) == Some(&'\\') {
        // The escaped character itself may be a quote.
        let closing = text.iter().skip(at + 3).position(|c| *c == '\'');
        return closing.map_or(at, |length| at + 4 + length);
    }
    if text.get(at + 2) == Some(&'\'') { at + 3 } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "let a = \"hyper::x\"; // kube::y\nlet b = r#\"aya\"::\"#; let c = '\"'; let d: &'a str = x; /* p::q */ r::s";
        let paths: Vec<_> =
            Source::new("a.rs", text).paths().into_iter().map(|named| named.segments.join("::")).collect();
        assert_eq!(paths, ["r::s"]);
    }

    #[test]
    fn a_use_tree_is_read_leaf_by_leaf() {
        let source = Source::new("a.rs", "use crate::{model::{Vip, snapshot as s}, proxy};\nuse tokio;");
        let paths: Vec<_> = source.paths().into_iter().map(|named| named.segments.join("::")).collect();
        assert_eq!(paths, ["crate::model::Vip", "crate::model::snapshot", "crate::proxy", "tokio"]);
    }

    #[test]
    fn test_modules_are_marked_to_their_closing_brace() {
        let source = Source::new("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}");
        assert_eq!(source.test, [false, true, true, true, true, false]);
        assert_eq!(source.shipped().count(), 2);
    }

    #[test]
    fn inline_modules_count_for_super() {
        let source = Source::new("a.rs", "mod x {\n  use super::super::y::z;\n}\nuse super::w::v;");
        let depths: Vec<_> = source.paths().into_iter().map(|named| named.depth).collect();
        assert_eq!(depths, [1, 0]);
    }
}
