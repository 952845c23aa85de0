//! What is written against what is read.

use std::os::unix::fs::PermissionsExt;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;

use super::*;
use crate::sources::SourceOptions;
use crate::sources::document::{Document, parse};
use crate::sources::fold::fold;

struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluicegate-saved-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One of each kind, with what is rare in it.
fn facts() -> Facts {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let backend = json!({"service": {"name": "web", "port": {"name": "http"}}});
    let metadata = |name: &str| json!({"name": name, "namespace": "n", "creationTimestamp": "2026-01-02T03:04:05Z"});
    let items = json!([
        {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "n", "annotations": {
                "sluicegate.io/vips": "203.0.113.1,2001:db8::1", "sluicegate.io/forwarding": "nat",
                "sluicegate.io/balance": "least-request"}},
            "spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8", "2001:db8::/32"],
                "ports": [{"name": "http", "port": 80, "appProtocol": "kubernetes.io/h2c"},
                    {"name": "dns", "port": 53, "protocol": "UDP"}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv6", "endpoints": [{"addresses": ["2001:db8::7"], "nodeName": "edge-1",
                "conditions": {"ready": false, "serving": true, "terminating": true}}],
            "ports": [{"name": "http", "port": 8080}]},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata("web"),
            "spec": {"ingressClassName": "edge", "tls": [{"hosts": ["a.example"], "secretName": "tls"}], "rules": [
                {"host": "*.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": metadata("edge"),
            "spec": {"controller": "sluicegate.io/ingress-controller"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata("tls"), "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": cert.pem(), "tls.key": signing_key.serialize_pem()}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("udp"), "data": {"53": "n/web:dns"}},
        {"apiVersion": "sluicegate.io/v1alpha1", "kind": "VirtualIPPool", "metadata": {"name": "pool"},
            "spec": {"addresses": ["203.0.113.0/28", "2001:db8::1-2001:db8::9"], "namespaces": ["n"],
                "serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-1", "labels": {"zone": "a"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}},
    ]);
    let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let options = SourceOptions {
        udp_services: Some(crate::model::snapshot::ObjectName::new("n", "udp")),
        ..SourceOptions::default()
    };
    let contents = parse(Document { text: &text, line: 1 }, true, "", &options);
    assert_eq!((contents.objects.len(), contents.faults.len()), (8, 0), "{contents:?}");
    let mut facts = Facts::default();
    for read in contents.objects {
        fold(&mut facts, &read.identity.name, None, Some(&read.object.unwrap()));
    }
    // Manifests have no use for one.
    let name = crate::model::snapshot::ObjectName::new("", "n");
    let namespace = NamespaceFacts { origin: Origin { name: name.clone(), ..Origin::default() } };
    fold(&mut facts, &name, None, Some(&Object::Namespace(namespace.into())));
    facts
}

fn of(cluster: &str) -> Whose {
    Whose { cluster: cluster.to_owned(), ..Whose::default() }
}

#[test]
fn what_is_saved_is_what_is_read() {
    let directory = Directory::new("round-trip");
    let facts = facts();
    assert!(load(&directory.0, &of("c")).unwrap().is_none());
    save(&directory.0, &of("c"), &facts).unwrap();
    save(&directory.0, &of("c"), &facts).expect("again");
    let mut again = Facts::default();
    for (identity, object) in load(&directory.0, &of("c")).unwrap().expect("saved").objects {
        fold(&mut again, &identity.name, None, Some(&object));
    }
    assert_eq!(again.services, facts.services);
    assert_eq!(again.slices, facts.slices);
    assert_eq!(again.ingresses, facts.ingresses);
    assert_eq!(again.classes, facts.classes);
    assert_eq!(again.certificates, facts.certificates);
    assert_eq!(again.udp_streams, facts.udp_streams);
    assert_eq!(again.tcp_streams, None);
    assert_eq!(again.virtual_ip_pools, facts.virtual_ip_pools);
    assert_eq!(again.nodes, facts.nodes);
    assert_eq!((again.namespaces.len(), &again.namespaces), (1, &facts.namespaces));
    let (a, b) = (again.certificates.iter().next().unwrap(), facts.certificates.iter().next().unwrap());
    assert_eq!((&a.certificate.names, a.certificate.not_after), (&b.certificate.names, b.certificate.not_after));
    assert_eq!(a.certificate.fingerprint, b.certificate.fingerprint);
}

