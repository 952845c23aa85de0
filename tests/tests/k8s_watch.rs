//! The agent on a real API server: what is applied is served and what changes is followed; an API server that goes, comes
//! back or was never there takes nothing away; a right that is missing is named.

#[path = "k8s_watch/world.rs"]
mod world;

use ingress_tests::{deploy, wait};
use world::{PATIENCE, VIP, World, ingress, secret, service, slice, web};

#[test]
fn what_is_applied_is_served_and_what_changes_is_followed() {
    let mut w = World::new("kwserve", "--hold-vips=all");
    w.apply(&service("echo", "10.1.0.101", 11));
    w.agent.start_again().expect("the agent becomes ready");
    w.answers("10.1.0.101", "one");
    // An endpoint moves; a Service comes, changes its address, and goes.
    w.apply(&slice("echo", 9000, 12));
    w.answers("10.1.0.101", "two");
    w.apply(&service("more", "10.1.0.102", 11));
    w.answers("10.1.0.102", "one");
    w.apply(&service("more", "10.1.0.103", 11));
    w.answers("10.1.0.103", "one");
    w.is_gone("10.1.0.102");
    w.delete("service", "more");
    w.is_gone("10.1.0.103");
    // An Ingress with a certificate, which is then another one.
    let (first, shown_first) = secret("tls", "a.example");
    w.apply(&first);
    w.apply(&secret("other", "b.example").0);
    w.apply(&web());
    w.apply(&ingress("a", "a.example", "tls"));
    let served = |shown: &[u8]| {
        let answer = w.https("a.example")?;
        (answer.0 == 200 && answer.2 == shown).then_some(answer.1)
    };
    let body = wait::within(PATIENCE, "the Ingress is served with its certificate", || served(&shown_first));
    assert!(body.starts_with("one"), "{body}");
    let (second, shown_second) = secret("tls", "a.example");
    w.apply(&second);
    wait::within(PATIENCE, "the new certificate is shown", || served(&shown_second));
    // A Secret that nobody named was not asked for: it would have been refused, and that would have been told.
    assert!(!w.log().contains("demo/other"), "{}", w.log());
    // One that is named and may not be read is its owner's trouble alone.
    w.apply(&ingress("b", "b.example", "other"));
    wait::within(PATIENCE, "the owner is told", || {
        let told = w.agent.get("/debug/rejections").ok()?.1;
        told.contains("resources [secrets], verbs [watch], resourceNames [other]").then_some(())
    });
    w.apply(&slice("echo", 9000, 11));
    w.answers("10.1.0.101", "one");
    wait::within(PATIENCE, "its host is served all the same", || (w.https("b.example")?.0 == 200).then_some(()));
    let status = w.agent.status().expect("status");
    assert!(status.contains("facts from the API server https://10.1.0.9:"), "{status}");
    // A bad object rejects only itself.
    w.apply(&service("echo", "10.1.0.101,nonsense", 12));
    w.answers("10.1.0.101", "two");
    wait::within(PATIENCE, "the bad address is told", || {
        w.agent.get("/debug/rejections").ok()?.1.contains("`nonsense` is not an IP address").then_some(())
    });
}

#[test]
fn config_maps_that_are_named_are_followed_and_no_others() {
    let mut w = World::new("kwmaps", "--configmap=demo/settings");
    let map = |name: &str, data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name}, namespace: demo }}\ndata: {{ {data} }}\n")
    };
    w.apply(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: maps, namespace: demo }
