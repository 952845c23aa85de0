//! Several limiters that hear of each other, with time and delay in the tests' hands.

use std::time::Duration;

use http::StatusCode;

use super::*;

const PERIOD: Duration = Duration::from_millis(100);
const BURST: u32 = 10;

fn limits(name: &str, every: Duration, shared: bool) -> Arc<Limits> {
    Arc::new(Limits {
        owner: ObjectName::new("shop", name),
        shared,
        rates: vec![Rate { every, burst: BURST }],
        connections: None,
        exempt: Vec::new(),
        rate_status: StatusCode::SERVICE_UNAVAILABLE,
        connection_status: StatusCode::SERVICE_UNAVAILABLE,
        drop: None,
    })
}

fn client(n: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + n).into())
}

/// An edge with one limit.
struct Edge {
    limiter: Arc<Limiter>,
    limits: Arc<Limits>,
}

impl Edge {
    fn new(limits: Arc<Limits>) -> Self {
        let limiter = Arc::new(Limiter::default());
        limiter.know(&Arc::new(vec![Arc::clone(&limits)]));
        Self { limiter, limits }
    }

    /// How many of `n` requests pass.
    fn ask(&self, who: IpAddr, n: usize, now: Instant) -> usize {
        (0..n).filter(|_| self.limiter.admit(&self.limits, who, now).is_ok()).count()
    }

    fn news(&self) -> Vec<LimitUse> {
        let mut uses = Vec::new();
        assert_eq!(self.limiter.take_uses(&mut uses), 0, "there is room");
        uses
    }

    #[track_caller]
    fn hear(&self, uses: &[LimitUse], now: Instant) {
        assert!(uses.iter().all(|used| self.limiter.hear_use(used, now)));
    }
}

fn edges(n: usize) -> Vec<Edge> {
    (0..n).map(|_| Edge::new(limits("web", PERIOD, true))).collect()
}

#[test]
fn what_one_edge_let_through_is_gone_at_the_other() {
    let (edges, now, who) = (edges(2), Instant::now(), client(1));
    assert_eq!(edges[0].ask(who, 7, now), 7);
    let news = edges[0].news();
    assert_eq!(news, [LimitUse { limit: id(&ObjectName::new("shop", "web"), 0), client: who, requests: 7 }]);
    edges[1].hear(&news, now);
    assert_eq!(edges[1].ask(who, 20, now), 4, "eleven together");
    edges[0].hear(&edges[1].news(), now);
    assert_eq!(edges[0].ask(who, 20, now), 0);
    assert_eq!(
        (edges[0].news(), edges[1].news()),
        (vec![], vec![]),
        "nothing is told twice, and nothing that was heard"
    );
    assert_eq!(edges[1].ask(client(2), 20, now), 11, "another client has a bucket of his own");
    // One more each period, at whichever edge.
    assert_eq!(edges[1].ask(who, 5, now + PERIOD), 1);
    edges[0].hear(&edges[1].news(), now + PERIOD);
    assert_eq!(edges[0].ask(who, 5, now + PERIOD), 0);
}

#[test]
fn a_limit_that_is_not_shared_is_told_nobody_and_one_that_is_not_known_is_not_heard() {
    let now = Instant::now();
    let own = Edge::new(limits("own", PERIOD, false));
    assert_eq!(own.ask(client(1), 20, now), 11);
    assert_eq!(own.news(), []);
    let unknown = LimitUse { limit: id(&ObjectName::new("shop", "other"), 0), client: client(1), requests: 1 };
    let further = LimitUse { limit: id(&ObjectName::new("shop", "own"), 1), ..unknown };
    assert!(!own.limiter.hear_use(&unknown, now) && !own.limiter.hear_use(&further, now));
    own.limiter.know(&Arc::default());
    assert!(!own.limiter.hear_use(&LimitUse { limit: id(&ObjectName::new("shop", "own"), 0), ..unknown }, now));
}

#[test]
fn two_names_are_never_one() {
    let names = [("a", "b"), ("ab", "c"), ("a", "bc"), ("", "a"), ("a", ""), ("b", "a")];
    let each =
        names.iter().flat_map(|(namespace, name)| (0..3).map(|which| id(&ObjectName::new(*namespace, *name), which)));
    assert_eq!(each.collect::<std::collections::HashSet<_>>().len(), names.len() * 3);
}

