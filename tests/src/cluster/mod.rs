//! A real Kubernetes cluster for the tests: etcd, kube-apiserver and kube-controller-manager as processes in a test's namespaces,
//! and a kubelet that runs pods as processes. Nothing of a cluster is imitated but the kubelet and the scheduler.

pub mod control_plane;

pub mod credentials;

pub mod node;

pub mod kubelet;

pub mod kube_proxy;

pub mod endpoints;

mod pod;
mod probe;
pub(crate) mod process;
mod status;

use std::time::Duration;

pub use control_plane::ControlPlane;
pub use kubelet::Kubelet;
pub use node::Node;

/// Longest wait for controllers and pods, on a cold and busy machine.
pub const PATIENCE: Duration = Duration::from_mins(2);
