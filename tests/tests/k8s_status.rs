//! What the agents tell a real API server: addresses while they are announced, reasons where somebody looks for them, one
//! writer at a time, and nothing about what is not theirs.

#[path = "k8s_status/world.rs"]
mod world;

use ingress_tests::hang::Hanging;
use ingress_tests::keepalived::{Instance, Keepalived};
use ingress_tests::lan::Host;
use ingress_tests::vip_site::{mac, until_has};
use ingress_tests::{deploy, wait};
use world::{PATIENCE, World, class, ingress, pool, service};

/// Objects of another controller, with a status of its own.
const OTHERS: &str = "
apiVersion: v1
kind: Service
metadata: { name: others, namespace: demo, annotations: { sluicegate.io/vips: 10.1.0.150 } }
spec: { type: LoadBalancer, loadBalancerClass: example.com/other, ports: [{ port: 9000 }] }
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: other }
spec: { controller: example.com/other }
---
";

fn set_status(w: &World, object: &str, address: &str) {
    let status = format!("{{\"status\":{{\"loadBalancer\":{{\"ingress\":[{{\"ip\":\"{address}\"}}]}}}}}}");
    w.kubectl(&["patch", object, "--namespace=demo", "--subresource=status", "--type=merge", "-p", &status]);
}

#[test]
fn an_address_is_in_the_status_while_it_is_announced_and_reasons_are_told() {
    let w = World::new("ksaddr");
    // The VIPs go to an interface that is not there yet: they are planned and applied, and cannot be announced.
    let mut edge = w.edge("one", 2, &["--vip-interface", "eth1"]);
    for manifest in [&service("echo", "10.1.0.101"), &class("10.1.0.100"), &ingress("shop", "sluicegate", "echo")] {
        w.cluster.apply(manifest).expect("apply");
    }
    w.cluster
        .apply(&(ingress("lost", "sluicegate", "nowhere") + OTHERS + &ingress("theirs", "other", "echo")))
        .expect("apply");
    // What another implementation left in an object that is ours stays until there is something better to say.
    set_status(&w, "service/echo", "10.9.9.9");
    for theirs in ["service/others", "ingress/theirs"] {
        set_status(&w, theirs, "10.9.9.9");
    }
    let versions = |w: &World| {
        let path = "jsonpath={.items[*].metadata.resourceVersion}";
        let of = |kind: &str, name: &str| {
            w.kubectl(&["get", kind, "--namespace=demo", &format!("--field-selector=metadata.name={name}"), "-o", path])
        };
        [of("services", "others"), of("ingresses", "theirs")]
    };
    let before = versions(&w);

    edge.agent.launch().expect("launch the agent");
    assert_eq!(w.writer(), "one");
    // That it writes is seen from what it says about an Ingress that leads nowhere.
    w.describes(
        "ingress/lost",
        &["Rejected", "there is no Service demo/nowhere", "spec.rules[0].http.paths[0].backend"],
    );
    assert_eq!(w.lease("sluicegate-node-one", ".metadata.annotations.sluicegate\\.io/announces").as_deref(), Some(""));
    assert_eq!((w.status("service/echo"), w.status("ingress/shop")), ("10.9.9.9/VIP".into(), String::new()));

    // The address is assigned, though, and that is recorded.
    w.record_becomes("service/echo", "10.1.0.101");

    w.lan.plug(&edge.host, "eth1", &[]).expect("plug in the interface");
    w.status_becomes("service/echo", "10.1.0.101/Proxy");
    w.status_becomes("ingress/shop", "10.1.0.100/");
    w.status_becomes("ingress/lost", "10.1.0.100/");
    w.describes(
        "service/echo",
        &[
            "AddressAssigned",
            "10.1.0.101 is assigned",
            "AddressAnnounced",
            "is served on 10.1.0.101",
            "StatusTakenOver",
        ],
    );
    let announces = w.lease("sluicegate-node-one", ".metadata.annotations.sluicegate\\.io/announces");
    assert_eq!(announces.as_deref(), Some("10.1.0.100,10.1.0.101"));
    // An address that changes; a Service that is no longer ours.
    w.cluster.apply(&service("echo", "10.1.0.102")).expect("apply");
    w.status_becomes("service/echo", "10.1.0.102/Proxy");
    w.cluster.apply(&service("more", "10.1.0.103")).expect("apply");
    w.status_becomes("service/more", "10.1.0.103/Proxy");
    w.record_becomes("service/echo", "10.1.0.102");
    w.kubectl(&["patch", "service/more", "--namespace=demo", "-p", "{\"spec\":{\"type\":\"ClusterIP\"}}"]);
    w.status_becomes("service/more", "");
    w.record_becomes("service/more", "");
    w.kubectl(&["patch", "ingress/shop", "--namespace=demo", "-p", "{\"spec\":{\"ingressClassName\":\"other\"}}"]);
    w.status_becomes("ingress/shop", "");
    let (status, text) = edge.agent.get("/readyz").expect("readyz");
    assert_eq!((status, text.as_str()), (200, "ok\n"), "no request was refused");

    edge.agent.stop().expect("stop the agent");
    for (object, status) in [("service/echo", ""), ("ingress/lost", "")] {
        assert_eq!(w.status(object), status, "{object} is withdrawn before the agent ends");
    }
    w.record_becomes("service/echo", "10.1.0.102");
    assert_eq!(w.lease("sluicegate-node-one", ".metadata.name"), None, "the node has left");
    assert_eq!(w.lease("sluicegate-status", ".spec.holderIdentity").as_deref(), Some(""), "another one may write");
    assert_eq!(versions(&w), before, "what is another controller's was never touched");
}

