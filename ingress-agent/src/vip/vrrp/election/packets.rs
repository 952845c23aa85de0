//! What comes in, judged, and what goes out.

use std::net::IpAddr;
use std::time::Instant;

use super::super::packet::{Advert, Checksum, Envelope, GROUP_V4, GROUP_V6, Reject, Version, append};
use super::{Action, Election, Key, machine};

impl Election {
    /// What the packet says to which router.
    pub(super) fn packet(
        &mut self,
        envelope: &Envelope,
        payload: &[u8],
        mac: [u8; 6],
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Result<(Key, machine::Event), Reject> {
        let (message, trailer, advert) = match &self.auth {
            None => (payload, None, Advert::decode(payload, envelope)?),
            Some(_) => Advert::decode_signed(payload, envelope)?,
        };
        let v4 = envelope.source.is_ipv4();
        let key = (advert.vrid, v4);
        let source = self.source(v4);
        if source == Some(envelope.source) {
            return Err(Reject::OwnAddress);
        }
        self.way(envelope, source)?;
        if advert.version != self.version(v4) {
            return Err(Reject::Version);
        }
        let router = self.routers.get_mut(&key).ok_or(Reject::Vrid)?;
        if advert.version == Version::V2 {
            if advert.password != self.options.password {
                return Err(Reject::Authentication);
            }
            // RFC 3768 §7.1: in version 2 all must agree.
            if advert.interval != self.options.interval {
                return Err(Reject::Interval);
            }
        }
        if !advert.addresses.iter().any(|a| router.group.addresses.contains(a)) {
            self.saw_foreign(&advert, envelope.source, mac, now, actions);
            return Err(Reject::AddressList);
        }
        if let Some(auth) = &mut self.auth {
            auth.check(message, trailer, envelope.source, now)?;
        }
        self.stirred |= !router.heard;
        router.heard = true;
        router.from = mac;
        self.peers.heard(mac, now);
        let event =
            machine::Event::Heard { from: envelope.source, priority: advert.priority, interval: advert.interval };
        Ok((key, event))
    }

    fn way(&self, envelope: &Envelope, own: Option<IpAddr>) -> Result<(), Reject> {
        let multicast = [IpAddr::from(GROUP_V4), IpAddr::from(GROUP_V6)].contains(&envelope.destination);
        let good = if self.peers(envelope.source.is_ipv4()).next().is_none() {
            multicast
        } else {
            self.options.peers.contains(&envelope.source) && own == Some(envelope.destination)
        };
        if good { Ok(()) } else { Err(Reject::Peer) }
    }

    fn peers(&self, v4: bool) -> impl Iterator<Item = IpAddr> {
        self.options.peers.iter().copied().filter(move |p| p.is_ipv4() == v4)
    }

    fn version(&self, v4: bool) -> Version {
        if v4 { self.options.version } else { Version::V3 }
    }

    pub(super) fn send(
        &mut self,
        (vrid, v4): Key,
        source: IpAddr,
        priority: u8,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(router) = self.routers.get(&(vrid, v4)) else { return };
        let version = self.version(v4);
        let advert = Advert {
            version,
            vrid,
            priority,
            interval: self.options.interval,
            addresses: router.advertised.clone(),
            password: self.options.password.filter(|_| version == Version::V2),
        };
        let group = if v4 { IpAddr::from(GROUP_V4) } else { IpAddr::from(GROUP_V6) };
        let mut peers: Vec<IpAddr> = self.peers(v4).collect();
        if peers.is_empty() {
            peers.push(group);
        }
        let signed = self.auth.as_mut().filter(|_| version == Version::V3);
        let trailer = signed.map(|auth| auth.trailer(&advert.encode(source, group, Checksum::Plain), source, now));
        for destination in peers {
            let mut payload = advert.encode(source, destination, self.options.checksum);
            if let Some(trailer) = &trailer {
                append(&mut payload, trailer, source, destination);
            }
            actions.push(Action::Send { source, destination, payload });
        }
    }
}
