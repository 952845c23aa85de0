//! All recorded cases, several at a time, each in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::answer::Answer;
use super::client::Ask;
use super::compare::compare;
use super::corpus::{Case, Corpus};
use super::world::{Site, World, edge};
use crate::wait;

/// What became of one request: nothing to say, or what differs.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub case: String,
    pub area: &'static str,
    /// From 1, as in cases.json.
    pub number: usize,
    pub differences: Vec<String>,
}

/// Runs every case whose name contains `filter`.
pub fn run(corpus: &Corpus, filter: &str, threads: usize) -> Vec<Verdict> {
    run_cases(corpus, &corpus.cases.iter().filter(|c| c.name.contains(filter)).collect::<Vec<_>>(), threads, "golden")
}

/// `label` is of its worlds: two runs at once have two.
pub fn run_cases(corpus: &Corpus, cases: &[&Case], threads: usize, label: &str) -> Vec<Verdict> {
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..threads.min(cases.len()) {
            let (next, verdicts) = (&next, &verdicts);
            scope.spawn(move || {
                let certificates = corpus.directory.join("000-fixtures/certs");
                let world = World::enter(&format!("{label}{thread}"), &certificates).expect("a world for the cases");
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let found = run_case(&world, corpus, case, &certificates);
                    verdicts.lock().expect("no panic under the lock").extend(found);
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().expect("no panic under the lock");
    verdicts.sort_by(|a, b| (&a.case, a.number).cmp(&(&b.case, b.number)));
    verdicts
}

fn run_case(world: &World, corpus: &Corpus, case: &Case, certificates: &Path) -> Vec<Verdict> {
    let verdict = |number, differences| Verdict { case: case.name.clone(), area: case.area(), number, differences };
    let mut site = match Site::new(&corpus.fixtures, case) {
        Ok(site) => site,
        Err(error) => {
            let asked = case.steps.iter().enumerate().filter(|(_, s)| s.get("request").is_some());
            return asked.map(|(i, _)| verdict(i + 1, vec![format!("{error:#}")])).collect();
        }
    };
    let mut verdicts = Vec::new();
    let mut turns = Vec::new();
    for (i, step) in case.steps.iter().enumerate() {
        if let Some(action) = step.get("action") {
            if let Err(error) = site.act(action) {
                verdicts.push(verdict(i + 1, vec![format!("{error:#}")]));
            }
            continue;
        }
        // README, "Exact meaning": not to be compared.
        if (case.name.starts_with("346-") && i == 6) || (case.name.starts_with("146-") && i == 1) {
            continue;
        }
        let (mut differences, backends) = ask(world, &step["request"], &step["expect"], certificates);
        if let Some(recorded) = step["expect"]["log"].as_array() {
            differences.extend(site.log.compare(recorded));
        }
        turns.extend(backends.into_iter().map(|pair| (i + 1, pair)));
        verdicts.push(verdict(i + 1, differences));
    }
    site.end();
    judge_turns(case, &turns, &mut verdicts);
    verdicts
}

/// Which backends a request met: recorded and real.
type Pairs = Vec<(String, String)>;

fn ask(world: &World, request: &Value, expect: &Value, certificates: &Path) -> (Vec<String>, Pairs) {
    let expected = expect["responses"].as_array().map_or(0, Vec::len);
    let closes = expect["closed"].as_bool() == Some(true) || expect["closed"].is_string();
    if let Some(times) = request["repeat"].as_u64() {
        return repeated(world, request, expect, certificates, times);
    }
    world.log.drain();
    let ask = Ask { request, edge: edge(), certificates, expected, closes };
    let answer = sent(&ask);
    let wanted = expect["upstream_all"].as_array().map_or(usize::from(!expect["upstream_saw"].is_null()), Vec::len);
    wait::holds(Duration::from_millis(300), || world.log.len() >= wanted);
    let mut seen = world.log.drain();
    // A handshake that came to nothing is no request.
    seen.retain(|v| v["proto"] != "tls-error");
    // Bodies are passed on as they come (docs/ingress-nginx.md), so of a request that is refused within its body a backend may have seen
    // the beginning, or not: never all of it. It may say so late: of a request without a body, a part is that of the request before.
    let whole = request["body"].is_null() && request["raw"].is_null();
    if wanted == 0 || whole {
        seen.retain(|v| v["incomplete"] != true);
    }
    let outcome = compare(request, expect, &answer, &seen);
    (outcome.differences, outcome.backends)
}

fn sent(ask: &Ask<'_>) -> Answer {
    if ask.text("http_version") == Some("2") { ask.http2() } else { ask.http1() }
}

fn repeated(world: &World, request: &Value, expect: &Value, certificates: &Path, times: u64) -> (Vec<String>, Pairs) {
    let mut differences = Vec::new();
    let (mut statuses, mut met) = (Vec::new(), Vec::new());
    let mut cookie: Option<String> = None;
    for _ in 0..times {
        let mut request = request.clone();
        if let (Some(cookie), Some(fields)) = (&cookie, request["headers"].as_array_mut()) {
            fields.push(serde_json::json!(["Cookie", cookie]));
        }
        world.log.drain();
        let answer = sent(&Ask { request: &request, edge: edge(), certificates, expected: 1, closes: false });
        statuses.push(answer.status.map_or(Value::Null, Into::into));
        if request["keep_cookie"] == true
            && let Some(set) = answer.fields.iter().rfind(|(n, _)| n.eq_ignore_ascii_case("set-cookie"))
        {
            cookie = set.1.split(';').next().map(str::to_owned);
        }
        let names = world.log.drain();
        met.push(names.iter().map(|v| v["backend"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>());
        if let Some(pause) = request["interval"].as_f64() {
            std::thread::sleep(Duration::from_secs_f64(pause));
        }
    }
    // Limits refill while requests are on their way: how many pass is what counts, give or take one.
    let recorded = expect["statuses"].as_array().cloned().unwrap_or_default();
    if sorted(&statuses) != sorted(&recorded) {
        differences.push(format!("statuses {}, recorded {}", counted(&statuses), counted(&recorded)));
    }
    let recorded = expect["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |v: &Value| match v {
        Value::String(one) => vec![one.clone()],
        Value::Array(several) => several.iter().filter_map(|s| Some(s.as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    };
    let mut wanted: Vec<String> = recorded.iter().flat_map(name).collect();
    let mut got: Vec<String> = met.concat();
    if wanted.len() == got.len() {
        return (differences, wanted.into_iter().zip(got).collect());
    }
    // How many tries fail depends on whose turn it is first: those that were tried again went the recorded ways.
    let mut ways: Vec<Vec<String>> = recorded.iter().map(name).filter(|way| way.len() > 1).collect();
    ways.sort();
    ways.dedup();
    if met.iter().any(|way| way.len() > 1) && met.iter().all(|way| way.len() == 1 || ways.contains(way)) {
        return (differences, Vec::new());
    }
    wanted.sort();
    got.sort();
    differences.push(format!("backends {got:?}, recorded {wanted:?}"));
    (differences, Vec::new())
}

fn sorted(values: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

fn counted(values: &[Value]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value.to_string()).or_default() += 1;
    }
    format!("{counts:?}")
}

/// Cases whose turns begin at a random backend: README, "Exact meaning".
fn begins_at_random(case: &str) -> bool {
    let number: u32 = case[..3].parse().unwrap_or(0);
    matches!(number, 23 | 157 | 161..=165 | 215 | 219..=228 | 328)
}

/// Backends are compared over the whole case: as a multiset, and where turns begin at random by how often each was met, whatever its
/// name.
fn judge_turns(case: &Case, turns: &[(usize, (String, String))], verdicts: &mut [Verdict]) {
    let count = |names: &mut dyn Iterator<Item = &String>| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in names {
            *counts.entry(name.clone()).or_default() += 1;
        }
        counts
    };
    let wanted = count(&mut turns.iter().map(|(_, (w, _))| w));
    let got = count(&mut turns.iter().map(|(_, (_, g))| g));
    let shape = |counts: &BTreeMap<String, usize>| {
        let mut shape: Vec<usize> = counts.values().copied().collect();
        shape.sort_unstable();
        shape
    };
    // Who stays where he is, is seen within each step.
    let steps: std::collections::BTreeSet<usize> = turns.iter().map(|(number, _)| *number).collect();
    let within = |step: &usize| {
        let of = |name: fn(&(String, String)) -> &String| {
            count(&mut turns.iter().filter(|(n, _)| n == step).map(|(_, pair)| name(pair)))
        };
        shape(&of(|pair| &pair.0)) == shape(&of(|pair| &pair.1))
    };
    let alike = || shape(&wanted) == shape(&got) || steps.iter().all(within);
    if wanted == got || (begins_at_random(&case.name) && alike()) {
        return;
    }
    for (number, (wanted, got)) in turns {
        if wanted != got
            && let Some(verdict) = verdicts.iter_mut().find(|v| v.number == *number)
        {
            verdict.differences.push(format!("backend {got}, recorded {wanted}"));
        }
    }
}