#[test]
fn the_order_in_which_edges_hear_of_each_other_makes_no_difference() {
    let (now, who) = (Instant::now(), client(1));
    let used = |requests| LimitUse { limit: id(&ObjectName::new("shop", "web"), 0), client: who, requests };
    let passes = |steps: &[u32]| {
        let edge = Edge::new(limits("web", PERIOD, true));
        for step in steps {
            match step {
                0 => assert_eq!(edge.ask(who, 1, now), 1),
                requests => edge.hear(&[used(*requests)], now),
            }
        }
        edge.ask(who, 20, now)
    };
    for steps in [[0, 2, 3, 1], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 1, 3]] {
        assert_eq!(passes(&steps), 4, "{steps:?}");
    }
    assert_eq!(passes(&[0, 6]), 4, "all in one message");
}

#[test]
fn whatever_others_say_nobody_is_kept_out_for_longer_than_a_bucket_takes_to_fill() {
    let edge = Edge::new(limits("web", PERIOD, true));
    let (mut now, who) = (Instant::now(), client(1));
    let all = LimitUse { limit: id(&ObjectName::new("shop", "web"), 0), client: who, requests: u32::MAX };
    for _ in 0..1000 {
        edge.hear(&[all], now);
    }
    now += PERIOD * (BURST + 1);
    assert_eq!(edge.ask(who, 1, now), 0, "it owes what a client can use at once");
    now += PERIOD;
    assert_eq!(edge.ask(who, 5, now), 1);
}

#[test]
fn another_period_there_weighs_as_this_node_has_it() {
    let (now, who) = (Instant::now(), client(1));
    let (fast, slow) = (Edge::new(limits("web", PERIOD, true)), Edge::new(limits("web", PERIOD * 1000, true)));
    assert_eq!((fast.ask(who, 3, now), slow.ask(who, 2, now)), (3, 2));
    let (of_fast, of_slow) = (fast.news(), slow.news());
    fast.hear(&of_slow, now);
    slow.hear(&of_fast, now);
    assert_eq!((fast.ask(who, 20, now), slow.ask(who, 20, now)), (6, 6));
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let now = Instant::now();
    let edge = Edge::new(limits("web", PERIOD, true));
    for _ in 0..2 {
        for n in 0..MOST as u32 + 1000 {
            assert_eq!(edge.ask(client(n), 2, now), 2);
        }
        let mut uses = Vec::new();
        assert_eq!(edge.limiter.take_uses(&mut uses), 2000);
        assert_eq!(uses.len(), MOST);
        assert!(uses.iter().all(|used| used.requests == 2));
    }
}

/// Clients that ask all edges all the time, and edges that hear of each other with random delays of up to two tenths of a second.
#[test]
fn under_siege_all_edges_together_let_through_what_one_would() {
    for (n, seed) in [(2, 1_u64), (3, 2), (4, 3), (2, 4), (3, 5)] {
        let (edges, start, who) = (edges(n), Instant::now(), client(1));
        let mut random = seed;
        let mut dice = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut on_their_way: Vec<(u64, usize, Vec<LimitUse>)> = Vec::new();
        let mut passed = vec![0; n];
        for ms in 0..60_000 {
            let now = start + Duration::from_millis(ms);
            for (edge, passed) in edges.iter().zip(&mut passed) {
                *passed += edge.ask(who, dice(3) as usize, now);
            }
            let (arrived, rest): (Vec<_>, Vec<_>) = on_their_way.into_iter().partition(|(due, ..)| *due <= ms);
            on_their_way = rest;
            for (_, to, uses) in arrived {
                edges[to].hear(&uses, now);
            }
            if ms % 100 == 0 {
                for (from, edge) in edges.iter().enumerate() {
                    let uses = edge.news();
                    for to in (0..n).filter(|to| *to != from) {
                        on_their_way.push((ms + dice(100), to, uses.clone()));
                    }
                }
            }
        }
        let one = 600 + BURST as usize + 1;
        let all: usize = passed.iter().sum();
        // At the start each lets its burst through; of that others forgive all but two.
        let most = one + n * (BURST as usize + 1);
        assert!((one * 9 / 10..=most).contains(&all), "{n} edges: {passed:?} are {all}, one lets {one} through");
    }
}
