//! From what was found to the verdicts. Pure. The agent's plan is asked about everything, and says of each finding how ingress-nginx takes
//! it (`model::difference`); what the plan does not look at stands in `known`, `flags` and `triggers`.

use std::collections::BTreeMap;

use super::flags::{FlagFate, flag};
use super::inventory::Inventory;
use super::known::{self, Fate};
use super::report::{Found, Group, Judged, PassedOver, Report, Verdict};
use super::triggers;
use crate::model::difference::{Contrast, Difference};
use crate::model::facts::{ClassChoice, ConfigMapFacts, IngressFacts};
use crate::model::rejection::Rejection;
use crate::model::snapshot::ObjectName;
use crate::plan::{SettingUse, plan, setting_use};
use crate::sources::parse::is_heeded;

pub(super) fn judge(inventory: &Inventory) -> Report {
    let planned = plan(&inventory.facts, &inventory.options, None).snapshot;
    let mut said: BTreeMap<(&str, &ObjectName), Vec<&Rejection>> = BTreeMap::new();
    for rejection in &planned.rejections {
        said.entry((rejection.kind.as_str(), &rejection.name)).or_default().push(rejection);
    }
    let mut more = triggers::of_ingresses(inventory, &planned);
    let mut report = Report {
        source: inventory.name.clone(),
        options: options(inventory),
        notes: inventory.notes.clone(),
        errors: inventory.errors.clone(),
        everybody: Difference::ALL.into_iter().filter(|d| d.is_everybodys()).map(Into::into).collect(),
        ..Report::default()
    };
    for ingress in inventory.facts.ingresses.iter() {
        let name = &ingress.origin.name;
        let findings = said.remove(&("Ingress", name)).unwrap_or_default();
        let ours = inventory.options.classes.is_ours(&ingress.class, &inventory.facts.classes);
        if !ours || !inventory.watches(&name.namespace) {
            let class = class(&ingress.class) + if ours { ", in a namespace that is not watched" } else { "" };
            report.passed_over.push(PassedOver { name: name.to_string(), place: ingress.origin.place.clone(), class });
            continue;
        }
        let mut found: Vec<Found> = findings.into_iter().filter_map(of_plan).collect();
        found.extend(annotations(ingress));
        found.extend(more.remove(name).unwrap_or_default());
        report.ingresses.push(Judged::new(name.to_string(), ingress.origin.place.clone(), found));
    }
    let map = inventory.options.config_map.as_ref().and_then(|name| inventory.facts.config_maps.find(name));
    if let Some(map) = map {
        let told = said.remove(&("ConfigMap", &map.origin.name)).unwrap_or_default();
        let items = map.data.iter().map(|(key, value)| setting(key, value, map, &told, inventory)).collect();
        let (name, place) = (format!("ConfigMap {}", map.origin.name), map.origin.place.clone());
        report.settings = Some(Group { name, place, items });
    }
    report.flags = inventory.controller.as_ref().map(|controller| {
        let mut items: Vec<Judged> = controller.flags.iter().map(|(name, value)| of_flag(name, value)).collect();
        items.dedup();
        let (name, place) = (format!("{} {}", controller.kind, controller.name), controller.place.clone());
        Group { name, place, items }
    });
    for rejection in said.into_values().flatten() {
        match rejection.kind.as_str() {
            // An Ingress of which nothing could be read has no facts.
            "File" | "Ingress" => report.errors.push(rejection.to_string()),
            _ if rejection.field == "kind" => {}
            _ => report.others.push(rejection.to_string()),
        }
    }
    report.summed()
}

/// What the plan says, with how ingress-nginx takes it.
fn of_plan(rejection: &Rejection) -> Option<Found> {
    let (field, reason) = (rejection.field.clone(), rejection.reason.clone());
    let found = Found { field, reason, ..Found::default() };
    Some(match rejection.contrast {
        Contrast::Listed => return None,
        Contrast::Alike => found,
        Contrast::Differs(difference) => {
            Found { difference: Some(difference.into()), verdict: Verdict::Differs, ..found }
        }
        Contrast::Unsupported { instead } => {
            Found { instead: Some(instead.to_owned()), verdict: Verdict::Unsupported, ..found }
        }
    })
}

