//! What watches say against the facts that come of it.

use std::time::{Duration, UNIX_EPOCH};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::sources::SourceOptions;
use crate::sources::kube::follow::Trouble;
use crate::sources::kube::guard::Guarded;
use crate::sources::kube::kinds::{self, Kind, Seen, read};

const SERVICES: WatchId = WatchId(0);
const SLICES: WatchId = WatchId(1);
const INGRESSES: WatchId = WatchId(2);
const NOW: SystemTime = UNIX_EPOCH;

fn parsed<K: Resource + DeserializeOwned>(kind: &Kind<K>, object: &Value) -> Read {
    let guarded: Guarded<K> = serde_json::from_str(&object.to_string()).unwrap();
    match read(kind, guarded, &SourceOptions::default()) {
        Seen::Read(read) => *read,
        _ => panic!("{object} is not read"),
    }
}

fn service(name: &str, port: impl Into<Value>) -> Read {
    let object = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"ports": [{"port": port.into()}]}});
    parsed::<Service>(&kinds::SERVICE, &object)
}

fn slice(name: &str, of: &str) -> Read {
    let object = json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}],
    });
    parsed::<EndpointSlice>(&kinds::SLICE, &object)
}

fn ingress(name: &str, secrets: &[&str]) -> Read {
    let tls: Vec<_> = secrets.iter().map(|s| json!({"hosts": ["a.example"], "secretName": s})).collect();
    let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
    let object = json!({
        "metadata": {"name": name, "namespace": "n"}, "spec": {"defaultBackend": backend, "tls": tls},
    });
    parsed::<Ingress>(&kinds::INGRESS, &object)
}

fn tables() -> Tables {
    let mut t =
        Tables::new(ClassRule { without_class: true, ..ClassRule::default() }, Some(ObjectName::new("n", "settings")));
    t.add(SERVICES, "Service", "services".into(), "", "");
    t.add(SLICES, "EndpointSlice", "endpointslices".into(), "", "");
    t.add(INGRESSES, "Ingress", "ingresses".into(), "", "");
    t
}

fn list(t: &mut Tables, id: WatchId, objects: Vec<Read>) {
    t.take(id, News::Begun, NOW);
    for object in objects {
        t.take(id, News::Listed(object.into()), NOW);
    }
    t.take(id, News::Complete, NOW);
}

/// Tables with Services `a` and `b`, and nothing else.
fn listed() -> Tables {
    let mut t = tables();
    list(&mut t, SERVICES, vec![service("a", 80), service("b", 80)]);
    list(&mut t, SLICES, vec![]);
    list(&mut t, INGRESSES, vec![]);
    t.publish(NOW).expect("the first facts");
    t
}

