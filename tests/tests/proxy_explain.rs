//! `explain` says what the proxy does: each row is asked of both.

use http::{HeaderMap, Method};
use ingress_agent::proxy::explain;
use ingress_tests::http::address;
use ingress_tests::http::backend::Backend;
use ingress_tests::http::raw::get;
use ingress_tests::http::site::{HTTP, Served, Site, answering, exact, pool, prefix, route};

#[test]
fn explanations_agree_with_answers() {
    let backend = Backend::named("x");
    let site = Site::default()
        .pool(pool("web", &[backend.address]))
        .pool(pool("empty", &[]))
        .host(
            "shop.example",
            vec![route(prefix("/cart"), "web"), answering(exact("/gone"), 410), route(prefix("/empty"), "empty")],
        )
        .wildcard("wild.example", true, vec![route(prefix(""), "web")]);
    let served = Served::new(&site);
    let snapshot = site.snapshot(1, served.vip);
    for (host, path, status, said) in [
        ("shop.example", "/cart/x", 200, "begins with the elements of `/cart`"),
        ("shop.example", "/x/../cart", 200, "begins with the elements of `/cart`"),
        ("shop.example", "/gone", 410, "Answered here with 410"),
        ("shop.example", "/empty", 503, "no ready backend: 503"),
        ("shop.example", "/none", 404, "None of its 3 routes matches `/none`: 404"),
        ("a.wild.example", "/", 200, "Host `*.wild.example`"),
        ("a.b.wild.example", "/", 404, "No host matches"),
        ("unknown.example", "/", 404, "No host matches"),
    ] {
        assert_eq!(get(served.http(), host, path).status, status, "{host} {path}");
        let told = explain(&snapshot, &format!("http://{host}:{HTTP}{path}"), &Method::GET, &HeaderMap::new())
            .expect("an explanation");
        assert!(told.steps.iter().any(|s| s.contains(said)), "{host} {path}: {:#?}", told.steps);
        assert_eq!(told.listener, Some(served.http()));
        assert_eq!(told.backends.contains(&backend.address), status == 200, "{host} {path}");
    }
    let nowhere = explain(&site.snapshot(1, address()), "http://shop.example:1/", &Method::GET, &HeaderMap::new())
        .expect("an explanation");
    assert!(nowhere.steps[0].contains("No HTTP listener on port 1"), "{:?}", nowhere.steps);
    for bad in ["shop.example", "ftp://shop.example/", "http://", "http://a b/"] {
        assert!(explain(&snapshot, bad, &Method::GET, &HeaderMap::new()).is_err(), "{bad}");
    }
}
