//! Which route a request takes, and what filters do to it.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ingress_agent::model::route::{
    Action, Balance, Filter, HeaderEdits, HeaderMatch, PathMatch, PathRewrite, QueryMatch, Redirect, RedirectPort,
    Route, ValueMatch, WeightedPool,
};
use ingress_agent::model::snapshot::BackendState;
use ingress_tests::http::backend::Backend;
use ingress_tests::http::raw::{Raw, ask, get};
use ingress_tests::http::site::{
    Served, Site, answering, exact, filtered, pool, pool_name, prefix, route, route_doing,
};
use ingress_tests::wait::until;

fn regex(pattern: &str, case_insensitive: bool) -> PathMatch {
    PathMatch::Regex { pattern: pattern.to_owned(), case_insensitive }
}

#[test]
fn hosts_and_paths_choose_the_route() {
    // Each route answers a status of its own.
    let site = Site::default()
        .host(
            "shop.example",
            vec![
                answering(exact("/cart"), 201),
                answering(prefix("/cart"), 202),
                answering(prefix(""), 203),
                answering(prefix("/cart/items"), 206),
                answering(exact("/tail/"), 207),
                answering(regex("/v[0-9]+/", true), 208),
            ],
        )
        .wildcard("shop.example", true, vec![answering(prefix(""), 210)])
        .wildcard("deep.example", false, vec![answering(prefix(""), 211)])
        .wildcard("very.deep.example", true, vec![answering(prefix(""), 212)])
        .any(vec![answering(prefix("/any"), 213)]);
    let served = Served::new(&site);
    for (host, path, status) in [
        ("shop.example", "/cart", 201),
        ("SHOP.example:80", "/cart", 201),
        ("shop.example.", "/cart", 201),
        ("shop.example", "/cart/", 202),
        ("shop.example", "/cart/x?y=/cart", 202),
        ("shop.example", "/cartx", 203),
        ("shop.example", "/Cart", 203),
        ("shop.example", "/", 203),
        ("shop.example", "/cart/items", 206),
        ("shop.example", "/cart/items/7/", 206),
        ("shop.example", "/cart/itemsx", 202),
        ("shop.example", "/tail/", 207),
        ("shop.example", "/tail", 203),
        ("shop.example", "/V12/x", 208),
        ("shop.example", "/x/v12/", 203),
        ("shop.example", "//cart", 201),
        ("shop.example", "/x/../cart", 201),
        ("shop.example", "/%63art", 201),
        ("shop.example", "/cart/./x", 202),
        ("a.shop.example", "/", 210),
        ("a.b.shop.example", "/any", 213),
        ("a.b.shop.example", "/", 404),
        ("x.deep.example", "/", 211),
        ("x.y.deep.example", "/", 211),
        ("x.very.deep.example", "/", 212),
        ("x.y.very.deep.example", "/", 211),
        ("deep.example", "/any/x", 213),
        ("unknown.example", "/", 404),
    ] {
        assert_eq!(get(served.http(), host, path).status, status, "{host} {path}");
    }
}

#[test]
fn conditions_and_precedence_are_those_of_the_gateway_api() {
    let with = |status: u16, change: &dyn Fn(&mut Route)| {
        let mut route = answering(prefix("/x"), status);
        change(&mut route);
        route
    };
    let header = |name: &'static str, value: ValueMatch| HeaderMatch { name: HeaderName::from_static(name), value };
    let query = |name: &str, value: ValueMatch| QueryMatch { name: name.to_owned(), value };
    let text = |text: &str| ValueMatch::Exact(text.to_owned());
    let site = Site::default().any(vec![
        answering(prefix("/x"), 201),
        with(202, &|r| r.matches.method = Some(Method::POST)),
        with(203, &|r| r.matches.headers = vec![header("x-a", text("1"))]),
        with(206, &|r| {
            r.matches.headers = vec![header("x-a", text("1")), header("x-b", ValueMatch::Regex("[0-9]+".to_owned()))];
        }),
        with(207, &|r| r.matches.query = vec![query("q", text("a b"))]),
        with(208, &|r| r.matches.query = vec![query("r", ValueMatch::Regex("v[12]".to_owned()))]),
    ]);
    let served = Served::new(&site);
    for (what, line, fields, status) in [
        ("nothing more", "GET /x", "", 201),
        ("a method", "POST /x", "", 202),
        ("a method over headers", "POST /x", "x-a: 1\r\n", 202),
        ("a header", "GET /x", "X-A: 1\r\n", 203),
        ("another value", "GET /x", "x-a: 2\r\n", 201),
        ("two headers over one", "GET /x", "x-a: 1\r\nx-b: 77\r\n", 206),
        ("a value that matches in part", "GET /x", "x-a: 1\r\nx-b: 7x\r\n", 203),
        ("a parameter, decoded", "GET /x?z=1&q=a+b", "", 207),
        ("a parameter, escaped", "GET /x?q=a%20b", "", 207),
        ("the first of two", "GET /x?q=c&q=a+b", "", 201),
        ("an expression", "GET /x?r=v2", "", 208),
        ("a header over a parameter", "GET /x?r=v2", "x-a: 1\r\n", 203),
    ] {
        let response = ask(served.http(), format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).expect("a response");
        assert_eq!(response.status, status, "{what}");
    }
}

