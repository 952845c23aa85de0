//! Values of ingress-nginx's annotations that cannot be used: what they cost, and that their owner is told. Beyond the recorded cases:
//! what could be smuggled through them into a header or past a check.

use std::fmt::Write as _;

use ingress_agent::model::route::Action;
use ingress_agent::plan::PlanOptions;
use ingress_tests::annotated::annotated;

/// Of `shop.example/`: nothing, 503, or forwarded; and what was said.
fn served(annotations: &[(&str, &str)]) -> (&'static str, String) {
    let named: Vec<(String, &str)> =
        annotations.iter().map(|(k, v)| (format!("nginx.ingress.kubernetes.io/{k}"), *v)).collect();
    let named: Vec<(&str, &str)> = named.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let snapshot = annotated(&named, PlanOptions::default());
    let mut said = String::new();
    for rejection in &snapshot.rejections {
        writeln!(said, "{rejection}").expect("a String takes all");
    }
    let host = snapshot.listeners[0].hosts.exact.get("shop.example");
    let outcome = match host.and_then(|h| h.routes.first()).map(|r| &r.action) {
        None => "nothing",
        Some(Action::Respond(status)) if status.as_u16() == 503 => "503",
        Some(Action::Forward(_)) => "forwarded",
        Some(_) => "other",
    };
    (outcome, said)
}

#[test]
fn what_cannot_be_used_costs_what_it_must() {
    for (name, value, outcome, said) in [
        // A line break in a value would be one in a header, or in a configuration.
        ("permanent-redirect", "https://a.example\r\nSet-Cookie: a=b", "nothing", "control character"),
        ("auth-realm", "a\nb", "nothing", "control character"),
        ("upstream-vhost", "a\u{0}b", "nothing", "control character"),
        ("session-cookie-path", "/a\u{7f}", "nothing", "control character"),
        ("permanent-redirect", "https://a.example$request_uri", "nothing", "is not an address"),
        ("upstream-vhost", "a b", "nothing", "is not a host"),
        ("proxy-http-version", "2", "forwarded", "is neither `1.0` nor `1.1`; it is ignored"),
        ("proxy-http-version", "1.0", "forwarded", "is not spoken to backends"),
        ("auth-keepalive", "many", "forwarded", "is not a whole number; it is ignored"),
        ("auth-keepalive-share-vars", "maybe", "forwarded", "is not `true` or `false`; it is ignored"),
        ("service-upstream", "maybe", "forwarded", "is not `true` or `false`; it is ignored"),
        ("use-port-in-redirects", "maybe", "forwarded", "is not `true` or `false`; it is ignored"),
        ("load-balance", "x", "nothing", "is neither"),
        ("upstream-hash-by", "$secret", "nothing", "not known"),
        ("ssl-ciphers", "RSA:3DES", "forwarded", "names no suite that is served"),
        // What was to protect an Ingress must not open it by being wrong.
        ("allowlist-source-range", "10.0.0.0/8, x", "503", "no address or range"),
        ("denylist-source-range", "10.0.0.0/33", "503", "no address or range"),
        ("auth-url", "not a url", "503", "is not an address"),
        ("auth-url", "http://$http_x/check", "503", "is not an address"),
        ("auth-url", "http://a.example@b.example/check", "503", "is not an address"),
        ("auth-url", "http://a.example/$nope", "503", "is not an address"),
        ("auth-type", "basic", "503", "is missing"),
        ("auth-type", "bearer", "nothing", "is not `basic`"),
        ("custom-headers", "shop/none", "503", "is not the name of a ConfigMap"),
        // The rest is passed over.
        ("proxy-read-timeout", "60s", "forwarded", "is ignored"),
        ("proxy-body-size", "5 m", "forwarded", "is ignored"),
        ("rewrite-target", "/$1;bad{}", "forwarded", "is ignored"),
        ("no-such-annotation", "x", "forwarded", "no-such-annotation"),
    ] {
        let (found, told) = served(&[(name, value)]);
        assert_eq!(found, outcome, "{name}: {value:?}: {told}");
        assert!(told.contains(said), "{name}: {value:?}: {told}");
    }
}

#[test]
fn a_snippet_for_the_auth_server_needs_leave() {
    let snippet = ("auth-snippet", "proxy_set_header X-A b;");
    let (found, told) = served(&[("auth-url", "http://a.example/check"), snippet]);
    assert_eq!(found, "forwarded", "{told}");
    assert!(told.contains("auth-snippet]: snippets need `allow-snippet-annotations`"), "{told}");
}

#[test]
fn a_secret_of_another_namespace_is_not_believed() {
    let (found, told) = served(&[("auth-type", "basic"), ("auth-secret", "other/users")]);
    assert_eq!(found, "503", "{told}");
    assert!(told.contains("allow-cross-namespace-resources"), "{told}");
}

#[test]
fn expressions_that_may_take_for_ever_or_all_memory_are_refused() {
    for (pattern, outcome) in
        [("(?=a)", "no"), ("(a)\\1", "no"), ("(a{1000}){1000}", "no"), ("(a+)+$", "yes"), ("[", "no")]
    {
        let (_, told) = served(&[("server-alias", &format!("~^{pattern}"))]);
        assert_eq!(told.contains("is left out"), outcome == "no", "{pattern}: {told}");
    }
}
