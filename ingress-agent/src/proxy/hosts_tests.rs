//! The compiled look-up against the definition: the first route, in the model's order, whose conditions hold.

use super::*;
use crate::model::route::{Balance, Retry, RouteMatch, Timeouts};
use crate::model::snapshot::ObjectName;
use http::StatusCode;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn route(path: PathMatch, method: Option<Method>) -> Arc<Route> {
    let object = ObjectName::new("a", "b");
    Arc::new(Route {
        owner: object.clone(),
        rule: String::new(),
        matches: RouteMatch { path, unless: None, method, headers: Vec::new(), query: Vec::new(), created: 0, object },
        filters: Vec::new(),
        action: Action::Respond(StatusCode::OK),
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        balance: Balance::RoundRobin,
        max_body: None,
        policy: None,
    })
}

fn random_path(random: &mut Random) -> String {
    (0..random.below(4)).map(|_| ["/a", "/b", "/ab", "/c"][random.below(4)]).collect()
}

/// As the model's documentation says it, slowly.
fn slowly(routes: &[Arc<Route>], path: &str, method: &Method) -> Option<usize> {
    routes.iter().position(|r| {
        let path_holds = match &r.matches.path {
            PathMatch::Exact(p) => p == path,
            PathMatch::Prefix(p) => {
                path.strip_prefix(p.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathMatch::Regex { pattern, .. } => path.starts_with(pattern.as_str()),
        };
        path_holds && r.matches.method.as_ref().is_none_or(|m| m == method)
    })
}

#[test]
fn compiled_look_up_finds_the_first_match_in_any_order() {
    let mut random = Random(7);
    for turn in 0..400 {
        // Of half the hosts, routes look at nothing but the path: their expressions are one automaton.
        let methods = turn % 4 < 2;
        let mut routes: Vec<Arc<Route>> = (0..random.below(20))
            .map(|_| {
                let path = random_path(&mut random);
                let path = match random.below(4) {
                    0 => PathMatch::Exact(if path.is_empty() { "/".to_owned() } else { path }),
                    1 => PathMatch::Regex { pattern: path, case_insensitive: false },
                    _ => PathMatch::Prefix(path),
                };
                route(path, (methods && random.below(3) == 0).then_some(Method::POST))
            })
            .collect();
        // Half sorted as the plan does, half in another order: the order given is the one that counts.
        if turn % 2 == 0 {
            routes.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
        }
        let source = Arc::new(VirtualHost::ordered(routes.clone()));
        let host = Host::new(&source, |r| {
            let stats = Arc::new(RouteStats::new(Arc::new((r.owner.clone(), r.rule.clone())), 1));
            Arc::new(CompiledRoute::new(r, stats, Arc::default(), |_, _, _| PoolId(0)))
        });
        for _ in 0..50 {
            let mut path = random_path(&mut random);
            if path.is_empty() || random.below(4) == 0 {
                path.push('/');
            }
            let method = if random.below(2) == 0 { Method::GET } else { Method::POST };
            let question = Question { path: path.as_bytes(), query: None, method: &method, headers: &HeaderMap::new() };
            let found = host.route(&question).map(|f| routes.iter().position(|r| Arc::ptr_eq(r, &f.route)));
            assert_eq!(found.flatten(), slowly(&routes, &path, &method), "{path} in {routes:?}");
        }
    }
}

#[test]
fn refused_expressions_match_nothing() {
    let broken = route(PathMatch::Regex { pattern: "(".to_owned(), case_insensitive: false }, None);
    let huge = route(PathMatch::Regex { pattern: "(a{1000}){1000}".to_owned(), case_insensitive: false }, None);
    let source = Arc::new(VirtualHost::ordered(vec![broken, huge]));
    let host = Host::new(&source, |r| {
        let stats = Arc::new(RouteStats::new(Arc::new((r.owner.clone(), r.rule.clone())), 1));
        Arc::new(CompiledRoute::new(r, stats, Arc::default(), |_, _, _| PoolId(0)))
    });
    let question = Question { path: b"/a", query: None, method: &Method::GET, headers: &HeaderMap::new() };
    assert!(host.route(&question).is_none());
}

#[test]
fn an_expression_that_is_refused_among_others_leaves_them_alone() {
    let regex = |pattern: &str| route(PathMatch::Regex { pattern: pattern.to_owned(), case_insensitive: true }, None);
    let routes = vec![regex("/long(er)?/[a-z]+"), regex("("), regex("(a{1000}){1000}"), regex("/LONG"), regex("/")];
    let source = Arc::new(VirtualHost::ordered(routes.clone()));
    let host = Host::new(&source, |r| {
        let stats = Arc::new(RouteStats::new(Arc::new((r.owner.clone(), r.rule.clone())), 1));
        Arc::new(CompiledRoute::new(r, stats, Arc::default(), |_, _, _| PoolId(0)))
    });
    for (path, wanted) in [("/Longer/x", Some(0)), ("/long/0", Some(3)), ("/\u{e9}", Some(4)), ("x", None)] {
        let question =
            Question { path: path.as_bytes(), query: None, method: &Method::GET, headers: &HeaderMap::new() };
        let found = host.route(&question).and_then(|f| routes.iter().position(|r| Arc::ptr_eq(r, &f.route)));
        assert_eq!(found, wanted, "{path}");
    }
}

#[test]
fn the_first_of_many_expressions_wins_whatever_their_number() {
    for count in [1, 2, 60] {
        // Longer ones first, as the plan orders them; each matches what all the shorter ones do.
        let routes: Vec<Arc<Route>> = (1..=count)
            .rev()
            .map(|n| route(PathMatch::Regex { pattern: "/[a-z]".repeat(n), case_insensitive: true }, None))
            .collect();
        let source = Arc::new(VirtualHost::ordered(routes.clone()));
        let host = Host::new(&source, |r| {
            let stats = Arc::new(RouteStats::new(Arc::new((r.owner.clone(), r.rule.clone())), 1));
            Arc::new(CompiledRoute::new(r, stats, Arc::default(), |_, _, _| PoolId(0)))
        });
        for length in [1, 2, 30, 59, 60, 70] {
            let path = "/X".repeat(length);
            let question =
                Question { path: path.as_bytes(), query: None, method: &Method::GET, headers: &HeaderMap::new() };
            let found = host.route(&question).and_then(|f| routes.iter().position(|r| Arc::ptr_eq(r, &f.route)));
            assert_eq!(found, Some(count - length.min(count)), "{length} elements, {count} expressions");
        }
    }
}