#[test]
fn only_root_reads_private_keys() {
    let directory = Directory::new("mode");
    save(&directory.0, &of("c"), &facts()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory.0), mode(&directory.0.join(FILE))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn what_cannot_be_used_is_told() {
    let directory = Directory::new("bad");
    save(&directory.0, &of("c"), &facts()).unwrap();
    let good = fs::read_to_string(directory.0.join(FILE)).unwrap();
    let check = |text: &str, cluster: &str, says: &str| {
        fs::write(directory.0.join(FILE), text).unwrap();
        let error = format!("{:#}", load(&directory.0, &of(cluster)).unwrap_err());
        assert!(error.starts_with("use the saved facts in ") && error.contains(says), "{error}");
    };
    check("", "c", "cut short");
    check("nonsense", "c", "head is not understood");
    check(&good[..good.len() / 2], "c", "EOF while parsing");
    let newer = VERSION + 1;
    let as_newer = good.replacen(&format!("\"version\":{VERSION}"), &format!("\"version\":{newer}"), 1);
    check(&as_newer, "c", &format!("are of version {newer}"));
    check(&good, "d", "are of the cluster c");
    let other = Whose { annotations_prefix: Some("a.example".to_owned()), ..of("c") };
    let error = format!("{:#}", load(&directory.0, &other).unwrap_err());
    assert!(error.ends_with("were read with another --annotations-prefix or --watch-namespace-selector"), "{error}");
    save(&directory.0, &other, &facts()).unwrap();
    assert!(load(&directory.0, &other).unwrap().is_some());
    // As an older agent wrote it.
    let old = good.replacen(",\"annotations_prefix\":null,\"namespace_labels\":null", "", 1);
    assert_ne!(old, good);
    let (rest, namespaces) = old.rsplit_once("\"namespaces\":[").unwrap();
    let (_, config_maps) = namespaces.split_once("],").unwrap();
    fs::write(directory.0.join(FILE), format!("{rest}{config_maps}")).unwrap();
    assert!(load(&directory.0, &of("c")).unwrap().is_some());
    check(&good.replacen("\"services\"", "\"servants\"", 1), "c", "missing field");
    // The next save makes it good.
    save(&directory.0, &of("c"), &Facts::default()).unwrap();
    assert!(load(&directory.0, &of("c")).unwrap().expect("saved").objects.is_empty());
}

#[test]
fn facts_that_did_not_change_do_not_age() {
    let directory = Directory::new("age");
    save(&directory.0, &of("c"), &Facts::default()).unwrap();
    let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    still_true(&directory.0, later);
    assert_eq!(load(&directory.0, &of("c")).unwrap().expect("saved").at, later);
}

#[test]
fn a_certificate_that_is_no_longer_taken_spoils_nothing_else() {
    let directory = Directory::new("certificate");
    let facts = facts();
    save(&directory.0, &of("c"), &facts).unwrap();
    let text = fs::read_to_string(directory.0.join(FILE)).unwrap();
    let chain = &facts.certificates.iter().next().unwrap().certificate.chain[0];
    let encoded = serde_json::to_string(&ByteString(chain.clone())).unwrap();
    fs::write(directory.0.join(FILE), text.replace(&encoded, "\"AAAA\"")).unwrap();
    let objects = load(&directory.0, &of("c")).unwrap().expect("saved").objects;
    assert_eq!(objects.len(), 8);
    assert!(objects.iter().all(|(_, o)| !matches!(o, Object::Certificate(_))));
}
