//! Two nodes that elect who holds an address of each family, what is done to them, and what a client notices: for the benchmark and for
//! the test that is a part of it. The nodes are agents of ours, or the real keepalived.

mod held;

mod node;

mod pair;

mod requests;

mod scenario;

mod twice;

pub use node::Who;
pub use pair::{Facts, Pair};
pub use scenario::{Round, Scenario, YOUNG, steady};
