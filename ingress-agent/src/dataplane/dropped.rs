//! Clients that XDP keeps from the proxy for a while: `DROPPED`, and what this agent knows of it. Who belongs there is not decided here. An
//! entry ends by its time also without an agent; this one removes it then, and says when nobody is left, so that no packet asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use xdp_ebpf::map::DROPPED_MOST;
use xdp_ebpf::{Addr, Config};

use super::Dataplane;
use super::fence::nanoseconds;
use super::maps::{Maps, removed};
use super::pool::{addr, ip};
use crate::model::offence::{DroppedClient, Offence};
use crate::model::snapshot::ObjectName;

/// Word of a [`Config`].
const DROPPING: usize = std::mem::offset_of!(Config, dropping) / 8;

#[derive(Debug, Default)]
pub(super) struct Dropped {
    entries: BTreeMap<Addr, Entry>,
    /// The same, the one that ends first in front.
    ends: BTreeSet<(u64, Addr)>,
}

#[derive(Debug)]
struct Entry {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    until: u64,
    owner: Option<Arc<ObjectName>>,
}

impl Dropped {
    /// What an earlier agent left goes on where this one drops clients, too; else it ends now.
    pub(super) fn adopt(maps: &mut Maps, goes_on: bool, now: u64) -> Result<Self> {
        let mut dropped = Self::default();
        let found: Vec<(Addr, u64)> = maps.dropped.iter().collect::<Result<_, _>>().context("read DROPPED")?;
        for (client, until) in found {
            if goes_on && until > now {
                dropped.entries.insert(client, Entry { until, owner: None });
                dropped.ends.insert((until, client));
            } else {
                take_out(maps, &client)?;
            }
        }
        dropped.say(maps);
        Ok(dropped)
    }

    /// Where there is no room, the one that would end first gives way. False: it was there already.
    fn add(&mut self, maps: &mut Maps, offence: &Offence, now: u64) -> Result<bool> {
        let client = addr(offence.client);
        let until = now.saturating_add(u64::try_from(offence.lasts.as_nanos()).unwrap_or(u64::MAX));
        let before = self.entries.get(&client).map(|entry| entry.until);
        // Another Ingress's longer time stays.
        if before.is_some_and(|before| before >= until) {
            return Ok(false);
        }
        if before.is_none()
            && self.entries.len() >= DROPPED_MOST as usize
            && let Some((_, first)) = self.ends.first().copied()
        {
            self.remove(maps, &first)?;
        }
        maps.dropped.insert(client, until, 0).with_context(|| format!("put {} into DROPPED", offence.client))?;
        if let Some(before) = before {
            self.ends.remove(&(before, client));
        }
        self.ends.insert((until, client));
        self.entries.insert(client, Entry { until, owner: Some(Arc::clone(&offence.owner)) });
        self.say(maps);
        Ok(before.is_none())
    }

    /// Whether it was there.
    fn remove(&mut self, maps: &mut Maps, client: &Addr) -> Result<bool> {
        let Some(until) = self.entries.get(client).map(|entry| entry.until) else { return Ok(false) };
        take_out(maps, client)?;
        self.entries.remove(client);
        self.ends.remove(&(until, *client));
        self.say(maps);
        Ok(true)
    }

    /// Removes those whose time is over.
    pub(super) fn expire(&mut self, maps: &mut Maps) -> Result<()> {
        let now = nanoseconds();
        while let Some((_, client)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.remove(maps, &client)?;
        }
        Ok(())
    }

    /// For how long a client is dropped yet, and whose limits it exceeded.
    pub(super) fn find(&self, client: &Addr) -> Option<(Duration, Option<&ObjectName>)> {
        let entry = self.entries.get(client)?;
        let left = entry.until.checked_sub(nanoseconds()).filter(|left| *left > 0)?;
        Some((Duration::from_nanos(left), entry.owner.as_deref()))
    }

    /// Tells the programs whether to ask.
    fn say(&self, maps: &Maps) {
        maps.config.word(0, DROPPING).store(u64::from(!self.entries.is_empty()), Ordering::Release);
    }
}

fn take_out(maps: &mut Maps, client: &Addr) -> Result<()> {
    removed(maps.dropped.remove(client)).with_context(|| format!("remove {} from DROPPED", ip(client)))
}

impl Dataplane {
    /// From now on, and for the time said, what the client sends to ports of the proxy is dropped, open connections included. Who is dropped
    /// already (false) is so for the longer of the two times.
    pub fn drop_client(&mut self, offence: &Offence) -> Result<bool> {
        self.dropped.add(&mut self.image.maps, offence, nanoseconds())
    }

    /// Lets a client go. False: it was not dropped.
    pub fn release_client(&mut self, client: IpAddr) -> Result<bool> {
        self.dropped.expire(&mut self.image.maps)?;
        self.dropped.remove(&mut self.image.maps, &addr(client))
    }

    /// Who is dropped now, by address.
    pub fn dropped_clients(&self) -> Vec<DroppedClient> {
        let now = nanoseconds();
        let entries = self.dropped.entries.iter().filter(|(_, entry)| entry.until > now);
        let client = |(client, entry): (&Addr, &Entry)| DroppedClient {
            client: ip(client),
            owner: entry.owner.clone(),
            left: Duration::from_nanos(entry.until - now),
        };
        entries.map(client).collect()
    }
}
