//! Groups, VRIDs and orders, as every node finds them.

use std::sync::Arc;

use super::*;
use crate::model::addresses::AddressRange;
use crate::model::facts::Origin;
use crate::model::selector::LabelSelector;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn vip(owners: &[&str]) -> Vip {
    Vip { held_here: true, owners: owners.iter().map(|o| (*o).to_owned()).collect() }
}

fn node(name: &str, draining: bool) -> Arc<NodeFacts> {
    let origin = Origin { name: ObjectName::new("", name), ..Origin::default() };
    Arc::new(NodeFacts { origin, labels: BTreeMap::new(), addresses: Vec::new(), draining })
}

fn pool(name: &str, first: &str, last: &str, nodes: &[&str]) -> Arc<VirtualIpPoolFacts> {
    Arc::new(VirtualIpPoolFacts {
        origin: Origin { name: ObjectName::new("", name), ..Origin::default() },
        generation: 0,
        ranges: vec![AddressRange::new(ip(first), ip(last)).expect("a range")],
        auto_assign: true,
        avoid_buggy: false,
        namespaces: Vec::new(),
        services: LabelSelector::default(),
        nodes: NodeSelector { names: nodes.iter().map(|n| (*n).into()).collect(), labels: LabelSelector::default() },
        interface: None,
    })
}

fn facts(nodes: &[&str], pools: Vec<Arc<VirtualIpPoolFacts>>) -> Facts {
    Facts {
        revision: 1,
        nodes: nodes.iter().map(|n| node(n, false)).collect(),
        virtual_ip_pools: pools.into_iter().collect(),
        ..Facts::default()
    }
}

fn plan(vips: &BTreeMap<IpAddr, Vip>, facts: &Facts, node: &str, election: &ElectionOptions) -> Vec<VipGroup> {
    let options = PlanOptions { node: node.into(), election: Some(election.clone()), ..PlanOptions::default() };
    let mut rejections = Vec::new();
    let groups = groups(vips, facts, &options, election, &mut rejections);
    assert_eq!(rejections, []);
    groups
}

fn many(n: u32) -> BTreeMap<IpAddr, Vip> {
    (0..n).map(|i| (IpAddr::from((0x0a00_0000 + i).to_be_bytes()), vip(&[&format!("demo/s{i}")]))).collect()
}

#[test]
fn every_node_finds_the_same_groups_and_ranks_itself() {
    let facts = facts(&["a", "b", "c"], vec![]);
    let election = ElectionOptions::default();
    let plans: Vec<Vec<VipGroup>> = ["a", "b", "c"].iter().map(|n| plan(&many(40), &facts, n, &election)).collect();
    for i in 0..plans[0].len() {
        let mut priorities: Vec<u8> = plans.iter().map(|p| p[i].priority).collect();
        priorities.sort_unstable();
        assert_eq!(priorities, [FIRST - 2 * STEP, FIRST - STEP, FIRST]);
        assert!(plans.iter().all(|p| (p[i].vrid, &p[i].addresses, &p[i].order)
            == (plans[0][i].vrid, &plans[0][i].addresses, &plans[0][i].order)));
    }
    assert_eq!(plans[0].iter().map(|g| g.addresses.len()).sum::<usize>(), 40);
}

#[test]
fn nodes_share_the_work_and_a_lost_one_moves_only_its_own() {
    let election = ElectionOptions::default();
    let before = plan(&many(1000), &facts(&["a", "b", "c", "d"], vec![]), "a", &election);
    let after = plan(&many(1000), &facts(&["a", "b", "c"], vec![]), "a", &election);
    let mut share: BTreeMap<&str, usize> = BTreeMap::new();
    for (b, a) in before.iter().zip(&after) {
        assert_eq!((b.vrid, &b.addresses), (a.vrid, &a.addresses));
        *share.entry(&b.order[0]).or_default() += b.addresses.len();
        let left: Vec<&String> = b.order.iter().filter(|n| *n != "d").collect();
        assert_eq!(left, a.order.iter().collect::<Vec<_>>());
    }
    assert!(share.len() == 4 && share.values().all(|n| (130..380).contains(n)), "{share:?}");
}

#[test]
fn address_that_comes_or_goes_moves_no_other() {
    let (facts, election) = (facts(&["a", "b"], vec![]), ElectionOptions::default());
    let drained = {
        let mut facts = facts.clone();
        facts.nodes = [node("a", false), node("b", true)].into_iter().collect();
        plan(&many(300), &facts, "a", &election)
    };
    let vrids = |groups: &[VipGroup]| groups.iter().map(|g| (g.vrid, g.addresses.clone())).collect::<Vec<_>>();
    assert_eq!(vrids(&drained), vrids(&plan(&many(300), &facts, "a", &election)), "nor does a node that drains");
    let vrid_of = |vips: &BTreeMap<IpAddr, Vip>| -> BTreeMap<IpAddr, u8> {
        plan(vips, &facts, "a", &election).iter().flat_map(|g| g.addresses.iter().map(|a| (*a, g.vrid))).collect()
    };
    let before = vrid_of(&many(300));
    let mut vips = many(300);
    vips.remove(&ip("10.0.0.7"));
    vips.insert(ip("10.9.9.9"), vip(&["demo/new"]));
    let after = vrid_of(&vips);
    assert!(before.iter().all(|(a, v)| after.get(a).is_none_or(|now| now == v)));
}

