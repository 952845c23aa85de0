//! The schedule under a clock of its own.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::*;
use crate::vip::claims::WARN_AGAIN;

const MINE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A kernel that obeys: additions come back as [`Event::Added`], and they and removals as [`Event::Kernel`].
struct World {
    schedule: Schedule,
    start: Instant,
    now: Instant,
    kernel: BTreeSet<IpAddr>,
    /// (milliseconds since the start, action), without what the kernel did.
    log: Vec<(u128, Action)>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { schedule: Schedule::new(now, 7), start: now, now, kernel: BTreeSet::new(), log: Vec::new() }
    }

    fn up() -> Self {
        let mut world = Self::new();
        world.event(Event::Link(LinkState::Up, MINE));
        world
    }

    fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut changed = false;
            for action in self.schedule.on(event, self.now) {
                changed |= matches!(action, Action::Add(_) | Action::Remove(_));
                match &action {
                    Action::Add(a) => {
                        self.kernel.insert(*a);
                        events.push_back(Event::Added(*a));
                    }
                    Action::Remove(a) => drop(self.kernel.remove(a)),
                    _ => {}
                }
                self.log.push(((self.now - self.start).as_millis(), action));
            }
            if changed {
                events.push_back(Event::Kernel { ours: self.kernel.clone(), others: BTreeSet::new() });
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.schedule.next().filter(|n| *n <= end) {
            self.now = self.now.max(next);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    fn announced(&self) -> Vec<u128> {
        self.log.iter().filter(|(_, a)| matches!(a, Action::Announce(_))).map(|(t, _)| *t).collect()
    }

    fn count(&self, action: &Action) -> usize {
        self.log.iter().filter(|(_, a)| a == action).count()
    }
}

fn vip(last: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, last).into()
}

fn hold(last: &[u8]) -> Event {
    Event::Hold { held: last.iter().map(|l| vip(*l)).collect(), unsure: BTreeSet::new(), open: BTreeSet::new() }
}

#[test]
fn taken_address_is_probed_added_and_announced_on_the_wave() {
    let mut w = World::up();
    w.event(hold(&[1]));
    assert_eq!(w.log[0].1, Action::Probe(vip(1)));
    assert_eq!(w.log[1].1, Action::Add(vip(1)));
    w.run_for(Duration::from_secs(6));
    assert_eq!(w.announced(), [0, 50, 200, 1000, 2000, 5000]);
}

#[test]
fn first_announcement_follows_the_addition_and_not_the_next_look_at_the_kernel() {
    let mut s = World::up();
    s.schedule.on(hold(&[1]), s.now);
    assert_eq!(s.schedule.on(Event::Added(vip(1)), s.now), [Action::Announce(vip(1))]);
    assert_eq!(s.schedule.on(Event::Kernel { ours: [vip(1)].into(), others: BTreeSet::new() }, s.now), []);
}

#[test]
fn refresh_comes_every_minute_with_jitter() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(3605));
    let times = w.announced()[5..].to_vec();
    let gaps: Vec<_> = times.windows(2).map(|t| t[1] - t[0]).collect();
    assert!(gaps.len() >= 54, "{gaps:?}");
    assert!(gaps.iter().all(|g| (54_000..=66_000).contains(g)), "{gaps:?}");
    assert!(gaps.iter().collect::<BTreeSet<_>>().len() > 20, "{gaps:?}");
}

#[test]
fn killed_agents_addresses_are_adopted_and_only_unwanted_ones_removed() {
    let mut w = World::up();
    w.kernel = [vip(1), vip(2)].into();
    w.event(Event::Kernel { ours: w.kernel.clone(), others: BTreeSet::new() });
    w.run_for(Duration::from_secs(30));
    assert_eq!(w.log, [], "nothing happens before somebody says what to hold");
    w.event(hold(&[1]));
    assert_eq!(w.count(&Action::Add(vip(1))), 0);
    assert_eq!(w.count(&Action::Remove(vip(2))), 1);
    assert_eq!(w.count(&Action::Announce(vip(1))), 1);
}

#[test]
fn address_of_somebody_else_on_the_interface_is_announced_and_never_removed() {
    let mut w = World::up();
    w.event(Event::Link(LinkState::Down, MINE));
    w.event(hold(&[1]));
    w.event(Event::Kernel { ours: BTreeSet::new(), others: [vip(1)].into() });
    w.event(Event::Link(LinkState::Up, MINE));
    assert_eq!(w.count(&Action::Announce(vip(1))), 1);
    w.event(hold(&[]));
    assert_eq!(w.count(&Action::Add(vip(1))) + w.count(&Action::Remove(vip(1))), 0);
}

