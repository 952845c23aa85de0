//! The recorded answers of ingress-nginx v1.15.1 (`../shared/golden/ingress-nginx` beside the repository, with its README): read, asked
//! of the real parse → plan → proxy over sockets, and compared by the rules written there.

pub mod corpus;

pub mod echo;

pub mod grpc;

pub mod world;

pub mod client;

pub mod h2;

pub mod answer;

pub mod forms;

pub mod log;

pub mod compare;

pub mod lists;

pub mod run;
