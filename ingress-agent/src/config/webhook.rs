//! The meaning of `sluicegate webhook …`. What the agents are told as well is read by the same rules.

use std::path::PathBuf;

use super::value::{self, Reader};
use crate::args::WebhookArgs;
use crate::plan::PlanOptions;
use crate::sources::SourceOptions;
use crate::sources::kube::KubeOptions;
use crate::webhook::{CertificateOptions, Conflicts, OwnOptions, Rules, WebhookConfig};

impl WebhookConfig {
    /// The configuration, or every mistake in it.
    pub fn parse(args: &WebhookArgs) -> Result<Self, Vec<String>> {
        let mut r = Reader::default();
        let kubeconfig = args.kubeconfig.clone().filter(|path| !path.is_empty()).map(PathBuf::from);
        match &kubeconfig {
            Some(path) => {
                if let Err(e) = std::fs::metadata(path) {
                    r.mistake("--kubeconfig", format!("{}: {e}", path.display()));
                }
            }
            None if args.kubernetes_service_host.as_ref().is_none_or(String::is_empty) => r.mistake(
                "--kubeconfig",
                "is missing: the kubeconfig of the cluster. (In a pod it is not needed; this is none: \
                 KUBERNETES_SERVICE_HOST is not set.)",
            ),
            None => {}
        }
        let namespace = r.read("--namespace", &args.namespace, value::namespace).unwrap_or_default();
        let address = |r: &mut Reader, option, text: &str| {
            r.read(option, text, value::socket_address).unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
        };
        let conflicts = [("deny", Conflicts::Deny), ("warn", Conflicts::Warn)];
        let config = Self {
            address: address(&mut r, "--listen-address", &args.listen_address),
            admin: address(&mut r, "--admin-address", &args.admin_address),
            certificate: certificate(&mut r, args, &namespace),
            rules: Rules {
                sources: SourceOptions {
                    tcp_services: r.object("--tcp-services-configmap", args.tcp_services_configmap.as_ref()),
                    udp_services: r.object("--udp-services-configmap", args.udp_services_configmap.as_ref()),
                    config_map: r.object("--configmap", args.configmap.as_ref()),
                },
                plan: plan(&mut r, args),
                conflicts: r.choose("--conflicts", &args.conflicts, &conflicts).unwrap_or_default(),
            },
            kube: KubeOptions {
                kubeconfig,
                namespace,
                watch_namespaces: r.list("--watch-namespace", &args.watch_namespaces, value::namespace),
                state_dir: None,
                default_certificate: None,
                claims_only: true,
            },
        };
        r.finish(config)
    }
}

fn certificate(r: &mut Reader, args: &WebhookArgs, namespace: &str) -> CertificateOptions {
    let directory = args.certificate_dir.as_ref().filter(|directory| !directory.is_empty());
    if let Some(text) = directory {
        return CertificateOptions::Directory(PathBuf::from(text));
    }
    let mut name = |option, text: &str| r.read(option, text, value::subdomain).unwrap_or_default();
    CertificateOptions::Own(OwnOptions {
        namespace: namespace.to_owned(),
        secret: name("--certificate-secret", &args.certificate_secret),
        service: name("--service", &args.service),
        configuration: name("--configuration", &args.configuration),
    })
}

/// What has to do with nodes and traffic is left as it is: no plan that is made here is ever in force.
fn plan(r: &mut Reader, args: &WebhookArgs) -> PlanOptions {
    if args.controller_class.trim().is_empty() {
        r.mistake("--controller-class", "is empty");
    }
    PlanOptions {
        controller_class: args.controller_class.clone(),
        watch_ingress_without_class: args.watch_ingress_without_class,
        ingress_vips: r.list("--ingress-vip", &args.ingress_vips, value::vip),
        ingress_pool: r.cluster_object("--ingress-pool", args.ingress_pool.as_ref()),
        watch_services_without_class: args.watch_services_without_class.unwrap_or(false),
        external_ips: args.external_ips,
        http_port: r.read("--http-port", &args.http_port, value::port).unwrap_or(80),
        https_port: r.read("--https-port", &args.https_port, value::port).unwrap_or(443),
        ..PlanOptions::default()
    }
}
