//! The demo on a cluster: a real API server, two edges that log in with the rights that they need and no others, an ordinary
//! application. The same claims as without a cluster, and those that only a cluster can show.

pub(crate) mod world;

pub(crate) mod show;

mod trouble;