fn names(facts: &Facts) -> String {
    facts.services.iter().map(|s| s.origin.name.name.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn there_are_no_facts_before_every_first_list_is_complete() {
    let mut t = tables();
    list(&mut t, SERVICES, vec![service("a", 80)]);
    list(&mut t, SLICES, vec![slice("a-1", "a")]);
    t.take(INGRESSES, News::Begun, NOW);
    t.take(INGRESSES, News::Listed(ingress("i", &[]).into()), NOW);
    assert!(t.publish(NOW).is_none());
    assert_eq!(t.waits_for(), ["ingresses"]);
    t.take(INGRESSES, News::Complete, NOW);
    let facts = t.publish(NOW).expect("all of it at once");
    assert_eq!((facts.revision, facts.services.len(), facts.slices.len(), facts.ingresses.len()), (1, 1, 1, 1));
    assert!(t.publish(NOW).is_none(), "nothing has changed");
}

#[test]
fn a_list_that_begins_again_deletes_at_its_end_what_it_did_not_name() {
    let mut t = listed();
    t.take(SERVICES, News::Begun, NOW);
    t.take(SERVICES, News::Listed(service("b", 80).into()), NOW);
    t.take(SERVICES, News::Listed(service("c", 80).into()), NOW);
    assert_eq!(names(&t.publish(NOW).unwrap()), "a b c");
    // It breaks off, and another one comes.
    t.take(SERVICES, News::Begun, NOW);
    t.take(SERVICES, News::Listed(service("c", 80).into()), NOW);
    assert!(t.publish(NOW).is_none());
    t.take(SERVICES, News::Complete, NOW);
    assert_eq!(names(&t.publish(NOW).unwrap()), "c");
}

#[test]
fn an_equal_object_is_the_same_object() {
    let mut t = listed();
    list(&mut t, SERVICES, vec![service("a", 80), service("b", 80)]);
    assert!(t.publish(NOW).is_none());
    let before = Arc::clone(t.facts.services.iter().next().unwrap());
    t.take(SERVICES, News::Changed(service("b", 81).into()), NOW);
    let facts = t.publish(NOW).unwrap();
    assert!(Arc::ptr_eq(&before, facts.services.iter().next().unwrap()));
}

#[test]
fn what_cannot_be_read_keeps_its_last_good_state_until_it_is_deleted() {
    let mut t = listed();
    t.take(SERVICES, News::Changed(service("a", "eighty").into()), NOW);
    t.take(SERVICES, News::Changed(service("new", "eighty").into()), NOW);
    let facts = t.publish(NOW).unwrap();
    assert_eq!(names(&facts), "a b");
    let said: Vec<_> = facts.rejections.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("Service n/a, spec.ports[0].port: ") && said[0].ends_with("keeps serving"), "{said:?}");
    assert!(said[1].starts_with("Service n/new, ") && !said[1].contains("keeps serving"), "{said:?}");
    // Also over a new list.
    list(&mut t, SERVICES, vec![service("a", "eighty"), service("b", 80)]);
    let facts = t.publish(NOW).unwrap();
    assert_eq!((names(&facts).as_str(), facts.rejections.len()), ("a b", 1));
    t.take(SERVICES, News::Gone(ObjectName::new("n", "a")), NOW);
    let facts = t.publish(NOW).unwrap();
    assert_eq!((names(&facts).as_str(), facts.rejections.len()), ("b", 0));
}

#[test]
fn a_slice_that_changes_its_service_leaves_the_old_one() {
    let mut t = listed();
    t.take(SLICES, News::Changed(slice("s", "a").into()), NOW);
    t.take(SLICES, News::Changed(slice("s", "b").into()), NOW);
    let facts = t.publish(NOW).unwrap();
    assert!(facts.slices.find(&ObjectName::new("n", "a")).is_none());
    assert_eq!(facts.slices.find(&ObjectName::new("n", "b")).unwrap().slices.len(), 1);
}

#[test]
fn a_secret_is_in_use_as_long_as_something_names_it() {
    let mut t = listed();
    let x = ObjectName::new("n", "x");
    t.take(INGRESSES, News::Changed(ingress("i", &["x"]).into()), NOW);
    assert_eq!(t.touched(Referred::Secret), [(x.clone(), true)]);
    t.take(INGRESSES, News::Changed(ingress("k", &["x", "x"]).into()), NOW);
    t.take(INGRESSES, News::Changed(ingress("i", &[]).into()), NOW);
    assert_eq!(t.touched(Referred::Secret), []);
    t.take(INGRESSES, News::Gone(ObjectName::new("n", "k")), NOW);
    assert_eq!(t.touched(Referred::Secret), [(x, false)]);
}

#[test]
fn config_maps_are_in_use_that_ingresses_and_the_settings_name() {
    let mut t = listed();
    let named = |value: &str| {
        let annotations = json!({"nginx.ingress.kubernetes.io/custom-headers": value});
        let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
        let metadata = json!({"name": "i", "namespace": "n", "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": {"defaultBackend": backend}});
        News::Changed(parsed::<Ingress>(&kinds::INGRESS, &object).into())
    };
    let settings = |value: &str| {
        let object = json!({"metadata": {"name": "settings", "namespace": "n"}, "data": {"add-headers": value}});
        News::Changed(parsed::<ConfigMap>(&kinds::CONFIG_MAP, &object).into())
    };
    let (own, other) = (ObjectName::new("n", "own"), ObjectName::new("m", "other"));
    let touched = |t: &mut Tables| t.touched(Referred::ConfigMap);
    t.take(INGRESSES, named("own"), NOW);
    assert_eq!(touched(&mut t), [(own.clone(), true)]);
    assert_eq!(t.touched(Referred::Secret), []);
    t.add(WatchId(3), "ConfigMap", "configmap n/settings".into(), "n", "settings");
    t.take(WatchId(3), settings("n/own"), NOW);
    assert_eq!(touched(&mut t), []);
    t.take(INGRESSES, named("m/other"), NOW);
    assert_eq!(touched(&mut t), [(other.clone(), true)], "the settings name the first one still");
    t.take(WatchId(3), settings("own"), NOW);
    assert_eq!(touched(&mut t), [(own, false)], "without a namespace it names nothing");
    t.take(INGRESSES, News::Gone(ObjectName::new("n", "i")), NOW);
    assert_eq!(touched(&mut t), [(other, false)]);
}

#[test]
fn a_secret_that_may_not_be_read_holds_up_only_its_owner() {
    let mut t = tables();
    for id in [SERVICES, SLICES] {
        list(&mut t, id, vec![]);
    }
    list(&mut t, INGRESSES, vec![ingress("i", &["x"])]);
    t.touched(Referred::Secret);
    t.add(WatchId(3), "Secret", "secret n/x".into(), "n", "x");
    t.referred(WatchId(3));
    assert!(t.publish(NOW).is_none());
    let trouble = Trouble { text: "cannot watch secret n/x: forbidden".into(), stays: true };
    t.take(WatchId(3), News::Fails(trouble.clone()), NOW);
    let facts = t.publish(NOW).expect("the rest");
    assert_eq!(facts.rejections[0].to_string(), "Secret n/x: cannot watch secret n/x: forbidden");
    assert_eq!(t.troubles(), (vec![trouble.text], Some(NOW)));
    t.take(WatchId(3), News::Answers, NOW);
    list(&mut t, WatchId(3), vec![]);
    assert!(t.publish(NOW).unwrap().rejections.is_empty());
    assert_eq!(t.troubles(), (vec![], None));
}

#[test]
fn a_kind_that_may_not_be_read_is_waited_for() {
    let mut t = tables();
    list(&mut t, SERVICES, vec![]);
    list(&mut t, INGRESSES, vec![]);
    let trouble = Trouble { text: "cannot watch endpointslices: forbidden".into(), stays: true };
    t.take(SLICES, News::Fails(trouble), NOW);
    assert!(t.publish(NOW).is_none());
    assert_eq!(t.waits_for(), ["endpointslices"]);
}

#[test]
fn the_age_counts_from_the_first_failure_of_those_that_still_fail() {
    let mut t = listed();
    let fails = || News::Fails(Trouble { text: "refused".into(), stays: false });
    for (id, second) in [(SERVICES, 1), (SLICES, 2), (SLICES, 3)] {
        t.take(id, fails(), UNIX_EPOCH + Duration::from_secs(second));
    }
    assert_eq!(t.troubles().1, Some(UNIX_EPOCH + Duration::from_secs(1)));
    t.take(SERVICES, News::Answers, NOW);
    assert_eq!(t.troubles(), (vec!["refused".into()], Some(UNIX_EPOCH + Duration::from_secs(2))));
    t.take(SLICES, News::Answers, NOW);
    assert_eq!(t.troubles(), (vec![], None));
}

fn seed_of(reads: Vec<Read>) -> Vec<(Identity, Object)> {
    reads.into_iter().map(|r| (r.identity, r.object.unwrap())).collect()
}

#[test]
fn saved_facts_stand_in_until_the_list_is_complete() {
    let mut t = tables();
    // One list is through and knows better than what was saved; one is in its midst.
    list(&mut t, INGRESSES, vec![]);
    t.take(SERVICES, News::Begun, NOW);
    t.take(SERVICES, News::Listed(service("a", 81).into()), NOW);
    assert!(t.wants_seed());
    t.seed(seed_of(vec![service("a", 80), service("b", 80), slice("s", "a"), ingress("i", &[])]), NOW);
    let facts = t.publish(NOW).expect("saved facts");
    assert_eq!((names(&facts).as_str(), facts.slices.len(), facts.ingresses.len()), ("a b", 1, 0));
    assert_eq!(facts.services.iter().next().unwrap().ports[0].port, 81);
    assert_eq!((t.is_current(), t.saved_at()), (false, Some(NOW)));
    // The API server goes on: `b` and the slice are gone.
    t.take(SERVICES, News::Complete, NOW);
    assert_eq!(names(&t.publish(NOW).unwrap()), "a");
    list(&mut t, SLICES, vec![]);
    assert!(t.publish(NOW).unwrap().slices.is_empty());
    assert_eq!((t.is_current(), t.saved_at()), (true, None));
}

#[test]
fn a_dropped_watch_takes_its_objects_along_and_is_not_listened_to() {
    let mut t = listed();
    t.drop_watch(SERVICES);
    t.take(SERVICES, News::Changed(service("z", 80).into()), NOW);
    assert_eq!(names(&t.publish(NOW).unwrap()), "");
}

/// A Secret is of use when an Ingress of our classes names it, whichever of the three is known first.
#[test]
fn secrets_of_ingresses_of_other_classes_are_not_asked_for() {
    const CLASSES: WatchId = WatchId(3);
    let class = |name: &str, controller: &str| {
        let object = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
        parsed::<IngressClass>(&kinds::CLASS, &object)
    };
    let of_class = |name: &str, class: &str| {
        let object = json!({
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"ingressClassName": class, "defaultBackend": {"service": {"name": "a", "port": {"number": 80}}},
                     "tls": [{"hosts": ["a.example"], "secretName": name}]},
        });
        parsed::<Ingress>(&kinds::INGRESS, &object)
    };
    let touched = |t: &mut Tables| {
        let mut touched: Vec<String> =
            t.touched(Referred::Secret).into_iter().map(|(n, used)| format!("{n} {used}")).collect();
        touched.sort();
        touched
    };
    let mut t = tables();
    t.add(CLASSES, "IngressClass", "ingressclasses".into(), "", "");
    list(&mut t, INGRESSES, vec![of_class("one", "ours"), of_class("two", "theirs")]);
    assert_eq!(touched(&mut t), [""; 0], "whose they are is not known yet");
    list(&mut t, CLASSES, vec![class("ours", "sluicegate.io/ingress-controller"), class("theirs", "example.com/x")]);
    assert_eq!(touched(&mut t), ["n/one true"]);
    // A class changes hands, an Ingress its class.
    t.take(CLASSES, News::Changed(class("theirs", "sluicegate.io/ingress-controller").into()), NOW);
    assert_eq!(touched(&mut t), ["n/two true"]);
    t.take(INGRESSES, News::Changed(of_class("one", "nobodys").into()), NOW);
    assert_eq!(touched(&mut t), ["n/one false"]);
    t.take(CLASSES, News::Gone(ObjectName::new("", "theirs")), NOW);
    assert_eq!(touched(&mut t), ["n/two false"]);
}

