//! Who is told of strangers, and what a Lease says of them.

use super::*;
use crate::model::addresses::AddressRange;
use crate::model::pool_state::{PoolState, PoolVerdict};

const MAC: &str = "02:00:00:00:00:66";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn claimed(address: &str) -> Conflict {
    Conflict::Claimed { address: ip(address), mac: MAC.into() }
}

fn vrid(router: &str) -> Conflict {
    Conflict::Vrid { vrid: 51, router: ip(router), mac: MAC.into() }
}

#[test]
fn conflicts_survive_the_text_and_nonsense_is_passed_over() {
    let in_use = Conflict::InUse { address: ip("fd00::1"), mac: MAC.into() };
    let all = BTreeSet::from([claimed("10.0.0.1"), in_use, vrid("fe80::66")]);
    let said = format!("claimed 10.0.0.1 {MAC},in-use fd00::1 {MAC},vrid 51 fe80::66 {MAC}");
    assert_eq!((text(&all), read(&said)), (said.clone(), all));
    for nonsense in [
        "",
        ",",
        "claimed",
        &format!("claimed 10.0.0.1 {MAC} {MAC}"),
        &format!("claimed ten {MAC}"),
        &format!("vrid 300 10.0.0.1 {MAC}"),
        &format!("moved 10.0.0.1 {MAC}"),
        "claimed 10.0.0.1 02:00:00:00:00",
        "claimed 10.0.0.1 <b>:00:00:00:00",
    ] {
        assert_eq!(read(nonsense), BTreeSet::new(), "{nonsense}");
        assert_eq!(read(&format!("{nonsense},{said}")).len(), 3, "{nonsense}");
    }
    assert_eq!(read(&"claimed 10.0.0.1 02:00:00:00:00:66,".repeat(100_000)).len(), 1);
}

fn object(name: &str, addresses: &[&str]) -> Arc<ServedObject> {
    Arc::new(ServedObject { name: ObjectName::new("shop", name), addresses: addresses.iter().map(|a| ip(a)).collect() })
}

/// One pool, and objects on its addresses and on others.
fn served() -> Served {
    let range = AddressRange::new(ip("10.0.0.1"), ip("10.0.0.9")).expect("a range");
    let pool = PoolState {
        name: ObjectName::new("", "public"),
        uid: "p".into(),
        generation: 1,
        ranges: vec![range],
        verdict: PoolVerdict::Accepted,
        message: String::new(),
        v4: None,
        v6: None,
    };
    Served {
        services: Arc::new(vec![object("db", &["10.0.0.1", "fd00::1"]), object("odd", &["10.9.9.9"])]),
        ingresses: Arc::new(vec![object("web", &["10.0.0.2"]), object("www", &["10.8.8.8"])]),
        pools: Arc::new(vec![pool]),
    }
}

/// Who is told what of a conflict that these nodes see: `KIND/NAME`.
fn told(conflict: Conflict, nodes: &[&str]) -> (Vec<String>, String) {
    let group = |addresses: &[&str]| VipGroup {
        vrid: 51,
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        order: Vec::new(),
        priority: 1,
    };
    let groups = [group(&["10.0.0.1", "fd00::1"]), group(&["fd00::8"])];
    let uid = |key: &Key| Some(key.1.name.clone());
    let owners = Owners { served: &served(), groups: &groups, uid: &uid };
    let nodes = nodes.iter().map(|n| (*n).to_owned()).collect();
    let notices = owners.notices(&BTreeMap::from([(conflict, nodes)]));
    let note = notices.first().map(|n| n.note.clone()).unwrap_or_default();
    assert!(notices.iter().all(|n| n.warning && n.note == note));
    (notices.iter().map(|n| format!("{}/{}", n.kind, n.name.name)).collect(), note)
}

#[test]
fn whoever_looks_after_the_address_is_told() {
    for (address, owners) in [
        ("10.0.0.1", &["VirtualIPPool/public", "Service/db"][..]),
        ("10.0.0.2", &["VirtualIPPool/public"]),
        ("fd00::1", &["Service/db"]),
        ("10.9.9.9", &["Service/odd"]),
        ("10.8.8.8", &["Ingress/www"]),
        ("10.7.7.7", &["Node/edge-1"]),
    ] {
        let (told, note) = told(claimed(address), &["edge-1"]);
        assert_eq!(told, owners, "{address}");
        assert!(note.contains(address) && note.contains(MAC) && note.contains("edge-1"), "{note}");
    }
}

#[test]
fn a_vrid_is_told_on_the_pool_and_in_one_text_whoever_hears_it() {
    let (owners, note) = told(vrid("10.0.0.66"), &["edge-1", "edge-2"]);
    assert_eq!(owners, ["VirtualIPPool/public"]);
    assert_eq!(note, told(vrid("10.0.0.66"), &["edge-2"]).1);
    for word in ["10.0.0.66", MAC, "VRID 51", "10.0.0.1, fd00::1"] {
        assert!(note.contains(word), "{note}");
    }
    // The other family's router of the same number.
    let (owners, note) = told(vrid("fe80::66"), &["edge-1"]);
    assert_eq!(owners, ["Node/edge-1"]);
    assert!(note.contains("ours for fd00::8"), "{note}");
}
