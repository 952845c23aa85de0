//! `sluicegate migrate` over the recorded cases of ingress-nginx: what is answered alike is called the same, what deliberately differs is
//! not, and every verdict is as recorded in `golden-ingress-nginx/verdicts.txt` (`UPDATE_GOLDEN=1` writes it; read the difference before you
//! commit it). And the table of differences in the documentation is the one that the verdicts come from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use ingress_agent::migrate::report::{Found, Judged};
use ingress_agent::migrate::{Report, Said, Verdict, migrate_text};
use ingress_agent::model::difference::{Difference, EVERYBODY};
use ingress_tests::golden::corpus::{Case, Corpus};
use ingress_tests::golden::lists::Lists;
use serde_json::{Value, json};

/// Cases in which something is answered in another way than the verdict is about, each with the reason.
const OTHERWISE: &[(&str, &str)] = &[
    ("012-host-forms", "how targets in absolute form are read holds for everybody"),
    ("113-headers-hop-by-hop", "an upgrade to h2c is not passed on, for everybody"),
    ("134-response-framing", "what is no HTTP is refused, for everybody"),
    ("135-keepalive", "no change closes a connection, for everybody"),
    (
        "253-ext-auth-and-errors",
        "no recorded error page turns 401 into a success, which is what the difference is about",
    ),
    ("294-proxy-http-version", "the version spoken to a backend is not compared where it changes nothing else"),
    ("402-admission-annotation-values", "recorded for what admission says; some of its annotations are not built"),
    ("404-admission-snippets", "recorded for what admission says; its snippets are not those that are taken"),
];

#[test]
fn verdicts_of_the_recorded_cases() {
    let corpus = Corpus::read().unwrap_or_else(|error| panic!("{error:#}"));
    let steps: BTreeMap<String, usize> = corpus.cases.iter().map(|c| (c.name.clone(), c.steps.len())).collect();
    let lists = Lists::read(&steps).unwrap_or_else(|error| panic!("{error:#}"));
    let (mut text, mut wrong, mut seen) = (String::new(), Vec::new(), [0_usize; 3]);
    for case in &corpus.cases {
        let report = migrate_text(&[("case.json".to_owned(), manifests(&corpus, case))], &Said::default());
        assert!(report.errors.is_empty(), "{}: {:?}", case.name, report.errors);
        text += &told(&case.name, &report);
        let worst = usize::from(report.summary.exit_code);
        seen[worst] += 1;
        let of_case = |(name, number): &&(String, usize)| *name == case.name && *number > 0;
        let deliberate: Vec<&String> =
            lists.deliberate.iter().filter(|(key, _)| of_case(key)).map(|(_, reason)| reason).collect();
        let not_yet = lists.not_yet.iter().any(|key| of_case(&key));
        let otherwise = OTHERWISE.iter().any(|(name, _)| *name == case.name);
        match (deliberate.is_empty() && !not_yet, worst == 0) {
            (alike, same) if otherwise && alike != same => {}
            _ if otherwise => {
                wrong.push(format!("{}: has no place in the list of those that are otherwise", case.name));
            }
            (true, false) => {
                wrong.push(format!("all is answered alike, and the verdict is:\n{}", told(&case.name, &report)));
            }
            (false, true) => wrong.push(format!("{}: is called the same, and differs: {deliberate:?}", case.name)),
            _ => {}
        }
    }
    println!("same {}, differs {}, unsupported {}", seen[0], seen[1], seen[2]);
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}: the cases have all three");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden-ingress-nginx/verdicts.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).expect("write the verdicts");
        return;
    }
    let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
    for (is, was) in text.lines().zip(wanted.lines()) {
        assert_eq!(is, was, "{} (UPDATE_GOLDEN=1 rewrites it)", golden.display());
    }
    assert_eq!(text.len(), wanted.len(), "{} has another length", golden.display());
}

