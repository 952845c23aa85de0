//! One object of the API server's answer, read by itself: an object whose fields are of types that are not known here
//! (a newer version of a custom resource) spoils neither the list nor the watch that it comes in.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::sources::fault;

/// Kube has the same (`DeserializeGuard`), but buffers and clones each object: this one only looks twice at a broken one.
#[derive(Clone, Debug)]
pub(super) struct Guarded<K>(pub(super) Result<K, Box<Broken>>);

/// What can still be said of an object that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    metadata: ObjectMeta,
    pub(super) field: String,
    pub(super) reason: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(raw.get()).map_err(|e| Box::new(broken::<K>(&raw, &e)))))
    }
}

fn broken<K: DeserializeOwned>(raw: &RawValue, e: &serde_json::Error) -> Broken {
    let object: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    let text = |field: &str| object.pointer(field).and_then(Value::as_str).map(str::to_owned);
    let metadata = ObjectMeta {
        name: text("/metadata/name"),
        namespace: text("/metadata/namespace"),
        resource_version: text("/metadata/resourceVersion"),
        uid: text("/metadata/uid"),
        ..ObjectMeta::default()
    };
    let message = e.to_string();
    // The place counts characters of an answer that nobody has.
    let reason = message.split(" at line ").next().unwrap_or_default().to_owned();
    Broken { metadata, field: fault::field::<K>(&object), reason }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|broken| &broken.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|broken| &mut broken.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::api::{ObjectList, WatchEvent};

    use super::*;

    const GOOD: &str = r#"{"metadata":{"name":"a","namespace":"n"},"spec":{"ports":[{"port":80}]}}"#;
    const BAD: &str =
        r#"{"metadata":{"name":"b","namespace":"n","resourceVersion":"7"},"spec":{"ports":[{"port":"x"}]}}"#;

    #[test]
    fn a_broken_object_leaves_the_rest_of_the_list_readable() {
        let text = format!(r#"{{"kind":"ServiceList","apiVersion":"v1","metadata":{{}},"items":[{BAD},{GOOD}]}}"#);
        let list: ObjectList<Guarded<Service>> = serde_json::from_str(&text).unwrap();
        let broken = list.items[0].0.as_ref().unwrap_err();
        assert_eq!((broken.field.as_str(), list.items[0].meta().name.as_deref()), ("spec.ports[0].port", Some("b")));
        assert!(broken.reason.starts_with("invalid type: string"), "{}", broken.reason);
        assert!(list.items[1].0.is_ok());
    }

    #[test]
    fn a_broken_object_is_an_event_like_any_other() {
        let text = format!(r#"{{"type":"MODIFIED","object":{BAD}}}"#);
        let Ok(WatchEvent::Modified(object)) = serde_json::from_str::<WatchEvent<Guarded<Service>>>(&text) else {
            panic!("no event");
        };
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
    }
}
