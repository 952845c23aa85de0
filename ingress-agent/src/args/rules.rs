//! What the agents and the webhook are told alike, as typed.

use clap::Args as ClapArgs;
use clap::builder::BoolishValueParser;

use crate::model::facts::NGINX_PREFIX;

/// What bears on which objects are ours and what becomes of them: the agents and the webhook are told it alike.
#[derive(Clone, Debug, ClapArgs)]
pub struct RulesArgs {
    /// Address on which Ingresses are served, unless their class has the annotation sluicegate.io/vips; may be repeated.
    #[arg(long = "ingress-vip", env = "SLUICEGATE_INGRESS_VIP", value_delimiter = ',', value_name = "ADDR")]
    pub ingress_vips: Vec<String>,
    /// VirtualIPPool that gives the ingress addresses, one of each family.
    #[arg(long, env = "SLUICEGATE_INGRESS_POOL", value_name = "NAME")]
    pub ingress_pool: Option<String>,
    #[arg(long, env = "SLUICEGATE_HTTP_PORT", default_value = "80", value_name = "PORT")]
    pub http_port: String,
    #[arg(long, env = "SLUICEGATE_HTTPS_PORT", default_value = "443", value_name = "PORT")]
    pub https_port: String,
    /// `spec.controller` of the Ingress classes that are ours.
    #[arg(
        long,
        env = "SLUICEGATE_CONTROLLER_CLASS",
        default_value = "sluicegate.io/ingress-controller",
        value_name = "NAME"
    )]
    pub controller_class: String,
    /// The one value of the deprecated annotation kubernetes.io/ingress.class that is ours [default: the names of the classes
    /// that are ours; with --controller-class k8s.io/ingress-nginx: nginx].
    #[arg(long, env = "SLUICEGATE_INGRESS_CLASS", value_name = "NAME")]
    pub ingress_class: Option<String>,
    /// The class of that name is ours, too, whatever its `spec.controller` says.
    #[arg(long, env = "SLUICEGATE_INGRESS_CLASS_BY_NAME", value_parser = BoolishValueParser::new())]
    pub ingress_class_by_name: bool,
    /// Serve Ingresses that name no class, too.
    #[arg(long, env = "SLUICEGATE_WATCH_INGRESS_WITHOUT_CLASS", value_parser = BoolishValueParser::new())]
    pub watch_ingress_without_class: bool,
    /// Expose Services of type LoadBalancer that name no loadBalancerClass, too [default: true with --manifests, where nobody
    /// else would; false in a cluster, where somebody else may].
    #[arg(
        long,
        env = "SLUICEGATE_WATCH_SERVICES_WITHOUT_CLASS",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub watch_services_without_class: Option<bool>,
    /// Answer for `externalIPs` of Services, too. Whoever may write a Service may then take any address of your network.
    #[arg(long, env = "SLUICEGATE_EXTERNAL_IPS", value_parser = BoolishValueParser::new())]
    pub external_ips: bool,
    /// What ingress-nginx's annotations begin with, before the `/`.
    #[arg(long, env = "SLUICEGATE_ANNOTATIONS_PREFIX", default_value = NGINX_PREFIX, value_name = "PREFIX")]
    pub annotations_prefix: String,
    /// Do not resolve Services of type `ExternalName`: no Ingress can then send requests outside of the cluster by a name.
    #[arg(long, env = "SLUICEGATE_DISABLE_SVC_EXTERNAL_NAME", value_parser = BoolishValueParser::new())]
    pub disable_svc_external_name: bool,
    /// Do not serve Ingresses of nothing but a default backend, which take the hosts that nobody names.
    #[arg(long, env = "SLUICEGATE_DISABLE_CATCH_ALL", value_parser = BoolishValueParser::new())]
    pub disable_catch_all: bool,
    /// Hosts whose Ingress has the annotation `ssl-passthrough` keep their TLS: by the name that clients ask for, connections go to the
    /// Service of the path `/` as they come.
    #[arg(long, env = "SLUICEGATE_ENABLE_SSL_PASSTHROUGH", value_parser = BoolishValueParser::new())]
    pub enable_ssl_passthrough: bool,
    /// Ingresses may have clients dropped in XDP that go on exceeding their limits (annotation `sluicegate.io/limit-drop-after`): at every port of
    /// the proxy, whosever Ingress it serves.
    #[arg(long, env = "SLUICEGATE_ENABLE_LIMIT_DROP", value_parser = BoolishValueParser::new())]
    pub enable_limit_drop: bool,
    /// ConfigMap of TCP ports on the ingress addresses: `"9000": "namespace/service:port[:PROXY[:PROXY]]"`.
    #[arg(long, env = "SLUICEGATE_TCP_SERVICES_CONFIGMAP", value_name = "NS/NAME")]
    pub tcp_services_configmap: Option<String>,
    /// The same for UDP.
    #[arg(long, env = "SLUICEGATE_UDP_SERVICES_CONFIGMAP", value_name = "NS/NAME")]
    pub udp_services_configmap: Option<String>,
    /// ConfigMap with ingress-nginx's settings, by its keys.
    #[arg(long, env = "SLUICEGATE_CONFIGMAP", value_name = "NS/NAME")]
    pub configmap: Option<String>,
}
