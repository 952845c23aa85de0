//! `sluicegate migrate …`, as typed.

use clap::Args as ClapArgs;

#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Reads, and writes nothing. Exit code: 0 all is the same, 1 something differs, 2 something is not supported, 3 something could not be
read or the command not be understood.

Examples:
  sluicegate migrate ./manifests
  sluicegate migrate --kubeconfig ~/.kube/config -o json"
)]
pub struct MigrateArgs {
    /// A directory of manifests, with all that is in it, or a file; instead of a cluster.
    #[arg(value_name = "DIR")]
    pub from: Option<String>,
    /// Kubeconfig of the cluster to read [default: that of the pod it runs in].
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<String>,
    /// Kubernetes sets it in every pod.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub kubernetes_service_host: Option<String>,
    /// ConfigMap of ingress-nginx's settings [default: its controller's, or ingress-nginx/ingress-nginx-controller].
    #[arg(long, value_name = "NS/NAME")]
    pub configmap: Option<String>,
    /// Deployment or DaemonSet of ingress-nginx, if there are several.
    #[arg(long, value_name = "NS/NAME")]
    pub controller: Option<String>,
    /// `spec.controller` of its IngressClasses [default: its controller's, or k8s.io/ingress-nginx].
    #[arg(long, value_name = "NAME")]
    pub controller_class: Option<String>,
    /// Its value of the deprecated annotation kubernetes.io/ingress.class [default: its controller's, or nginx].
    #[arg(long, value_name = "NAME")]
    pub ingress_class: Option<String>,
    /// text or json.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: String,
}
