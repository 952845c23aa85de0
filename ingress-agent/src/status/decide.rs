//! What has to be written into the status of one object, given what it is owed and what is there. Pure.
//!
//! An object that is ours by its class is ours in `status.loadBalancer`, too, whoever wrote it before: that field belongs to
//! the implementation of the load balancer, as in `MetalLB` and ingress-nginx, and so we take it by force. But only once there
//! is something to say: until an address is announced, what another one left stays, since clients may still use it, and it is
//! how an address survives a change of the implementation. An object that is not ours is left alone, but for what we wrote
//! ourselves (its class or type has changed since), and that is given up without force: what another one has written
//! meanwhile stays.
//!
//! A status is empty while nobody announces, and then nothing would say which address a Service has. So its addresses are
//! recorded in an annotation as well, as soon as they are assigned: the address outlives a restart of all edges at once.

use std::net::IpAddr;

use super::pool::{PoolStatus, SeenPool};

/// One entry of `status.loadBalancer.ingress`, as it is or shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) ip: String,
    pub(super) hostname: String,
    /// Only Services have it. Empty: none.
    pub(super) ip_mode: String,
}

impl Entry {
    pub(super) fn address(address: IpAddr, mode: &str) -> Self {
        Self { ip: address.to_string(), hostname: String::new(), ip_mode: mode.to_owned() }
    }

    /// However its address is written.
    pub(super) fn is(&self, other: &Self) -> bool {
        let address = |entry: &Self| entry.ip.parse::<IpAddr>().ok();
        self.hostname == other.hostname
            && self.ip_mode == other.ip_mode
            && (self.ip == other.ip || address(self).is_some_and(|a| address(other) == Some(a)))
    }

    /// Its address, or the name of one.
    pub(super) fn text(&self) -> &str {
        if self.ip.is_empty() { &self.hostname } else { &self.ip }
    }
}

/// What the API server says of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) entries: Vec<Entry>,
    /// [`RECORD`]; empty: none.
    pub(super) record: String,
    /// Our field manager has written the status.
    pub(super) ours: bool,
    /// It has written anything.
    pub(super) known: bool,
    /// Another one who has.
    pub(super) other: Option<String>,
    /// Of a VirtualIPPool, which has no entries.
    pub(super) pool: Option<Box<SeenPool>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Put {
        /// `None`: no record is kept of such an object.
        record: Option<Vec<IpAddr>>,
        /// These and nothing else, be it none. `None`: what another one has written stays.
        status: Option<Vec<Entry>>,
    },
    /// Nothing of ours.
    GiveUp,
    /// Of a VirtualIPPool. Times that are empty are now.
    Pool(Box<PoolStatus>),
}

/// KEP-1860: kube-proxy neither takes the address for its own nor short-cuts to it, so that packets from inside the cluster come to
/// the edge like any others, with its ports, its source ranges and its HTTP.
pub(super) const IP_MODE: &str = "Proxy";

/// The annotation with the addresses that were assigned. It is a wish like any other to those who read it: whoever may write a
/// Service may write it.
pub(super) const RECORD: &str = "sluicegate.io/assigned";

/// How objects of a kind are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form<'a> {
    /// Empty: entries have none.
    pub(super) mode: &'static str,
    pub(super) record: bool,
    /// Said instead of the announced addresses, while there are any. Empty: those are said.
    pub(super) instead: &'a [Entry],
}

/// `served`: where the object is served, if it is ours. `announced` says which addresses some node answers for.
pub(super) fn decide(
    form: Form<'_>,
    served: Option<&[IpAddr]>,
    announced: impl Fn(&IpAddr) -> bool,
    seen: &Seen,
) -> Option<Write> {
    let Some(served) = served else {
        return seen.known.then_some(Write::GiveUp);
    };
    let record = form.record.then(|| served.to_vec());
    let recorded = record.as_ref().is_none_or(|r| seen.record == words(r));
    let announced: Vec<IpAddr> = served.iter().copied().filter(|a| announced(a)).collect();
    let wanted: Vec<Entry> = if announced.is_empty() || form.instead.is_empty() {
        announced.into_iter().map(|address| Entry::address(address, form.mode)).collect()
    } else {
        form.instead.to_vec()
    };
    if wanted.is_empty() {
        let withdrawn = !seen.ours || seen.entries.is_empty();
        let status = seen.ours.then_some(wanted);
        return (!withdrawn || !recorded).then_some(Write::Put { record, status });
    }
    let right = wanted.len() == seen.entries.len() && wanted.iter().zip(&seen.entries).all(|(new, old)| new.is(old));
    (!right || !seen.ours || !recorded).then_some(Write::Put { record, status: Some(wanted) })
}