/// `--publish-status-address`: what a router in front of the edges is called, while there is somebody behind it.
#[test]
fn ingresses_say_the_published_addresses_instead_of_their_own() {
    let w = World::new("kspub");
    let mut edge = w.edge("one", 2, &["--publish-status-address=edge.example.com, 192.0.2.80"]);
    for manifest in [&service("echo", "10.1.0.101"), &class("10.1.0.100"), &ingress("shop", "sluicegate", "echo")] {
        w.cluster.apply(manifest).expect("apply");
    }
    edge.agent.launch().expect("launch the agent");
    w.status_becomes("ingress/shop", "/ 192.0.2.80/");
    let name = "jsonpath={.status.loadBalancer.ingress[0].hostname}";
    assert_eq!(w.kubectl(&["get", "ingress/shop", "--namespace=demo", "-o", name]), "edge.example.com");
    w.describes("ingress/shop", &["is served on edge.example.com,192.0.2.80"]);
    w.status_becomes("service/echo", "10.1.0.101/Proxy");
    edge.agent.stop().expect("stop the agent");
    assert_eq!(w.status("ingress/shop"), "", "it is withdrawn before the agent ends");
}

#[test]
fn a_standby_writes_when_the_writer_was_killed_and_nodes_that_are_gone_announce_nothing() {
    let w = World::new("ksdead");
    w.cluster.apply(&(service("one", "10.1.0.101") + &service("two", "10.1.0.102"))).expect("apply");
    let mut first = w.edge("one", 2, &["--hold-vips", "10.1.0.101,10.1.0.109"]);
    first.agent.start_again().expect("start the first");
    assert_eq!(w.writer(), "one");
    w.status_becomes("service/one", "10.1.0.101/Proxy");
    // The second announces, and the first writes it.
    let mut second = w.edge("two", 3, &["--hold-vips", "10.1.0.102"]);
    second.agent.start_again().expect("start the second");
    w.status_becomes("service/two", "10.1.0.102/Proxy");
    assert_eq!(w.writer(), "one");

    first.agent.kill().expect("kill the first");
    w.status_becomes("service/one", "");
    assert_eq!(w.writer(), "two");
    assert_eq!(w.status("service/two"), "10.1.0.102/Proxy");
    w.describes("service/one", &["AddressWithdrawn"]);
    // It comes back, and finds a writer.
    first.agent.start_again().expect("start the first again");
    w.status_becomes("service/one", "10.1.0.101/Proxy");
    assert_eq!(w.writer(), "two");
    // A writer that ends in order hands over at once: long before its lease would have run out.
    let started = std::time::Instant::now();
    second.agent.stop().expect("stop the second");
    wait::within(PATIENCE, "the first writes again", || (w.writer() == "one").then_some(()));
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    w.status_becomes("service/two", "");
}

