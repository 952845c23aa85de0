//! nginx's configuration syntax: words and quoted texts that end in `;` or in a block. Bounded in depth and length.

/// What is wrong, and where (from 1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) what: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

const BYTES_MOST: usize = 64 * 1024;
const DEPTH_MOST: usize = 3;

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

pub(super) fn parse(text: &str) -> Result<Vec<Directive>, Fault> {
    if text.len() > BYTES_MOST {
        return Err(Fault { line: 1, what: format!("more than {BYTES_MOST} bytes") });
    }
    let mut tokens = tokens(text)?.into_iter();
    block(&mut tokens, 0)
}

fn block(tokens: &mut impl Iterator<Item = (usize, Token)>, depth: usize) -> Result<Vec<Directive>, Fault> {
    let mut directives = Vec::new();
    let (mut words, mut begun) = (Vec::new(), 1);
    while let Some((line, token)) = tokens.next() {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    begun = line;
                }
                words.push(word);
            }
            Token::End if words.is_empty() => return Err(Fault { line, what: "`;` ends nothing".to_owned() }),
            Token::End => directives.push(Directive { line: begun, words: std::mem::take(&mut words), block: None }),
            Token::Open if depth >= DEPTH_MOST => return Err(Fault { line, what: "blocks lie too deep".to_owned() }),
            Token::Open if words.is_empty() => return Err(Fault { line, what: "`{` begins nothing".to_owned() }),
            Token::Open => {
                let inner = block(tokens, depth + 1)?;
                directives.push(Directive { line: begun, words: std::mem::take(&mut words), block: Some(inner) });
            }
            Token::Close if depth == 0 => return Err(Fault { line, what: "`}` ends nothing".to_owned() }),
            Token::Close if !words.is_empty() => return Err(Fault { line: begun, what: "`;` is missing".to_owned() }),
            Token::Close => return Ok(directives),
        }
    }
    if depth > 0 || !words.is_empty() {
        return Err(Fault { line: begun, what: "it ends within a statement or a block".to_owned() });
    }
    Ok(directives)
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let mut out = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            ';' => out.push((line, Token::End)),
            '{' => out.push((line, Token::Open)),
            '}' => out.push((line, Token::Close)),
            '"' | '\'' => {
                let begun = line;
                let mut word = String::new();
                loop {
                    match chars.next() {
                        None => return Err(Fault { line: begun, what: "a quotation does not end".to_owned() }),
                        Some(end) if end == c => break,
                        // Only what would end the quotation is escaped; `\n` and the like stay two characters.
                        Some('\\') if chars.peek().is_some_and(|next| *next == c || *next == '\\') => {
                            word.extend(chars.next());
                        }
                        Some(other) => {
                            line += usize::from(other == '\n');
                            word.push(other);
                        }
                    }
                }
                out.push((begun, Token::Word(word)));
            }
            _ => {
                let mut word = String::from(c);
                // `${name}` is one word.
                while let Some(next) = chars.peek().copied() {
                    let braced = next == '{' && word.ends_with('$');
                    let closing = next == '}' && word.rfind("${").is_some_and(|at| !word[at..].contains('}'));
                    if !braced && !closing && (next.is_whitespace() || matches!(next, ';' | '{' | '}')) {
                        break;
                    }
                    word.push(next);
                    chars.next();
                }
                out.push((line, Token::Word(word)));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotations_and_blocks_are_told_apart() {
        let read = parse("a \"b ; \\\" c\" ${d}e;\n# f;\ng { h i; }\n").expect("sound");
        assert_eq!(read[0].words, ["a", "b ; \" c", "${d}e"]);
        assert_eq!((read[1].line, read[1].words.as_slice()), (3, &["g".to_owned()][..]));
        assert_eq!(read[1].block.as_ref().map(Vec::len), Some(1));
        for (text, line) in [("a", 1), ("\n}", 2), ("a {", 1), ("a; \"b", 1), (";", 1), ("a{b{c{d{}}}}", 1)] {
            assert_eq!(parse(text).expect_err(text).line, line, "{text}");
        }
    }

    #[test]
    fn any_text_gets_an_answer() {
        let mut state = 0x5eed_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 24 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(['a', ';', '{', '}', '"', '\'', '\\', '$', '#', '\n', ' ', 'ä'][(state >> 60) as usize % 12]);
            }
            state = state.wrapping_add(1);
            drop(parse(&text));
        }
    }
}
