//! One router, clause by clause.

use super::*;

const INTERVAL: Duration = Duration::from_millis(100);
const MINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5));
const LOWER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 4));
const HIGHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 6));

fn settings() -> Settings {
    Settings { interval: INTERVAL, preempt: true, preempt_delay: Duration::ZERO, alone: false }
}

struct World {
    machine: Machine,
    now: Instant,
}

impl World {
    fn joined(settings: Settings, priority: u8) -> Self {
        let now = Instant::now();
        let mut world = Self { machine: Machine::new(settings, MINE, now), now };
        world.machine.on(Event::Join { priority, source: MINE }, now);
        world
    }

    fn active(priority: u8) -> Self {
        let mut world = Self::joined(settings(), priority);
        world.wait(400);
        assert_eq!(world.machine.state(), "active");
        world
    }

    fn wait(&mut self, ms: u64) -> Vec<Action> {
        let end = self.now + Duration::from_millis(ms);
        let mut actions = Vec::new();
        while let Some(next) = self.machine.next().filter(|n| *n <= end) {
            self.now = self.now.max(next);
            actions.extend(self.machine.on(Event::Tick, self.now));
        }
        self.now = end;
        actions
    }

    fn heard(&mut self, from: IpAddr, priority: u8, interval_ms: u64) -> Vec<Action> {
        let interval = Duration::from_millis(interval_ms);
        self.machine.on(Event::Heard { from, priority, interval }, self.now)
    }

    fn due_in(&self) -> u128 {
        self.machine.next().map_or(0, |n| (n - self.now).as_micros())
    }
}

#[test]
fn active_down_interval_is_three_adverts_and_the_skew() {
    for (priority, us) in [(100, 360_937), (254, 300_781), (1, 399_609)] {
        assert_eq!(World::joined(settings(), priority).due_in(), us);
    }
}

#[test]
fn silence_makes_it_active_and_it_speaks_at_every_interval() {
    let mut w = World::joined(settings(), 200);
    assert_eq!(w.wait(322), [Action::Hold, Action::Send { priority: 200 }]);
    assert_eq!(w.wait(1000), [Action::Send { priority: 200 }; 10]);
}

#[test]
fn owner_is_active_at_once() {
    assert_eq!(World::joined(settings(), 255).machine.state(), "active");
}

#[test]
fn backup_adopts_the_interval_of_the_active_router() {
    let mut w = World::joined(settings(), 100);
    w.heard(LOWER, 200, 1000);
    assert_eq!(w.due_in(), 3_609_375);
    w.heard(LOWER, 200, 10);
    assert_eq!(w.due_in(), 36_093);
}

#[test]
fn priority_zero_shortens_the_wait_to_the_skew() {
    let mut w = World::joined(settings(), 250);
    w.heard(LOWER, 251, 100);
    w.heard(LOWER, 0, 100);
    assert_eq!(w.due_in(), 2_343);
    // Many of them don't push it away.
    w.wait(1);
    w.heard(LOWER, 0, 100);
    assert_eq!(w.due_in(), 1_343);
}

#[test]
fn lower_active_router_is_preempted_when_its_time_is_over() {
    let mut w = World::joined(settings(), 200);
    for _ in 0..3 {
        w.wait(100);
        assert_eq!(w.heard(LOWER, 100, 100), []);
    }
    assert_eq!(w.wait(30), [Action::Hold, Action::Send { priority: 200 }]);
}

#[test]
fn without_preemption_it_waits_for_silence() {
    let mut w = World::joined(Settings { preempt: false, ..settings() }, 200);
    for _ in 0..50 {
        w.wait(100);
        assert_eq!(w.heard(LOWER, 100, 100), []);
    }
    assert_eq!(w.wait(325), [Action::Hold, Action::Send { priority: 200 }]);
}

#[test]
fn preemption_waits_for_its_delay() {
    let mut w = World::joined(Settings { preempt_delay: Duration::from_secs(2), ..settings() }, 200);
    let mut actions = Vec::new();
    for _ in 0..20 {
        actions.extend(w.wait(100));
        actions.extend(w.heard(LOWER, 100, 100));
    }
    assert_eq!(actions, []);
    for _ in 0..6 {
        actions.extend(w.wait(100));
        if actions.is_empty() {
            actions.extend(w.heard(LOWER, 100, 100));
        }
    }
    assert!(actions.contains(&Action::Hold));
}

#[test]
fn equal_priorities_go_by_the_greater_address() {
    let mut w = World::active(100);
    assert_eq!(w.heard(HIGHER, 100, 100), [Action::Send { priority: 100 }, Action::Release]);
    assert_eq!(w.machine.state(), "backup");
    let mut w = World::active(100);
    assert_eq!(w.heard(LOWER, 100, 100), [Action::Send { priority: 100 }, Action::Announce]);
    assert_eq!(w.machine.state(), "active");
}

#[test]
fn higher_priority_makes_it_step_down_and_lower_is_answered_at_once() {
    let mut w = World::active(100);
    assert_eq!(w.heard(HIGHER, 99, 100), [Action::Send { priority: 100 }, Action::Announce]);
    w.wait(20);
    assert_eq!(w.heard(LOWER, 101, 100), [Action::Send { priority: 100 }, Action::Release]);
}

#[test]
fn flood_of_lower_adverts_makes_no_flood_of_answers() {
    let mut w = World::active(100);
    let mut answers = 0;
    for _ in 0..10_000 {
        w.now += Duration::from_micros(100);
        answers += w.heard(LOWER, 50, 100).len();
    }
    assert!((100..=103).contains(&answers), "{answers}");
}

