//! One question to the DNS, and how long its answer holds.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, Name, ToName};
use domain::rdata::{A, Aaaa, Soa};
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};

use super::table::{Answers, Found};

/// For all attempts together; the resolver's own limit is for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it holds that there is none, where the answer does not say.
const NONE_HOLDS: Duration = Duration::from_secs(30);

/// Without servers, those of `/etc/resolv.conf` as it is now.
pub(super) fn resolver(servers: &[SocketAddr]) -> StubResolver {
    if servers.is_empty() {
        return StubResolver::new();
    }
    let mut conf = ResolvConf::new();
    conf.servers = servers.iter().map(|address| ServerConf::new(*address, Transport::UdpTcp)).collect();
    conf.finalize();
    StubResolver::from_conf(conf)
}

pub(super) async fn ask(resolver: &StubResolver, name: &str) -> Answers {
    let name = match Name::<Vec<u8>>::from_str(name) {
        Ok(name) => name,
        Err(e) => return [Err(e.to_string()), Err(e.to_string())],
    };
    let (v4, v6) = tokio::join!(family(resolver, &name, Rtype::A), family(resolver, &name, Rtype::AAAA));
    [v4, v6]
}

async fn family(resolver: &StubResolver, name: &Name<Vec<u8>>, rtype: Rtype) -> Result<Found, String> {
    let answer = tokio::time::timeout(PATIENCE, resolver.query((name, rtype))).await;
    let message = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|e| e.to_string())?.into_message();
    match message.header().rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN => read(&message).map_err(|e| format!("the answer is broken: {e}")),
        code => Err(code.to_string()),
    }
}

/// The addresses at the end of the chain of aliases. It all holds as long as its shortest link (RFC 2181 §5.2).
fn read<Octets: AsRef<[u8]>>(message: &Message<Octets>) -> Result<Found, domain::base::wire::ParseError> {
    let message = message.for_slice();
    let canonical = message.canonical_name();
    let (mut addresses, mut ttl) = (Vec::new(), None::<Duration>);
    for record in message.answer()? {
        let record = record?;
        let address: Option<IpAddr> = match record.rtype() {
            Rtype::A => record.to_record::<A>()?.map(|a| a.data().addr().into()),
            Rtype::AAAA => record.to_record::<Aaaa>()?.map(|a| a.data().addr().into()),
            _ => None,
        };
        let holds = Duration::from_secs(record.ttl().as_secs().into());
        ttl = Some(ttl.map_or(holds, |t| t.min(holds)));
        if canonical.as_ref().is_some_and(|name| name.name_eq(&record.owner())) {
            addresses.extend(address.map(|a| a.to_canonical()));
        }
    }
    if !addresses.is_empty() {
        return Ok(Found { addresses, ttl: ttl.unwrap_or_default() });
    }
    // RFC 2308 §5: the lesser of the record's own time and the minimum that it names.
    let mut none = NONE_HOLDS;
    for record in message.authority()? {
        if let Some(soa) = record?.to_record::<Soa<_>>()? {
            none = Duration::from_secs(soa.ttl().as_secs().min(soa.data().minimum().as_secs()).into());
        }
    }
    Ok(Found { addresses, ttl: ttl.map_or(none, |t| t.min(none)) })
}
