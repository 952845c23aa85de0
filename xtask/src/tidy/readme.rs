//! Every command that the README shows exists: xtask's are asked of clap, the agent's of the source that declares them.

use clap::CommandFactory;

use super::Fault;
use super::source::Source;

/// Where the agent declares its commands and options.
const AGENT_ARGUMENTS: [&str; 2] = ["ingress-agent/src/args.rs", "ingress-agent/src/args/"];

pub(crate) fn check(path: &str, text: &str, sources: &[Source]) -> Vec<Fault> {
    let xtask = crate::Cli::command();
    let of_agent = |source: &&Source| AGENT_ARGUMENTS.iter().any(|place| source.path.starts_with(place));
    let agent: Vec<String> = sources.iter().filter(of_agent).flat_map(declared).collect();
    let mut faults = Vec::new();
    for (line, command) in commands(text) {
        let mut words = command.split_whitespace();
        let fault = match words.next() {
            Some("cargo") => xtask_fault(&xtask, words.skip(1)),
            _ => agent_fault(&agent, words),
        };
        if let Some(fault) = fault {
            faults.push(Fault::new(path, line, fault));
        }
    }
    faults
}

/// Commands in the text: from `cargo xtask` or `sluicegate` at the start of a code line or after a backtick, with the lines
/// that a backslash continues.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut fenced = false;
    while let Some((index, line)) = lines.next() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let mut line = line.to_owned();
        while fenced && line.ends_with('\\') {
            line.pop();
            line.push_str(lines.next().map_or("", |(_, next)| next));
        }
        let pieces: Vec<&str> = if fenced { vec![&line] } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in pieces {
            let piece = piece.split(" #").next().unwrap_or(piece);
            // A prompt or sudo may stand before it.
            let words: Vec<&str> = piece.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "sluicegate" || word.ends_with("/sluicegate"));
            let start = words.windows(2).position(|pair| pair == ["cargo", "xtask"]).or(at);
            if let Some(start) = start.filter(|start| words.len() > start + 1) {
                found.push((index + 1, words[start..].join(" ")));
            }
        }
    }
    found
}

fn xtask_fault<'a>(xtask: &clap::Command, mut words: impl Iterator<Item = &'a str>) -> Option<String> {
    let verb = words.next().filter(|word| is_word(word))?;
    let Some(command) = xtask.find_subcommand(verb) else {
        return Some(format!("`cargo xtask {verb}` does not exist"));
    };
    let known = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
    words.filter_map(flag).find(|flag| !known(flag)).map(|flag| format!("`cargo xtask {verb}` has no `--{flag}`"))
}

fn agent_fault<'a>(declared: &[String], mut words: impl Iterator<Item = &'a str>) -> Option<String> {
    let verb = words.next().filter(|word| is_word(word))?;
    let known = |name: &str| declared.iter().any(|word| *word == name.replace('-', "_"));
    if !known(verb) {
        return Some(format!("`sluicegate {verb}` does not exist"));
    }
    words.filter_map(flag).find(|flag| !known(flag)).map(|flag| format!("`sluicegate {verb}` has no `--{flag}`"))
}

fn flag(word: &str) -> Option<&str> {
    let word = word.strip_prefix("--")?.trim_end_matches([']', ',', ')']);
    word.split('=').next().filter(|name| !name.is_empty())
}

fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Every name that the arguments' source declares: fields and variants (lower-cased), and the strings of `long = "…"`.
fn declared(source: &Source) -> Vec<String> {
    let mut names = Vec::new();
    for line in &source.lines {
        for word in line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-') {
            names.push(word.to_lowercase().replace('-', "_"));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let arguments =
            Source::new(AGENT_ARGUMENTS[0], "enum Command { Run(Run), Status }\nstruct Run { http_port: u16 }");
        check("README.md", text, &[arguments]).into_iter().map(|fault| fault.text).collect()
    }

    #[test]
    fn commands_that_exist_pass() {
        assert!(faults("Say `cargo xtask demo --keep`, then `sluicegate run --http-port 80`.").is_empty());
        assert!(faults("```sh\n$ sudo target/debug/sluicegate run \\\n    --http-port 80 # the port\n```").is_empty());
        assert!(faults("The binary `sluicegate` is small; sluicegate is nice.").is_empty());
    }

    #[test]
    fn commands_that_do_not_exist_are_faults() {
        assert_eq!(faults("`cargo xtask demos`"), ["`cargo xtask demos` does not exist"]);
        assert_eq!(faults("```\ncargo xtask demo --forever\n```"), ["`cargo xtask demo` has no `--forever`"]);
        assert_eq!(faults("`sluicegate fly`"), ["`sluicegate fly` does not exist"]);
        assert_eq!(faults("```\nsluicegate run \\\n --moon 1\n```"), ["`sluicegate run` has no `--moon`"]);
    }
}