rules: [{ apiGroups: [''], resources: [configmaps], resourceNames: [settings, own, everywhere], verbs: [get, list, watch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: maps, namespace: demo }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: maps }
subjects: [{ kind: ServiceAccount, name: sluicegate, namespace: sluicegate-system }]
",
    );
    w.apply(&map("settings", "global-allowed-response-headers: X-Team, add-headers: demo/everywhere"));
    w.apply(&map("own", "X-Team: red"));
    w.apply(&map("everywhere", "X-Edge: one"));
    w.apply(&map("unnamed", "X-Team: nobody"));
    w.apply(&map("hidden", "X-Team: nobody"));
    w.apply(&secret("tls", "a.example").0);
    w.apply(&web());
    let naming = |name: &'static str, host: &'static str, map: &str| {
        let annotations = format!("annotations: {{ nginx.ingress.kubernetes.io/custom-headers: {map} }}");
        let marked = format!("metadata: {{ name: {name}, namespace: demo, {annotations} }}");
        ingress(name, host, "tls").replace(&format!("metadata: {{ name: {name}, namespace: demo }}"), &marked)
    };
    w.apply(&naming("a", "a.example", "own"));
    w.agent.start_again().expect("the agent becomes ready");
    let fields = |w: &World| {
        let answer = w.answer("a.example")?.0;
        let field = |name| answer.field(name).map(str::to_owned);
        Some((answer.status, field("x-team"), field("x-edge")))
    };
    let told = |team: Option<&str>, edge: Option<&str>| (200, team.map(str::to_owned), edge.map(str::to_owned));
    let have = |w: &World, what: &str, wanted| {
        wait::within(PATIENCE, what, || (fields(w)? == wanted).then_some(()));
    };
    have(&w, "both ConfigMaps are in force", told(Some("red"), Some("one")));
    w.apply(&map("own", "X-Team: blue"));
    have(&w, "a change of one is", told(Some("blue"), Some("one")));
    w.apply(&map("settings", "global-allowed-response-headers: X-Team"));
    have(&w, "nobody names the other any more", told(Some("blue"), None));

    // One that may not be read is its owner's trouble alone, and he is told which right is missing.
    w.apply(&naming("b", "b.example", "hidden"));
    wait::within(PATIENCE, "the owner is told", || {
        let told = w.agent.get("/debug/rejections").ok()?.1;
        told.contains("resources [configmaps], verbs [watch], resourceNames [hidden]").then_some(())
    });
    wait::within(PATIENCE, "its requests are refused", || (w.answer("b.example")?.0.status == 503).then_some(()));
    assert_eq!(fields(&w), Some(told(Some("blue"), None)));
    assert!(!w.log().contains("demo/unnamed"), "{}", w.log());

    // What was named is there for a start without an API server.
    let saved =
        || std::fs::read_to_string(w.saved()).ok().filter(|text| text.contains("blue") && text.contains("hidden"));
    wait::within(PATIENCE, "it is saved", || saved().map(drop));
    w.cluster.kill_api_server().expect("kill it");
    w.agent.stop().expect("it stops");
    w.agent.start_again().expect("the agent becomes ready without an API server");
    have(&w, "the saved ConfigMap is in force", told(Some("blue"), None));
}

