//! ingress-nginx's own Deployment or DaemonSet, and the flags in it.

use serde_json::Value;

use crate::model::snapshot::ObjectName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) kind: String,
    pub(super) name: ObjectName,
    /// `controller.yaml, document 3`; empty for a cluster's.
    pub(super) place: String,
    /// Without the dashes. A flag without a value is `true`, as pflag has it.
    pub(super) flags: Vec<(String, String)>,
}

impl Controller {
    /// The last one counts, as in pflag.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| name == flag).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_on(&self, flag: &str) -> bool {
        self.value(flag).is_some_and(|value| ["true", "1", "t", "T", "TRUE", "True"].contains(&value))
    }

    /// `None`: something else.
    pub(super) fn read(object: &Value, place: &str) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let kind = text("/kind");
        if !["Deployment", "DaemonSet"].contains(&kind) {
            return None;
        }
        let namespace = Some(text("/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or("default");
        let name = ObjectName::new(namespace, text("/metadata/name"));
        let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array)?;
        let words = containers.iter().find_map(|container| {
            let list = |field: &str| {
                let items = container.get(field).and_then(Value::as_array).into_iter().flatten();
                items.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
            };
            let words = [list("command"), list("args")].concat();
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let ours = image.contains("ingress-nginx/controller") || image.contains("nginx-ingress-controller");
            let named = words.iter().any(|w| w.ends_with("/nginx-ingress-controller"));
            (ours || named).then_some(words)
        })?;
        let resolved = words.iter().map(|word| {
            word.replace("$(POD_NAMESPACE)", &name.namespace).replace("$(POD_NAME)", &format!("{}-0", name.name))
        });
        let flags = flags(resolved.collect());
        Some(Self { kind: kind.to_owned(), name, place: place.to_owned(), flags })
    }
}

/// `--name=value`, `--name value`, `--name`, `-v=2`.
fn flags(words: Vec<String>) -> Vec<(String, String)> {
    let mut flags = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|f| !f.is_empty()) else {
            continue;
        };
        if let Some((name, value)) = flag.split_once('=') {
            flags.push((name.to_owned(), value.to_owned()));
            continue;
        }
        let value = words.next_if(|next| !next.starts_with('-'));
        flags.push((flag.to_owned(), value.unwrap_or_else(|| "true".to_owned())));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_s_deployment_is_read() {
        let object = serde_json::json!({
            "kind": "Deployment", "metadata": {"name": "c", "namespace": "edge"},
            "spec": {"template": {"spec": {"containers": [
                {"image": "registry/other"},
                {"image": "registry.k8s.io/ingress-nginx/controller:v1.15.1@sha256:0", "args": [
                    "/nginx-ingress-controller", "--configmap=$(POD_NAMESPACE)/c", "--enable-metrics",
                    "--watch-namespace", "shop", "-v=2"]}]}}}
        });
        let read = Controller::read(&object, "").expect("a controller");
        assert_eq!(read.value("configmap"), Some("edge/c"));
        assert!(read.is_on("enable-metrics"));
        assert_eq!((read.value("watch-namespace"), read.value("v")), (Some("shop"), Some("2")));
        let other = serde_json::json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"image": "nginx"}]}}}});
        assert_eq!(Controller::read(&other, ""), None);
    }
}
