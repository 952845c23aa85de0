//! Why a packet went where it went: the closed list of counters that both programs keep.

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// One counter each in `VERDICTS`. Every packet raises exactly one of the first group; the notes come on top.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Verdict { $($(#[doc = $doc])+ $name,)+ }

        impl Verdict {
            pub const ALL: &[Verdict] = &[$(Verdict::$name,)+];
            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Verdict::$name => $label,)+ }
            }
            /// One sentence for the operator.
            pub const fn meaning(self) -> &'static str {
                match self { $(Verdict::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

verdicts! {
    /// Not for an address of ours.
    PassNotOurs = "pass_not_ours",
    /// Not IPv4 or IPv6 (ARP and the like).
    PassEtherType = "pass_ethertype",
    /// Headers are cut short or contradict themselves.
    PassMalformed = "pass_malformed",
    /// An IP fragment: no port to go by.
    PassFragment = "pass_fragment",
    /// More VLAN tags, IPv4 options or IPv6 extension headers than the budget.
    PassHeaders = "pass_headers",
    /// For a VIP, but neither TCP, UDP nor an ICMP message that we treat.
    PassProtocol = "pass_protocol",
    /// For a VIP, but no frontend has the port and no flow claims the packet.
    PassNoFrontend = "pass_no_frontend",
    /// An L7 frontend: up to the proxy.
    PassL7 = "pass_l7",
    /// An L7 frontend: no socket here knows the connection, so on to the node that held the VIP before.
    HandOver = "hand_over",
    /// The frontend's pool has no backend; the kernel refuses the connection.
    PassNoBackend = "pass_no_backend",
    /// The TTL or hop limit ends here; the kernel answers.
    PassTtl = "pass_ttl",
    /// An ICMP error that belongs to no flow of ours.
    PassIcmpUnrelated = "pass_icmp_unrelated",
    /// An ICMP packet-too-big that asks for less than the protocol's minimum: an old attack, not forwarded.
    PassPtbTooSmall = "pass_ptb_too_small",
    /// Rewritten for a backend of this node and passed to the kernel.
    ForwardLocal = "forward_local",
    /// Rewritten for a backend and sent out by XDP.
    ForwardNat = "forward_nat",
    /// Rewritten for a backend and left to the kernel: the next hop is unresolved, or behind a device without XDP.
    ForwardNatPass = "forward_nat_pass",
    /// A backend's answer, rewritten and sent out by XDP.
    ReplyNat = "reply_nat",
    /// A backend's answer, rewritten and left to the kernel.
    ReplyNatPass = "reply_nat_pass",
    /// A local backend's answer, rewritten at TC egress.
    ReplyLocal = "reply_local",
    /// An echo request to a VIP, answered.
    Echo = "echo",
    /// An ICMP error that followed its flow to the backend.
    IcmpForward = "icmp_forward",
    /// An ICMP error that followed its flow to the client.
    IcmpReply = "icmp_reply",
    /// The packet was larger than the next hop's MTU; the sender was told with the VIP as source.
    PacketTooBig = "packet_too_big",
    /// The client's address is in none of the ranges that the Service admits (`loadBalancerSourceRanges`).
    DropSource = "drop_source",
    /// For the proxy, of a client that exceeded an Ingress's limits too often and is dropped for a while (`sluicegate.io/limit-drop-after`).
    DropLimited = "drop_limited",
    /// An ARP request or neighbour solicitation for a VIP that another node holds: this one must not answer.
    DropElsewhere = "drop_elsewhere",
    /// No source port was free towards the backend.
    DropNoPort = "drop_no_port",
    /// Another CPU was making a record in the same bucket; the sender repeats the packet.
    DropContended = "drop_contended",
    /// A map did not hold what the agent promised; a fault of ours.
    DropInternal = "drop_internal",

    /// Note: a flow record was made.
    FlowNew = "flow_new",
    /// Note: a packet that opens nothing had no flow record and was forwarded by the table alone (the health figure).
    FlowMiss = "flow_miss",
    /// Note: a live record gave way to a new flow.
    FlowEvicted = "flow_evicted",
    /// Note: an established record gave way to a new flow (the table is too small).
    FlowEvictedEstablished = "flow_evicted_established",
    /// Note: a source port was taken and the next was tried.
    PortProbe = "port_probe",
    /// Note: the agent is silent and another node's advert was seen: it holds the addresses from now on.
    Fenced = "fenced",
    /// Note: a non-opening packet without a record went by the previous table.
    PreviousTable = "previous_table",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminants_index_the_counters() {
        for (i, v) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*v as usize, i);
        }
    }
}
