//! A DNS server for tests: UDP, one thread of this process, and answers that the test changes while it runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Cname};

use crate::netns::Namespace;

/// How often the server looks whether it should end.
const PAUSE: Duration = Duration::from_millis(20);

/// What is said of a name. There are no IPv6 addresses.
#[derive(Clone, Debug)]
pub enum Record {
    Addresses {
        addresses: Vec<Ipv4Addr>,
        ttl: u32,
    },
    Alias {
        name: &'static str,
        ttl: u32,
    },
    /// SERVFAIL.
    Broken,
}

#[derive(Debug, Default)]
struct Zone {
    records: BTreeMap<String, Record>,
    asked: BTreeMap<String, usize>,
}

/// Ends when it drops.
#[derive(Debug)]
pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
}

impl Dns {
    pub fn start(ns: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = ns.inside(|| UdpSocket::bind(address)).with_context(|| format!("bind {address}"))?;
        socket.set_read_timeout(Some(PAUSE))?;
        let dns = Self { zone: Arc::default(), stop: Arc::default() };
        let (zone, stop) = (Arc::clone(&dns.zone), Arc::clone(&dns.stop));
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
                // What is no question gets no answer.
                if let Some(answer) = answer(&buffer[..length], &mut zone) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Ok(dns)
    }

    /// From now on; a name of which nothing was said does not exist.
    pub fn say(&self, name: &str, record: Record) {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).records.insert(name.to_owned(), record);
    }

    /// How often a name's IPv4 addresses were asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).asked.get(name).copied().unwrap_or_default()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn answer(question: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let message = Message::from_octets(question).ok()?;
    let asked = message.sole_question().ok()?;
    let v4 = asked.qtype() == Rtype::A;
    let mut name = asked.qname().to_string();
    if v4 {
        *zone.asked.entry(name.clone()).or_default() += 1;
    }
    let builder = || MessageBuilder::from_target(Vec::new()).ok();
    let rcode = match zone.records.get(&name) {
        None => Rcode::NXDOMAIN,
        Some(Record::Broken) => Rcode::SERVFAIL,
        Some(_) => Rcode::NOERROR,
    };
    let mut answer = builder()?.start_answer(&message, rcode).ok()?;
    while let Some(Record::Alias { name: next, ttl }) = zone.records.get(&name) {
        let (own, target): (Name<Vec<u8>>, Name<Vec<u8>>) = (name.parse().ok()?, next.parse().ok()?);
        answer.push((&own, *ttl, Cname::new(target))).ok()?;
        (*next).clone_into(&mut name);
    }
    if let (true, Some(Record::Addresses { addresses, ttl })) = (v4, zone.records.get(&name)) {
        let own: Name<Vec<u8>> = name.parse().ok()?;
        for address in addresses {
            answer.push((&own, *ttl, A::new(*address))).ok()?;
        }
    }
    Some(answer.finish())
}
