//! One other edge: whether it is heard, what we asked it for, what it asked us for. Pure; time is an argument.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::datagram::Draft;
use super::replay::{Stale, Window};
use super::walk::Everything;

/// Without a word for this long a peer does not answer. They speak once a second at least.
pub(super) const SILENT: Duration = Duration::from_secs(3);
/// A request without an answer is repeated.
const REPEAT: Duration = Duration::from_millis(500);
/// An answer that comes no further is asked for anew.
const STALLED: Duration = Duration::from_secs(2);
/// An answer of which datagrams were lost is asked for again this often; then flows that are told again will fill the gaps.
const TRIES: u32 = 3;

pub(super) struct Peer {
    pub address: IpAddr,
    pub to: SocketAddr,
    window: Window,
    heard: Option<Instant>,
    /// Its clock less ours, in milliseconds, as of its last datagram.
    pub skew: i64,
    ask: Option<Ask>,
    /// It has told all that it had, once.
    pub complete: bool,
    pub answer: Option<Answer>,
    /// Entries from it that had an effect.
    pub taken: u64,
}

/// Our request for all of its flows.
#[derive(Debug)]
struct Ask {
    token: u64,
    /// Sent last, or heard of last.
    at: Option<Instant>,
    datagrams: u32,
    tries: u32,
}

/// Its request, on its way to be answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub token: u64,
    pub rest: Everything,
    pub draft: Draft,
    pub datagrams: u32,
}

impl Peer {
    pub(super) fn new(address: IpAddr, port: u16) -> Self {
        Self {
            address,
            to: SocketAddr::new(address, port),
            window: Window::default(),
            heard: None,
            skew: 0,
            ask: Some(Ask::new(0)),
            complete: false,
            answer: None,
            taken: 0,
        }
    }

    pub(super) fn accept(
        &mut self,
        (epoch, sequence, time): (u64, u64, u64),
        wall: u64,
        now: Instant,
    ) -> Result<(), Stale> {
        let result = self.window.accept(epoch, sequence, time, wall);
        if result == Err(Stale::Clock) {
            self.skew = time as i64 - wall as i64;
        }
        let fresh = result?;
        self.skew = time as i64 - wall as i64;
        // What was said meanwhile we have not heard.
        let was_away = self.heard.is_none_or(|heard| now.saturating_duration_since(heard) >= SILENT);
        if (fresh.started_anew || was_away) && self.ask.is_none() {
            self.ask = Some(Ask::new(0));
        }
        self.heard = Some(now);
        Ok(())
    }

    pub(super) fn is_heard(&self, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now.saturating_duration_since(heard) < SILENT)
    }

    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|heard| now.saturating_duration_since(heard))
    }

    /// Whether all its flows are being fetched.
    pub(super) fn is_asked(&self) -> bool {
        self.ask.is_some()
    }

    /// The token of a request that is to be sent now; `new` makes tokens.
    pub(super) fn request(&mut self, now: Instant, new: impl FnOnce() -> u64) -> Option<u64> {
        let ask = self.ask.as_mut()?;
        let patience = if ask.datagrams == 0 { REPEAT } else { STALLED };
        if ask.at.is_some_and(|at| now.saturating_duration_since(at) < patience) {
            return None;
        }
        if ask.token == 0 || ask.datagrams > 0 {
            (ask.token, ask.datagrams) = (new(), 0);
        }
        ask.at = Some(now);
        Some(ask.token)
    }

    /// A datagram of flows came under this token.
    pub(super) fn flows(&mut self, token: u64, now: Instant) {
        if let Some(ask) = self.ask.as_mut().filter(|ask| ask.token == token && token != 0) {
            ask.datagrams += 1;
            ask.at = Some(now);
        }
    }

    /// The end of an answer of so many datagrams.
    pub(super) fn end(&mut self, token: u64, datagrams: u32) {
        let Some(ask) = self.ask.as_ref().filter(|ask| ask.token == token && token != 0) else { return };
        let tries = ask.tries + 1;
        if ask.datagrams < datagrams && tries < TRIES {
            self.ask = Some(Ask::new(tries));
            return;
        }
        self.ask = None;
        self.complete = true;
    }

    /// It wants all flows of ours.
    pub(super) fn asked(&mut self, token: u64) {
        if self.answer.as_ref().is_none_or(|answer| answer.token != token) {
            self.answer = Some(Answer { token, rest: Everything::new(), draft: Draft::new(), datagrams: 0 });
        }
    }

    /// Whether nothing more is to be waited for before this node may take over: it has told all, or does not answer.
    pub(super) fn is_settled(&self, started: Instant, now: Instant) -> bool {
        self.complete || !self.is_heard(now) && now.saturating_duration_since(started) >= SILENT
    }
}

impl Ask {
    fn new(tries: u32) -> Self {
        Self { token: 0, at: None, datagrams: 0, tries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_800_000_000_000;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn peer() -> Peer {
        Peer::new("10.0.0.2".parse().expect("an address"), 9254)
    }

    #[test]
    fn a_request_is_repeated_until_the_answer_is_whole() {
        let (t, mut p, mut tokens) = (Instant::now(), peer(), 0);
        let mut new = || {
            tokens += 1;
            tokens
        };
        assert_eq!(p.request(t, &mut new), Some(1));
        assert_eq!(p.request(at(t, 499), &mut new), None);
        assert_eq!(p.request(at(t, 500), &mut new), Some(1), "the same again: perhaps it was lost");
        p.flows(1, at(t, 600));
        p.flows(99, at(t, 600));
        assert_eq!(p.request(at(t, 1200), &mut new), None, "it is coming");
        p.end(1, 2);
        assert!(!p.complete, "one of two datagrams was lost");
        assert_eq!(p.request(at(t, 1200), &mut new), Some(2));
        p.end(1, 1);
        assert!(!p.complete, "of the old request");
        p.flows(2, at(t, 1300));
        assert_eq!(p.request(at(t, 3300), &mut new), Some(3), "it stalled");
        p.flows(3, at(t, 3400));
        p.flows(3, at(t, 3400));
        p.end(3, 2);
        assert!(p.complete && !p.is_asked());
    }

    #[test]
    fn a_peer_that_comes_back_is_asked_again_and_one_that_is_silent_holds_up_nobody() {
        let (t, mut p) = (Instant::now(), peer());
        assert!(!p.is_settled(t, at(t, 2999)));
        assert!(p.is_settled(t, at(t, 3000)), "it does not answer");
        assert_eq!(p.accept((7, 1, WALL), WALL, at(t, 3100)), Ok(()));
        assert!(!p.is_settled(t, at(t, 3100)), "it is there, and has not told all");
        let token = p.request(at(t, 3100), || 5).expect("a request");
        p.end(token, 0);
        assert!(p.is_settled(t, at(t, 3200)));
        assert_eq!(p.accept((7, 2, WALL), WALL, at(t, 3300)), Ok(()));
        assert!(!p.is_asked());
        assert_eq!(p.accept((8, 1, WALL), WALL, at(t, 3400)), Ok(()));
        assert!(p.is_asked(), "it has started anew");
        assert!(p.is_settled(t, at(t, 3400)), "the first time is what counts");
        p.end(p.ask.as_ref().expect("asked").token, 0);
        let token = p.request(at(t, 3400), || 6).expect("a request");
        p.end(token, 0);
        assert_eq!(p.accept((8, 2, WALL), WALL, at(t, 9000)), Ok(()));
        assert!(p.is_asked(), "it was not heard for five seconds");
    }
}