#[test]
fn a_writer_whose_applying_side_hangs_leaves_writing_to_another_node() {
    let w = World::new("kshang");
    w.cluster.apply(&service("one", "10.1.0.101")).expect("apply");
    let mut first = w.edge("one", 2, &["--hold-vips", "10.1.0.101"]);
    first.agent.start_again().expect("start the first");
    assert_eq!(w.writer(), "one");
    w.status_becomes("service/one", "10.1.0.101/Proxy");
    let mut second = w.edge("two", 3, &["--hold-vips", "10.1.0.102"]);
    second.agent.start_again().expect("start the second");
    // Its control thread stands still, as in a system call for the data plane that does not return. Everything else of it lives:
    // it would renew its Lease for ever.
    let hanging = Hanging::thread(first.agent.id().expect("it runs")).expect("stop the thread");
    wait::within(PATIENCE, "the second writes", || (w.writer() == "two").then_some(()));
    w.cluster.apply(&service("two", "10.1.0.102")).expect("apply");
    w.status_becomes("service/two", "10.1.0.102/Proxy");
    // The addresses of the first are still there, and packets are forwarded without the thread.
    assert_eq!(w.status("service/one"), "10.1.0.101/Proxy");
    drop(hanging);
    wait::within(PATIENCE, "the first answers again", || (first.agent.get("/readyz").ok()?.1 == "ok\n").then_some(()));
    assert_eq!(w.writer(), "two");
    let log = std::fs::read_to_string(first.agent.log_path()).expect("read the log");
    assert!(log.contains("it leaves writing to another one"), "{log}");
}

#[test]
fn a_right_that_is_missing_is_named_and_harms_nothing_else() {
    let w = World::granted("ksrbac", &deploy::rights_without("services/status"));
    w.cluster
        .apply(&(service("echo", "10.1.0.101") + &class("10.1.0.100") + &ingress("shop", "sluicegate", "echo")))
        .expect("apply");
    let mut edge = w.edge("one", 2, &[]);
    edge.agent.start_again().expect("the agent is ready all the same");
    w.status_becomes("ingress/shop", "10.1.0.100/");
    let rule = "the ClusterRole needs apiGroups [\"\"], resources [services/status], verbs [patch]";
    wait::within(PATIENCE, "/readyz names the right", || {
        let (status, text) = edge.agent.get("/readyz").ok()?;
        (status == 200 && text.contains(rule)).then_some(())
    });
    // Once it is granted, the status is written without a restart.
    w.cluster.apply(&deploy::rights()).expect("grant it");
    w.status_becomes("service/echo", "10.1.0.101/Proxy");
    wait::within(PATIENCE, "/readyz has forgotten it", || (edge.agent.get("/readyz").ok()?.1 == "ok\n").then_some(()));
}

/// What is in the way of an Event is over once the Event is found told already, and once what it tells is not so any more.
#[test]
fn an_event_that_need_not_be_told_any_more_is_no_trouble_any_more() {
    let w = World::new("ksover");
    let nowhere = |name: &str| ingress(name, "sluicegate", "nowhere");
    w.cluster.apply(&(class("10.1.0.100") + &nowhere("first"))).expect("apply");
    let mut edge = w.edge("one", 2, &[]);
    edge.agent.start_again().expect("start the agent");
    w.describes("ingress/first", &["Rejected", "there is no Service demo/nowhere"]);
    edge.agent.stop().expect("stop it");
    w.cluster.apply(&deploy::rights_without("events")).expect("take the right");
    edge.agent.start_again().expect("start it without the right");
    let readyz = |what: &str, holds: fn(&str) -> bool| {
        let mut last = String::new();
        let found = wait::holds(PATIENCE, || {
            edge.agent.get("/readyz").is_ok_and(|(status, text)| {
                last = text;
                status == 200 && holds(&last)
            })
        });
        assert!(found, "waited in vain: {what}; /readyz says {last}");
    };
    let named = |text: &str| text.contains("resources [events], verbs [create]");
    readyz("the right is named", named);
    w.cluster.apply(&deploy::rights()).expect("grant it");
    readyz("the first is found told", |text| text == "ok\n");
    w.cluster.apply(&deploy::rights_without("events")).expect("take it again");
    w.cluster.apply(&nowhere("second")).expect("apply");
    readyz("the right is named again", named);
    w.kubectl(&["delete", "ingress", "second", "--namespace=demo"]);
    readyz("there is nothing to tell", |text| text == "ok\n");
}

