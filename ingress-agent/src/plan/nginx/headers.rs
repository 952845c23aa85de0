//! `custom-headers`: fields that answers get.

use http::{HeaderName, HeaderValue};

use super::Found;
use super::read::{Reader, Spoilt};
use super::settings::Settings;
use crate::model::route::{Filter, HeaderEdits};
use crate::model::snapshot::ObjectName;

pub(super) fn response(reader: &mut Reader<'_>, settings: &Settings, found: &mut Found<'_>) -> Option<Filter> {
    let text = reader.text("custom-headers")?;
    let own = &reader.ingress.origin.name.namespace;
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    if namespace != own && !settings.cross_namespace {
        reader.spoil("custom-headers", Spoilt::Denied, "is in another namespace (`allow-cross-namespace-resources`)");
        return None;
    }
    let Some(map) = found.config_map(&ObjectName::new(namespace, name)) else {
        reader.spoil("custom-headers", Spoilt::Denied, "is not the name of a ConfigMap that can be read");
        return None;
    };
    let mut edits = HeaderEdits::default();
    for (name, value) in &map.data {
        let allowed = settings.response_headers.contains(&name.to_ascii_lowercase());
        let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::try_from(value.trim()).ok());
        if let Some(pair) = pair.filter(|_| allowed) {
            edits.set.push(pair);
        } else {
            let why = if allowed { "is not a field" } else { "is not among `global-allowed-response-headers`" };
            reader.spoil("custom-headers", Spoilt::Denied, format!("has `{name}`, which {why}"));
        }
    }
    Some(Filter::ResponseHeaders(edits))
}
