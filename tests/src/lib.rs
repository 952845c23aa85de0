//! Fixtures of the boundary tests: network namespaces, a LAN between them, and waiting for conditions. Nothing here knows
//! what a test claims.

pub mod netns;

pub mod lan;

pub mod place;

pub mod edge;

pub mod wait;

pub mod hang;

pub mod outage;

pub mod keepalived;

pub mod vip_site;

pub mod websocket;

pub mod failover;

pub mod load;

pub mod visitors;

pub mod two_agents;

pub mod table;

pub mod l4;

pub mod edges;

pub mod echo;

pub mod l4_lan;

pub mod packet;

pub mod realtime;

pub mod cost;

pub mod plans;

pub mod annotated;

pub mod xdp_run;

pub mod xdp_world;

pub mod dice;

pub mod capture;

pub mod xdp_site;

pub mod http;

pub mod golden;

pub mod l4_model;

pub mod cluster;

pub mod container;

pub mod audit;

pub mod deploy;

pub mod webhook_site;

pub mod dns;
