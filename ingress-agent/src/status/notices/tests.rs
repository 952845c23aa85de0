//! Tables of the notices: what is told when, and how often.

use super::*;
use crate::model::difference::Contrast;
use crate::model::rejection::Finding;

fn rejection(name: &str, reason: &str) -> Rejection {
    Finding {
        kind: "Ingress".into(),
        name: ObjectName::new("shop", name),
        place: String::new(),
        field: "spec.rules[0].host".into(),
        reason: reason.into(),
        severity: Severity::Rejected,
        uid: "1234".into(),
        contrast: Contrast::Alike,
    }
    .into()
}

/// Everything that is due at `now`, told.
fn tell_all(notices: &mut Notices, now: Instant) -> Vec<(String, i32)> {
    let mut told = Vec::new();
    while let Some((notice, before)) = notices.take(now) {
        notices.told(&notice, now);
        told.push((format!("{} {}", notice.name.name, notice.note), before));
    }
    told.sort();
    told
}

fn said(texts: &[(&str, i32)]) -> Vec<(String, i32)> {
    texts.iter().map(|(text, before)| ((*text).to_owned(), *before)).collect()
}

#[test]
fn a_rejection_is_told_once_and_again_before_it_is_forgotten() {
    let start = Instant::now();
    let mut notices = Notices::default();
    let both = [rejection("a", "is bad"), rejection("a", "is worse")];
    for _ in 0..3 {
        notices.wrong(&both, &[], start);
    }
    let text = ["a spec.rules[0].host: is bad", "a spec.rules[0].host: is worse"];
    assert_eq!(tell_all(&mut notices, start), said(&[(text[0], 0), (text[1], 0)]));
    notices.wrong(&both, &[], start + AGAIN / 2);
    assert_eq!(tell_all(&mut notices, start + AGAIN / 2), []);
    assert_eq!(tell_all(&mut notices, start + AGAIN), said(&[(text[0], 1), (text[1], 1)]));
    // What is no longer so is not told again, and another text is another matter.
    notices.wrong(&[rejection("a", "is fine")], &[], start + AGAIN);
    assert_eq!(tell_all(&mut notices, start + AGAIN), said(&[("a spec.rules[0].host: is fine", 0)]));
}

#[test]
fn what_comes_and_goes_is_no_storm() {
    let start = Instant::now();
    let mut notices = Notices::default();
    let bad = [rejection("a", "is bad")];
    let mut told = 0;
    for i in 0..100 {
        let now = start + Duration::from_secs(i);
        notices.wrong(if i % 2 == 0 { &bad } else { &[] }, &[], now);
        told += tell_all(&mut notices, now).len();
    }
    assert_eq!(told, 1);
    // After a while it is news again.
    let later = start + Duration::from_secs(99) + REMEMBER;
    notices.wrong(&[], &[], later);
    notices.wrong(&bad, &[], later);
    assert_eq!(tell_all(&mut notices, later).len(), 1);
}

#[test]
fn what_happens_again_is_told_again() {
    let start = Instant::now();
    let mut notices = Notices::default();
    let assigned = Notice { warning: false, ..Notice::of_rejection(&rejection("a", "serves")) };
    for before in 0..3 {
        notices.happened(&assigned, start);
        assert_eq!(tell_all(&mut notices, start), said(&[("a spec.rules[0].host: serves", before)]));
    }
    assert_eq!(notices.next(), None, "by itself it is told no more");
    // It is no rejection, and none of those ends it.
    notices.happened(&assigned, start);
    notices.wrong(&[], &[], start);
    assert_eq!(tell_all(&mut notices, start).len(), 1);
}

#[test]
fn memory_is_bounded() {
    let start = Instant::now();
    let mut notices = Notices::default();
    let many: Vec<_> = (0..MOST + 10).map(|i| rejection(&format!("i{i}"), "is bad")).collect();
    notices.wrong(&many, &[], start);
    let first = tell_all(&mut notices, start);
    assert_eq!((first.len(), notices.untold), (MOST, 10));
    // Room that becomes free is used. Which ten did not fit is chance.
    notices.wrong(&many[20..], &[], start);
    let text = |r: &Rejection| (format!("{} spec.rules[0].host: is bad", r.name.name), 0);
    let missed = many[20..].iter().filter(|r| first.binary_search(&text(r)).is_err()).count();
    assert_eq!((tell_all(&mut notices, start).len(), notices.untold), (missed, 0));
    assert!(notices.entries.len() <= MOST && notices.by_id.len() == notices.entries.len());
}

#[test]
fn failures_are_tried_again() {
    let start = Instant::now();
    let mut notices = Notices::default();
    notices.wrong(&[rejection("a", "is bad")], &[], start);
    let (notice, _) = notices.take(start).expect("it is due");
    notices.failed(&notice, start);
    let at = notices.next().expect("again");
    assert!(at > start && at <= start + Duration::from_secs(10));
    assert_eq!(tell_all(&mut notices, at).len(), 1);
}

#[test]
fn hostile_text_becomes_one_short_line() {
    assert_eq!(plain("a\nb\tc\u{1b}[31m"), "a b c [31m");
    let long = plain(&"ä".repeat(5000));
    assert!(long.len() <= LONGEST_NOTE && long.ends_with(" ..."));
    let name = Notice { name: ObjectName::new("n", "a.".repeat(126)), ..Notice::of_rejection(&rejection("a", "b")) };
    assert!(name.event_name().len() <= 253 && !name.event_name().contains(".."));
    assert_eq!(name.event_name(), name.clone().event_name());
    let other = Notice { note: "c".into(), ..name.clone() };
    assert_ne!(name.event_name(), other.event_name());
}