#[test]
fn an_api_server_that_goes_takes_nothing_along() {
    let mut w = World::new("kwaway", "--hold-vips=all");
    let (tls, shown) = secret("tls", "a.example");
    for manifest in [&service("echo", "10.1.0.101", 11), &service("gone", "10.1.0.102", 11), &tls, &web()] {
        w.apply(manifest);
    }
    w.apply(&ingress("a", "a.example", "tls"));
    w.agent.start_again().expect("the agent becomes ready");
    let serves = |w: &World| {
        assert_eq!(w.asked("10.1.0.101").as_deref(), Some("one"));
        assert_eq!(
            w.https("a.example").map(|(status, _, certificate)| (status, certificate)),
            Some((200, shown.clone()))
        );
    };
    wait::within(PATIENCE, "all is served", || {
        (w.asked("10.1.0.102").is_some() && w.https("a.example")?.0 == 200).then_some(())
    });

    w.cluster.kill_api_server().expect("kill it");
    let text = w.readyz("the age is told", |status, text| {
        status == 200 && text.contains("changes may have been missed for") && text.contains("cannot watch services: ")
    });
    assert!(text.starts_with("ok\n"), "{text}");
    serves(&w);
    let metrics = w.agent.get("/metrics").expect("metrics").1;
    assert!(metrics.contains("sluicegate_source_behind_seconds"), "{metrics}");

    // A start without an API server, and without what the kernel remembers.
    w.agent.stop().expect("it stops");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(w.saved()).expect("facts are saved").permissions());
    assert_eq!(mode & 0o777, 0o600, "they hold private keys");
    std::fs::remove_dir_all(&w.place.pins).expect("remove the pins");
    w.agent.start_again().expect("the agent becomes ready without an API server");
    wait::within(PATIENCE, "what was saved is served", || w.asked("10.1.0.101"));
    serves(&w);
    w.readyz("it says so", |status, text| status == 200 && text.contains("serves what was saved"));

    // It comes back, with another certificate of the same authority: what changed since is seen, and what is gone is gone.
    w.cluster.start_api_server().expect("start it again");
    w.delete("service", "gone");
    w.apply(&slice("echo", 9000, 12));
    w.answers("10.1.0.101", "two");
    w.is_gone("10.1.0.102");
    w.readyz("all is well again", |status, text| status == 200 && text == "ok\n");
    assert_eq!(w.https("a.example").map(|(status, ..)| status), Some(200));

    // Gone while the agent was away.
    w.agent.stop().expect("it stops");
    w.apply(&service("late", "10.1.0.104", 11));
    w.delete("service", "echo");
    w.agent.start_again().expect("the agent becomes ready");
    w.answers("10.1.0.104", "one");
    w.is_gone("10.1.0.101");
}

#[test]
fn what_happened_while_the_watch_was_cut_off_is_noticed() {
    let mut w = World::new("kwcut", "--watch-namespace=demo");
    w.apply(&service("other", "10.1.0.103", 11).replace("namespace: demo", "namespace: default"));
    w.apply(&service("echo", "10.1.0.101", 11));
    w.apply(&service("gone", "10.1.0.102", 11));
    w.agent.start_again().expect("the agent becomes ready");
    w.answers("10.1.0.102", "one");
    // The cable is pulled: no connection is closed, nobody says a word. Meanwhile the history that the watches would go on
    // from is dropped, and with it the server that remembers it.
    w.cluster.ns.ip(&["link", "set", "eth0", "down"]).expect("cut it off");
    w.delete("service", "gone");
    w.apply(&slice("echo", 9000, 12));
    w.cluster.compact().expect("drop the history");
    w.cluster.stop_api_server().expect("stop it");
    w.cluster.start_api_server().expect("start it again");
    let text = w.readyz("the silence is noticed", |_, text| text.contains("the API server does not answer"));
    assert!(text.starts_with("ok\n"), "{text}");
    assert_eq!(w.asked("10.1.0.102").as_deref(), Some("one"), "what was known serves on");
    assert_eq!(w.asked("10.1.0.103"), None, "another namespace is not watched");
    w.cluster.ns.ip(&["link", "set", "eth0", "up"]).expect("plug it in");
    w.answers("10.1.0.101", "two");
    w.is_gone("10.1.0.102");
    w.readyz("all is well again", |status, text| status == 200 && text == "ok\n");
}

/// `--watch-namespace-selector`: what chooses a namespace, and what no longer does, is heeded at once; and a start without the API server knows
/// which were chosen.
#[test]
fn namespaces_are_chosen_by_their_labels() {
    let namespaces = "- apiGroups: ['']\n  resources: [namespaces]\n  verbs: [list, watch]\n";
    let rights = deploy::rights().replacen("rules:\n", &format!("rules:\n{namespaces}"), 1);
    let mut w = World::granted("kwlabel", &rights, "--watch-namespace-selector=team in (edge),!frozen");
    let label = |w: &World, namespace: &str, label: &str| {
        w.cluster.kubectl(&["label", "--overwrite", "namespace", namespace, label], "").expect("label it");
    };
    w.apply(&service("echo", "10.1.0.101", 11));
    w.apply(&service("other", "10.1.0.102", 11).replace("namespace: demo", "namespace: default"));
    label(&w, "demo", "team=edge");
    w.agent.start_again().expect("the agent becomes ready");
    w.answers("10.1.0.101", "one");
    assert_eq!(w.asked("10.1.0.102"), None, "a namespace that is not chosen");
    label(&w, "default", "team=edge");
    w.answers("10.1.0.102", "one");
    label(&w, "demo", "frozen=");
    w.is_gone("10.1.0.101");
    assert_eq!(w.asked("10.1.0.102").as_deref(), Some("one"), "the other one is served on");
    label(&w, "demo", "frozen-");
    w.answers("10.1.0.101", "one");
    // Saved when it stops.
    w.agent.stop().expect("it stops");
    w.cluster.stop_api_server().expect("stop it");
    w.agent.launch().expect("start");
    w.answers("10.1.0.101", "one");
    w.answers("10.1.0.102", "one");
    w.cluster.start_api_server().expect("start it again");
    w.readyz("all is well again", |status, text| status == 200 && text == "ok\n");
}

