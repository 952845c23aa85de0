//! Many routers on a bad network, replayed from seeds: loss, delay, duplication, partition, stalled clocks, crashes, commands.
//! After each step: nobody is missing for longer than the bound, and on a network that is whole there is one owner.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const INTERVAL: Duration = Duration::from_millis(100);
const DELAY_MS: u64 = 5;
/// Longest silence after which the weakest router takes over, a leaving one's patience included, and a delay each.
const BOUND: Duration = Duration::from_millis(4 * 100 + 4 * 100 + 20);

/// xorshift64* (Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Instant,
    to: usize,
    from: usize,
    priority: u8,
}

struct Node {
    machine: Machine,
    address: IpAddr,
    priority: u8,
    owns: bool,
    alive: bool,
    stalled_until: Instant,
    /// Which part of a partitioned network it is in.
    side: u64,
    inbox: Vec<(usize, u8)>,
}

struct World {
    seed: u64,
    dice: Dice,
    now: Instant,
    nodes: Vec<Node>,
    wire: BinaryHeap<Reverse<Packet>>,
    loss: u64,
    log: Vec<String>,
    start: Instant,
    /// Since when nobody has owned although somebody could.
    none_since: Option<Instant>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let start = Instant::now();
        let count = 2 + dice.roll(4) as usize;
        let settings = Settings {
            interval: INTERVAL,
            preempt: dice.chance(70),
            preempt_delay: Duration::from_millis(dice.roll(2) * 700),
            alone: false,
        };
        let mut node = |i: usize| {
            let address = IpAddr::from([10, 0, 0, 1 + i as u8]);
            // Equal priorities are about, too.
            let priority = 1 + dice.roll(5) as u8 * 60;
            Node {
                machine: Machine::new(settings, address, start),
                address,
                priority,
                owns: false,
                alive: true,
                stalled_until: start,
                side: 0,
                inbox: Vec::new(),
            }
        };
        let nodes: Vec<Node> = (0..count).map(&mut node).collect();
        let mut world = Self {
            seed,
            dice,
            now: start,
            nodes,
            wire: BinaryHeap::new(),
            loss: 0,
            log: Vec::new(),
            start,
            none_since: None,
        };
        for i in 0..count {
            world.join(i);
        }
        world
    }

    fn join(&mut self, i: usize) {
        let (priority, source) = (self.nodes[i].priority, self.nodes[i].address);
        self.event(i, Event::Join { priority, source });
    }

    fn say(&mut self, what: &str) {
        self.log.push(format!("{:>7} {what}", (self.now - self.start).as_millis()));
    }

    fn event(&mut self, i: usize, event: Event) {
        let before = self.nodes[i].machine.state();
        for action in self.nodes[i].machine.on(event, self.now) {
            match action {
                Action::Send { priority } => self.send(i, priority),
                Action::Hold => {
                    assert!(!self.nodes[i].owns, "taken twice; {}", self.story());
                    self.nodes[i].owns = true;
                }
                Action::Release => {
                    assert!(self.nodes[i].owns, "released twice; {}", self.story());
                    self.nodes[i].owns = false;
                }
                Action::Announce => assert!(self.nodes[i].owns, "announces what it has not; {}", self.story()),
            }
        }
        let after = self.nodes[i].machine.state();
        if before != after {
            self.say(&format!("node {i} {before} → {after} on {event:?}"));
        }
        let machine = &self.nodes[i].machine;
        assert_eq!(self.nodes[i].owns, machine.holds(), "{}", self.story());
        assert!(!(machine.holds() && machine.lingers()), "lingers over what it has; {}", self.story());
    }

    fn send(&mut self, from: usize, priority: u8) {
        for to in 0..self.nodes.len() {
            if to == from || self.nodes[to].side != self.nodes[from].side || self.dice.chance(self.loss) {
                continue;
            }
            for _ in 0..=u64::from(self.dice.chance(self.loss)) {
                let at = self.now + Duration::from_millis(self.dice.roll(DELAY_MS + 1));
                self.wire.push(Reverse(Packet { at, to, from, priority }));
            }
        }
    }

    fn is_up(&self, i: usize) -> bool {
        self.nodes[i].alive && self.nodes[i].stalled_until <= self.now
    }

    /// To the next thing that happens, but not past `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timer = |n: &Node| {
            let at = if n.inbox.is_empty() { n.machine.next()? } else { n.stalled_until };
            n.alive.then(|| at.max(n.stalled_until))
        };
        let timers = self.nodes.iter().filter_map(timer).min();
        let packet = self.wire.peek().map(|Reverse(p)| p.at);
        let Some(at) = timers.into_iter().chain(packet).min().filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        while let Some(Reverse(packet)) = self.wire.peek().copied().filter(|Reverse(p)| p.at <= self.now) {
            self.wire.pop();
            if self.nodes[packet.to].alive {
                self.nodes[packet.to].inbox.push((packet.from, packet.priority));
            }
        }
        for i in 0..self.nodes.len() {
            if !self.is_up(i) {
                continue;
            }
            // As the thread does it: first what was received, then the clock.
            for (from, priority) in std::mem::take(&mut self.nodes[i].inbox) {
                let from = self.nodes[from].address;
                self.event(i, Event::Heard { from, priority, interval: INTERVAL });
            }
            if self.nodes[i].machine.next().is_some_and(|n| n <= self.now) {
                self.event(i, Event::Tick);
            }
        }
        self.check_somebody();
        true
    }

    /// Loss makes more owners, never fewer.
    fn check_somebody(&mut self) {
        let could = (0..self.nodes.len()).any(|i| self.is_up(i) && self.nodes[i].machine.state() != "idle");
        let owned = self.nodes.iter().enumerate().any(|(i, n)| n.owns && self.is_up(i));
        if owned || !could {
            self.none_since = None;
            return;
        }
        let since = *self.none_since.get_or_insert(self.now);
        assert!(self.now <= since + BOUND, "nobody owns it; {}", self.story());
    }

    fn check_one(&self) {
        let owners = self.nodes.iter().filter(|n| n.owns).count();
        let can = self.nodes.iter().any(|n| n.alive && n.machine.state() != "idle");
        assert_eq!(owners, usize::from(can), "owners on a whole network; {}", self.story());
    }

    fn disturb(&mut self) {
        let i = self.dice.roll(self.nodes.len() as u64) as usize;
        match self.dice.roll(9) {
            0 => self.loss = self.dice.roll(60),
            1 => {
                for n in 0..self.nodes.len() {
                    self.nodes[n].side = self.dice.roll(2);
                }
                self.say(&format!("partition {:?}", self.nodes.iter().map(|n| n.side).collect::<Vec<_>>()));
            }
            2 => {
                let stall = Duration::from_millis(self.dice.roll(1500));
                self.nodes[i].stalled_until = self.now + stall;
                self.say(&format!("node {i} stalls for {stall:?}"));
                self.none_since = None;
            }
            3 => {
                self.say(&format!("node {i} dies"));
                self.nodes[i].alive = false;
                self.nodes[i].owns = false;
                self.nodes[i].inbox.clear();
                self.none_since = None;
            }
            4 => self.revive(i),
            _ if !self.is_up(i) => {}
            5 => {
                self.nodes[i].priority = 1 + self.dice.roll(250) as u8;
                if self.nodes[i].machine.state() != "idle" {
                    self.join(i);
                }
            }
            6 => self.event(i, Event::Take),
            7 => {
                let rejoin = self.dice.chance(50);
                self.event(i, Event::Leave { rejoin });
                self.none_since = None;
            }
            _ => {
                self.event(i, Event::Fault);
                self.none_since = None;
            }
        }
    }

    fn revive(&mut self, i: usize) {
        if !self.nodes[i].alive {
            let settings = self.nodes[i].machine.settings;
            self.nodes[i].machine = Machine::new(settings, self.nodes[i].address, self.now);
            self.nodes[i].alive = true;
            self.nodes[i].stalled_until = self.now;
            self.say(&format!("node {i} comes back"));
        }
        if self.is_up(i) {
            self.join(i);
        }
    }

    fn run(&mut self) {
        for _ in 0..12 {
            for _ in 0..self.dice.roll(6) {
                self.disturb();
                let end = self.now + Duration::from_millis(self.dice.roll(700));
                while self.step(end) {}
            }
            self.heal();
        }
    }

    /// The network is whole, no clock stalls, nobody is told anything: after the bound one owns it, and nothing changes that.
    fn heal(&mut self) {
        self.say("whole");
        self.loss = 0;
        for n in &mut self.nodes {
            n.side = 0;
            n.stalled_until = n.stalled_until.min(self.now);
        }
        let whole = self.now + BOUND + BOUND;
        while self.step(whole) {}
        let end = whole + Duration::from_secs(3);
        while self.step(end) {
            self.check_one();
        }
        self.check_one();
    }

    fn story(&self) -> String {
        let from = self.log.len().saturating_sub(40);
        format!("seed {}:\n{}", self.seed, self.log[from..].join("\n"))
    }
}

#[test]
fn one_owner_whatever_happened_before() {
    for seed in 1..=400 {
        World::new(seed).run();
    }
}

#[test]
fn cold_start_together_has_one_owner_and_the_strongest() {
    for seed in 1..=100 {
        let mut world = World::new(seed);
        let end = world.now + BOUND;
        while world.step(end) {}
        world.check_one();
        let strongest = world.nodes.iter().map(|n| (n.priority, n.address)).max();
        let owner = world.nodes.iter().find(|n| n.owns).map(|n| (n.priority, n.address));
        if world.nodes[0].machine.settings.preempt {
            assert_eq!(owner, strongest, "{}", world.story());
        }
    }
}
