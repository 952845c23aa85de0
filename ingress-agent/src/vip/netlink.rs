//! Links, addresses and local routes over netlink. An address of ours is recognised by its `IFA_PROTO`, so that what a killed agent left
//! can be adopted, and what a person added is never removed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket as _, SocketAddr};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};

use super::frame::Mac;
use crate::model::holding::LinkState;

/// `IFA_PROTO` (`linux/if_addr.h`, since 5.18) of our addresses, shown by `ip address` as `proto 0x53`. Values above 3 are
/// free for user space.
const MARKER: AddressProtocol = AddressProtocol::Other(0x53);
const FOREVER: u32 = u32::MAX;
/// Longest wait for an IPv6 address to be in use. The work queue needs the kernel's lock on links and addresses, which others may hold.
const LOCAL_WAIT: Duration = Duration::from_millis(50);
const LOCAL_AGAIN: Duration = Duration::from_micros(50);

/// Boxed because the receiver's own type lives in a crate that is no dependency of ours.
type Messages = Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send + Unpin>;

pub(super) struct Netlink {
    handle: Handle,
    messages: Messages,
}

/// An interface as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) state: LinkState,
    /// `None` on a device without Ethernet addresses.
    pub(super) mac: Option<Mac>,
}

/// An address on some interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) ours: bool,
    /// Duplicate address detection is not over, or has failed: nothing can be sent from it.
    pub(super) tentative: bool,
}

impl Found {
    /// Whether adverts may come from it: over IPv6 they come from link-local addresses only (RFC 9568 §5.1.2.1).
    pub(super) fn speaks(&self) -> bool {
        let fits = match self.address {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        fits && !self.ours && !self.tentative
    }
}

impl Netlink {
    /// Needs a tokio runtime. The socket belongs to the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&groups).context("open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle, messages: Box::new(messages) })
    }

    /// Resolves when links or addresses changed, however often.
    pub(super) async fn changed(&mut self) -> Result<()> {
        loop {
            let mut message = self.messages.next().await;
            let mut concerns = false;
            loop {
                let (received, _) = message.context("the netlink connection ended")?;
                concerns |= matches!(
                    received.payload,
                    NetlinkPayload::Overrun(_)
                        | NetlinkPayload::InnerMessage(
                            RouteNetlinkMessage::NewLink(_)
                                | RouteNetlinkMessage::DelLink(_)
                                | RouteNetlinkMessage::NewAddress(_)
                                | RouteNetlinkMessage::DelAddress(_)
                        )
                );
                match self.messages.next().now_or_never() {
                    Some(more) => message = more,
                    None => break,
                }
            }
            if concerns {
                return Ok(());
            }
        }
    }

    /// The interface of that name, if there is one.
    pub(super) async fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut answer = self.handle.link().get().match_name(name.to_owned()).execute();
        match answer.try_next().await {
            Ok(found) => Ok(found.map(|m| link_of(&m))),
            Err(rtnetlink::Error::NetlinkError(e)) if -e.raw_code() == libc::ENODEV => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look for interface {name}")),
        }
    }

    /// Every address of this namespace.
    pub(super) async fn addresses(&self) -> Result<Vec<Found>> {
        let found: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .context("list the addresses of the interfaces")?;
        Ok(found.iter().filter_map(found_of).collect())
    }

    /// Adds an address; what comes for it from now on is taken.
    pub(super) async fn add(&self, index: u32, address: IpAddr) -> Result<()> {
        let mut request = self.handle.address().add(index, address, prefix(address));
        *request.message_mut() = message(index, address);
        match request.execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if -e.raw_code() == libc::EEXIST => {}
            done => done.with_context(|| format!("add {address}"))?,
        }
        // The kernel adds the local route of an IPv6 address later, from a work queue (`addrconf_dad_work`). A packet that comes before
        // that is forwarded, and an answer to a solicitation of ours is lost, which is repeated after a second.
        let IpAddr::V6(v6) = address else { return Ok(()) };
        let end = Instant::now() + LOCAL_WAIT;
        while !self.is_local(v6).await? && Instant::now() < end {
            // This thread runs before those of the work queue.
            std::thread::sleep(LOCAL_AGAIN);
        }
        Ok(())
    }

    /// Whether the kernel takes packets for this address itself.
    async fn is_local(&self, address: Ipv6Addr) -> Result<bool> {
        let wanted = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
        let mut answer = self.handle.route().get(wanted).execute();
        match answer.try_next().await {
            // Our own stand-in, of the time when it was elsewhere, is about to go.
            Ok(route) => Ok(route.is_some_and(|r| r.header.kind == RouteType::Local && r.header.protocol != ROUTES)),
            Err(rtnetlink::Error::NetlinkError(e)) if -e.raw_code() == libc::ENETUNREACH => Ok(false),
            Err(e) => Err(e).with_context(|| format!("ask for the route to {address}")),
        }
    }

    pub(super) async fn remove(&self, index: u32, address: IpAddr) -> Result<()> {
        let gone = [libc::EADDRNOTAVAIL, libc::ENODEV];
        match self.handle.address().del(message(index, address)).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if gone.contains(&-e.raw_code()) => Ok(()),
            done => done.with_context(|| format!("remove {address}")),
        }
    }
}

