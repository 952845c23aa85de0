//! The words of load balancing. Every room speaks them; nothing here does I/O, reads a clock or knows Kubernetes.
#![forbid(unsafe_code)]

pub mod snapshot;

pub mod route;

pub mod policy;

pub mod stream;

pub mod difference;

pub mod rejection;

pub mod traffic;

pub mod sync;

pub mod election;

pub mod holding;

pub mod conflict;

pub mod report;

pub mod offence;

pub mod source;

pub mod facts;

pub mod class_rule;

pub mod addresses;

pub mod pool_state;

pub mod selector;

pub mod measure;

pub mod objects;
