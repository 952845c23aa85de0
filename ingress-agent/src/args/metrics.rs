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
}