/// A host that says, with ARP requests from it, that an address is its own.
fn speaks_from(host: &Host, address: &str) {
    let _ = host.ip(&["address", "add", &format!("{address}/32"), "dev", "eth0"]);
    host.ip(&["neigh", "flush", "dev", "eth0"]).expect("forget the neighbours");
    // What answers goes to whoever the other end believes; the question is what counts.
    let _ = host.run("ping", &["-c1", "-W1", "-I", address, "10.1.0.9"]);
}

#[test]
fn strangers_that_use_an_address_or_a_vrid_of_ours_are_named_on_pool_service_and_ingress() {
    let w = World::new("ksalien");
    for manifest in [
        &service("echo", "10.1.0.101"),
        &service("taken", "10.1.0.102"),
        &class("10.1.0.100"),
        &ingress("shop", "sluicegate", "echo"),
    ] {
        w.cluster.apply(manifest).expect("apply");
    }
    let stranger = w.lan.host("alien", &["10.1.0.66/24", "10.1.0.102/32"]).expect("plug in a stranger");
    let theirs = mac(&stranger);
    let elected = ["--vip-mode", "vrrp", "--vrrp-vrids", "51-51"];
    let mut one = w.edge("one", 2, &elected);
    one.agent.start_again().expect("start the first");
    w.status_becomes("service/echo", "10.1.0.101/Proxy");
    // Used already: not claimed. There is no pool yet.
    w.describes(
        "service/taken",
        &[
            "AddressInUse",
            &format!("10.1.0.102 is not added on node one: another machine on its LAN, {theirs}, uses it"),
        ],
    );
    assert_eq!(w.status("service/taken"), "");

    // Claimed while it is held.
    for address in ["10.1.0.101", "10.1.0.100"] {
        speaks_from(&stranger, address);
    }
    let claimed =
        |address: &str| format!("{address} is held by node one, and another machine on its LAN, {theirs}, says");
    w.describes("service/echo", &["AddressConflict", &claimed("10.1.0.101")]);
    w.describes("ingress/shop", &["AddressConflict", &claimed("10.1.0.100")]);
    // A VRRP router of somebody else's.
    let foreign = Instance { addresses: &["10.1.0.199/32"], ..Instance::default() };
    let mut keepalived = Keepalived::start(&stranger, "ksalien", &foreign).expect("start keepalived");
    let router = format!(
        "another VRRP router on the LAN, 10.1.0.66 ({theirs}), uses VRID 51, which is ours for 10.1.0.100, 10.1.0.101"
    );
    w.describes("service/echo", &["VridConflict", &router]);
    let status = one.agent.status().expect("status");
    for words in [
        &format!("also claimed by {theirs}"),
        &format!("not added: {theirs}"),
        &format!("10.1.0.66 ({theirs}) uses VRID 51"),
    ] {
        assert!(status.contains(words.as_str()), "{words} is not in\n{status}");
    }
    let log = std::fs::read_to_string(one.agent.log_path()).expect("its log");
    for words in [
        &format!("10.1.0.101 is also claimed by {theirs}: two machines hold one address"),
        &format!("is not added: {theirs} on this link uses it"),
    ] {
        assert!(log.contains(words.as_str()), "{words} is not in\n{log}");
    }

    // With a pool, whoever made it is told.
    w.define_pools();
    w.cluster.apply(&pool("public", "10.1.0.100-10.1.0.110", "")).expect("apply a pool");
    w.describes("virtualippool/public", &["AddressConflict", &claimed("10.1.0.100"), "VridConflict", &router]);

    // Another edge that takes over says, too, that the addresses are its own. That is no conflict; the stranger's is again.
    let mut two = w.edge("two", 3, &elected);
    two.agent.start_again().expect("start the second");
    one.agent.stop().expect("stop the first");
    until_has(&two.host, "10.1.0.101", true);
    one.agent.start_again().expect("start it again");
    speaks_from(&stranger, "10.1.0.101");
    w.describes(
        "service/echo",
        &["AddressConflict", &format!("10.1.0.101 is held by node two, and another machine on its LAN, {theirs}")],
    );
    let told = w.kubectl(&["get", "events.events.k8s.io", "--all-namespaces", "-o", "json"]);
    for edge in [&one.host, &two.host] {
        let own = mac(edge);
        assert!(!told.contains(&own), "{own} is an edge's:\n{told}");
    }
    let (status, text) = two.agent.get("/readyz").expect("readyz");
    assert_eq!((status, text.as_str()), (200, "ok\n"), "no request was refused");
    keepalived.stop().expect("stop keepalived");
}
