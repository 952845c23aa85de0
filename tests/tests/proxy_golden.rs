//! What ingress-nginx v1.15.1 answered, and what we do: every recorded request is asked again of the real parse → plan → proxy.
//! `golden-ingress-nginx/deliberate.yaml` has those that differ on purpose, `not-yet.yaml` those whose behaviour is not built. The
//! test fails if any other differs, and if a listed one does not.
//!
//! `GOLDEN=038` runs the cases whose names contain that, and tells all that differs; `UPDATE_GOLDEN=1` writes `not-yet.yaml` anew.

use std::collections::{BTreeMap, BTreeSet};

use ingress_tests::golden::corpus::{Case, Corpus};
use ingress_tests::golden::lists::Lists;
use ingress_tests::golden::run::{Verdict, run, run_cases};

const THREADS: usize = 8;

#[test]
fn recorded_requests_are_answered_alike() {
    let corpus = Corpus::read().unwrap_or_else(|error| panic!("{error:#}"));
    let steps: BTreeMap<String, usize> = corpus.cases.iter().map(|c| (c.name.clone(), c.steps.len())).collect();
    let lists = Lists::read(&steps).unwrap_or_else(|error| panic!("{error:#}"));
    let filter = std::env::var("GOLDEN").unwrap_or_default();
    let verdicts = run(&corpus, &filter, THREADS);
    if !filter.is_empty() {
        for verdict in verdicts.iter().filter(|v| !v.differences.is_empty()) {
            println!("{} {}: {}", verdict.case, verdict.number, verdict.differences.join("; "));
        }
    }
    let mut table: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let (mut wrong, mut failing) = (Vec::new(), BTreeSet::new());
    for verdict in &verdicts {
        let key = (verdict.case.clone(), verdict.number);
        let differs = !verdict.differences.is_empty();
        let (deliberate, not_yet) = (lists.deliberate.contains_key(&key), lists.not_yet.contains(&key));
        let column = if !differs {
            0
        } else if deliberate {
            1
        } else {
            2
        };
        table.entry(verdict.area).or_default()[column] += 1;
        if differs && !deliberate {
            failing.insert(key);
        }
        match (differs, deliberate, not_yet) {
            (true, false, false) => wrong.push(told(verdict)),
            (false, true, _) => wrong
                .push(format!("{} {}: is answered alike, and is listed as deliberate", verdict.case, verdict.number)),
            (false, _, true) => {
                wrong.push(format!("{} {}: is answered alike: take it off not-yet.yaml", verdict.case, verdict.number));
            }
            _ => {}
        }
    }
    print(&table);
    if std::env::var_os("UPDATE_GOLDEN").is_some() && filter.is_empty() {
        Lists::write_not_yet(&failing).unwrap_or_else(|error| panic!("{error:#}"));
        return;
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), verdicts.len(), wrong.join("\n"));
}

/// Who wants the old behaviour back gets it by the setting that the list names.
#[test]
fn what_differs_has_the_remedy_that_is_told() {
    let corpus = Corpus::read().unwrap_or_else(|error| panic!("{error:#}"));
    let steps: BTreeMap<String, usize> = corpus.cases.iter().map(|c| (c.name.clone(), c.steps.len())).collect();
    let lists = Lists::read(&steps).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!lists.remedies.is_empty(), "deliberate.yaml names no remedy");
    let changed = corpus.cases.iter().filter_map(|c| Some(c.with_settings(&lists.remedies.get(&c.name)?.0)));
    let changed: Vec<Case> = changed.collect();
    let verdicts = run_cases(&corpus, &changed.iter().collect::<Vec<_>>(), THREADS, "remedy");
    let meant = |v: &&Verdict| lists.remedies.get(&v.case).is_some_and(|(_, numbers)| numbers.contains(&v.number));
    let asked = verdicts.iter().filter(meant).count();
    let wrong: Vec<String> = verdicts.iter().filter(meant).filter(|v| !v.differences.is_empty()).map(told).collect();
    assert!(wrong.is_empty(), "{} of {asked}, with the remedy:\n{}", wrong.len(), wrong.join("\n"));
    println!("{asked} requests are answered alike with the remedy");
}

fn told(verdict: &Verdict) -> String {
    format!("{} {}: {}", verdict.case, verdict.number, verdict.differences.join("; "))
}

fn print(table: &BTreeMap<&str, [usize; 3]>) {
    println!("{:28} {:>6} {:>10} {:>7}", "recorded requests", "passed", "deliberate", "not yet");
    let mut sum = [0; 3];
    for (area, counts) in table {
        println!("{area:28} {:>6} {:>10} {:>7}", counts[0], counts[1], counts[2]);
        for (total, count) in sum.iter_mut().zip(counts) {
            *total += count;
        }
    }
    println!("{:28} {:>6} {:>10} {:>7}", "all", sum[0], sum[1], sum[2]);
}