#[test]
fn leaving_holds_on_until_somebody_else_speaks() {
    let mut w = World::active(100);
    assert_eq!(w.machine.on(Event::Leave { rejoin: false }, w.now), [Action::Send { priority: 0 }]);
    assert!(w.machine.holds());
    assert_eq!(w.heard(LOWER, 50, 100), [Action::Release]);
    assert_eq!(w.machine.state(), "idle");
}

#[test]
fn who_hands_over_lingers_and_who_woke_too_late_does_not() {
    let mut w = World::active(100);
    w.machine.on(Event::Leave { rejoin: true }, w.now);
    w.heard(LOWER, 50, 100);
    assert!(w.machine.lingers() && !w.machine.holds());
    w.wait(299);
    assert!(w.machine.lingers());
    w.wait(1);
    assert!(!w.machine.lingers());
    // Of two that leave, the one that goes first knows of nobody who has the addresses for good.
    let mut w = World::active(100);
    w.machine.on(Event::Leave { rejoin: true }, w.now);
    w.heard(HIGHER, 0, 100);
    assert!(!w.machine.holds() && !w.machine.lingers());
    let mut w = World::active(100);
    w.now += Duration::from_millis(300);
    w.heard(HIGHER, 200, 100);
    assert_eq!((w.machine.state(), w.machine.lingers()), ("backup", false));
    let mut w = World::active(100);
    w.heard(HIGHER, 200, 100);
    w.machine.on(Event::Fault, w.now);
    assert!(!w.machine.lingers());
}

#[test]
fn who_leaves_holds_on_while_nobody_comes() {
    let mut w = World::active(100);
    w.machine.on(Event::Leave { rejoin: false }, w.now);
    assert_eq!(w.wait(1000), [Action::Send { priority: 0 }; 10], "better a node that should not than none");
    assert_eq!(w.heard(LOWER, 0, 100), []);
    assert_eq!(w.heard(HIGHER, 0, 100), [Action::Release], "of two that leave one stays");
    let mut w = World::active(100);
    w.machine.on(Event::Leave { rejoin: true }, w.now);
    assert_eq!(w.wait(300), [Action::Send { priority: 0 }; 3]);
    assert_eq!(w.wait(100), [Action::Send { priority: 100 }], "it never let go");
}

#[test]
fn what_was_given_away_is_not_taken_back_while_somebody_has_it() {
    let mut w = World::active(200);
    w.machine.on(Event::Leave { rejoin: true }, w.now);
    w.heard(LOWER, 100, 100);
    for _ in 0..100 {
        assert_eq!(w.wait(100), []);
        w.heard(LOWER, 100, 100);
    }
    assert!(w.wait(330).contains(&Action::Hold), "until there is silence");
}

#[test]
fn who_drained_and_comes_back_has_its_rank_again() {
    let mut w = World::active(200);
    w.machine.on(Event::Leave { rejoin: false }, w.now);
    w.heard(LOWER, 100, 100);
    assert_eq!(w.machine.state(), "idle");
    w.machine.on(Event::Join { priority: 200, source: MINE }, w.now);
    let mut actions = Vec::new();
    for _ in 0..4 {
        actions.extend(w.wait(100));
        if actions.is_empty() {
            actions.extend(w.heard(LOWER, 100, 100));
        }
    }
    assert!(actions.contains(&Action::Hold));
}

#[test]
fn taking_prevails_over_any_rank_until_somebody_stronger_comes() {
    let mut w = World::joined(settings(), 100);
    w.heard(LOWER, 250, 100);
    assert_eq!(w.machine.on(Event::Take, w.now), [Action::Hold], "it holds them before the other lets go");
    assert_eq!(w.wait(20), [Action::Send { priority: 254 }]);
    assert_eq!(w.heard(HIGHER, 250, 100)[0], Action::Send { priority: 254 });
    assert_eq!(w.heard(HIGHER, 255, 100), [Action::Send { priority: 254 }, Action::Release]);
    assert_eq!(w.machine.priority(), 100);
    // Against one that was taken as well.
    let mut w = World::joined(settings(), 100);
    w.heard(LOWER, 254, 100);
    w.machine.on(Event::Take, w.now);
    assert_eq!(w.wait(20), [Action::Send { priority: 255 }]);
}

#[test]
fn priority_changes_live_and_is_told_at_once() {
    let mut w = World::active(100);
    assert_eq!(w.machine.on(Event::Join { priority: 50, source: MINE }, w.now), [Action::Send { priority: 50 }]);
    assert_eq!(w.machine.on(Event::Join { priority: 50, source: MINE }, w.now), []);
}

#[test]
fn who_woke_too_late_steps_down_before_it_speaks() {
    let mut w = World::active(100);
    w.now += Duration::from_millis(250);
    assert_eq!(w.machine.on(Event::Tick, w.now), [Action::Send { priority: 100 }], "nobody can have taken over yet");
    w.now += Duration::from_millis(300);
    assert_eq!(w.machine.on(Event::Tick, w.now), [Action::Release]);
    assert_eq!((w.machine.state(), w.machine.counts.fenced), ("backup", 1));
    // Nobody else is there, or may be.
    let mut w = World::active(100);
    w.machine.is_alone(true);
    w.now += Duration::from_mins(1);
    assert_eq!(w.machine.on(Event::Tick, w.now), [Action::Send { priority: 100 }]);
}

#[test]
fn lost_link_releases_without_a_word() {
    let mut w = World::active(100);
    assert_eq!(w.machine.on(Event::Fault, w.now), [Action::Release]);
    assert_eq!(w.machine.next(), None);
}
