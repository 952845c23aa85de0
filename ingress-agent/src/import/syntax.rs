//! The syntax of `keepalived.conf` (keepalived.conf(5)): a statement a line, blocks in braces, comments from `!` or `#` to the end of
//! the line, quoted words, definitions, included files. What a statement means is the business of the other files.

use std::collections::BTreeMap;
use std::path::Path;

/// Files that include each other would never end.
const DEEPEST: usize = 8;

/// A statement, with the block that follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) place: Place,
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Statement>,
}

/// Where a statement stands. Shown as `keepalived.conf:12`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Statement {
    /// The first word; empty for a block without a name.
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The word at `i`, counted behind the keyword.
    pub(super) fn argument(&self, i: usize) -> Option<&str> {
        self.words.get(i + 1).map(String::as_str)
    }

    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// What was read, and what of it could not be.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) statements: Vec<Statement>,
    pub(super) faults: Vec<(Place, String)>,
}

/// Reads files by name, so that tests need none on disk. Returns the text of each file that a pattern names.
pub(super) trait Files {
    fn read(&self, pattern: &str, beside: &Path) -> Result<Vec<(String, String)>, String>;
}

struct Reader<'a> {
    files: &'a dyn Files,
    words: Vec<(Place, Token)>,
    definitions: BTreeMap<String, String>,
    faults: Vec<(Place, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    EndOfLine,
}

/// Parses a file of this name and text, and the files that it includes.
pub(super) fn parse(name: &str, text: &str, files: &dyn Files) -> Parsed {
    let mut reader = Reader { files, words: Vec::new(), definitions: BTreeMap::new(), faults: Vec::new() };
    reader.file(name, text, 0);
    let mut tokens = reader.words.into_iter().peekable();
    let mut parsed = Parsed { statements: Vec::new(), faults: reader.faults };
    loop {
        parsed.statements.extend(block(&mut tokens, &mut parsed.faults, DEEPEST));
        match tokens.next() {
            Some((place, _)) => parsed.faults.push((place, "a `}` that closes nothing".into())),
            None => return parsed,
        }
    }
}

impl Reader<'_> {
    fn file(&mut self, name: &str, text: &str, depth: usize) {
        // A line that ends in a backslash goes on in the next.
        let mut before = String::new();
        for (i, line) in text.lines().enumerate() {
            let place = Place { file: name.to_owned(), line: i + 1 };
            if let Some(head) = line.strip_suffix('\\') {
                before += head;
                before.push(' ');
                continue;
            }
            let whole = std::mem::take(&mut before) + line;
            self.line(&place, &whole, depth);
        }
    }

    fn line(&mut self, place: &Place, line: &str, depth: usize) {
        let mut tokens = tokens(line);
        if let Some(Token::Word(first)) = tokens.first().cloned() {
            if let Some(definition) = first.strip_prefix('$').and_then(|d| d.split_once('=')) {
                let rest =
                    tokens.iter().skip(1).filter_map(|t| if let Token::Word(w) = t { Some(w.as_str()) } else { None });
                let value =
                    std::iter::once(definition.1).chain(rest).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
                self.definitions.insert(definition.0.to_owned(), self.replace(&value));
                return;
            }
            if first.starts_with('@') {
                self.faults.push((
                    place.clone(),
                    format!("`{first}` makes the line conditional: left out; write the line for this node"),
                ));
                return;
            }
            if first == "include" || first == "includea" || first == "includer" {
                let Some(Token::Word(pattern)) = tokens.get(1) else {
                    self.faults.push((place.clone(), format!("`{first}` names no file")));
                    return;
                };
                return self.include(place, &self.replace(pattern), depth);
            }
        }
        for token in &mut tokens {
            if let Token::Word(word) = token {
                *word = self.replace(word);
            }
        }
        self.words.extend(tokens.into_iter().map(|t| (place.clone(), t)));
        self.words.push((place.clone(), Token::EndOfLine));
    }

    fn include(&mut self, place: &Place, pattern: &str, depth: usize) {
        if depth >= DEEPEST {
            self.faults
                .push((place.clone(), format!("{pattern} is not read: files include each other {DEEPEST} deep")));
            return;
        }
        let beside = Path::new(&place.file).parent().unwrap_or(Path::new(""));
        match self.files.read(pattern, beside) {
            Ok(files) => {
                for (name, text) in files {
                    self.file(&name, &text, depth + 1);
                }
            }
            Err(why) => self.faults.push((place.clone(), format!("{pattern} is not read: {why}"))),
        }
    }

    /// `$NAME` and `${NAME}` by what was defined above.
    fn replace(&self, word: &str) -> String {
        let mut out = String::new();
        let mut rest = word;
        while let Some((head, tail)) = rest.split_once('$') {
            out += head;
            let (name, after) = if let Some((name, after)) = tail.strip_prefix('{').and_then(|t| t.split_once('}')) {
                (name, after)
            } else {
                tail.split_at(tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len()))
            };
            match self.definitions.get(name) {
                Some(value) => out += value,
                None => out.extend(["$", &tail[..tail.len() - after.len()]]),
            }
            rest = after;
        }
        out + rest
    }
}