#[test]
fn filters_edit_rewrite_and_redirect() {
    let backend = Backend::echo();
    let edits = |set: &[(&'static str, &'static str)],
                 add: &[(&'static str, &'static str)],
                 remove: &[&'static str]| {
        let pair = |&(n, v): &(&'static str, &'static str)| (HeaderName::from_static(n), HeaderValue::from_static(v));
        HeaderEdits {
            set: set.iter().map(pair).collect(),
            add: add.iter().map(pair).collect(),
            remove: remove.iter().map(|n| HeaderName::from_static(n)).collect(),
        }
    };
    let redirect = |r: Redirect| route_doing(prefix("/r"), Action::Redirect(r));
    let plain = Redirect { scheme: None, host: None, port: RedirectPort::Own, path: None, status: StatusCode::FOUND };
    let site = Site::default()
        .pool(pool("web", &[backend.address]))
        .host(
            "edit.example",
            vec![filtered(
                filtered(
                    route(prefix("/"), "web"),
                    Filter::RequestHeaders(edits(
                        &[("x-set", "1"), ("x-real-ip", "hidden")],
                        &[("x-add", "2")],
                        &["x-gone"],
                    )),
                ),
                Filter::ResponseHeaders(edits(&[("x-out", "3")], &[], &["content-type"])),
            )],
        )
        .host(
            "full.example",
            vec![filtered(
                route(prefix(""), "web"),
                Filter::RewritePath(PathRewrite::Full("/new place".to_owned().replace(' ', "%20"))),
            )],
        )
        .host(
            "prefix.example",
            vec![
                filtered(route(prefix("/a"), "web"), Filter::RewritePath(PathRewrite::Prefix("/b/c".to_owned()))),
                filtered(route(prefix("/root"), "web"), Filter::RewritePath(PathRewrite::Prefix("/".to_owned()))),
            ],
        )
        .host("host.example", vec![filtered(route(prefix(""), "web"), Filter::RewriteHost("inner.example".to_owned()))])
        .host(
            "https.example",
            vec![redirect(Redirect {
                scheme: Some("https".to_owned()),
                status: StatusCode::PERMANENT_REDIRECT,
                ..plain.clone()
            })],
        )
        .host(
            "moved.example",
            vec![redirect(Redirect {
                host: Some("new.example".to_owned()),
                port: RedirectPort::This(81),
                path: Some(PathRewrite::Prefix("/s".to_owned())),
                ..plain.clone()
            })],
        )
        .host("same.example", vec![redirect(Redirect { path: Some(PathRewrite::Full("/here".to_owned())), ..plain })]);
    let served = Served::new(&site);
    let response = ask(
        served.http(),
        "GET / HTTP/1.1\r\nHost: edit.example\r\nX-Gone: 1\r\nX-Add: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n",
    );
    let response = response.expect("a response");
    assert_eq!((response.field("x-out"), response.field("content-type")), (Some("3"), None));
    let got = backend.last();
    for (name, expected) in [
        ("x-set", &["1"][..]),
        ("x-add", &["1", "2"]),
        ("x-gone", &[]),
        ("x-hop", &["1"]),
        ("x-real-ip", &["hidden"]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["http"]),
        ("host", &["edit.example"]),
    ] {
        assert_eq!(got.fields(name), expected, "{name}");
    }
    for (host, path, line) in [
        ("full.example", "/x?q=1", "GET /new%20place?q=1 HTTP/1.1"),
        ("prefix.example", "/a", "GET /b/c HTTP/1.1"),
        ("prefix.example", "/a/x%20y?q", "GET /b/c/x%20y?q HTTP/1.1"),
        ("prefix.example", "/a/", "GET /b/c/ HTTP/1.1"),
        ("prefix.example", "/root/x", "GET /x HTTP/1.1"),
        ("prefix.example", "/root", "GET / HTTP/1.1"),
    ] {
        get(served.http(), host, path);
        assert_eq!(backend.last().line(), line, "{host} {path}");
    }
    get(served.http(), "host.example", "/");
    let got = backend.last();
    assert_eq!((got.field("host"), got.field("x-forwarded-host")), (Some("inner.example"), Some("inner.example")));
    for (host, path, status, location) in [
        ("https.example", "/r/x?q=1", 308, "https://https.example/r/x?q=1"),
        ("https.example:8080", "/r", 308, "https://https.example/r"),
        ("moved.example", "/r/x?q=1", 302, "http://new.example:81/s/x?q=1"),
        ("same.example", "/r/x", 302, "http://same.example:8080/here"),
    ] {
        let response = get(served.http(), host, path);
        assert_eq!((response.status, response.field("location")), (status, Some(location)), "{host} {path}");
    }
}