/// Those that change nothing here.
fn annotations(ingress: &IngressFacts) -> Vec<Found> {
    let unknown = ingress.annotations.keys().filter(|name| !is_heeded(name));
    unknown.map(|name| unheeded(ingress.annotation_field(name), known::annotation(name))).collect()
}

fn unheeded(field: String, fate: Option<Fate>) -> Found {
    let found = Found { field, ..Found::default() };
    match fate {
        None => Found { reason: "ingress-nginx 1.15 does not know it either: it changes nothing".to_owned(), ..found },
        Some(Fate::Needless(why)) => Found { reason: format!("is not needed: {why}"), ..found },
        Some(Fate::Differs(difference)) => {
            Found { verdict: Verdict::Differs, difference: Some(difference.into()), ..found }
        }
        Some(Fate::Unsupported(instead)) => Found {
            verdict: Verdict::Unsupported,
            reason: "changes nothing here".to_owned(),
            instead: Some(instead.to_owned()),
            ..found
        },
    }
}

fn setting(key: &str, value: &str, map: &ConfigMapFacts, told: &[&Rejection], inventory: &Inventory) -> Judged {
    let field = format!("data[{key}]");
    let mut found: Vec<Found> = told.iter().filter(|r| r.field == field).filter_map(|r| of_plan(r)).collect();
    match setting_use(key) {
        SettingUse::Heeded => found.extend(triggers::of_setting(key, value, map, inventory)),
        SettingUse::Needless => {
            let why = "it is done in another way, or is about nginx's processes, tables and buffers";
            found.push(unheeded(field, Some(Fate::Needless(why))));
        }
        SettingUse::None if is_standard_output(key, value) => {
            found.push(unheeded(field, Some(Fate::Needless("standard output is the default"))));
        }
        SettingUse::None => found.push(unheeded(field, known::setting(key))),
    }
    // One reason for one difference: what the plan says has the particulars.
    let said: Vec<_> = found.iter().filter(|f| !f.reason.is_empty()).filter_map(|f| f.difference.clone()).collect();
    found.retain(|f| !f.reason.is_empty() || f.difference.as_ref().is_none_or(|d| !said.contains(d)));
    Judged::new(key.to_owned(), String::new(), found)
}

/// ingress-nginx's image has links there.
fn is_standard_output(key: &str, value: &str) -> bool {
    key.ends_with("access-log-path") && ["/dev/stdout", "/var/log/nginx/access.log"].contains(&value.trim())
}

fn of_flag(name: &str, value: &str) -> Judged {
    let found = match flag(name) {
        Some(FlagFate::Option(option)) => Found { reason: format!("is {option} here"), ..Found::default() },
        Some(FlagFate::Differs(how)) => Found { verdict: Verdict::Differs, reason: how.to_owned(), ..Found::default() },
        Some(FlagFate::Other(fate)) => {
            // A flag that is off asks for nothing.
            let off = value == "false";
            unheeded(String::new(), Some(if off { Fate::Needless("it is off") } else { fate }))
        }
        None => Found { reason: "is no flag of ingress-nginx 1.15".to_owned(), ..Found::default() },
    };
    Judged::new(format!("--{name}={value}"), String::new(), vec![found])
}

/// The command line that does what the flags did.
fn options(inventory: &Inventory) -> Vec<String> {
    let plan = &inventory.options;
    let mut options = vec![format!("--controller-class={}", plan.classes.controller)];
    options.extend(plan.classes.annotation.iter().map(|name| format!("--ingress-class={name}")));
    options.extend(plan.config_map.iter().map(|name| format!("--configmap={name}")));
    let told = ["controller-class", "ingress-class", "configmap", "kubeconfig"];
    for (name, value) in inventory.controller.iter().flat_map(|c| &c.flags) {
        if let Some(FlagFate::Option(option)) = flag(name)
            && !told.contains(&name.as_str())
        {
            // Switches have no value here.
            options.extend(match value.as_str() {
                "true" => Some(option.to_owned()),
                "false" => None,
                value => Some(format!("{option}={value}")),
            });
        }
    }
    options
}

fn class(choice: &ClassChoice) -> String {
    match choice {
        ClassChoice::Named(name) => name.clone(),
        ClassChoice::Annotation(name) => format!("{name} (by annotation)"),
        ClassChoice::None => "none".to_owned(),
    }
}