fn tokens(line: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    let end = |word: &mut Option<String>, found: &mut Vec<Token>| found.extend(word.take().map(Token::Word));
    while let Some(c) = chars.next() {
        match c {
            '#' | '!' => break,
            '"' | '\'' => {
                let quoted = word.get_or_insert_default();
                quoted.extend(chars.by_ref().take_while(|q| *q != c));
            }
            // `${NAME}` is no block.
            '{' if word.as_ref().is_some_and(|w| w.ends_with('$')) => {
                let name = word.get_or_insert_default();
                name.push(c);
                for inner in chars.by_ref() {
                    name.push(inner);
                    if inner == '}' {
                        break;
                    }
                }
            }
            '{' | '}' => {
                end(&mut word, &mut found);
                found.push(if c == '{' { Token::Open } else { Token::Close });
            }
            c if c.is_whitespace() => end(&mut word, &mut found),
            c => word.get_or_insert_default().push(c),
        }
    }
    end(&mut word, &mut found);
    found
}

/// Statements up to the `}` that is not theirs, which is left in place.
fn block(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = (Place, Token)>>,
    faults: &mut Vec<(Place, String)>,
    depth: usize,
) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    // Whether the next word belongs to the last statement.
    let mut open = false;
    while let Some((place, token)) = tokens.next_if(|(_, t)| *t != Token::Close) {
        match token {
            Token::EndOfLine => open = false,
            Token::Word(word) => {
                match statements.last_mut().filter(|_| open) {
                    Some(statement) => statement.words.push(word),
                    None => statements.push(Statement { place, words: vec![word], block: Vec::new() }),
                }
                open = true;
            }
            // Its brace may stand in a line of its own.
            _ => {
                let inner = if depth == 0 {
                    faults.push((place.clone(), "blocks are nested too deep".into()));
                    Vec::new()
                } else {
                    block(tokens, faults, depth - 1)
                };
                if tokens.next_if(|(_, t)| *t == Token::Close).is_none() && depth > 0 {
                    faults.push((place.clone(), "a `{` that is never closed".into()));
                }
                match statements.last_mut() {
                    Some(owner) if owner.block.is_empty() => owner.block = inner,
                    _ => statements.push(Statement { place, words: Vec::new(), block: inner }),
                }
                open = false;
            }
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OneFile;

    impl Files for OneFile {
        fn read(&self, pattern: &str, _: &Path) -> Result<Vec<(String, String)>, String> {
            match pattern {
                "more.conf" => Ok(vec![("more.conf".into(), "priority 90 # from there".into())]),
                "round.conf" => Ok(vec![("round.conf".into(), "include round.conf".into())]),
                _ => Err("no such file".into()),
            }
        }
    }

    fn shown(statements: &[Statement]) -> String {
        let one = |s: &Statement| {
            let block = if s.block.is_empty() { String::new() } else { format!(" {{ {} }}", shown(&s.block)) };
            format!("{}@{}{block}", s.text(), s.place.line)
        };
        statements.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[track_caller]
    fn reads(text: &str, expected: &str, faults: &[&str]) {
        let parsed = parse("k.conf", text, &OneFile);
        assert_eq!(shown(&parsed.statements), expected);
        let told: Vec<String> = parsed.faults.iter().map(|(p, why)| format!("{}: {why}", p.line)).collect();
        assert_eq!(told, faults);
    }

    #[test]
    fn blocks_comments_quotes_and_included_files() {
        reads("a b { c \"d  e\"\n f } ! g\nh", "a b@1 { c d  e@1; f@2 }; h@3", &[]);
        reads("a\n{\n b { c 1 }\n}\n", "a@1 { b@3 { c 1@3 } }", &[]);
        reads("a \\\n b\n", "a b@2", &[]);
        reads("v {\n include more.conf\n}", "v@1 { priority 90@1 }", &[]);
        reads("$X=10.0.0\nip ${X}.1 $X.2 $Y", "ip 10.0.0.1 10.0.0.2 $Y@2", &[]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        reads("a {\n b", "a@1 { b@2 }", &["1: a `{` that is never closed"]);
        reads("a\n}\nb", "a@1; b@3", &["2: a `}` that closes nothing"]);
        reads("include gone.conf", "", &["1: gone.conf is not read: no such file"]);
        reads(
            "@edge1 state MASTER",
            "",
            &["1: `@edge1` makes the line conditional: left out; write the line for this node"],
        );
        reads("include round.conf", "", &["1: round.conf is not read: files include each other 8 deep"]);
        let deep = "a {\n".repeat(100_000);
        assert!(!parse("k.conf", &deep, &OneFile).faults.is_empty());
    }
}
