//! Metrics under other names, as typed.

use clap::Args as ClapArgs;
use clap::builder::BoolishValueParser;

#[derive(Clone, Debug, ClapArgs)]
pub struct MetricsArgs {
    /// Serve at /metrics also what dashboards for ingress-nginx look for, under its names.
    #[arg(long, env = "SLUICEGATE_NGINX_METRICS", value_parser = BoolishValueParser::new())]
    pub nginx_metrics: bool,
    /// With a series for each host of a rule.
    #[arg(
        long,
        env = "SLUICEGATE_METRICS_PER_HOST",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub metrics_per_host: bool,
    /// With the class of a status, `4xx`, instead of the status: fewer series.
    #[arg(long, env = "SLUICEGATE_REPORT_STATUS_CLASSES", value_parser = BoolishValueParser::new())]
    pub report_status_classes: bool,
    /// Upper bounds of the buckets of durations, in seconds [default: 0.005 to 10, as in ingress-nginx].
    #[arg(long, env = "SLUICEGATE_TIME_BUCKETS", value_delimiter = ',', value_name = "SECONDS,…")]
    pub time_buckets: Vec<String>,
    /// Those of the lengths of requests and answers, in bytes [default: 10 to 100].
    #[arg(long, env = "SLUICEGATE_LENGTH_BUCKETS", value_delimiter = ',', value_name = "BYTES,…")]
    pub length_buckets: Vec<String>,
    /// Those of what is sent, in bytes [default: 10 to 10000000].
    #[arg(long, env = "SLUICEGATE_SIZE_BUCKETS", value_delimiter = ',', value_name = "BYTES,…")]
    pub size_buckets: Vec<String>,
}