#[test]
fn weights_balance_and_draining_backends() {
    let backends = [Backend::named("a"), Backend::named("b"), Backend::named("c")];
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let mut weighted = pool("web", &addresses);
    for backend in &mut weighted.backends {
        let at = addresses.iter().position(|a| *a == backend.address);
        backend.weight = [5, 1, 1][at.expect("one of them")];
    }
    let mut drained = pool("drained", &addresses);
    for backend in &mut drained.backends {
        if backend.address == addresses[0] {
            backend.state = BackendState::Draining;
        }
        if backend.address == addresses[1] {
            backend.weight = 0;
        }
    }
    let split = |weights: [u32; 2]| {
        let to = |name: &str, weight| WeightedPool { pool: pool_name(name), weight, filters: Vec::new() };
        Action::Forward(vec![to("only-a", weights[0]), to("only-b", weights[1])])
    };
    let mut least = route(prefix("/least"), "even");
    least.balance = Balance::LeastRequest;
    let site = Site::default()
        .pool(weighted)
        .pool(drained)
        .pool(pool("even", &addresses))
        .pool(pool("only-a", &addresses[..1]))
        .pool(pool("only-b", &addresses[1..2]))
        .any(vec![
            route(prefix("/weighted"), "web"),
            route(prefix("/even"), "even"),
            route(prefix("/drained"), "drained"),
            route_doing(prefix("/split"), split([3, 1])),
            route_doing(prefix("/none"), split([0, 0])),
            route_doing(prefix("/one"), split([0, 1])),
            least,
        ]);
    let served = Served::single(&site);
    let mut client = Raw::connect(served.http());
    let mut answers = |path: &str, count: usize| -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..count {
            let text =
                client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).response().expect("a response").text();
            counts[usize::from(text.as_bytes()[0] - b'a')] += 1;
        }
        counts
    };
    assert_eq!(answers("/weighted", 70), [50, 10, 10]);
    assert_eq!(answers("/even", 30), [10, 10, 10]);
    assert_eq!(answers("/drained", 10), [0, 0, 10]);
    assert_eq!(answers("/one", 10), [0, 10, 0]);
    assert_eq!(answers("/least", 30), [10, 10, 10], "without load, ties go round");
    let [a, b, _] = answers("/split", 1000);
    assert!((690..=810).contains(&a) && a + b == 1000, "3 to 1: {a} and {b}");
    assert_eq!(get(served.http(), "a", "/none").status, 500);
}

#[test]
fn mirrors_get_copies_and_clients_do_not_notice() {
    let (main, copy) = (Backend::named("main"), Backend::named("copy"));
    let mirror = |name: &str, parts_per_million| Filter::Mirror { pool: pool_name(name), parts_per_million };
    let site = Site::default().pool(pool("web", &[main.address])).pool(pool("copy", &[copy.address])).any(vec![
        filtered(filtered(route(prefix("/all"), "web"), mirror("copy", 1_000_000)), mirror("absent", 1_000_000)),
        filtered(route(prefix("/none"), "web"), mirror("copy", 0)),
    ]);
    let served = Served::new(&site);
    assert_eq!(get(served.http(), "a", "/none").text(), "main");
    assert_eq!(get(served.http(), "a", "/all/1").text(), "main");
    let post = "POST /all/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(ask(served.http(), post).expect("a response").text(), "main");
    let copies = until("two copies", || Some(copy.received()).filter(|r| r.len() == 2));
    assert!(copies.iter().any(|c| c.line() == "GET /all/1 HTTP/1.1"));
    let posted = copies.iter().find(|c| c.line() == "POST /all/2 HTTP/1.1").expect("the POST");
    assert!(String::from_utf8_lossy(&posted.body).contains("hello"));
}
