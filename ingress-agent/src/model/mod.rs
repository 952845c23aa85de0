//! The words of load balancing. Every room speaks them; nothing here does I/O, reads a clock or knows Kubernetes.
#![forbid(unsafe_code)]

pub mod snapshot;

pub mod route;

pub mod stream;

pub mod rejection;

pub mod traffic;

pub mod election;

pub mod holding;

pub mod report;

pub mod source;

pub mod facts;

pub mod addresses;

pub mod selector;

pub mod objects;
