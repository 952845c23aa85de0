//! IngressClass → [`IngressClassFacts`].

use k8s_openapi::api::networking::v1::IngressClass;

use super::{Notes, POOL, VIPS, annotation, annotations, pool, vips};
use crate::model::facts::{IngressClassFacts, PoolRef};
use crate::model::rejection::Rejection;
use crate::model::snapshot::ObjectName;

pub fn parse(object: &IngressClass, notes: &mut Notes) -> Result<IngressClassFacts, Rejection> {
    let controller = object.spec.as_ref().and_then(|s| s.controller.clone()).filter(|c| !c.is_empty());
    let Some(controller) = controller else {
        return Err(notes.error("spec.controller", "is missing: it says whose Ingresses they are"));
    };
    notes.remarks(annotations::unknown(&object.metadata, "an IngressClass", &[VIPS, POOL]));
    Ok(IngressClassFacts {
        controller,
        default: annotation(&object.metadata, "ingressclass.kubernetes.io/is-default-class") == Some("true"),
        vips: vips(&object.metadata, notes).unwrap_or_default(),
        pool: match parameters(object, notes)? {
            Some(pool) => Some(pool),
            None => pool(&object.metadata),
        },
        origin: notes.origin.clone(),
    })
}

/// Parameters of other groups belong to other controllers.
fn parameters(object: &IngressClass, notes: &Notes) -> Result<Option<PoolRef>, Rejection> {
    let parameters = object.spec.as_ref().and_then(|s| s.parameters.as_ref());
    let Some(parameters) = parameters.filter(|p| p.api_group.as_deref() == Some("sluicegate.io")) else {
        return Ok(None);
    };
    if parameters.kind != "VirtualIPPool" {
        let reason = format!("`{}` is not a kind of parameters: VirtualIPPool is", parameters.kind);
        return Err(notes.error("spec.parameters.kind", reason));
    }
    if parameters.scope.as_deref() == Some("Namespace") {
        return Err(notes.error("spec.parameters.scope", "is Namespace, and a VirtualIPPool is in none: use Cluster"));
    }
    let name = ObjectName::new("", parameters.name.clone());
    Ok(Some(PoolRef { name, field: "spec.parameters".to_owned() }))
}
