//! Rules about a file as a whole: it says what it is for, it is short, and its name is a noun of the trade.

use super::Fault;
use super::source::Source;

const LONGEST: usize = 400;

/// Files that are longer, each with its reason. One that has become shorter is a fault too.
const LONG_FILES: &[(&str, &str)] = &[];

/// Names that attract everything and say nothing.
const BANNED: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "manager", "handler", "handlers", "context", "misc"];

pub(crate) fn check(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    let path = source.path.as_str();
    let first = source.lines.iter().find(|line| !line.trim().is_empty());
    if first.is_none_or(|line| line.strip_prefix("//!").is_none_or(|text| text.trim().is_empty())) {
        faults.push(Fault::new(
            path,
            1,
            "does not open with `//!`: say what the file is for and what it must never do",
        ));
    }
    let length = length(source);
    if length > LONGEST && !LONG_FILES.iter().any(|(long, _)| *long == path) {
        faults.push(Fault::new(path, LONGEST, format!("{length} lines, above {LONGEST}: split it by what it knows")));
    }
    for part in path.trim_end_matches(".rs").split('/') {
        if BANNED.iter().any(|banned| part == *banned || part.ends_with(&format!("_{banned}"))) {
            faults.push(Fault::new(path, 0, format!("`{part}` is a container, not a noun of the trade")));
        }
    }
    for (index, code) in source.code.iter().enumerate() {
        let mut words = code.split_whitespace().skip_while(|word| word.starts_with("pub"));
        let name = words.next().filter(|word| *word == "mod").and_then(|_| words.next()).unwrap_or_default();
        if BANNED.contains(&name.trim_end_matches(['{', ';'])) {
            faults.push(Fault::new(
                path,
                index + 1,
                format!("module `{name}` is a container, not a noun of the trade"),
            ));
        }
    }
    faults
}

/// Exceptions that are no longer needed.
pub(crate) fn stale_exceptions(sources: &[Source]) -> Vec<Fault> {
    stale(LONG_FILES, sources)
}

fn stale(exceptions: &[(&str, &str)], sources: &[Source]) -> Vec<Fault> {
    let needed = |path: &str| sources.iter().any(|source| source.path == path && length(source) > LONGEST);
    let unneeded = exceptions.iter().filter(|(path, reason)| !needed(path) || reason.is_empty());
    unneeded.map(|(path, _)| Fault::new(path, 0, "is listed as a long file, and is none (or has no reason)")).collect()
}

/// As `wc -l` counts.
fn length(source: &Source) -> usize {
    source.lines.len() - usize::from(source.lines.last().is_some_and(String::is_empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn a_file_without_module_docs_is_a_fault() {
        assert_eq!(texts("a/b.rs", "fn main() {}\n"), 1);
        assert_eq!(texts("a/b.rs", "//!\nfn main() {}\n"), 1);
        assert_eq!(texts("a/b.rs", "//! For x.\nfn main() {}\n"), 0);
    }

    #[test]
    fn a_long_file_is_a_fault() {
        assert_eq!(texts("a/b.rs", &("//! For x.\n".to_owned() + &"\n".repeat(400))), 1);
        assert_eq!(texts("a/b.rs", &("//! For x.\n".to_owned() + &"\n".repeat(399))), 0);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_a_fault() {
        let short = [Source::new("a.rs", "//! x\n")];
        assert_eq!(stale(&[("a.rs", "a table")], &short).len(), 1);
        let long = [Source::new("a.rs", &"\n".repeat(500))];
        assert_eq!(stale(&[("a.rs", "a table")], &long).len(), 0);
        assert_eq!(stale(&[("a.rs", "")], &long).len(), 1);
    }

    #[test]
    fn containers_are_banned_as_names() {
        for path in ["a/utils.rs", "a/helpers/mod.rs", "a/gateway_utils.rs", "common/x.rs"] {
            assert_eq!(texts(path, "//! x\n"), 1, "{path}");
        }
        assert_eq!(texts("a/b.rs", "//! x\npub(crate) mod manager;\n"), 1);
        assert_eq!(texts("a/commonplace.rs", "//! x\n"), 0);
    }
}
