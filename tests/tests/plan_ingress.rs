//! Ingress v1 as ingress-nginx 1.15.1 answered it: rows carried over from recordings of the real controller. The matching
//! here is as naive as can be; the proxy's own is tested with the proxy.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ingress_agent::model::class_rule::ClassRule;
use ingress_agent::model::route::{Action, HostTable, PathMatch, Route, VirtualHost};
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;

/// A path of an Ingress: (host, type, path, Service). An empty host is none.
type Path = (&'static str, &'static str, &'static str, &'static str);

#[track_caller]
fn check(ingresses: &[&[Path]], rows: &[(&str, &str, &str)]) {
    check_manifest(&ingresses.iter().enumerate().map(ingress).collect::<String>(), rows);
}

/// Rows: (host, path, the Service that got the request, or the status that came instead).
#[track_caller]
fn check_manifest(manifest: &str, rows: &[(&str, &str, &str)]) {
    let mut store = Store::new(SourceOptions::default());
    for name in ["a", "b", "c", "d"] {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: t}}\nspec: {{ports: [{{port: 80}}]}}\n"
        );
        store.put(&format!("{name}.yaml"), Ok(&text));
    }
    store.put("i.yaml", Ok(manifest));
    let facts = store.publish(SystemTime::now(), &[]).expect("the first facts");
    let options = PlanOptions {
        ingress_vips: vec!["203.0.113.80".parse().expect("an address")],
        classes: ClassRule { without_class: true, ..ClassRule::default() },
        ..PlanOptions::default()
    };
    let planned = plan(&facts, &options, None);
    let listener = planned.snapshot.listeners.first().expect("a listener");
    for (host, path, wanted) in rows {
        let found = answer(&listener.hosts, host, path);
        assert_eq!(&found, wanted, "http://{host}{path}\n{manifest}\n{:#?}", planned.snapshot.rejections);
    }
}

