//! The ground that the cluster tests stand on: a real API server and real controllers, pods that are processes with addresses of
//! their own, RBAC that refuses.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ingress_tests::cluster::endpoints::ready_when;
use ingress_tests::cluster::{ControlPlane, Kubelet, Node, PATIENCE};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::Namespace;
use ingress_tests::wait;

/// Says its name to whoever connects to port 9000.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: none
        command: [demo_backend]
        args: ["$(POD_NAME)"]
        env: [{ name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]
        ports: [{ name: tcp, containerPort: 9000 }]
        readinessProbe: { tcpSocket: { port: tcp } }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ports: [{ port: 80, targetPort: tcp }]
"#;

#[test]
fn a_deployment_becomes_processes_that_answer_and_slices_that_name_them() {
    let lan = Lan::new("k8sdep").expect("make the LAN");
    let host = |name: &str, n: u8| {
        lan.host(name, &[&format!("10.0.0.{n}/24"), &format!("fd00::{n}/64")])
            .unwrap_or_else(|e| panic!("{name}: {e:#}"))
    };
    let (control, client) = (host("cp", 5), host("client", 2));
    let nodes: Vec<Node> = [1, 2]
        .map(|n| {
            let addresses = [format!("10.0.0.1{n}"), format!("fd00::1{n}")];
            let name = format!("node-{n}");
            Node::new(&name, &host(&name, 10 + n), &[&addresses[0], &addresses[1]], n)
        })
        .into();
    for node in &nodes {
        node.route_pods_from(&client).expect("routes to the pods");
    }
    let cluster = ControlPlane::start("dep", &control.ns, "10.0.0.5".parse().expect("an address")).expect("start it");
    let _kubelet = Kubelet::start(&cluster, nodes).expect("start the kubelet");
    cluster.apply(WEB).expect("apply");

    let pods = ready_when(&cluster, "web", 3);
    let hosts: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    assert_eq!(hosts, BTreeSet::from(["node-1", "node-2"]), "pods are spread over the nodes");
    for pod in &pods {
        assert_eq!(asked(&client, pod.address), Some(pod.name.clone()), "{pod:?}");
    }

    cluster.kubectl(&["scale", "deployment/web", "--replicas=1"], "").expect("scale");
    let left = ready_when(&cluster, "web", 1);
    wait::within(PATIENCE, "the other pods are gone", || {
        (cluster.kubectl(&["get", "pods", "-o", "name"], "").expect("list").lines().count() == 1).then_some(())
    });
    for pod in &pods {
        let answer = left.contains(pod).then(|| pod.name.clone());
        assert_eq!(asked(&client, pod.address), answer, "only the pod that was kept answers: {pod:?}");
    }
}

#[test]
fn an_api_server_that_comes_back_has_its_objects_and_a_new_certificate() {
    let ns = Namespace::new("k8sagain").expect("make a namespace");
    let mut cluster = ControlPlane::start("again", &ns, [127, 0, 0, 1].into()).expect("start it");
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"], "").expect("create");
    let before = certificate(&cluster);
    let first =
        cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.metadata.resourceVersion}"], "").expect("get");
    cluster.stop_api_server().expect("stop");
    let refused = cluster.kubectl(&["get", "configmap", "kept"], "").expect_err("nobody listens");
    assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
    cluster.start_api_server().expect("start again");
    let kept = cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"], "").expect("get");
    assert_eq!(kept, "b");
    assert_ne!(certificate(&cluster), before, "the certificate is another one");

    // A watch from before the compaction is told to start over.
    cluster.kubectl(&["label", "configmap", "kept", "changed=yes"], "").expect("change");
    let oldest = cluster.compact().expect("compact");
    assert!(oldest > first.parse::<i64>().expect("a number"));
    let path = format!("/api/v1/configmaps?limit=1&resourceVersionMatch=Exact&resourceVersion={first}");
    let expired = cluster.kubectl(&["get", "--raw", &path], "").expect_err("that history is gone");
    assert!(format!("{expired:#}").contains("too old") || format!("{expired:#}").contains("compacted"), "{expired:#}");
}

#[test]
fn a_service_account_has_the_rights_it_was_given_and_no_others() {
    let ns = Namespace::new("k8srbac").expect("make a namespace");
    let cluster = ControlPlane::start("rbac", &ns, [127, 0, 0, 1].into()).expect("start it");
    cluster.kubectl(&["create", "serviceaccount", "reader"], "").expect("create");
    let reader = cluster.service_account_kubeconfig("default", "reader").expect("a kubeconfig");
    let list = ["get", "services", "--all-namespaces"];
    let refused = cluster.kubectl_as(&reader, &list, "").expect_err("it has no rights");
    let refused = format!("{refused:#}");
    assert!(refused.contains("system:serviceaccount:default:reader") && refused.contains("cannot list"), "{refused}");
    cluster.kubectl(&["create", "clusterrole", "reader", "--verb=list", "--resource=services"], "").expect("a role");
    let bind = ["create", "clusterrolebinding", "reader", "--clusterrole=reader", "--serviceaccount=default:reader"];
    cluster.kubectl(&bind, "").expect("bind it");
    let listed = wait::within(PATIENCE, "the role is in force", || cluster.kubectl_as(&reader, &list, "").ok());
    assert!(listed.contains("kubernetes"), "{listed}");
    let delete = ["delete", "service", "kubernetes"];
    let refused = cluster.kubectl_as(&reader, &delete, "").expect_err("it may only list");
    assert!(format!("{refused:#}").contains("cannot delete"), "{refused:#}");
}

/// The name that a pod answers with; nothing if nobody answers there.
fn asked(client: &Host, pod: IpAddr) -> Option<String> {
    client.inside(|| {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(pod, 9000), Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a read timeout");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        line.split(' ').next().map(str::to_owned)
    })
}

/// What the API server shows a client.
fn certificate(cluster: &ControlPlane) -> Vec<u8> {
    let config = ingress_tests::http::tls::client_config(&[]);
    cluster.ns.inside(|| {
        let mut stream = TcpStream::connect(cluster.address).expect("connect");
        let name = rustls::pki_types::ServerName::from(cluster.address.ip());
        let mut tls = rustls::ClientConnection::new(Arc::clone(&config), name).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).expect("a handshake");
        }
        tls.peer_certificates().expect("a certificate")[0].to_vec()
    })
}
