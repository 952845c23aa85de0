//! The flags of ingress-nginx's controller: which `sluicegate run` has by the same name, which are done in another way, and which not.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::known::Fate::{self, Needless, Unsupported};

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagFate {
    /// `sluicegate run` has it, by this name.
    Option(&'static str),
    /// It is there, and does not do the same.
    Differs(&'static str),
    Other(Fate),
}

use FlagFate::{Differs, Option as Same, Other};

const METRICS: FlagFate =
    Other(Unsupported("`--nginx-metrics` has ingress-nginx's names with its default labels and buckets"));
const WEBHOOK: FlagFate = Other(Needless("`sluicegate webhook` does that, as a Deployment of its own"));
const STATUS: FlagFate = Other(Needless("the status of an Ingress has the virtual addresses on which it is served"));
const PROBES: FlagFate = Other(Needless("probes are `/livez` and `/readyz` at `--admin-address`"));
const DRAIN: FlagFate = Other(Needless("`--drain-timeout` is how long requests may take to end"));
const ELECTION: FlagFate = Other(Needless("Leases have names of their own, and both controllers can run side by side"));
const KLOG: FlagFate = Other(Needless("`--log` and `--log-format` say what is logged, and how"));
const NO_NGINX: FlagFate = Other(Needless("is about nginx's own processes and ports"));
const GEO: FlagFate = Other(Unsupported("look the client's address up in the backend, or filter in front of the edge"));

/// Sorted by name, without the dashes.
pub(super) const FLAGS: &[(&str, FlagFate)] = &[
    ("alsologtostderr", KLOG),
    ("annotations-prefix", Same("--annotations-prefix")),
    ("apiserver-host", Other(Unsupported("`--kubeconfig` with that server in it"))),
    ("bucket-factor", METRICS),
    ("certificate-authority", Other(Unsupported("`--kubeconfig` with that authority in it"))),
    ("configmap", Same("--configmap")),
    ("controller-class", Same("--controller-class")),
    ("deep-inspect", Other(Needless("nothing of an Ingress becomes text for another parser"))),
    ("default-backend-service", Same("--default-backend-service")),
    ("default-server-port", NO_NGINX),
    ("default-ssl-certificate", Same("--default-ssl-certificate")),
    ("disable-catch-all", Same("--disable-catch-all")),
    ("disable-full-test", WEBHOOK),
    ("disable-leader-election", ELECTION),
    ("disable-svc-external-name", Same("--disable-svc-external-name")),
    ("disable-sync-events", Other(Unsupported("the agent says as an event only what its owner should read, once"))),
    ("dynamic-configuration-retries", NO_NGINX),
    ("election-id", ELECTION),
    ("election-ttl", ELECTION),
    ("enable-annotation-validation", Other(Needless("annotations are always validated"))),
    (
        "enable-metrics",
        Other(Needless(
            "metrics are always on, at `--admin-address`; with `--nginx-metrics` under ingress-nginx's names",
        )),
    ),
    ("enable-ssl-chain-completion", Other(Unsupported("put the whole chain into the Secret"))),
    ("enable-ssl-passthrough", Same("--enable-ssl-passthrough")),
    ("enable-topology-aware-routing", Same("--enable-topology-aware-routing")),
    ("exclude-socket-metrics", METRICS),
    ("health-check-path", PROBES),
    ("health-check-timeout", NO_NGINX),
    ("healthz-host", PROBES),
    ("healthz-port", PROBES),
    ("http-port", Same("--http-port")),
    ("https-port", Same("--https-port")),
    ("ingress-class", Same("--ingress-class")),
    ("ingress-class-by-name", Same("--ingress-class-by-name")),
    ("internal-logger-address", NO_NGINX),
    ("kubeconfig", Same("--kubeconfig")),
    ("length-buckets", Same("--length-buckets")),
    ("log_backtrace_at", KLOG),
    ("log_dir", KLOG),
    ("log_file", KLOG),
    ("log_file_max_size", KLOG),
    ("logtostderr", KLOG),
    ("max-buckets", METRICS),
    ("maxmind-edition-ids", GEO),
    ("maxmind-license-key", GEO),
    ("maxmind-mirror", GEO),
    ("maxmind-retries-count", GEO),
    ("maxmind-retries-timeout", GEO),
    ("metrics-per-host", Same("--metrics-per-host")),
    (
        "metrics-per-undefined-host",
        Other(Needless("every request that a rule takes is counted, under the rule's host")),
    ),
    ("monitor-max-batch-size", NO_NGINX),
    ("one_output", KLOG),
    ("post-shutdown-grace-period", DRAIN),
    ("profiler-address", NO_NGINX),
    ("profiler-port", NO_NGINX),
    ("profiling", NO_NGINX),
    ("publish-service", STATUS),
    ("publish-status-address", Same("--publish-status-address")),
    ("report-node-internal-ip-address", STATUS),
    ("report-status-classes", Same("--report-status-classes")),
    ("shutdown-grace-period", DRAIN),
    ("size-buckets", Same("--size-buckets")),
    ("skip_headers", KLOG),
    ("skip_log_headers", KLOG),
    ("ssl-passthrough-proxy-port", NO_NGINX),
    ("status-port", NO_NGINX),
    ("status-update-interval", Other(Needless("the status is written when it changes"))),
    ("stderrthreshold", KLOG),
    ("stream-port", NO_NGINX),
    ("sync-period", Other(Needless("changes are watched, and none is waited for"))),
    ("sync-rate-limit", Other(Needless("a change costs no reload"))),
    ("tcp-services-configmap", Same("--tcp-services-configmap")),
    ("time-buckets", Same("--time-buckets")),
    ("udp-services-configmap", Same("--udp-services-configmap")),
    ("update-status", Differs("is always on: the status of Ingresses is written")),
    ("update-status-on-shutdown", STATUS),
    ("v", KLOG),
    ("validating-webhook", WEBHOOK),
    ("validating-webhook-certificate", WEBHOOK),
    ("validating-webhook-key", WEBHOOK),
    ("vmodule", KLOG),
    ("watch-ingress-without-class", Same("--watch-ingress-without-class")),
    ("watch-namespace", Same("--watch-namespace")),
    ("watch-namespace-selector", Same("--watch-namespace-selector")),
];

/// `None`: ingress-nginx 1.15 has no such flag.
pub(super) fn flag(name: &str) -> Option<FlagFate> {
    FLAGS.binary_search_by(|(known, _)| known.cmp(&name)).ok().map(|at| FLAGS[at].1)
}

/// For somebody who gives us a flag of ingress-nginx's that we do not have.
pub fn hint(e: &clap::Error) -> Option<String> {
    let unknown = e.get(ContextKind::InvalidArg).filter(|_| e.kind() == ErrorKind::UnknownArgument)?;
    let ContextValue::String(typed) = unknown else { return None };
    let name = typed.trim_start_matches('-').split('=').next()?;
    let what = match flag(name)? {
        Same(option) => format!("is {option} of `sluicegate run`"),
        Differs(how) => how.to_owned(),
        Other(Fate::Needless(why)) => format!("is not needed: {why}"),
        Other(Fate::Unsupported(instead)) => format!("is not supported; instead: {instead}"),
        Other(Fate::Differs(_)) => return None,
    };
    Some(format!("\n--{name} of ingress-nginx {what}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_sorted_and_options_exist() {
        assert!(FLAGS.is_sorted_by_key(|(name, _)| *name));
        let args = crate::args::Args::command();
        let run = args.find_subcommand("run").expect("the command run");
        for (flag, fate) in FLAGS {
            let Same(option) = fate else { continue };
            assert!(run.get_arguments().any(|a| a.get_long() == option.strip_prefix("--")), "{flag}: {option}");
        }
    }
}
