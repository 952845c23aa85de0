//! Who gets how much: slow start by counting, and retries within their budget.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ingress_agent::model::policy::{Care, HealthCheck, Policy, Probe, RetryBudget, RetryOn};
use ingress_agent::model::route::Balance;
use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::{Raw, get};
use ingress_tests::http::site::{Served, Site, pool, prefix, route};
use ingress_tests::wait::until;

/// So long that an endpoint is at its floor of a tenth throughout a test.
const FOR_LONG: Duration = Duration::from_hours(1);

fn site(ends: &[SocketAddr], balance: Balance, care: impl Into<Option<Care>>) -> Site {
    let mut route = route(prefix(""), "web");
    route.balance = balance;
    route.policy = Some(Arc::new(Policy { care: care.into().map(Arc::new), ..Policy::default() }));
    Site::default().pool(pool("web", ends)).any(vec![route])
}

fn slow(window: Duration) -> Care {
    Care { health: None, slow_start: Some(window) }
}

/// How many of so many requests in a row are answered by `name`. None may fail.
fn answered_by(served: &Served, name: &str, count: usize) -> usize {
    let mut client = Raw::connect(served.http());
    let mut found = 0;
    for _ in 0..count {
        let answer = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().expect("a response");
        assert_eq!(answer.status, 200);
        found += usize::from(answer.text() == name);
    }
    found
}

#[test]
fn a_newcomer_gets_a_tenth_at_first() {
    // Of 440 requests to an old and a new one. By weight a tenth beside one is 40; by chance, it is half of the times it is considered;
    // by speed, all of them or next to none.
    for (balance, least, most) in
        [(Balance::RoundRobin, 40, 40), (Balance::LeastRequest, 5, 80), (Balance::Ewma, 1, 80)]
    {
        let (old, new) = (Backend::named("old"), Backend::named("new"));
        let mut served = Served::single(&site(&[old.address], balance, slow(FOR_LONG)));
        assert_eq!(answered_by(&served, "old", 20), 20);
        served.apply(&site(&[old.address, new.address], balance, slow(FOR_LONG)));
        let found = answered_by(&served, "new", 440);
        assert!((least..=most).contains(&found), "{balance:?}: {found} of 440");
    }
}

#[test]
fn a_newcomer_has_its_share_when_the_time_is_over() {
    let window = Duration::from_secs(2);
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let mut served = Served::single(&site(&[old.address], Balance::RoundRobin, slow(window)));
    assert_eq!(answered_by(&served, "old", 20), 20);
    served.apply(&site(&[old.address, new.address], Balance::RoundRobin, slow(window)));
    let began = Instant::now();
    // By when it got which part: in a straight line, so never before half of the time more than half of the weight, a third of requests.
    let mut parts = Vec::new();
    until("half of the requests", || {
        let found = answered_by(&served, "new", 40);
        parts.push((began.elapsed(), found));
        (found == 20).then_some(())
    });
    assert!(began.elapsed() > window * 8 / 10, "{parts:?}");
    let early = parts.iter().filter(|(at, _)| *at < window / 2).map(|(_, found)| *found).max();
    assert!(early.is_none_or(|found| found <= 14), "{parts:?}");
    until("the time is over", || (began.elapsed() > window).then_some(()));
    assert_eq!(answered_by(&served, "new", 100), 50);
}

#[test]
fn where_all_are_new_there_is_no_ramp() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest, Balance::Ewma] {
        let (a, b) = (Backend::named("a"), Backend::named("b"));
        let both = [a.address, b.address];
        // From the start of the agent.
        let mut served = Served::single(&site(&both, balance, slow(FOR_LONG)));
        let found = answered_by(&served, "a", 200);
        let even = if balance == Balance::Ewma { 1..=199 } else { 100..=100 };
        assert!(even.contains(&found), "{balance:?}: {found}");
        // From nothing.
        served.apply(&site(&[], balance, slow(FOR_LONG)));
        assert_eq!(get(served.http(), "a", "/").status, 503);
        served.apply(&site(&both, balance, slow(FOR_LONG)));
        let found = answered_by(&served, "a", 200);
        let even = if balance == Balance::RoundRobin { 95..=105 } else { 1..=199 };
        assert!(even.contains(&found), "{balance:?}, from nothing: {found}");
    }
}

