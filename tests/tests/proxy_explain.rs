//! `explain` says what the proxy does: each row is asked of both.

use std::time::SystemTime;

use http::{HeaderMap, Method};
use ingress_agent::model::class_rule::ClassRule;
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::proxy::explain;
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
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

/// The location that ingress-nginx's template would have written, and nginx chosen, for the same Ingresses.
#[test]
fn locations_are_those_of_ingress_nginx() {
    let backend = "backend: {service: {name: web, port: {number: 80}}}";
    let path = |path: &str, kind: &str| format!("{{path: '{path}', pathType: {kind}, {backend}}}");
    let ingress = |name: &str, host: &str, annotation: &str, paths: &[String]| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: t, annotations: {{{annotation}}}}}\n\
             spec: {{rules: [{{host: '{host}', http: {{paths: [{}]}}}}]}}\n",
            paths.join(", ")
        )
    };
    let plain = [path("/cart", "Prefix"), path("/cart/new", "Exact"), path("/dir/", "Prefix")];
    let regex = [path("/v[0-9]+/(.*)", "ImplementationSpecific"), path("/(?!api/)(.*)", "ImplementationSpecific")];
    let manifests = [
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: t}\nspec: {ports: [{port: 80}]}\n".to_owned(),
        ingress("plain", "shop.example", "", &plain),
        ingress("regex", "re.example", "nginx.ingress.kubernetes.io/use-regex: 'true'", &regex),
        ingress("wild", "*.wild.example", "", &[path("/", "Prefix")]),
        ingress(
            "limited",
            "limited.example",
            "nginx.ingress.kubernetes.io/limit-rps: '5', sluicegate.io/limit-shared: 'true'",
            &[path("/", "Prefix")],
        ),
        ingress("alias", "one.example", "nginx.ingress.kubernetes.io/server-alias: two.example", &[path("/", "Prefix")]),
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: rest, namespace: t}\nspec: {defaultBackend: {service: {name: web, port: {number: 80}}}}\n".to_owned(),
    ];
    let mut store = Store::new(SourceOptions::default());
    store.put("all.yaml", Ok(&manifests.concat()));
    let facts = store.publish(SystemTime::now(), &[]).expect("facts");
    let options = PlanOptions {
        ingress_vips: vec!["203.0.113.80".parse().expect("an address")],
        classes: ClassRule { without_class: true, ..ClassRule::default() },
        ..PlanOptions::default()
    };
    let snapshot = plan(&facts, &options, None).snapshot;
    assert_eq!(snapshot.rejections, [], "all of it is taken");
    for (url, location) in [
        ("http://shop.example/cart", "= \"/cart\" of server shop.example"),
        ("http://shop.example/cart/x", "/cart/ of server shop.example"),
        ("http://shop.example/a/../cart/x", "/cart/ of server shop.example"),
        ("http://shop.example/cart/new", "= \"/cart/new\" of server shop.example"),
        ("http://shop.example/dir/x", "/dir/ of server shop.example"),
        ("http://shop.example/dir", "/dir/ of server shop.example"),
        ("http://re.example/V2/x", "~* \"^/v[0-9]+/(.*)\" of server re.example"),
        ("http://re.example/x", "~* \"^/(?!api/)(.*)\" of server re.example"),
        ("http://a.wild.example/x", "/ of server *.wild.example"),
        ("http://two.example/x", "/ of server one.example"),
        ("http://nobody.example/x", "/ of server _"),
    ] {
        let told = explain(&snapshot, url, &Method::GET, &HeaderMap::new()).expect("an explanation");
        assert_eq!(told.location, Some(format!("location {location}")), "{url}: {:#?}", told.steps);
        assert!(told.steps.iter().any(|s| s.starts_with("In ingress-nginx: location")), "{:#?}", told.steps);
    }
    let told = explain(&snapshot, "http://limited.example/", &Method::GET, &HeaderMap::new()).expect("an explanation");
    let limit = "A client may ask once in 200ms and 25 times more at once, as counted by all edges together; else 503.";
    assert!(told.steps.iter().any(|s| s == limit), "{:#?}", told.steps);
}
