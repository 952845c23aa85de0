//! The Ingresses: as manifests for us, and as the locations that ingress-nginx would write for nginx. Both come from the same list, and
//! the requests, too.

use std::cmp::Reverse;
use std::fmt::Write as _;

/// Ingresses whose paths are regular expressions, in a full site; so many of them share a host.
const EXPRESSIONS: usize = 500;
const EXPRESSIONS_A_HOST: usize = 100;
/// Of the others.
const INGRESSES_A_HOST: usize = 5;
/// One Service for so many.
const INGRESSES_A_SERVICE: usize = 10;
/// Three endpoints a Service, all in these addresses.
pub(crate) const BACKENDS: [&str; 3] = ["10.78.1.1", "10.78.1.2", "10.78.1.3"];
/// Where the Ingresses are served, by us.
pub(crate) const EDGE: &str = "10.78.0.2";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exact,
    Prefix,
    Expression,
}

pub(crate) struct Ingress {
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) host: String,
    pub(crate) path: String,
    /// A path that it serves.
    pub(crate) asked: String,
    pub(crate) service: usize,
}

/// `count` Ingresses: one in twenty is an expression, and of the rest one in five is exact.
pub(crate) fn ingresses(count: usize) -> Vec<Ingress> {
    (0..count).map(|number| ingress(number, count)).collect()
}

pub(crate) fn ingress(number: usize, count: usize) -> Ingress {
    let service = number % services(count);
    let expressions = EXPRESSIONS.min(count / 20);
    if number < expressions {
        let host = format!("expressions{}.example", number / EXPRESSIONS_A_HOST);
        let (path, asked) = (format!("/v{number}/items/[0-9]+"), format!("/v{number}/items/{}", 1000 + number));
        return Ingress { number, kind: Kind::Expression, host, path, asked, service };
    }
    let host = format!("shop{}.example", number / INGRESSES_A_HOST);
    let path = format!("/team{}/app{number}", number % 7);
    let (kind, asked) = match number % INGRESSES_A_HOST {
        0 => (Kind::Exact, path.clone()),
        _ => (Kind::Prefix, format!("{path}/item")),
    };
    Ingress { number, kind, host, path, asked, service }
}

pub(crate) fn services(ingresses: usize) -> usize {
    ingresses.div_ceil(INGRESSES_A_SERVICE)
}

/// The class, and the Services with their endpoints.
pub(crate) fn base(ingresses: usize) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\n\
         metadata: {{ name: nginx, annotations: {{ sluicegate.io/vips: \"{EDGE}\" }} }}\n\
         spec: {{ controller: sluicegate.io/ingress-controller }}\n"
    );
    for service in 0..services(ingresses) {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: s{service}, namespace: scale }}\n\
             spec: {{ ports: [{{ name: http, port: 80, targetPort: 8080 }}] }}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{ name: s{service}-v4, namespace: scale, labels: {{ kubernetes.io/service-name: s{service} }} }}\n\
             addressType: IPv4\nports: [{{ name: http, port: 8080, protocol: TCP }}]\nendpoints:\n"
        );
        for address in BACKENDS {
            let _ = writeln!(text, "  - {{ addresses: [{address}], conditions: {{ ready: true }} }}");
        }
    }
    text
}

