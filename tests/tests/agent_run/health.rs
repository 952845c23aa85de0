//! What an operator sees of health checks.

use ingress_tests::wait::until;

use crate::world::World;

/// On a port where nobody listens.
const CHECKED: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: checked
  namespace: demo
  annotations:
    sluicegate.io/health-check: tcp
    sluicegate.io/health-check-port: '81'
    sluicegate.io/health-check-interval: 100ms
    sluicegate.io/health-check-healthy: never
spec:
  ingressClassName: sluicegate
  rules:
    - host: checked.example
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] }
";

#[test]
fn an_endpoint_that_fails_its_check_is_shown() {
    let world = World::new("run-hc");
    let agent = world.start();
    agent.write("checked.yaml", CHECKED).expect("write");
    let status = until("the check has failed", || agent.status().ok().filter(|text| text.contains("FAILS")));
    let line = status.lines().find(|l| l.contains("FAILS")).expect("its line");
    for part in ["10.1.0.3:8080", "demo/web:80", "tcp on port 81 every 100ms", "refused"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(status.contains("`never` is not a number from 1 to 100; 2 is used"), "{status}");
    let (_, out, _) = world.sluicegate(&["explain", "http://checked.example/"]);
    assert!(out.contains("Backend 10.1.0.3:8080 fails its health check (tcp on port 81 every 100ms): "), "{out}");
    assert!(out.contains("so requests go to all of them"), "{out}");
    let (_, out, _) = world.sluicegate(&["explain", "http://shop.example/"]);
    assert!(!out.contains("health check"), "another Ingress is no concern of it: {out}");
    let metrics = agent.get("/metrics").expect("metrics").1;
    let labels =
        "namespace=\"demo\",service=\"web\",port=\"80\",backend=\"10.1.0.3:8080\",check=\"tcp on port 81 every 100ms\"";
    assert!(metrics.contains(&format!("sluicegate_health_check_up{{{labels}}} 0.0")), "{metrics}");
    assert!(metrics.contains(&format!("sluicegate_health_checks_total{{{labels},result=\"failed\"}}")), "{metrics}");
}
