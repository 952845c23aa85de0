//! The admission webhook as authors meet it: a real API server asks the real binary, which has the rights that are shipped and no
//! others.

#[path = "k8s_webhook/rbac.rs"]
mod rbac;

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ingress_tests::wait;
use ingress_tests::webhook_site::{PATIENCE, WebhookSite, bad, ingress};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

const NAME: &str = "sluicegate-webhook.sluicegate-system.svc";

#[track_caller]
fn denied(answer: Result<String, String>, words: &[&str]) {
    let text = answer.expect_err("it is denied");
    for words in words {
        assert!(text.contains(words), "`{words}` in:\n{text}");
    }
}

#[track_caller]
fn admitted(answer: Result<String, String>, words: &[&str]) {
    let text = answer.expect("it is admitted");
    assert_eq!(text.matches("Warning: ").count(), words.len(), "{text}");
    for words in words {
        assert!(text.contains(&format!("Warning: {words}")), "`{words}` in:\n{text}");
    }
}

#[test]
fn authors_are_told_before_anything_is_stored() {
    let mut w = WebhookSite::new("kwadmit");
    w.start(&[]);
    w.is_asked();
    denied(
        w.apply(&bad()),
        &[
            "admission webhook \"objects.sluicegate.io\" denied the request",
            "spec.rules[0].http.paths[0].path: `/(.*)` contains `(`",
        ],
    );
    admitted(w.apply(&ingress("shop", "first", "sluicegate", "shop.example", "/")), &[]);
    let taken = ingress("tenant", "second", "sluicegate", "shop.example", "/");
    // Both may be of the same second; then the name decides, and this one's comes later.
    let words = "shop.example/ (Prefix) is served by Ingress shop/first, ";
    wait::within(PATIENCE, "the index has the first Ingress", || w.try_out(&taken).is_err().then_some(()));
    denied(w.apply(&taken), &[words]);
    // Its host on another class, and another host, are free.
    admitted(w.apply(&ingress("tenant", "second", "foreign", "shop.example", "/(.*)")), &[]);
    admitted(w.apply(&ingress("tenant", "third", "sluicegate", "other.example", "/")), &[]);
    let annotated = ingress("shop", "first", "sluicegate", "shop.example", "/").replace(
        "namespace: shop",
        "namespace: shop, annotations: { nginx.ingress.kubernetes.io/http2-push-preload: x }",
    );
    admitted(w.apply(&annotated), &["metadata.annotations: nginx.ingress.kubernetes.io/* is not honoured in full"]);
    let missing = ingress("shop", "lost", "sluicegate", "lost.example", "/").replace("name: web", "name: nobody");
    admitted(w.apply(&missing), &["spec.rules[0].http.paths[0].backend.service.name: there is no Service shop/nobody"]);

    let pool = |name: &str, addresses: &str| {
        format!(
            "{{ apiVersion: sluicegate.io/v1alpha1, kind: VirtualIPPool, metadata: {{ name: {name} }}, \
             spec: {{ addresses: ['{addresses}'] }} }}"
        )
    };
    denied(
        w.apply(&pool("second", "203.0.113.8-203.0.113.20")),
        &["admission webhook \"cluster.sluicegate.io\"", "overlaps 203.0.113.0-203.0.113.15 of VirtualIPPool"],
    );
    denied(w.apply(&pool("second", "203.0.113.77/24")), &["has bits behind its prefix"]);
    admitted(w.apply(&pool("second", "203.0.113.16/28")), &[]);

    let service = |name: &str, spec: &str| {
        format!(
            "{{ apiVersion: v1, kind: Service, metadata: {{ name: {name}, namespace: shop, annotations: {{ sluicegate.io/vips: 203.0.113.3 }} }}, spec: {{ {spec}, ports: [{{ port: 5432 }}] }} }}"
        )
    };
    let ours = "type: LoadBalancer, loadBalancerClass: sluicegate.io/xdp";
    admitted(w.apply(&service("db", ours)), &[]);
    let clash = "metadata.annotations[sluicegate.io/vips]: 203.0.113.3 cannot be served: Service shop/db has it";
    wait::within(PATIENCE, "the index has the first Service", || {
        w.try_out(&service("db2", ours)).ok()?.contains("Warning").then_some(())
    });
    admitted(w.apply(&service("db2", ours)), &[clash]);
    admitted(
        w.apply(&service("plain", "type: ClusterIP")),
        &["metadata.annotations[sluicegate.io/vips]: changes nothing"],
    );

    let ports = |namespace: &str, value: &str| {
        format!(
            "{{ apiVersion: v1, kind: ConfigMap, metadata: {{ name: tcp-services, namespace: {namespace} }}, data: {{ '9000': '{value}' }} }}"
        )
    };
    denied(w.apply(&ports("sluicegate-system", "nonsense")), &["data[9000]: `nonsense` is not of the form"]);
    admitted(w.apply(&ports("shop", "nonsense")), &[]);
    admitted(w.apply(&ports("sluicegate-system", "shop/web:80")), &[]);

    hostile(&w);
    let metrics = w.admin(8081, "/metrics");
    for series in ["reviews_total{kind=\"Ingress\",verdict=\"denied\"}", "review_seconds_bucket", "malformed_total 3"] {
        assert!(metrics.contains(&format!("sluicegate_webhook_{series}")), "{series} in:\n{metrics}");
    }
    // With what is shipped it may do all that it wants to.
    assert!(!w.log().contains("forbidden") && !w.log().contains("ERROR"), "{}", w.log());

    // Nobody's work waits for a webhook that is gone.
    w.kill();
    let began = Instant::now();
    admitted(w.apply(&bad()), &[]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// What reaches the webhook past the API server, or through it with bad intent.
fn hostile(w: &WebhookSite) {
    let post = |body: &str| {
        let head =
            format!("POST /validate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        w.directly(format!("{head}Content-Type: application/json\r\n\r\n{body}").as_bytes())
    };
    for (body, reason) in [
        ("{}", "missing field `apiVersion`"),
        ("\u{0}", "the body is not an AdmissionReview"),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "has no `request`"),
    ] {
        let answer = post(body);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(reason), "{answer}");
    }
    let large =
        w.directly(b"POST /validate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n{");
    assert!(large.starts_with("HTTP/1.1 4"), "{large}");
    let get = w.directly(b"GET /validate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(get.starts_with("HTTP/1.1 405"), "{get}");
    // The API server takes annotations of 256 KiB together, with whatever letters; kubectl adds one that repeats them.
    let value = "a\\nWarning: all is well\\r\\e[2J".repeat(2500);
    let evil = ingress("shop", "evil", "sluicegate", "evil.example", "/")
        .replace("namespace: shop", &format!("namespace: shop, annotations: {{ sluicegate.io/balance: \"{value}\" }}"));
    let began = Instant::now();
    let text = w.try_out(&evil).expect_err("it is denied");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let line = text.lines().find(|line| line.contains("sluicegate.io/balance]")).expect("the reason");
    assert!(line.contains("a\\nWarning: all is well") && line.len() < 1000, "{line}");
}

#[test]
fn certificates_follow_each_other_without_a_gap_and_an_expired_one_is_replaced() {
    let mut w = WebhookSite::new("kwrotate");
    // One that ends in two minutes, with two thirds of its life behind it: the next is due now, and takes over in a minute.
    let planted = Made::new(SystemTime::now() - Duration::from_mins(4), Duration::from_mins(6));
    w.cluster.apply(&planted.secret()).expect("plant the Secret");
    w.start(&[]);
    w.is_asked();
    // Which of the two is shown, and that there is no time without a denial.
    let first = w.shown().expect("a certificate");
    assert_eq!(first, planted.leaf, "what another replica made is used");
    let told = || STANDARD.decode(w.authorities()).map(|pem| String::from_utf8_lossy(&pem).into_owned());
    wait::within(PATIENCE, "the next authority is told beside the first", || {
        (told().ok()?.matches("BEGIN CERTIFICATE").count() == 2).then_some(())
    });
    assert_eq!(w.shown(), Some(first.clone()), "and its certificate is not served yet");
    let mut asked = 0;
    wait::within(2 * PATIENCE, "the next certificate is served", || {
        let answer = w.try_out(&bad());
        assert!(answer.is_err(), "admitted unseen at question {asked}: {answer:?}");
        asked += 1;
        (w.shown()? != first).then_some(())
    });
    // The API server's connection goes on; a new one sees the new certificate.
    for _ in 0..5 {
        assert!(w.try_out(&bad()).is_err());
    }
    let next = w.shown();
    // A second replica makes none of its own.
    let other = w.launch("127.0.0.1:8444".parse().expect("an address"), 8082, "second.log", &[]);
    w.ready(8082);
    let second = fs::read_to_string(w.place.directory.join("second.log")).expect("its log");
    assert!(!second.contains("one is made") && w.shown() == next, "{second}");
    drop(other);

    w.kill();
    let expired = Made::new(SystemTime::now() - Duration::from_hours(2), Duration::from_hours(1));
    w.cluster.apply(&expired.secret()).expect("plant an expired one");
    assert!(w.try_out(&bad()).is_ok(), "nobody is there to deny it");
    w.start(&[]);
    w.is_asked();
    assert!(w.log().contains("the certificate expired 36"), "{}", w.log());
    assert_ne!(w.secret("tls.crt"), expired.secret_data());
}

#[test]
fn a_certificate_of_somebody_else_is_used_and_followed() {
    let mut w = WebhookSite::new("kwdir");
    let directory = w.place.directory.join("certificate");
    fs::create_dir_all(&directory).expect("make the directory");
    let put = |made: &Made| {
        fs::write(directory.join("tls.key"), &made.key).expect("write the key");
        fs::write(directory.join("tls.crt"), &made.certificate).expect("write the certificate");
    };
    let trust = |w: &WebhookSite, made: &Made| {
        let bundle = STANDARD.encode(&made.authority);
        let patch = (0..3)
            .map(|i| format!(r#"{{"op":"add","path":"/webhooks/{i}/clientConfig/caBundle","value":"{bundle}"}}"#));
        let patch = format!("[{}]", patch.collect::<Vec<_>>().join(","));
        let name = ["patch", "validatingwebhookconfiguration", "sluicegate", "--type=json", "-p", &patch];
        w.cluster.kubectl(&name, "").expect("tell the API server");
    };
    let first = Made::new(SystemTime::now(), Duration::from_hours(1));
    put(&first);
    trust(&w, &first);
    // As components/webhook-cert-manager has the roles.
    let remove = |rule: u8| format!(r#"[{{"op":"remove","path":"/rules/{rule}"}}]"#);
    for (role, rule) in [("clusterrole", 3), ("role", 1), ("role", 0)] {
        let name = ["patch", role, "sluicegate-webhook", "-n=sluicegate-system", "--type=json", "-p", &remove(rule)];
        w.cluster.kubectl(&name, "").expect("take a rule away");
    }
    let path = directory.display().to_string();
    w.start(&["--certificate-dir", &path, "--conflicts", "warn"]);
    w.is_asked();
    assert_eq!(w.shown(), Some(first.leaf.clone()));
    let second = Made::new(SystemTime::now(), Duration::from_hours(1));
    put(&second);
    trust(&w, &second);
    wait::within(PATIENCE, "the new one is served", || (w.shown()? == second.leaf).then_some(()));
    w.is_asked();
    // A Secret it neither needed nor made.
    let name = ["get", "secret", "sluicegate-webhook-certificate", "-n", "sluicegate-system"];
    assert!(w.cluster.kubectl(&name, "").is_err());
    assert!(!w.log().contains("forbidden"), "{}", w.log());
    // The operator's choice: told, not denied.
    admitted(w.apply(&ingress("shop", "first", "sluicegate", "shop.example", "/")), &[]);
    let taken = ingress("tenant", "second", "sluicegate", "shop.example", "/");
    wait::within(PATIENCE, "the index has the first Ingress", || {
        w.try_out(&taken).ok()?.contains("Warning").then_some(())
    });
    let words = "spec.rules[0].http.paths[0]: shop.example/ (Prefix) is served by Ingress shop/first, ";
    admitted(w.apply(&taken), &[words]);
}

/// An authority and a certificate of the webhook's name.
struct Made {
    authority: String,
    certificate: String,
    key: String,
    leaf: Vec<u8>,
}

impl Made {
    fn new(from: SystemTime, life: Duration) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.distinguished_name.push(DnType::CommonName, "test");
        (authority.not_before, authority.not_after) = (from.into(), (from + life).into());
        let authority_key = KeyPair::generate().expect("a key");
        let signed = authority.self_signed(&authority_key).expect("an authority");
        let names = [NAME, "sluicegate-webhook.sluicegate-system", "sluicegate-webhook"].map(str::to_owned);
        let mut leaf = CertificateParams::new(names).expect("names");
        (leaf.not_before, leaf.not_after) = (from.into(), (from + life).into());
        let key = KeyPair::generate().expect("a key");
        let made = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).expect("a certificate");
        Self { authority: signed.pem(), certificate: made.pem(), key: key.serialize_pem(), leaf: made.der().to_vec() }
    }

    fn secret_data(&self) -> String {
        STANDARD.encode(&self.certificate)
    }

    fn secret(&self) -> String {
        let (ca, key) = (STANDARD.encode(&self.authority), STANDARD.encode(&self.key));
        format!(
            "{{ apiVersion: v1, kind: Secret, metadata: {{ name: sluicegate-webhook-certificate, namespace: sluicegate-system }}, \
             type: Opaque, data: {{ ca.crt: {ca}, tls.crt: {}, tls.key: {key} }} }}",
            self.secret_data()
        )
    }
}
