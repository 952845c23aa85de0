//! A report as text for people. Pure.

use std::fmt::Write as _;

use super::report::{Count, Found, Group, Judged, Report, Verdict};

/// What is the same is a line; what is not says how, below it.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "ingress-nginx in {}", report.source);
    if !report.ingresses.is_empty() {
        section(&mut out, "INGRESSES", "", &report.ingresses);
    }
    for (title, group) in [("SETTINGS", &report.settings), ("FLAGS", &report.flags)] {
        if let Some(Group { name, place, items }) = group.as_ref().filter(|g| !g.items.is_empty()) {
            let of = if place.is_empty() { format!(" of {name}") } else { format!(" of {name} ({place})") };
            section(&mut out, title, &of, items);
        }
    }
    let passed_over = report.passed_over.iter();
    let passed_over = passed_over.map(|p| format!("{}, class {}{}", p.name, p.class, in_place(&p.place)));
    list(&mut out, "NOT OF THIS CLASS, passed over", passed_over);
    list(&mut out, "OTHER OBJECTS", report.others.iter().cloned());
    list(&mut out, "NOTES", report.notes.iter().cloned());
    list(&mut out, "COULD NOT BE READ", report.errors.iter().cloned());
    summary(&mut out, report);
    out
}

fn section(out: &mut String, title: &str, of: &str, items: &[Judged]) {
    let _ = writeln!(out, "\n{title}{of}");
    let width = items.iter().map(|i| i.name.chars().count()).max().unwrap_or(0).min(60);
    for item in items {
        let line = format!("  {:<11}  {:<width$}  {}", item.verdict.text(), item.name, item.place);
        let _ = writeln!(out, "{}", line.trim_end());
        for found in &item.findings {
            let _ = writeln!(out, "               {}", finding(found));
        }
    }
}

fn finding(found: &Found) -> String {
    let mut line = match (found.field.as_str(), found.reason.as_str()) {
        ("", reason) => reason.to_owned(),
        (field, "") => short(field),
        (field, reason) => format!("{}: {reason}", short(field)),
    };
    if let Some(difference) = &found.difference {
        let _ =
            write!(line, " · here: {} · there: {} · because: {}", difference.here, difference.there, difference.why);
    }
    if let Some(instead) = &found.instead {
        let _ = write!(line, " · instead: {instead}");
    }
    line
}

/// Annotations by the name that people know them by.
fn short(field: &str) -> String {
    let inner = field.strip_prefix("metadata.annotations[").and_then(|f| f.strip_suffix(']'));
    let key = field.strip_prefix("data[").and_then(|f| f.strip_suffix(']'));
    inner.map_or_else(|| key.unwrap_or(field), |name| name.split_once('/').map_or(name, |(_, key)| key)).to_owned()
}

fn list(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
}

fn summary(out: &mut String, report: &Report) {
    let summary = &report.summary;
    let _ = writeln!(out, "\nSUMMARY");
    for (what, count) in [("Ingresses", summary.ingresses), ("settings", summary.settings), ("flags", summary.flags)] {
        if count.all() > 0 {
            let _ = writeln!(out, "  {:>5} {what:<9}  {}", count.all(), counts(count));
        }
    }
    if summary.ingresses.all() == 0 {
        let _ = writeln!(out, "  no Ingress of ingress-nginx's");
    }
    let _ = writeln!(
        out,
        "  what HTTP itself comes to differs for everybody in {} ways, as the documentation says:",
        report.everybody.len()
    );
    for row in &report.everybody {
        let _ = writeln!(out, "    - {} (there: {})", row.here, row.there);
    }
    let _ = writeln!(out, "  the same with: sluicegate run {}", report.options.join(" "));
    let word = match summary.exit_code {
        0 => "all is the same",
        1 => "something differs",
        2 => "something is not supported",
        _ => "not all could be read",
    };
    let _ = writeln!(out, "  exit code {}: {word}", summary.exit_code);
}

fn counts(count: Count) -> String {
    let part = |n: usize, verdict: Verdict| format!("{n} {}", verdict.text());
    [
        part(count.same, Verdict::Same),
        part(count.differs, Verdict::Differs),
        part(count.unsupported, Verdict::Unsupported),
    ]
    .join(" · ")
}

fn in_place(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" ({place})") }
}
