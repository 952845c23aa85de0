//! What went wrong between here and the API server, in words for the one who can mend it.

use std::error::Error as _;

use kube::Error;
use kube::core::Status;

/// What is asked for, as RBAC names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `endpointslices`.
    pub plural: String,
    /// `discovery.k8s.io`; empty: the core group.
    pub group: String,
    /// Empty: all.
    pub namespace: String,
    /// Empty: all.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The verb is not granted.
    Forbidden(String),
    /// The API server does not know the resource, or there is no such object.
    NotFound,
    /// The resource version is too old: list again.
    Gone,
    /// This server does not stream lists.
    NoStreaming,
    Other(String),
}

impl Failure {
    pub fn of(verb: &str, resource: &Resource, e: &Error) -> Self {
        match e {
            Error::Api(status) => Self::of_status(verb, resource, status),
            e => Self::Other(format!("cannot {verb} {}: {}", resource.words(), chain(e))),
        }
    }

    pub fn of_status(verb: &str, resource: &Resource, status: &Status) -> Self {
        let words = resource.words();
        match status.code {
            403 => Self::Forbidden(format!("cannot {verb} {words}: forbidden; {}", resource.grant(verb))),
            401 => Self::Other(format!(
                "cannot {verb} {words}: unauthorized; the API server does not accept the agent's token or certificate"
            )),
            404 => Self::NotFound,
            410 => Self::Gone,
            // KEP-3157: a server without streaming lists refuses `sendInitialEvents` as an invalid option.
            422 if verb == "watch" && status.message.contains("sendInitialEvents") => Self::NoStreaming,
            code => Self::Other(format!("cannot {verb} {words}: {} ({code})", status.message)),
        }
    }

    /// `None`: it goes away by itself.
    pub fn words(&self, verb: &str, resource: &Resource) -> Option<String> {
        match self {
            Self::Forbidden(text) | Self::Other(text) => Some(text.clone()),
            Self::NotFound => Some(format!("cannot {verb} {}: the API server does not know them", resource.words())),
            Self::Gone | Self::NoStreaming => None,
        }
    }
}

impl Resource {
    /// `endpointslices in namespace shop`, `secret shop/tls`.
    pub fn words(&self) -> String {
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => self.plural.clone(),
            (namespace, "") => format!("{} in namespace {namespace}", self.plural),
            (namespace, name) => format!("{} {namespace}/{name}", self.plural.trim_end_matches('s')),
        }
    }

    /// Which rule is missing.
    fn grant(&self, verb: &str) -> String {
        let group = if self.group.is_empty() { "\"\"" } else { self.group.as_str() };
        let role = if self.namespace.is_empty() {
            "the ClusterRole".to_owned()
        } else {
            format!("the ClusterRole, or a Role in {},", self.namespace)
        };
        let named = if self.name.is_empty() { String::new() } else { format!(", resourceNames [{}]", self.name) };
        format!("{role} needs apiGroups [{group}], resources [{}], verbs [{verb}]{named}", self.plural)
    }
}

/// The errors below an error say what really happened: `tcp connect error: Connection refused`.
fn chain(e: &Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = e.source();
    }
    text.trim_start_matches("ServiceError: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> Status {
        Status { code, message: message.into(), ..Status::default() }
    }

    fn resource(group: &str, plural: &str, namespace: &str, name: &str) -> Resource {
        Resource { plural: plural.into(), group: group.into(), namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn a_missing_verb_is_named_with_the_rule_that_grants_it() {
        let slices = resource("discovery.k8s.io", "endpointslices", "", "");
        assert_eq!(
            Failure::of_status("list", &slices, &status(403, "")),
            Failure::Forbidden(
                "cannot list endpointslices: forbidden; the ClusterRole needs apiGroups [discovery.k8s.io], \
                 resources [endpointslices], verbs [list]"
                    .into()
            )
        );
        let secret = resource("", "secrets", "shop", "tls");
        assert_eq!(
            Failure::of_status("watch", &secret, &status(403, "")),
            Failure::Forbidden(
                "cannot watch secret shop/tls: forbidden; the ClusterRole, or a Role in shop, needs apiGroups [\"\"], \
                 resources [secrets], verbs [watch], resourceNames [tls]"
                    .into()
            )
        );
    }

    #[test]
    fn a_server_without_streaming_lists_is_told_from_a_bad_request() {
        let services = resource("", "services", "", "");
        let refused = status(422, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch");
        assert_eq!(Failure::of_status("watch", &services, &refused), Failure::NoStreaming);
        assert!(matches!(Failure::of_status("watch", &services, &status(422, "no")), Failure::Other(_)));
        assert_eq!(Failure::of_status("watch", &services, &status(410, "")), Failure::Gone);
    }
}
