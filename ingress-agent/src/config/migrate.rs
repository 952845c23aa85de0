//! The meaning of `sluicegate migrate …`.

use std::path::PathBuf;

use super::value::Reader;
use crate::args::MigrateArgs;
use crate::migrate::{From, MigrateConfig, Said};

impl MigrateConfig {
    /// The configuration, or every mistake in it.
    pub fn parse(args: &MigrateArgs) -> Result<Self, Vec<String>> {
        let mut r = Reader::default();
        let kubeconfig = args.kubeconfig.clone().filter(|path| !path.is_empty());
        let from = match (&args.from, kubeconfig) {
            (Some(_), Some(_)) => {
                r.mistake("--kubeconfig", "excludes a directory: objects come from one of them");
                From::Cluster(None)
            }
            (Some(path), None) => From::Manifests(PathBuf::from(path)),
            (None, Some(path)) => From::Cluster(Some(PathBuf::from(path))),
            (None, None) => {
                if args.kubernetes_service_host.as_ref().is_none_or(String::is_empty) {
                    r.mistake("--kubeconfig", "is missing: the kubeconfig of the cluster, or a directory of manifests");
                }
                From::Cluster(None)
            }
        };
        let said = Said {
            config_map: r.object("--configmap", args.configmap.as_ref()),
            controller: r.object("--controller", args.controller.as_ref()),
            controller_class: args.controller_class.clone().filter(|c| !c.is_empty()),
            ingress_class: args.ingress_class.clone().filter(|c| !c.is_empty()),
        };
        r.finish(Self { from, said })
    }
}
