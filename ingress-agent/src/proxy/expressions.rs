//! The regular expressions among a host's paths. nginx tries its locations one after another, so that a host with hundreds of them pays
//! for each on every request; here one scan of the path tells the first that matches, whatever their number.

use regex::bytes::Regex;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, meta};

use super::hosts::{byte_expression, expression};
use crate::model::route::{PathMatch, Route};

/// Bounds the automaton of all of a host's expressions. Beyond it they are tried one by one, each with a bound of its own.
const AUTOMATON_BYTES: usize = 8 << 20;
/// Bounds what a worker remembers of that automaton's states. It forgets them when this is full, and a scan stays linear.
const STATES_BYTES: usize = 1 << 20;

/// Numbers are those of the host's routes, ascending.
pub(super) enum Expressions {
    Together { automaton: Box<meta::Regex>, routes: Box<[u32]> },
    Each(Box<[(u32, Regex)]>),
}

impl Expressions {
    pub(super) fn new<'a>(routes: impl Iterator<Item = (u32, &'a Route)> + Clone) -> Self {
        // Where a route has other conditions, the one after it may be the first to match.
        let paths_only = routes.clone().all(|(_, route)| route.matches.is_path_only());
        let together = paths_only && routes.clone().nth(1).is_some();
        together.then(|| Self::together(routes.clone())).flatten().unwrap_or_else(|| Self::each(routes))
    }

    fn together<'a>(routes: impl Iterator<Item = (u32, &'a Route)>) -> Option<Self> {
        let (mut numbers, mut parsed) = (Vec::new(), Vec::new());
        for (number, route) in routes {
            let PathMatch::Regex { pattern, case_insensitive } = &route.matches.path else { continue };
            // As `expression` and `byte_expression` read them.
            let syntax =
                syntax::Config::new().utf8(false).unicode(!case_insensitive).case_insensitive(*case_insensitive);
            parsed.push(syntax::parse_with(&anchored(pattern), &syntax).ok()?);
            numbers.push(number);
        }
        // Leftmost-first: of several that match at the start, the first one is reported.
        let config = meta::Config::new()
            .utf8_empty(false)
            .auto_prefilter(false)
            .which_captures(WhichCaptures::Implicit)
            .nfa_size_limit(Some(AUTOMATON_BYTES))
            .hybrid_cache_capacity(STATES_BYTES);
        let automaton = meta::Builder::new().configure(config).build_many_from_hir(&parsed).ok()?;
        Some(Self::Together { automaton: Box::new(automaton), routes: numbers.into() })
    }

    fn each<'a>(routes: impl Iterator<Item = (u32, &'a Route)>) -> Self {
        let compiled = routes.filter_map(|(number, route)| {
            let regex = match &route.matches.path {
                PathMatch::Regex { pattern, case_insensitive: true } => byte_expression(&anchored(pattern)),
                PathMatch::Regex { pattern, .. } => expression(&anchored(pattern), false),
                PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            };
            Some((number, regex?))
        });
        Self::Each(compiled.collect())
    }

    /// The first route whose expression matches and that `holds`.
    pub(super) fn first(&self, path: &[u8], holds: impl Fn(u32) -> bool) -> Option<u32> {
        match self {
            Self::Together { automaton, routes } => {
                let found = automaton.search_half(&Input::new(path).anchored(Anchored::Yes))?;
                routes.get(found.pattern().as_usize()).copied()
            }
            Self::Each(all) => {
                all.iter().find(|(number, regex)| regex.is_match(path) && holds(*number)).map(|(number, _)| *number)
            }
        }
    }
}

fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})")
}
