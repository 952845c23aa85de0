//! Finds the field that a typed reading stumbled over. serde's errors say what was wrong, not where; this is only asked
//! about objects that are broken already.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Readings that one search may take: bounds the work on a hostile object.
const READINGS: u32 = 400;

/// `spec.ports[1].port`, or the empty string where nothing smaller than the object can be blamed.
pub(super) fn field<T: DeserializeOwned>(object: &Value) -> String {
    let mut search = Search { whole: object.clone(), readings: 0, path: Vec::new() };
    while search.readings < READINGS && search.descend::<T>() {}
    search.path.iter().fold(String::new(), |text, step| match step {
        Step::Key(key) if text.is_empty() => key.clone(),
        Step::Key(key) if key.contains(['.', '/']) => format!("{text}[{key}]"),
        Step::Key(key) => format!("{text}.{key}"),
        Step::Index(i) => format!("{text}[{i}]"),
    })
}

enum Step {
    Key(String),
    Index(usize),
}

struct Search {
    whole: Value,
    readings: u32,
    /// From the root to the smallest part that is known to be guilty.
    path: Vec<Step>,
}

impl Search {
    /// One step deeper, if one child alone makes the difference between an error and none.
    fn descend<T: DeserializeOwned>(&mut self) -> bool {
        let Some(part) = at(&mut self.whole, &self.path).cloned() else {
            return false;
        };
        let step = match &part {
            Value::Object(fields) => fields.keys().find_map(|key| {
                let mut other = fields.clone();
                other.remove(key);
                let mut guilty = self.reads::<T>(Value::Object(other.clone()));
                // What is required cannot be left out, but it can be empty.
                for empty in [Value::Object(Map::new()), Value::Array(Vec::new())] {
                    other.insert(key.clone(), empty);
                    guilty = guilty || self.reads::<T>(Value::Object(other.clone()));
                }
                guilty.then(|| Step::Key(key.clone()))
            }),
            Value::Array(items) => self.first_bad::<T>(items).map(Step::Index),
            _ => None,
        };
        if let Some(place) = at(&mut self.whole, &self.path) {
            *place = part;
        }
        let deeper = step.is_some();
        self.path.extend(step);
        deeper
    }

    /// Halving: the longest prefix that reads is followed by the culprit.
    fn first_bad<T: DeserializeOwned>(&mut self, items: &[Value]) -> Option<usize> {
        if !self.reads::<T>(Value::Array(Vec::new())) {
            return None;
        }
        let (mut good, mut bad) = (0, items.len());
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            if self.reads::<T>(Value::Array(items[..middle].to_vec())) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        (bad > 0).then(|| bad - 1)
    }

    /// Whether the object can be read with `part` in the place that is looked at.
    fn reads<T: DeserializeOwned>(&mut self, part: Value) -> bool {
        self.readings += 1;
        if self.readings > READINGS {
            return false;
        }
        if let Some(place) = at(&mut self.whole, &self.path) {
            *place = part;
        }
        T::deserialize(&self.whole).is_ok()
    }
}

fn at<'a>(whole: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(whole, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(i) => value.get_mut(i),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    use super::field;
    use crate::sources::virtual_ip_pool::VirtualIpPool;

    #[test]
    fn the_field_of_the_wrong_type_is_named() {
        let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}, {"port": "eighty"}]}});
        assert_eq!(field::<Service>(&service), "spec.ports[1].port");
        let map = json!({"data": {"a.b/c": 5}});
        assert_eq!(field::<ConfigMap>(&map), "data[a.b/c]");
        let pool = json!({"apiVersion": "a", "kind": "b", "metadata": {}, "spec": {"addresses": "10.0.0.0/24"}});
        assert_eq!(field::<VirtualIpPool>(&pool), "spec.addresses");
        let mut endpoints = vec![json!({"addresses": ["10.0.0.1"]}); 1000];
        endpoints[777] = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": "yes"}});
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints});
        assert_eq!(field::<EndpointSlice>(&slice), "endpoints[777].conditions.ready");
    }

    #[test]
    fn two_faults_blame_what_holds_both() {
        let service = json!({"spec": {"type": 5, "ports": [{"port": "eighty"}]}});
        assert_eq!(field::<Service>(&service), "spec");
        assert_eq!(field::<Service>(&json!(5)), "");
    }
}
