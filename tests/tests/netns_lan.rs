//! The fixture itself: hosts of a LAN reach each other over both families, a pod is reached through its host, and nothing
//! is left behind.

use ingress_tests::lan::Lan;
use ingress_tests::wait::until;

#[test]
fn hosts_and_a_pod_reach_each_other_and_leave_nothing() {
    let name = {
        let lan = Lan::new("fix").expect("make a LAN");
        let a = lan.host("a", &["10.1.0.2/24", "fd01::2/64"]).expect("plug in a");
        let b = lan.host("b", &["10.1.0.3/24", "fd01::3/64"]).expect("plug in b");
        let pod = b.pod("fixpod", "veth-pod", &["10.9.0.2", "fd09::2"]).expect("make a pod");
        a.route_by(&["10.1.0.3", "fd01::3"]).expect("route by b");
        for (from, to) in [
            (&a, "10.1.0.3"),
            (&a, "fd01::3"),
            (&a, "10.9.0.2"),
            (&a, "fd09::2"),
            (&pod, "10.1.0.2"),
            (&pod, "fd01::2"),
        ] {
            until(&format!("ping {to} from {}", from.name), || from.run("ping", &["-c1", "-W1", to]).ok());
        }
        a.name.clone()
    };
    assert!(!std::path::Path::new(&format!("/run/netns/{name}")).exists());
}
