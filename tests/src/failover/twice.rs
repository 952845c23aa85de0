//! Who answers when the client asks for an address: exactly one machine should.

use std::time::Duration;

use anyhow::Result;

use crate::capture::Capture;
use crate::lan::Host;
use crate::vip_site::{VIP4, VIP6};

/// Questions of each family.
const TIMES: usize = 3;

/// How many of the client's ARP requests and neighbour solicitations for the addresses more than one of these machines answered.
pub(super) fn answered_twice(client: &Host, macs: &[String]) -> Result<usize> {
    let mut twice = 0;
    for vip in [VIP4, VIP6].iter().cycle().take(2 * TIMES) {
        let mut capture = Capture::start(client, "eth0")?;
        client.ip(&["neigh", "flush", "to", vip])?;
        // It answers or not: what is counted is who answers the question before it.
        let _ = client.run("ping", &["-c1", "-W1", vip]);
        capture.collect(Duration::from_millis(20), |_| false);
        let answered = |mac: &&String| capture.frames.iter().any(|(_, frame)| answer_of(frame).as_ref() == Some(*mac));
        twice += usize::from(macs.iter().filter(answered).count() > 1);
    }
    Ok(twice)
}

/// Who says by this frame that it has one of the addresses, as an answer.
fn answer_of(frame: &[u8]) -> Option<String> {
    let mac = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    match frame.get(12..14)? {
        // RFC 826: an answer (2), from the address asked for.
        [8, 6] if frame.get(20..22)? == [0, 2] && frame.get(28..32)? == [10, 1, 0, 100] => Some(mac(&frame[22..28])),
        // RFC 4861 §4.4: an advertisement (136) with the flag that it was solicited.
        [0x86, 0xdd] if frame.get(20)? == &58 && frame.get(54)? == &136 && frame.get(58)? & 0x40 != 0 => {
            let vip: std::net::Ipv6Addr = VIP6.parse().ok()?;
            (frame.get(62..78)? == vip.octets()).then(|| mac(&frame[6..12]))
        }
        _ => None,
    }
}