/// Pools may be missing: after a while nobody waits for them, and what is in the way is told with what it means.
#[test]
fn pools_that_may_not_be_read_do_not_hold_up_the_first_facts_for_ever() {
    const POOLS: WatchId = WatchId(3);
    let trouble = |stays| News::Fails(Trouble { text: "cannot list virtualippools: forbidden".into(), stays });
    let fresh = || {
        let mut t = tables();
        t.add(POOLS, "VirtualIPPool", "virtualippools".into(), "", "");
        for id in [SERVICES, SLICES, INGRESSES] {
            list(&mut t, id, vec![]);
        }
        t
    };
    let mut t = fresh();
    t.take(POOLS, trouble(true), NOW);
    t.take(POOLS, trouble(true), NOW + Duration::from_secs(4));
    assert!(t.publish(NOW).is_none(), "an API server that has just started may know its rules soon");
    t.take(POOLS, trouble(true), NOW + Duration::from_secs(5));
    assert!(t.publish(NOW).is_some());
    let told = "cannot list virtualippools: forbidden; until then the agent does without virtualippools";
    assert_eq!(t.troubles().0, [told]);
    list(&mut t, POOLS, vec![]);
    t.take(POOLS, News::Answers, NOW);
    assert!(t.troubles().0.is_empty());
    // One that does not answer is waited for.
    let mut t = fresh();
    t.take(POOLS, trouble(false), NOW);
    t.take(POOLS, trouble(false), NOW + Duration::from_mins(1));
    assert!(t.publish(NOW).is_none());
}