/// `203.0.113.10,2001:db8::10`.
pub(super) fn words(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// Whether this takes something away from clients.
pub(super) fn withdraws(write: &Write, seen: &Seen) -> bool {
    let entries = match write {
        Write::GiveUp => return true,
        Write::Put { status: Some(entries), .. } => entries,
        Write::Put { status: None, .. } | Write::Pool(_) => return false,
    };
    !seen.entries.iter().all(|before| says(entries, before))
}

/// Whether the address or name of `entry` is among them, in whatever mode.
pub(super) fn says(entries: &[Entry], entry: &Entry) -> bool {
    entries.iter().any(|e| Entry { ip_mode: entry.ip_mode.clone(), ..e.clone() }.is(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|a| a.parse().expect("an address")).collect()
    }

    fn seen(entries: &str, ours: bool) -> Seen {
        let entry = |text: &str| {
            let (ip, mode) = text.split_once('/').unwrap_or((text, ""));
            if ip.parse::<IpAddr>().is_err() {
                return Entry { hostname: ip.into(), ..Entry::default() };
            }
            Entry { ip: ip.into(), ip_mode: mode.into(), ..Entry::default() }
        };
        Seen { entries: entries.split_whitespace().map(entry).collect(), ours, known: ours, ..Seen::default() }
    }

    const FORM: Form<'_> = Form { mode: IP_MODE, record: false, instead: &[] };

    fn entries(text: &str) -> Vec<Entry> {
        addresses(text).into_iter().map(|address| Entry::address(address, IP_MODE)).collect()
    }

    fn put(text: &str) -> Write {
        Write::Put { record: None, status: Some(entries(text)) }
    }

    /// Of a Service: where it is served (`None`: it is not ours), what is announced, its status, and what follows.
    #[track_caller]
    fn check(served: Option<&str>, announced: &str, status: &str, ours: bool, expected: Option<&str>) {
        let (served, announced) = (served.map(addresses), addresses(announced));
        let write = decide(FORM, served.as_deref(), |a| announced.contains(a), &seen(status, ours));
        let expected = expected.map(|text| if text == "give up" { Write::GiveUp } else { put(text) });
        assert_eq!(write, expected);
    }

    #[test]
    fn an_address_is_there_exactly_while_it_is_announced() {
        check(Some("10.0.0.1"), "", "", false, None);
        check(Some("10.0.0.1"), "10.0.0.2", "", false, None);
        check(Some("10.0.0.1"), "10.0.0.1", "", false, Some("10.0.0.1"));
        check(Some("10.0.0.1"), "10.0.0.1", "10.0.0.1/Proxy", true, None);
        check(Some("10.0.0.1"), "", "10.0.0.1/Proxy", true, Some(""));
        check(Some("10.0.0.1"), "", "", true, None);
        check(Some("10.0.0.1 fd00::1"), "10.0.0.1", "", false, Some("10.0.0.1"));
        check(Some("10.0.0.1 fd00::1"), "10.0.0.1 fd00::1", "10.0.0.1/Proxy", true, Some("10.0.0.1 fd00::1"));
        check(Some("10.0.0.1 fd00::1"), "10.0.0.1 fd00::1", "10.0.0.1/Proxy fd00:0::1/Proxy", true, None);
        check(Some("10.0.0.2"), "10.0.0.2", "10.0.0.1/Proxy", true, Some("10.0.0.2"));
    }

    #[test]
    fn what_another_one_wrote_into_ours_is_taken_over_when_there_is_something_to_say() {
        check(Some("10.0.0.1"), "", "10.0.0.7", false, None);
        check(Some("10.0.0.1"), "10.0.0.1", "10.0.0.7", false, Some("10.0.0.1"));
        // The right address, but written by another one: else it could not be withdrawn.
        check(Some("10.0.0.1"), "10.0.0.1", "10.0.0.1/Proxy", false, Some("10.0.0.1"));
        // The mode is a part of it, and so is a name that we did not give.
        check(Some("10.0.0.1"), "10.0.0.1", "10.0.0.1/VIP", true, Some("10.0.0.1"));
        check(Some("10.0.0.1"), "10.0.0.1", "edge.example", true, Some("10.0.0.1"));
    }

    #[test]
    fn what_is_not_ours_is_left_alone_but_for_what_we_wrote() {
        check(None, "10.0.0.1", "10.0.0.1/Proxy", false, None);
        check(None, "10.0.0.1", "", false, None);
        check(None, "10.0.0.1", "10.0.0.1/Proxy", true, Some("give up"));
    }

    #[test]
    fn taking_away_is_told_from_adding() {
        for (to, from, away) in [
            ("10.0.0.1", "", false),
            ("10.0.0.1 10.0.0.2", "10.0.0.1", false),
            ("10.0.0.2", "10.0.0.1", true),
            ("", "10.0.0.1", true),
        ] {
            assert_eq!(withdraws(&put(to), &seen(from, true)), away, "{from} to {to}");
        }
        assert!(withdraws(&Write::GiveUp, &seen("", true)));
    }

    #[test]
    fn what_is_published_instead_is_there_while_an_address_is_announced() {
        let instead = [
            Entry { hostname: "edge.example".into(), ..Entry::default() },
            Entry { ip: "192.0.2.1".into(), ..Entry::default() },
        ];
        let form = Form { mode: "", record: false, instead: &instead };
        let one = addresses("10.0.0.1");
        let published = Some(Write::Put { record: None, status: Some(instead.to_vec()) });
        let nothing = Some(Write::Put { record: None, status: Some(Vec::new()) });
        for (announced, status, ours, expected) in [
            (false, "", false, &None),
            (true, "", false, &published),
            (true, "10.0.0.1", true, &published),
            (true, "edge.example 192.0.2.1", true, &None),
            (true, "192.0.2.1 edge.example", true, &published),
            (false, "edge.example 192.0.2.1", true, &nothing),
        ] {
            assert_eq!(decide(form, Some(&one), |_| announced, &seen(status, ours)), *expected, "{status}");
        }
    }

    #[test]
    fn an_assigned_address_is_recorded_before_it_is_announced_and_while_it_is_not() {
        let form = Form { record: true, ..FORM };
        let one = addresses("10.0.0.1");
        let wrote = |status: Option<&str>| Some(Write::Put { record: Some(one.clone()), status: status.map(entries) });
        for (record, announced, status, ours, expected) in [
            ("", false, "", false, wrote(None)),
            // What another implementation has written stays until there is something to say.
            ("", false, "10.0.0.7", false, wrote(None)),
            ("10.0.0.1", false, "10.0.0.7", false, None),
            ("10.0.0.1", true, "10.0.0.7", false, wrote(Some("10.0.0.1"))),
            ("10.0.0.1", true, "10.0.0.1/Proxy", true, None),
            ("10.0.0.9", true, "10.0.0.1/Proxy", true, wrote(Some("10.0.0.1"))),
            ("10.0.0.1", false, "10.0.0.1/Proxy", true, wrote(Some(""))),
            ("10.0.0.1", false, "", true, None),
        ] {
            let seen = Seen { record: record.into(), ..seen(status, ours) };
            assert_eq!(decide(form, Some(&one), |_| announced, &seen), expected, "{seen:?}");
        }
        let recorded = Seen { known: true, ..seen("", false) };
        assert_eq!(decide(form, None, |_| true, &recorded), Some(Write::GiveUp));
    }
}
