//! Tables of the ledger: what is due when.

use super::super::decide::Entry;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> Key {
    (Kind::Ingress, ObjectName::new("shop", name))
}

fn served(objects: &[(&str, &str)]) -> Served {
    let object = |(name, address): &(&str, &str)| {
        let addresses = [address.parse().expect("an address")].into();
        Arc::new(ServedObject { name: ObjectName::new("shop", *name), addresses })
    };
    Served { ingresses: Arc::new(objects.iter().map(object).collect()), ..Served::default() }
}

fn announced(text: &str) -> BTreeSet<IpAddr> {
    text.split_whitespace().map(|a| a.parse().expect("an address")).collect()
}

fn seen(version: u64, address: &str, ours: bool) -> Seen {
    let entry = Entry { ip: address.into(), ..Entry::default() };
    let entries = if address.is_empty() { Vec::new() } else { vec![entry] };
    Seen { uid: "1".into(), version, entries, ours, known: ours, other: Some("else".into()), ..Seen::default() }
}

/// Everything that is due at `now`, written.
fn write_all(ledger: &mut Ledger, version: u64, now: Instant) -> Vec<String> {
    let mut written = Vec::new();
    while let Some(order) = ledger.take(now) {
        let Write::Put { status: Some(entries), .. } = &order.write else {
            written.push(format!("{} given up", order.key.1.name));
            ledger.done(&order.key, Some(seen(version, "", false)), now);
            continue;
        };
        let address = entries.first().map(|e| e.ip.clone()).unwrap_or_default();
        written.push(format!("{} [{address}]", order.key.1.name));
        ledger.done(&order.key, Some(seen(version, &address, true)), now);
    }
    written
}

/// Two Ingresses on one announced address, both written.
fn two(now: Instant) -> (Ledger, Served) {
    let mut ledger = Ledger::default();
    let on = served(&[("a", "10.0.0.1"), ("b", "10.0.0.1")]);
    for name in ["a", "b"] {
        ledger.see(key(name), seen(1, "", false), now);
    }
    ledger.owe(&on, announced("10.0.0.1"), false, now);
    assert_eq!(write_all(&mut ledger, 5, now), ["a [10.0.0.1]", "b [10.0.0.1]"]);
    assert!(ledger.is_settled());
    (ledger, on)
}

#[test]
fn an_object_is_written_when_its_address_is_announced_whichever_is_known_first() {
    let now = Instant::now();
    let (mut ledger, _) = two(now);
    let on = served(&[("a", "10.0.0.1"), ("b", "10.0.0.1"), ("c", "10.0.0.2")]);
    ledger.owe(&on, announced("10.0.0.1"), false, now);
    ledger.see(key("c"), seen(6, "", false), now);
    assert!(ledger.is_settled(), "nobody announces it yet");
    ledger.owe(&on, announced("10.0.0.1 10.0.0.2"), false, now);
    assert_eq!(write_all(&mut ledger, 7, now), ["c [10.0.0.2]"]);
}

#[test]
fn a_withdrawal_waits_a_moment_and_a_stop_does_not() {
    let now = Instant::now();
    let (mut ledger, on) = two(now);
    ledger.owe(&on, announced(""), false, now);
    assert_eq!(ledger.next(), Some(now + GRACE));
    assert!(ledger.take(now + GRACE / 2).is_none());
    // It is announced by another node meanwhile.
    ledger.owe(&on, announced("10.0.0.1"), false, now + SECOND);
    assert!(ledger.is_settled());
    ledger.owe(&on, announced(""), false, now + SECOND);
    // News about the object do not put it off.
    ledger.see(key("a"), Seen { version: 6, ..seen(6, "10.0.0.1", true) }, now + SECOND * 2);
    assert_eq!(write_all(&mut ledger, 7, now + SECOND + GRACE), ["a []", "b []"]);

    let (mut ledger, on) = two(now);
    ledger.owe(&on, announced(""), true, now);
    assert_eq!(write_all(&mut ledger, 7, now), ["a []", "b []"]);
}

#[test]
fn what_is_no_longer_ours_is_given_up_and_never_touched_again() {
    let now = Instant::now();
    let (mut ledger, _) = two(now);
    ledger.owe(&served(&[("b", "10.0.0.1")]), announced("10.0.0.1"), false, now);
    assert_eq!(write_all(&mut ledger, 6, now + GRACE), ["a given up"]);
    ledger.see(key("a"), seen(7, "10.9.9.9", false), now + GRACE);
    assert!(ledger.is_settled());
}

#[test]
fn a_quarrel_is_carried_on_ever_more_seldom() {
    let start = Instant::now();
    let (mut ledger, _) = two(start);
    let (mut now, mut waits) = (start, Vec::new());
    for turn in 0..10_u64 {
        let who = ledger.see(key("a"), seen(10 + 2 * turn, "10.9.9.9", false), now);
        assert_eq!(who.as_deref(), (turn > 0).then_some("else"));
        let at = ledger.next().expect("it is set right some time");
        waits.push((at - now).as_secs());
        now = at;
        assert_eq!(write_all(&mut ledger, 11 + 2 * turn, now), ["a [10.0.0.1]"]);
    }
    // The withdrawal of the other's address waits its moment in any case.
    assert_eq!(waits, [2, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    now += FORGET;
    ledger.see(key("a"), seen(99, "10.9.9.9", false), now);
    assert_eq!(ledger.next(), Some(now + GRACE), "an old quarrel is forgotten");
}

#[test]
fn a_write_that_fails_is_tried_again_later_and_is_nobodys_quarrel() {
    let now = Instant::now();
    let (mut ledger, on) = two(now);
    ledger.owe(&on, announced(""), true, now);
    let order = ledger.take(now).expect("a withdrawal");
    assert!(!ledger.is_settled());
    // While it is under way nothing is begun for it.
    assert_eq!(ledger.see(order.key.clone(), seen(6, "10.0.0.1", true), now), None);
    ledger.done(&order.key, None, now);
    assert_eq!(write_all(&mut ledger, 7, now), ["b []"]);
    assert_eq!(write_all(&mut ledger, 7, now + FIRST), ["a []"]);
}

#[test]
fn news_from_before_our_own_write_are_old() {
    let now = Instant::now();
    let (mut ledger, _) = two(now);
    assert_eq!(ledger.see(key("a"), seen(3, "", false), now), None);
    assert!(ledger.is_settled());
    // But an object of the same name that was made anew is another one.
    let anew = Seen { uid: "2".into(), ..seen(6, "", false) };
    assert_eq!(ledger.see(key("a"), anew, now), None);
    assert_eq!(write_all(&mut ledger, 7, now), ["a [10.0.0.1]"]);
}

#[test]
fn a_list_that_begins_again_forgets_only_what_was_not_in_it() {
    let now = Instant::now();
    let (mut ledger, on) = two(now);
    ledger.begin_list(Kind::Ingress, "other");
    ledger.complete_list(Kind::Ingress, "other");
    ledger.begin_list(Kind::Ingress, "");
    ledger.see(key("b"), seen(6, "10.0.0.1", true), now);
    ledger.complete_list(Kind::Ingress, "");
    assert!(ledger.find(&key("a")).is_none() && ledger.find(&key("b")).is_some());
    ledger.owe(&on, announced(""), true, now);
    assert_eq!(write_all(&mut ledger, 7, now), ["b []"]);
}