#[test]
fn both_families_of_one_service_move_together() {
    let vips = BTreeMap::from([
        (ip("10.0.0.1"), vip(&["demo/a"])),
        (ip("fd00::1"), vip(&["demo/a"])),
        (ip("10.0.0.2"), vip(&["--ingress-vip"])),
        (ip("10.0.0.3"), vip(&["--ingress-vip"])),
        (ip("fd00::2"), vip(&["--ingress-vip"])),
        (ip("fd00::3"), vip(&["--ingress-vip", "demo/b"])),
        (ip("10.0.0.4"), vip(&["demo/b"])),
    ]);
    let election = ElectionOptions::default();
    let groups = plan(&vips, &facts(&["a", "b"], vec![]), "a", &election);
    let with = |a: &str| groups.iter().find(|g| g.addresses.contains(&ip(a))).expect("a group").vrid;
    assert_eq!(with("10.0.0.1"), with("fd00::1"));
    assert_eq!(with("10.0.0.2"), with("fd00::2"));
    assert_eq!((with("10.0.0.3"), with("10.0.0.4")), (with("fd00::3"), with("fd00::3")));
    assert_ne!(with("10.0.0.2"), with("10.0.0.3"));
}

#[test]
fn pools_say_which_nodes_and_never_share_a_vrid_with_others_nodes() {
    let pools =
        vec![pool("p", "10.0.0.0", "10.0.0.127", &["a", "b"]), pool("q", "10.0.0.128", "10.0.0.255", &["b", "c"])];
    let election = ElectionOptions { vrids: 10..=13, ..ElectionOptions::default() };
    let groups = plan(&many(256), &facts(&["a", "b", "c"], pools), "a", &election);
    assert!(groups.iter().all(|g| (10..=13).contains(&g.vrid)) && groups.len() <= 4);
    for g in &groups {
        let low = g.addresses.iter().all(|a| *a < ip("10.0.0.128"));
        let high = g.addresses.iter().all(|a| *a >= ip("10.0.0.128"));
        assert!(low || high, "{g:?}");
        let mut nodes = g.order.clone();
        nodes.sort();
        assert_eq!(nodes, if low { ["a", "b"] } else { ["b", "c"] });
        assert_eq!(g.priority > 0, low);
    }
}

#[test]
fn given_routers_keep_their_vrid_and_whole_list() {
    let fixed = vec![
        FixedRouter { vrid: 51, addresses: vec![ip("10.0.0.1"), ip("10.0.0.99")] },
        FixedRouter { vrid: 51, addresses: vec![ip("fe80::1"), ip("fd00::1")] },
        FixedRouter { vrid: 52, addresses: vec![ip("10.7.7.7")] },
    ];
    let mut vips = many(20);
    vips.insert(ip("fd00::1"), vip(&["demo/s1"]));
    let election = ElectionOptions { fixed, priority: Some(50), ..ElectionOptions::default() };
    let groups = plan(&vips, &facts(&[], vec![]), "a", &election);
    let lists: Vec<Vec<IpAddr>> =
        groups.iter().filter(|g| g.vrid == 51).map(|g| g.addresses.iter().copied().collect()).collect();
    assert_eq!(lists, [vec![ip("10.0.0.1"), ip("10.0.0.99")], vec![ip("fd00::1"), ip("fe80::1")]]);
    assert!(groups.iter().all(|g| g.priority == 50 && g.vrid != 52), "what is not served is not announced");
}

#[test]
fn unknown_nodes_are_equal_and_draining_ones_out() {
    let election = ElectionOptions::default();
    let unknown = plan(&many(3), &facts(&[], vec![]), "a", &election);
    assert!(unknown.iter().all(|g| g.priority == UNRANKED && g.order.is_empty()));
    let mut facts = facts(&["a", "b"], vec![]);
    facts.nodes = [node("a", true), node("b", false)].into_iter().collect();
    assert!(plan(&many(3), &facts, "a", &election).iter().all(|g| g.priority == 0 && g.order == ["b"]));
    let named = ElectionOptions { nodes: vec!["b".into(), "c".into()], ..election };
    assert!(plan(&many(3), &facts, "a", &named).iter().all(|g| g.priority == 0));
    assert!(plan(&many(3), &facts, "c", &named).iter().all(|g| g.priority > 0));
}

#[test]
fn nodes_with_the_label_of_edge_nodes_are_the_only_ones_if_there_are_any() {
    let labelled = |name: &str| {
        let mut node = (*node(name, false)).clone();
        node.labels.insert(EDGE.into(), String::new());
        Arc::new(node)
    };
    let mut facts = facts(&[], vec![]);
    facts.nodes = [labelled("a"), node("b", false), labelled("c")].into_iter().collect();
    let election = ElectionOptions::default();
    for group in plan(&many(3), &facts, "b", &election) {
        assert!(group.priority == 0 && group.order.len() == 2 && !group.order.contains(&"b".to_owned()));
    }
}

#[test]
fn ranks_never_reach_zero() {
    assert_eq!([0, 1, 62, 63, 5000].map(ranked), [250, 246, 2, 2, 2]);
}
