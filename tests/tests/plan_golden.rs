//! Golden plans: each `golden/NAME.yaml` is a directory of manifests with the options in comments at its top, and
//! `golden/NAME.plan` what the plan makes of it. `UPDATE_GOLDEN=1` rewrites them; read the difference before you commit it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ingress_agent::model::snapshot::ObjectName;
use ingress_agent::plan::{Hold, PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::plans::dump;

/// All golden files are read at this time: 2026-06-01.
const NOW: Duration = Duration::from_hours(494_520);

#[test]
fn plans_are_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "no golden manifests in {}", directory.display());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let found = planned(&text);
        let golden = file.with_extension("plan");
        if update {
            std::fs::write(&golden, found).unwrap();
            continue;
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        if found != wanted {
            wrong.push(format!("{}:\n{}", golden.display(), difference(&wanted, &found)));
        }
    }
    assert!(wrong.is_empty(), "{}\n(UPDATE_GOLDEN=1 rewrites them)", wrong.join("\n"));
}

fn planned(text: &str) -> String {
    let (sources, options) = options(text);
    let mut store = Store::new(sources);
    for (name, text) in files(text) {
        store.put(&name, Ok(&text));
    }
    let facts = store.publish(SystemTime::UNIX_EPOCH + NOW, &[]).expect("the first facts");
    dump(&plan(&facts, &options, None).snapshot)
}

/// `# file: name.yaml` starts another file of the directory; what stands before the first is `a.yaml`.
fn files(text: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let (mut name, mut content) = ("a.yaml".to_owned(), String::new());
    for line in text.split_inclusive('\n') {
        if let Some(next) = line.strip_prefix("# file: ") {
            files.push((std::mem::replace(&mut name, next.trim().to_owned()), std::mem::take(&mut content)));
        } else {
            content.push_str(line);
        }
    }
    files.push((name, content));
    files
}

/// `# option: NAME VALUE` lines. Without any: one IPv4 ingress address and the node `edge-1`.
fn options(text: &str) -> (SourceOptions, PlanOptions) {
    let name = |text: &str| text.split_once('/').map(|(ns, name)| ObjectName::new(ns, name));
    let mut sources = SourceOptions::default();
    let mut plan = PlanOptions { node: "edge-1".to_owned(), ..PlanOptions::default() };
    for line in text.lines().filter_map(|l| l.strip_prefix("# option: ")) {
        let (option, value) = line.split_once(' ').unwrap_or((line, ""));
        match option {
            "ingress-vip" => plan.ingress_vips.push(value.parse().expect("an address")),
            "ingress-pool" => plan.ingress_pool = Some(ObjectName::new("", value)),
            "watch-services-without-class" => plan.watch_services_without_class = value == "true",
            "external-ips" => plan.external_ips = true,
            "disable-svc-external-name" => plan.external_names = false,
            "disable-catch-all" => plan.catch_all = false,
            "enable-ssl-passthrough" => plan.ssl_passthrough = true,
            "enable-topology-aware-routing" => (sources.zones, plan.by_zone) = (true, true),
            "vip-interface" => value.clone_into(&mut plan.vip_interface),
            "node" => value.clone_into(&mut plan.node),
            "snat-address" => plan.snat.push(value.parse().expect("an address")),
            "controller-class" => value.clone_into(&mut plan.classes.controller),
            "ingress-class" => plan.classes.annotation = Some(value.to_owned()),
            "ingress-class-by-name" => plan.classes.by_name = true,
            "watch-ingress-without-class" => plan.classes.without_class = true,
            "default-ssl-certificate" => plan.default_certificate = name(value),
            "default-backend-service" => plan.default_backend = name(value),
            "tcp-services-configmap" => sources.tcp_services = name(value),
            "annotations-prefix" => sources.annotations_prefix = Some(value.into()),
            "udp-services-configmap" => sources.udp_services = name(value),
            "hold-vips" => plan.hold = Hold::Only(value.split(',').map(|a| a.parse().expect("an address")).collect()),
            other => panic!("unknown option {other} in a golden file"),
        }
    }
    (sources, plan)
}

fn difference(wanted: &str, found: &str) -> String {
    let (wanted, found): (Vec<&str>, Vec<&str>) = (wanted.lines().collect(), found.lines().collect());
    let gone = wanted.iter().filter(|l| !found.contains(l)).map(|l| format!("- {l}"));
    let new = found.iter().filter(|l| !wanted.contains(l)).map(|l| format!("+ {l}"));
    let lines: Vec<String> = gone.chain(new).collect();
    if lines.is_empty() { "  the same lines in another order".to_owned() } else { lines.join("\n") }
}