/// The fixtures with a case's own objects, a second apart, and its flags in a Deployment.
fn manifests(corpus: &Corpus, case: &Case) -> String {
    let mut items: Vec<Value> = Vec::new();
    let identity = |o: &Value| {
        ["/kind", "/metadata/namespace", "/metadata/name"]
            .map(|p| o.pointer(p).and_then(Value::as_str).map(str::to_owned))
    };
    for object in corpus.fixtures.iter().chain(&case.objects).filter(|o| !o.is_null()) {
        let mut object = object.clone();
        object["metadata"]["creationTimestamp"] =
            format!("2026-01-01T00:{:02}:{:02}Z", items.len() / 60, items.len() % 60).into();
        match items.iter_mut().find(|o| identity(o) == identity(&object)) {
            Some(old) => *old = object,
            None => items.push(object),
        }
    }
    let mut args = vec![
        "/nginx-ingress-controller".to_owned(),
        "--configmap=$(POD_NAMESPACE)/ingress-nginx-controller".to_owned(),
    ];
    args.extend(case.flags.iter().cloned());
    items.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "ingress-nginx-controller", "namespace": "ingress-nginx"},
        "spec": {"template": {"spec": {"containers": [{"image": "registry.k8s.io/ingress-nginx/controller:v1.15.1", "args": args}]}}},
    }));
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn told(case: &str, report: &Report) -> String {
    let summary = &report.summary;
    let mut out = format!("{case}: exit code {}, {} Ingresses\n", summary.exit_code, summary.ingresses.all());
    let groups = [("Ingress", &report.ingresses[..])].into_iter();
    let of =
        |group: &Option<ingress_agent::migrate::report::Group>| group.as_ref().map_or(Vec::new(), |g| g.items.clone());
    let (settings, flags) = (of(&report.settings), of(&report.flags));
    for (kind, items) in groups.chain([("setting", &settings[..]), ("flag", &flags[..])]) {
        for Judged { name, findings, .. } in items {
            // In every case: how the recordings were made.
            for found in findings.iter().filter(|_| name != "worker-processes" && !name.starts_with("--configmap")) {
                let _ = writeln!(out, "  {kind} {name}: {}", line(found));
            }
        }
    }
    for passed in &report.passed_over {
        let _ = writeln!(out, "  passed over {}: class {}", passed.name, passed.class);
    }
    for other in &report.others {
        let _ = writeln!(out, "  other {other}");
    }
    out
}

fn line(found: &Found) -> String {
    let Found { verdict, field, reason, instead, difference } = found;
    let mut line = format!("{} {field}: {reason}", verdict.text());
    if let Some(instead) = instead {
        let _ = write!(line, " · instead: {instead}");
    }
    if let Some(difference) = difference {
        let _ = write!(line, " · here: {}", difference.here);
    }
    line
}

/// Each row of the documentation is one that the code goes by, word by word, and in this order.
#[test]
fn the_documentation_has_the_table_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ingress-nginx.md");
    let text = std::fs::read_to_string(file).expect("the documentation");
    let section = text.split("## What is deliberately different\n").nth(1).expect("the section of the differences");
    let rows =
        section.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let rows: Vec<&str> = rows.collect();
    let wanted = Difference::ALL.map(|difference| {
        let row = difference.row();
        format!("| {} | {} | {} | {} |", row.here, row.there, row.why, row.concerns)
    });
    assert_eq!(rows, wanted);
    assert!(wanted.iter().filter(|row| row.contains(EVERYBODY)).count() > 3);
}

/// What stands in the table as somebody's can be met: some case, or the manifests below, get it.
#[test]
fn each_difference_of_objects_has_a_trigger() {
    let manifests = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: a, namespace: t, annotations: {nginx.ingress.kubernetes.io/use-regex: "true", nginx.ingress.kubernetes.io/custom-http-errors: "401"}}
spec: {ingressClassName: nginx, rules: [{host: a.test, http: {paths: [{path: '/(a)\1', pathType: ImplementationSpecific, backend: &b {service: {name: s, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: b, namespace: t, annotations: {nginx.ingress.kubernetes.io/custom-http-errors: "403, 503", nginx.ingress.kubernetes.io/default-backend: s, nginx.ingress.kubernetes.io/backend-protocol: HTTPS}}
spec: {ingressClassName: nginx, rules: [{host: b.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: c, namespace: t, annotations: {nginx.ingress.kubernetes.io/backend-protocol: HTTPS, nginx.ingress.kubernetes.io/proxy-ssl-verify: "on"}}
spec: {ingressClassName: nginx, rules: [{host: c.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: d, namespace: t, annotations: {nginx.ingress.kubernetes.io/canary: "true"}}
spec: {ingressClassName: nginx, rules: [{host: b.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: e, namespace: t, annotations: {nginx.ingress.kubernetes.io/canary: "true"}}
spec: {ingressClassName: nginx, rules: [{host: b.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: t}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ingress-nginx-controller, namespace: ingress-nginx}
data: {use-forwarded-headers: "true", ssl-protocols: "TLSv1.1 TLSv1.2", worker-shutdown-timeout: 60s, access-log-path: /logs/a,
       http-access-log-path: /dev/stdout}
"#;
    let report = migrate_text(&[("all.yaml".to_owned(), manifests.to_owned())], &Said::default());
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    let settings = report.settings.iter().flat_map(|g| &g.items);
    let found: Vec<&str> = report
        .ingresses
        .iter()
        .chain(settings)
        .flat_map(|item| &item.findings)
        .filter(|f| f.verdict == Verdict::Differs)
        .filter_map(|f| Some(f.difference.as_ref()?.here))
        .collect();
    for difference in Difference::ALL.into_iter().filter(|d| !d.is_everybodys()) {
        assert!(found.contains(&difference.row().here), "{difference:?} is not among {found:#?}");
    }
    let places: Vec<&str> = report.ingresses.iter().map(|i| i.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "all.yaml, document 1",
            "all.yaml, document 2",
            "all.yaml, document 3",
            "all.yaml, document 4",
            "all.yaml, document 5"
        ]
    );
    assert_eq!(report.summary.exit_code, 1);
}