#[test]
fn deleted_address_comes_back_but_no_faster_than_once_a_second() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(10));
    for _ in 0..20 {
        w.kernel.clear();
        w.event(Event::Kernel { ours: BTreeSet::new(), others: BTreeSet::new() });
        w.run_for(Duration::from_millis(100));
    }
    let added = w.count(&Action::Add(vip(1)));
    assert!((2..=4).contains(&added), "{added}");
}

#[test]
fn refused_address_is_tried_again_after_a_second() {
    let mut s = World::up();
    let actions = s.schedule.on(hold(&[1]), s.now);
    assert!(actions.contains(&Action::Add(vip(1))));
    s.schedule.on(Event::AddFailed(vip(1), "no".into()), s.now);
    assert_eq!(s.schedule.report().next().and_then(|r| r.2.cloned()).as_deref(), Some("no"));
    assert_eq!(s.schedule.next(), Some(s.now + ADD_AGAIN));
    assert_eq!(s.schedule.on(Event::Tick, s.now + ADD_AGAIN), [Action::Add(vip(1))]);
}

#[test]
fn nothing_is_sent_without_a_carrier_and_all_of_it_when_it_returns() {
    let mut w = World::new();
    w.event(Event::Link(LinkState::NoCarrier, MINE));
    w.event(hold(&[1, 2]));
    w.run_for(Duration::from_secs(5));
    assert_eq!(w.count(&Action::Add(vip(1))), 1);
    assert!(w.announced().is_empty());
    w.event(Event::Link(LinkState::Up, MINE));
    w.run_for(Duration::from_millis(100));
    assert_eq!(w.announced(), [5000, 5000, 5050, 5050]);
}

#[test]
fn new_mac_of_a_bond_is_announced() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(6));
    let before = w.announced().len();
    w.event(Event::Link(LinkState::Up, OTHER));
    assert_eq!(w.announced().len(), before + 1);
}

#[test]
fn absent_interface_is_waited_for() {
    let mut w = World::new();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(5));
    assert_eq!(w.log, []);
    assert_eq!(w.schedule.next(), None);
    w.event(Event::Link(LinkState::Up, MINE));
    assert_eq!(w.count(&Action::Add(vip(1))), 1);
}

#[test]
fn rfc5227_defence_is_limited_to_one_in_ten_seconds() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(10));
    let before = w.announced().len();
    for _ in 0..50 {
        w.event(Event::Claim(vip(1), OTHER));
        w.now += Duration::from_millis(100);
    }
    assert_eq!(w.announced().len(), before + 1);
    assert_eq!(w.count(&Action::Warn(vip(1), OTHER)), 1);
    w.now += DEFEND_INTERVAL;
    w.event(Event::Claim(vip(1), OTHER));
    assert_eq!(w.announced().len(), before + 2);
    assert_eq!(w.count(&Action::Warn(vip(1), OTHER)), 1);
    w.now += WARN_AGAIN;
    w.event(Event::Claim(vip(1), OTHER));
    assert_eq!(w.count(&Action::Warn(vip(1), OTHER)), 2);
}

#[test]
fn own_reflected_frames_and_foreign_addresses_are_no_conflict() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.log.clear();
    w.event(Event::Claim(vip(1), MINE));
    w.event(Event::Claim(vip(9), OTHER));
    assert_eq!(w.log, []);
}

#[test]
fn thousand_addresses_are_announced_within_the_rate() {
    let mut w = World::up();
    let held = (0..1000u32).map(|i| Ipv4Addr::from(0x0a00_0000 + i).into()).collect();
    w.event(Event::Hold { held, unsure: BTreeSet::new(), open: BTreeSet::new() });
    w.run_for(Duration::from_secs(20));
    let times = w.announced();
    assert_eq!(times.len(), 6000);
    for window in times.windows(600) {
        // 600 announcements need at least (600 - 64) / 500 s, give or take a millisecond of rounding.
        assert!(window[599] - window[0] >= 1070, "{} ms", window[599] - window[0]);
    }
}

fn unsure(last: u8) -> Event {
    Event::Hold { held: [vip(last)].into(), unsure: [vip(last)].into(), open: BTreeSet::new() }
}

#[test]
fn unsure_address_is_added_when_nobody_answers_the_probe() {
    let mut w = World::up();
    w.event(unsure(1));
    assert_eq!(w.log, [(0, Action::Probe(vip(1)))]);
    w.run_for(Duration::from_secs(1));
    assert_eq!(w.log[1], (PROBE_WAIT.as_millis(), Action::Add(vip(1))));
}

