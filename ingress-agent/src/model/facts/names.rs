//! What sets of facts are sorted by.

use super::{
    CertificateFacts, ConfigMapFacts, IngressClassFacts, IngressFacts, NamespaceFacts, NodeFacts, SecretFacts,
    ServiceFacts, ServiceSlices, VirtualIpPoolFacts,
};
use crate::model::objects::Named;
use crate::model::snapshot::ObjectName;

macro_rules! by_name_of_origin {
    ($($facts:ty),*) => {
        $(impl Named for $facts {
            type Name = ObjectName;

            fn name(&self) -> &ObjectName {
                &self.origin.name
            }
        })*
    };
}

by_name_of_origin!(
    CertificateFacts,
    ConfigMapFacts,
    IngressClassFacts,
    IngressFacts,
    NamespaceFacts,
    NodeFacts,
    SecretFacts,
    ServiceFacts,
    VirtualIpPoolFacts
);

/// All slices of one Service.
impl Named for ServiceSlices {
    type Name = ObjectName;

    fn name(&self) -> &ObjectName {
        &self.service
    }
}