#[test]
fn a_missing_right_is_named_with_the_rule_that_grants_it() {
    let slices = "resources: [endpointslices]\n  verbs: [list";
    let rights = deploy::rights().replace(&format!("{slices}, watch]"), &format!("{slices}]"));
    let mut w = World::granted("kwright", &rights, "--hold-vips=all");
    w.apply(&service("echo", VIP, 11));
    w.agent.launch().expect("start");
    w.readyz("the missing verb is named", |status, text| {
        status == 503
            && text.contains("is not read yet: waits for endpointslices\n")
            && text.contains(
                "cannot watch endpointslices: forbidden; the ClusterRole needs apiGroups [discovery.k8s.io], \
                 resources [endpointslices], verbs [watch]",
            )
    });
    assert!(w.log().contains("cannot watch endpointslices: forbidden"), "{}", w.log());
    let rule = "[{\"op\": \"add\", \"path\": \"/rules/1/verbs/-\", \"value\": \"watch\"}]";
    w.cluster.kubectl(&["patch", "clusterrole", "sluicegate", "--type=json", "-p", rule], "").expect("grant it");
    w.readyz("it is ready", |status, text| status == 200 && text == "ok\n");
    w.answers(VIP, "one");
}

/// A cluster's authority is replaced, and what names it with it. Nobody restarts the edge for that.
#[test]
fn another_authority_of_the_cluster_is_followed_without_a_restart() {
    let mut w = World::new("kwauth", "--hold-vips=all");
    w.apply(&service("echo", VIP, 11));
    w.agent.start_again().expect("the agent becomes ready");
    w.answers(VIP, "one");
    let before = w.agent.id();
    w.cluster.stop_api_server().expect("stop the API server");
    w.cluster.rotate_authority().expect("make another authority");
    w.cluster.start_api_server().expect("start it again");
    w.apply(&slice("echo", 9000, 12));
    w.answers(VIP, "two");
    w.readyz("watching and reporting both go on", |status, text| status == 200 && text == "ok\n");
    assert_eq!(w.agent.id(), before);
    assert!(w.log().contains("what the API server is known by has changed"), "{}", w.log());
}

/// Without the right to read pools the agent serves what needs none, and says what it does without.
#[test]
fn pools_that_may_not_be_read_hold_nobody_up() {
    let mut w = World::granted("kwpools", &deploy::rights_without("virtualippools"), "--hold-vips=all");
    w.cluster
        .apply(&std::fs::read_to_string(deploy::path("crds/virtualippools.yaml")).expect("read the definition"))
        .expect("define pools");
    w.apply(&service("echo", VIP, 11));
    w.agent.launch().expect("start");
    let rule = "the ClusterRole needs apiGroups [sluicegate.io], resources [virtualippools], verbs";
    w.readyz("it is ready, and says what is missing", |status, text| {
        status == 200 && text.contains(rule) && text.contains("until then the agent does without virtualippools")
    });
    assert!(w.log().contains(rule), "{}", w.log());
    w.answers(VIP, "one");
    w.apply(&deploy::rights());
    w.readyz("it is content", |status, text| status == 200 && text == "ok\n");
    w.answers(VIP, "one");
}
