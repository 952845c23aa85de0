//! IngressClass → [`IngressClassFacts`].

use k8s_openapi::api::networking::v1::IngressClass;

use super::{Notes, annotation, vips};
use crate::model::facts::IngressClassFacts;
use crate::model::rejection::Rejection;

pub fn parse(object: &IngressClass, notes: &mut Notes) -> Result<IngressClassFacts, Rejection> {
    let controller = object.spec.as_ref().and_then(|s| s.controller.clone()).filter(|c| !c.is_empty());
    let Some(controller) = controller else {
        return Err(notes.error("spec.controller", "is missing: it says whose Ingresses they are"));
    };
    Ok(IngressClassFacts {
        controller,
        default: annotation(&object.metadata, "ingressclass.kubernetes.io/is-default-class") == Some("true"),
        vips: vips(&object.metadata, notes).unwrap_or_default(),
        origin: notes.origin.clone(),
    })
}
