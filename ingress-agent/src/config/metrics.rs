//! Metrics under ingress-nginx's names: which there are, and in which buckets.

use std::sync::Arc;

use super::value::Reader;
use crate::admin::query::NginxNames;
use crate::args::RunArgs;
use crate::model::measure::Bounds;

/// Each is memory for every series on every worker.
const MOST_BOUNDS: usize = 100;
/// Microseconds in a second.
const SECOND: f64 = 1e6;

/// `None`: metrics have our own names only.
pub(super) fn parse(r: &mut Reader, args: &RunArgs) -> Option<NginxNames> {
    let metrics = &args.metrics;
    let default = Bounds::default();
    let times = bounds(r, "--time-buckets", &metrics.time_buckets, SECOND).unwrap_or(default.times);
    let lengths = bounds(r, "--length-buckets", &metrics.length_buckets, 1.0).unwrap_or(default.lengths);
    let sizes = bounds(r, "--size-buckets", &metrics.size_buckets, 1.0).unwrap_or(default.sizes);
    let (per_host, status_classes) = (metrics.metrics_per_host, metrics.report_status_classes);
    for (flag, is_said) in [
        ("--metrics-per-host", !per_host),
        ("--report-status-classes", status_classes),
        ("--time-buckets", !metrics.time_buckets.is_empty()),
        ("--length-buckets", !metrics.length_buckets.is_empty()),
        ("--size-buckets", !metrics.size_buckets.is_empty()),
    ] {
        if is_said && !metrics.nginx_metrics {
            r.mistake(flag, "means something with --nginx-metrics only");
        }
    }
    metrics.nginx_metrics.then(|| NginxNames {
        class: args.rules.controller_class.clone(),
        namespace: args.cluster.namespace.clone(),
        per_host,
        status_classes,
        bounds: Arc::new(Bounds { times, lengths, sizes }),
    })
}

/// `None`: it was not said, or wrongly.
fn bounds(r: &mut Reader, option: &str, typed: &[String], unit: f64) -> Option<Vec<u64>> {
    let typed = typed.iter().map(|t| t.trim()).filter(|t| !t.is_empty());
    let read: Vec<Option<u64>> = typed.map(|text| r.read(option, text, |t| bound(t, unit))).collect();
    let bounds = read.into_iter().collect::<Option<Vec<_>>>()?;
    if !bounds.is_sorted_by(|a, b| a < b) {
        r.mistake(option, "does not ascend");
    }
    if bounds.len() > MOST_BOUNDS {
        r.mistake(option, format_args!("has more than {MOST_BOUNDS} bounds"));
    }
    (!bounds.is_empty()).then_some(bounds)
}

fn bound(text: &str, unit: f64) -> Result<u64, String> {
    // Of times, what is below a microsecond would be 0; of bytes there are no parts. Beyond 2^53 not every whole number is one.
    let number = text.parse::<f64>().map(|n| n * unit).ok().filter(|n| (1.0..=9e15).contains(n));
    number.map(|n| n.round() as u64).ok_or_else(|| "is not a bound of a bucket".to_owned())
}