/// `LOOPBACK_IFINDEX` (`net/flow.h`): the loopback device is the first of every network namespace.
const LOOPBACK: u32 = 1;
/// `RT_TABLE_LOCAL` (`linux/rtnetlink.h`).
const LOCAL: u32 = 255;
/// Behind the kernel's own routes in that table, so that both may be there.
const METRIC: u32 = 0x53;
/// Shown by `ip route show table local` as `proto 83`.
const ROUTES: RouteProtocol = RouteProtocol::Other(0x53);

impl Netlink {
    /// The kernel delivers packets for the address, and sends from it, although it is on no interface.
    pub(super) async fn deliver(&self, address: IpAddr) -> Result<()> {
        match self.handle.route().add(route(address)?).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if -e.raw_code() == libc::EEXIST => Ok(()),
            done => done.with_context(|| format!("make {address} local")),
        }
    }

    pub(super) async fn deliver_no_more(&self, address: IpAddr) -> Result<()> {
        match self.handle.route().del(route(address)?).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if -e.raw_code() == libc::ESRCH => Ok(()),
            done => done.with_context(|| format!("make {address} local no more")),
        }
    }

    /// Addresses that are delivered by [`Netlink::deliver`], whoever said so.
    pub(super) async fn delivered() -> Result<Vec<IpAddr>> {
        let (mut connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
        // The kernel chooses the routes, of which there may be a million.
        connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true).context("ask for local routes only")?;
        tokio::spawn(connection);
        let of_v4 = RouteMessageBuilder::<Ipv4Addr>::new().table_id(LOCAL).protocol(ROUTES).kind(RouteType::Local);
        let of_v6 = RouteMessageBuilder::<Ipv6Addr>::new().table_id(LOCAL).protocol(ROUTES).kind(RouteType::Local);
        let mut all = Vec::new();
        for question in [of_v4.build(), of_v6.build()] {
            let found = handle.route().get(question).execute().try_collect::<Vec<_>>().await;
            match found {
                Ok(found) => all.extend(found.iter().filter(|r| r.header.protocol == ROUTES).filter_map(destination)),
                // A kernel without IPv6, or nothing of the kind.
                Err(rtnetlink::Error::NetlinkError(e))
                    if [libc::EAFNOSUPPORT, libc::ENOENT].contains(&-e.raw_code()) => {}
                Err(e) => return Err(e).context("list the local routes"),
            }
        }
        Ok(all)
    }
}

fn route(address: IpAddr) -> Result<RouteMessage> {
    let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, prefix(address))?;
    let route = route.output_interface(LOOPBACK).table_id(LOCAL).priority(METRIC).protocol(ROUTES);
    Ok(route.scope(RouteScope::Host).kind(RouteType::Local).build())
}

fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}

/// Splits addresses of one interface into ours and others'.
pub(super) fn on_interface(found: &[Found], index: u32) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let of = |ours| found.iter().filter(move |f| f.index == index && f.ours == ours).map(|f| f.address).collect();
    (of(true), of(false))
}

fn prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn message(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix(address);
    message.header.scope = AddressScope::Universe;
    // No broadcast attribute: for a /32 the kernel would make a broadcast route of it.
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    // A single address has no prefix to route to.
    let mut flags = AddressFlags::Noprefixroute;
    match address {
        IpAddr::V4(_) => message.header.family = AddressFamily::Inet,
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // The previous holder may still answer: detection would leave us without the address, for a second or for good.
            flags |= AddressFlags::Nodad;
            // Deprecated (RFC 4862 §5.5.4), so that the node's own connections never start from the VIP.
            let mut cache = CacheInfo::default();
            cache.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(cache));
        }
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    message.attributes.push(AddressAttribute::Protocol(MARKER));
    message
}

fn link_of(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let state = if !flags.contains(LinkFlags::Up) {
        LinkState::Down
    } else if flags.contains(LinkFlags::LowerUp) {
        LinkState::Up
    } else {
        LinkState::NoCarrier
    };
    let mac = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
        _ => None,
    });
    Link { index: message.header.index, state, mac }
}

fn found_of(message: &AddressMessage) -> Option<Found> {
    // IFA_LOCAL is the interface's own address where both are present (`linux/if_addr.h`).
    let mut local = None;
    let mut address = None;
    let (mut ours, mut tentative) = (false, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(a) => local = Some(*a),
            AddressAttribute::Address(a) => address = Some(*a),
            AddressAttribute::Protocol(p) => ours = *p == MARKER,
            AddressAttribute::Flags(flags) => {
                tentative = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
            }
            _ => {}
        }
    }
    let address = local.or(address)?;
    let ours = ours && message.header.prefix_len == prefix(address);
    Some(Found { index: message.header.index, address, ours, tentative })
}
