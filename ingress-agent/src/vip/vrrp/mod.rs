//! VRRP, RFC 9568 and RFC 3768. Read in the order `packet` and `auth` (the wire) → `machine` (one virtual router) → `election` (all of them
//! and what is sent for them) → `socket` (how it gets out and in).

pub(super) mod packet;

mod machine;

pub(super) mod auth;

pub(super) mod keys;

pub(super) mod election;

pub(super) mod socket;
