//! Sluicegate's agent. Facts come in, a pure function decides, one immutable snapshot goes out, and a few rooms make
//! the world match it. The modules stand in the order in which to read them; `ARCHITECTURE.md` says what each may import.

pub mod model;

pub mod apiserver;

pub mod sources;

pub mod plan;

pub mod object;

pub mod dataplane;

pub mod proxy;

pub mod vip;

pub mod checks;

pub mod status;

pub mod webhook;

pub mod migrate;

pub mod admin;

pub mod args;

pub mod config;

pub mod agent;

pub mod memory;

pub mod import;

pub mod uninstall;