fn ingress((i, paths): (usize, &&[Path])) -> String {
    let mut rules: BTreeMap<&str, String> = BTreeMap::new();
    for (host, kind, path, service) in *paths {
        let backend = format!("{{service: {{name: {service}, port: {{number: 80}}}}}}");
        let path = format!("{{pathType: {kind}, path: \"{path}\", backend: {backend}}}, ");
        rules.entry(*host).or_default().push_str(&path);
    }
    let rules =
        rules.into_iter().map(|(host, paths)| format!("  - {{host: \"{host}\", http: {{paths: [{paths}]}}}}\n"));
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n\
         metadata: {{name: \"i{i}\", namespace: t}}\nspec:\n  rules:\n{}",
        rules.collect::<String>()
    )
}

fn answer(table: &HostTable, host: &str, path: &str) -> String {
    let wildcard = host.split_once('.').and_then(|(_, suffix)| table.wildcard.get(suffix));
    let chosen = table.exact.get(host).or(wildcard.map(|w| &w.host)).or(table.any.as_ref());
    let route = chosen.and_then(|h: &std::sync::Arc<VirtualHost>| h.routes.iter().find(|r| matches(r, path)));
    match route.map(|r| &r.action) {
        None => "404".to_owned(),
        Some(Action::Respond(status)) => status.as_u16().to_string(),
        Some(Action::Redirect(redirect)) => redirect.status.as_u16().to_string(),
        Some(Action::Forward(pools)) => pools[0].pool.service.name.clone(),
    }
}

fn matches(route: &Route, path: &str) -> bool {
    match &route.matches.path {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => {
            path.strip_prefix(prefix.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        }
        PathMatch::Regex { .. } => false,
    }
}

const FOO: [(&str, &str); 9] = [
    ("/", "404"),
    ("/foo", "b"),
    ("/foo/", "b"),
    ("/foobar", "404"),
    ("/foo/bar", "b"),
    ("/FOO", "404"),
    ("/foo/bar/baz", "b"),
    ("/x", "404"),
    ("/foo;v=1", "404"),
];

#[test]
fn case_001_prefix() {
    let rows = FOO.map(|(path, wanted)| ("a.test", path, wanted));
    check(&[&[("a.test", "Prefix", "/foo", "b")]], &rows);
}

#[test]
fn case_002_exact() {
    let rows = FOO.map(|(path, _)| ("a.test", path, if path == "/foo" { "b" } else { "404" }));
    check(&[&[("a.test", "Exact", "/foo", "b")]], &rows);
}

#[test]
fn case_003_implementation_specific_is_prefix() {
    let rows = FOO.map(|(path, wanted)| ("a.test", path, wanted));
    check(&[&[("a.test", "ImplementationSpecific", "/foo", "b")]], &rows);
}

#[test]
fn case_004_paths_that_end_in_a_slash() {
    let paths = [
        ("a.test", "Prefix", "/foo/", "b"),
        ("a.test", "Exact", "/bar/", "c"),
        ("a.test", "ImplementationSpecific", "/baz/", "d"),
    ];
    let rows = [
        ("a.test", "/foo", "301"),
        ("a.test", "/foo/", "b"),
        ("a.test", "/foo/x", "b"),
        ("a.test", "/foox", "404"),
        ("a.test", "/bar", "301"),
        ("a.test", "/bar/", "c"),
        ("a.test", "/bar/x", "404"),
        ("a.test", "/baz", "301"),
        ("a.test", "/baz/", "d"),
        ("a.test", "/baz/x", "d"),
    ];
    check(&[&paths], &rows);
}

#[test]
fn case_006_one_path_exact_and_prefix() {
    let paths = [("a.test", "Prefix", "/foo", "b"), ("a.test", "Exact", "/foo", "c")];
    check(&[&paths], &[("a.test", "/foo", "c"), ("a.test", "/foo/", "b"), ("a.test", "/foo/x", "b")]);
}

#[test]
fn case_007_one_path_prefix_and_implementation_specific() {
    let paths = [("a.test", "ImplementationSpecific", "/foo", "b"), ("a.test", "Prefix", "/foo", "c")];
    let rows = [("/foo", "b"), ("/foo/", "b"), ("/foo/x", "b"), ("/foobar", "404")];
    check(&[&paths], &rows.map(|(path, wanted)| ("a.test", path, wanted)));
}

#[test]
fn case_008_empty_path() {
    let paths = [("a.test", "ImplementationSpecific", "", "b")];
    check(&[&paths], &[("a.test", "/", "b"), ("a.test", "/x", "b")]);
}

#[test]
fn case_011_nested_wildcards_stand_for_one_label() {
    let paths = [("*.wild.test", "Prefix", "/", "b"), ("*.sub.wild.test", "Prefix", "/", "c")];
    let rows = [
        ("x.wild.test", "/", "b"),
        ("x.sub.wild.test", "/", "c"),
        ("sub.wild.test", "/", "b"),
        ("y.x.sub.wild.test", "/", "404"),
        ("wild.test", "/", "404"),
    ];
    check(&[&paths], &rows);
}

const HEAD: &str = "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n";

#[test]
fn case_014_an_ingress_of_nothing_but_a_default_backend() {
    let manifest = format!(
        "{HEAD}metadata: {{name: i, namespace: t}}\nspec: {{defaultBackend: {{service: {{name: c, port: {{number: 80}}}}}}}}\n{}",
        ingress((1, &[("a.test", "Prefix", "/foo", "b")].as_slice()))
    );
    let rows = [
        ("nobody.test", "/", "c"),
        ("nobody.test", "/x", "c"),
        ("a.test", "/foo", "b"),
        ("a.test", "/x", "404"),
        ("nobody.test", "/healthz", "200"),
        ("a.test", "/healthz", "404"),
    ];
    check_manifest(&manifest, &rows);
}

#[test]
fn case_015_a_default_backend_with_rules() {
    let manifest = format!(
        "{}  defaultBackend: {{service: {{name: c, port: {{number: 80}}}}}}\n",
        ingress((1, &[("a.test", "Prefix", "/foo", "b")].as_slice()))
    );
    check_manifest(&manifest, &[("a.test", "/foo", "b"), ("a.test", "/x", "c"), ("nobody.test", "/x", "404")]);
}

#[test]
fn case_016_a_rule_without_host_is_for_unknown_hosts_only() {
    let rows = [
        ("nobody.test", "/foo", "b"),
        ("a.test", "/foo", "404"),
        ("a.test", "/bar", "c"),
        ("nobody.test", "/bar", "404"),
        ("nobody.test", "/", "404"),
        ("nobody.test", "/healthz", "200"),
    ];
    check(&[&[("", "Prefix", "/foo", "b")], &[("a.test", "Prefix", "/bar", "c")]], &rows);
}

#[test]
fn case_018_the_older_ingress_wins_a_path_and_both_share_the_host() {
    let old = ingress((1, &[("a.test", "Prefix", "/foo", "b")].as_slice()));
    let new = ingress((0, &[("a.test", "Prefix", "/foo", "c"), ("a.test", "Prefix", "/bar", "c")].as_slice()));
    let dated =
        |text: &str, date: &str| text.replace("metadata: {", &format!("metadata: {{creationTimestamp: {date}, "));
    let manifest = dated(&new, "2026-02-01T00:00:01Z") + &dated(&old, "2026-02-01T00:00:00Z");
    check_manifest(&manifest, &[("a.test", "/foo", "b"), ("a.test", "/bar", "c")]);
}

#[test]
fn case_021_a_backend_that_is_not_there_is_503_on_its_own_path() {
    let paths = [("a.test", "Prefix", "/nosvc", "missing"), ("a.test", "Prefix", "/ok", "a")];
    check(&[&paths], &[("a.test", "/nosvc", "503"), ("a.test", "/ok", "a")]);
}
