//! The meaning of `sluicegate webhook …`. What the agents are told as well is read by the same rules.

use std::path::PathBuf;

use super::rules;
use super::value::{self, Reader};
use crate::args::WebhookArgs;
use crate::sources::kube::KubeOptions;
use crate::webhook::{CertificateOptions, Conflicts, OwnOptions, Rules, WebhookConfig};

impl WebhookConfig {
    /// The configuration, or every mistake in it.
    pub fn parse(args: &WebhookArgs) -> Result<Self, Vec<String>> {
        let mut r = Reader::default();
        let kubeconfig = rules::kubeconfig(&mut r, &args.cluster, "");
        let namespaces = rules::namespaces(&mut r, &args.cluster);
        let plan = rules::plan(&mut r, &args.rules, false);
        let namespace = r.read("--namespace", &args.cluster.namespace, value::namespace).unwrap_or_default();
        let address = |r: &mut Reader, option, text: &str| {
            r.read(option, text, value::socket_address).unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
        };
        let conflicts = [("deny", Conflicts::Deny), ("warn", Conflicts::Warn)];
        let config = Self {
            address: address(&mut r, "--listen-address", &args.listen_address),
            admin: address(&mut r, "--admin-address", &args.admin_address),
            certificate: certificate(&mut r, args, &namespace),
            rules: Rules {
                sources: rules::sources(&mut r, &args.rules),
                plan: plan.clone(),
                namespaces: namespaces.clone(),
                conflicts: r.choose("--conflicts", &args.conflicts, &conflicts).unwrap_or_default(),
            },
            kube: KubeOptions {
                kubeconfig,
                namespace,
                namespaces,
                state_dir: None,
                default_certificate: None,
                classes: plan.classes,
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
