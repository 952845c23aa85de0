//! `spec.externalIPs`, where the options let them count.

use super::Giving;
use crate::model::facts::{Exposure, Facts};
use crate::plan::vips;

impl<'a> Giving<'a> {
    /// `spec.externalIPs`: whatever its type and class. Never an address that is somebody's to give.
    pub(super) fn external_ips(&mut self, facts: &'a Facts) {
        for service in facts.services.iter().filter(|s| !matches!(s.exposure, Exposure::ExternalName(_))) {
            for vip in &service.external_ips {
                let fault = vips::fault(vip.address).map(|fault| format!("it {fault}"));
                let refused = fault.or_else(|| match self.pools.name_of(vip.address) {
                    Some(pool) => Some(format!("it is in VirtualIPPool {pool}: `sluicegate.io/vips` asks for it")),
                    None => self.held.ingress_owner(vip.address).map(|o| format!("Ingresses are served on it ({o})")),
                });
                if let Some(reason) = refused {
                    self.refused("Service", &service.origin, vip, &reason);
                    continue;
                }
                let given = self.out.services.entry(service.origin.name.clone()).or_default();
                if !given.iter().any(|g| g.address == vip.address) {
                    given.push(vip.clone());
                }
            }
        }
    }
}