#[test]
fn without_the_annotation_a_newcomer_gets_all_of_its_share() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let mut served = Served::single(&site(&[old.address], Balance::RoundRobin, None));
    assert_eq!(answered_by(&served, "old", 20), 20);
    served.apply(&site(&[old.address, new.address], Balance::RoundRobin, None));
    assert_eq!(answered_by(&served, "new", 100), 50);
}

#[test]
fn who_is_well_again_begins_slowly() {
    let ill = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&ill);
    let (a, b) = (
        Backend::named("a"),
        Backend::answering(move |_, stream| {
            let status = if shared.load(Ordering::SeqCst) { "500 Internal Server Error" } else { "200 OK" };
            reply(stream, status, "", b"b");
            Then::Keep
        }),
    );
    let check = HealthCheck {
        probe: Probe::Http { path: "/".to_owned(), host: None, statuses: vec![(200, 200)] },
        port: None,
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
        healthy: 2,
        unhealthy: 2,
    };
    let care = Some(Care { health: Some(check), slow_start: Some(FOR_LONG) });
    let served = Served::single(&site(&[a.address, b.address], Balance::RoundRobin, care));
    assert_eq!(answered_by(&served, "b", 40), 20);
    ill.store(true, Ordering::SeqCst);
    until("b is left alone", || (0..10).all(|_| get(served.http(), "a", "/").text() == "a").then_some(()));
    assert_eq!(answered_by(&served, "b", 40), 0);
    ill.store(false, Ordering::SeqCst);
    until("b is back", || (get(served.http(), "a", "/").text() == "b").then_some(()));
    assert_eq!(answered_by(&served, "b", 220), 20);
}

#[test]
fn retries_stay_within_their_budget() {
    const REQUESTS: usize = 500;
    for (budget, unlimited) in [(RetryBudget::default(), false), (RetryBudget::Unlimited, true)] {
        let busy = || {
            Backend::answering(|_, stream| {
                reply(stream, "503 Service Unavailable", "", b"busy");
                Then::Keep
            })
        };
        let backends = [busy(), busy(), busy()];
        let ends: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
        let mut route = route(prefix(""), "web");
        // Bit 2 is 503.
        let retry_on = RetryOn { statuses: 1 << 2, ..RetryOn::default() };
        route.policy = Some(Arc::new(Policy { retry_on, retry_budget: budget, ..Policy::default() }));
        let served = Served::single(&Site::default().pool(pool("web", &ends)).any(vec![route]));
        let mut client = Raw::connect(served.http());
        let began = Instant::now();
        for _ in 0..REQUESTS {
            let answer = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().expect("a response");
            assert_eq!((answer.status, answer.text().as_str()), (503, "busy"), "the backend's own answer");
        }
        let seconds = began.elapsed().as_secs() as usize + 1;
        let reached: usize = backends.iter().map(|b| b.received().len()).sum();
        let metrics = served.proxy().metrics();
        assert_eq!(metrics.retries as usize, reached - REQUESTS);
        if unlimited {
            assert_eq!((reached, metrics.over_budget), (3 * REQUESTS, 0));
        } else {
            let most = REQUESTS + REQUESTS / 5 + 50 + 5 * seconds;
            assert!((REQUESTS + REQUESTS / 5..=most).contains(&reached), "{reached}, at most {most}");
            assert!(metrics.over_budget > 0);
        }
    }
}

#[test]
fn what_reached_no_backend_costs_no_budget() {
    // One of two refuses, in a pool whose budget is used up: nobody is lost.
    let refused = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let busy = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&busy);
    let good = Backend::answering(move |_, stream| {
        let status = if state.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        reply(stream, status, "", b"good");
        Then::Keep
    });
    let mut route = route(prefix(""), "web");
    let retry_on = RetryOn { statuses: 1 << 2, ..RetryOn::default() };
    route.policy = Some(Arc::new(Policy { retry_on, retry_budget: RetryBudget::Percent(0), ..Policy::default() }));
    let with = |ends: &[SocketAddr]| Site::default().pool(pool("web", ends)).any(vec![route.clone()]);
    let mut served = Served::single(&with(&[good.address]));
    until("the budget is used up", || {
        get(served.http(), "a", "/");
        (served.proxy().metrics().over_budget > 3).then_some(())
    });
    busy.store(false, Ordering::SeqCst);
    served.apply(&with(&[good.address, refused]));
    for _ in 0..20 {
        assert_eq!(get(served.http(), "a", "/").text(), "good");
    }
    assert_eq!(served.proxy().metrics().ejections, 1, "the other was met");
}