#[test]
fn address_that_somebody_uses_is_not_added_until_he_is_gone() {
    let mut w = World::up();
    w.event(unsure(1));
    let mut answered = 0;
    for _ in 0..240 {
        w.run_for(Duration::from_millis(50));
        if w.count(&Action::Probe(vip(1))) > answered {
            answered += 1;
            w.event(Event::Claim(vip(1), OTHER));
        }
    }
    assert_eq!(w.count(&Action::Add(vip(1))), 0);
    assert_eq!(w.count(&Action::Warn(vip(1), OTHER)), 1);
    assert!((5..=6).contains(&answered), "{answered}");
    let fault = w.schedule.report().next().and_then(|r| r.2.cloned());
    assert_eq!(fault.as_deref(), Some("not added: 02:00:00:00:00:02 on this link uses it"));
    w.run_for(PROBE_AGAIN * 2);
    assert_eq!(w.count(&Action::Add(vip(1))), 1);
}

/// Who claims each address, by the last byte of the MAC.
fn claimants(w: &World) -> Vec<u8> {
    w.schedule.report().flat_map(|(_, _, _, claims)| claims.iter().map(|(by, _)| by.0[5]).collect::<Vec<_>>()).collect()
}

#[test]
fn a_claim_is_known_while_it_is_repeated_and_forgotten_after() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(10));
    for _ in 0..10 {
        w.event(Event::Claim(vip(1), OTHER));
        w.run_for(Duration::from_mins(4));
        assert_eq!(claimants(&w), [2]);
    }
    w.run_for(Duration::from_mins(1));
    assert_eq!(claimants(&w), [0u8; 0]);
}

#[test]
fn a_flood_of_claimants_is_bounded() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(10));
    for n in 10..250 {
        w.event(Event::Claim(vip(1), Mac([2, 0, 0, 0, 0, n])));
    }
    let warned = w.log.iter().filter(|(_, a)| matches!(a, Action::Warn(..))).count();
    assert_eq!((claimants(&w), warned), (vec![10, 11, 12, 13], 4));
}

#[test]
fn who_gave_an_address_up_claims_it_no_more() {
    let mut w = World::up();
    w.event(unsure(1));
    w.event(Event::Claim(vip(1), OTHER));
    w.run_for(Duration::from_secs(1));
    assert_eq!(claimants(&w), [2]);
    w.run_for(PROBE_AGAIN * 2);
    assert_eq!((w.count(&Action::Add(vip(1))), claimants(&w)), (1, vec![]));
}

#[test]
fn unsure_address_waits_for_a_link_that_carries_the_question() {
    let mut w = World::new();
    w.event(Event::Link(LinkState::NoCarrier, MINE));
    w.event(unsure(1));
    assert_eq!((w.log.len(), w.schedule.next()), (0, None));
    w.event(Event::Link(LinkState::Up, MINE));
    assert_eq!(w.count(&Action::Probe(vip(1))), 1);
}

#[test]
fn address_that_another_may_believe_to_have_is_announced_anew() {
    let mut w = World::up();
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(10));
    let before = w.announced().len();
    w.event(Event::Announce([vip(1), vip(9)].into()));
    w.run_for(Duration::from_secs(6));
    assert_eq!(w.announced().len(), before + 6);
}

#[test]
fn open_address_stays_as_it_is() {
    let mut w = World::up();
    w.kernel = [vip(1), vip(2)].into();
    w.event(Event::Kernel { ours: w.kernel.clone(), others: BTreeSet::new() });
    w.event(Event::Hold { held: BTreeSet::new(), unsure: BTreeSet::new(), open: [vip(1), vip(3)].into() });
    w.run_for(Duration::from_secs(10));
    assert_eq!(w.log.iter().map(|(_, a)| a.clone()).collect::<Vec<_>>(), [Action::Remove(vip(2))]);
    w.event(hold(&[1]));
    assert_eq!((w.count(&Action::Add(vip(1))), w.count(&Action::Announce(vip(1)))), (0, 1));
}

#[test]
fn under_elections_a_claim_is_answered_when_they_have_settled() {
    let mut w = World::up();
    w.schedule = Schedule::new(w.now, 7).elected();
    w.event(Event::Link(LinkState::Up, MINE));
    w.event(hold(&[1]));
    w.run_for(Duration::from_secs(10));
    let before = w.announced().len();
    w.event(Event::Claim(vip(1), OTHER));
    assert_eq!(w.announced().len(), before, "the loser must not have the last word");
    w.run_for(PATIENCE);
    assert_eq!(w.announced().len(), before + 1);
}