impl Ingress {
    pub(crate) fn manifest(&self) -> String {
        let (kind, annotations) = match self.kind {
            Kind::Exact => ("Exact", ""),
            Kind::Prefix => ("Prefix", ""),
            Kind::Expression => {
                ("ImplementationSpecific", ", annotations: { nginx.ingress.kubernetes.io/use-regex: \"true\" }")
            }
        };
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
             metadata: {{ name: i{number}, namespace: scale{annotations} }}\nspec:\n  ingressClassName: nginx\n  rules:\n\
             \x20   - host: {host}\n      http:\n        paths:\n          - path: \"{path}\"\n            pathType: {kind}\n\
             \x20           backend: {{ service: {{ name: s{service}, port: {{ number: 80 }} }} }}\n",
            number = self.number,
            host = self.host,
            path = self.path,
            service = self.service,
        )
    }

    /// The paths of nginx's locations.
    fn locations(&self) -> Vec<String> {
        match self.kind {
            Kind::Exact => vec![format!("= {}", self.path)],
            Kind::Prefix => vec![format!("{}/", self.path), format!("= {}", self.path)],
            Kind::Expression => vec![format!("~* \"^{}\"", self.path)],
        }
    }

    fn variables(&self) -> String {
        format!(
            "set $namespace \"scale\"; set $ingress_name \"i{}\"; set $service_name \"s{}\"; set $service_port \"80\"; \
             set $location_path \"{}\"; set $proxy_upstream_name \"scale-s{}-80\"; set $proxy_host $proxy_upstream_name;\n",
            self.number, self.service, self.path, self.service
        )
    }
}

/// nginx's servers and upstreams for these Ingresses: a server a host, longer paths first.
pub(crate) fn servers(ingresses: &[Ingress], listen: &str) -> String {
    let mut text = String::new();
    for service in 0..services(ingresses.len()) {
        let _ = write!(text, "upstream s{service} {{ ");
        for address in BACKENDS {
            let _ = write!(text, "server {address}:8080; ");
        }
        text.push_str("keepalive 320; keepalive_requests 10000; keepalive_timeout 60s; }\n");
    }
    let _ = writeln!(text, "server {{ listen {listen} reuseport default_server; server_name _; return 404; }}");
    for host in ingresses.chunk_by(|a, b| a.host == b.host) {
        let _ = writeln!(text, "server {{ listen {listen}; server_name {};", host[0].host);
        let mut host: Vec<&Ingress> = host.iter().collect();
        host.sort_by_key(|i| (Reverse(i.path.len()), Reverse(i.path.clone())));
        for ingress in host {
            for location in ingress.locations() {
                let _ = writeln!(
                    text,
                    "location {location} {{ {}{LOCATION}proxy_pass http://s{}; }}",
                    ingress.variables(),
                    ingress.service
                );
            }
        }
        text.push_str("location / { return 404; }\n}\n");
    }
    text
}

/// What ingress-nginx 1.15 writes into each location, without its Lua: balancing is an `upstream`'s.
pub(crate) const LOCATION: &str = "port_in_redirect off; set $balancer_ewma_score -1;\n\
    set $pass_access_scheme $scheme; set $pass_server_port $server_port; set $best_http_host $http_host;\n\
    set $pass_port $pass_server_port; set $proxy_alternative_upstream_name \"\"; client_max_body_size 1m;\n\
    proxy_set_header Host $best_http_host; proxy_set_header Upgrade $http_upgrade;\n\
    proxy_set_header Connection $connection_upgrade; proxy_set_header X-Request-ID $req_id;\n\
    proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr;\n\
    proxy_set_header X-Forwarded-Host $best_http_host; proxy_set_header X-Forwarded-Port $pass_port;\n\
    proxy_set_header X-Forwarded-Proto $pass_access_scheme; proxy_set_header X-Forwarded-Scheme $pass_access_scheme;\n\
    proxy_set_header X-Scheme $pass_access_scheme; proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;\n\
    proxy_set_header Proxy \"\"; proxy_connect_timeout 5s; proxy_send_timeout 60s; proxy_read_timeout 60s;\n\
    proxy_buffering off; proxy_buffer_size 4k; proxy_buffers 4 4k; proxy_max_temp_file_size 1024m;\n\
    proxy_request_buffering on; proxy_http_version 1.1; proxy_cookie_domain off; proxy_cookie_path off;\n\
    proxy_next_upstream error timeout; proxy_next_upstream_timeout 0; proxy_next_upstream_tries 3; proxy_redirect off;\n";
