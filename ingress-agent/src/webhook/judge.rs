//! What to say about one request. Pure: the object, what it was before, and the index decide. The words are the agent's own, since
//! its parser and its plan speak them; the plan is asked about the object and its rivals alone.
//!
//! **Denied** is what its author can mend in the object itself, and only where this very change brings it in: an object that
//! was wrong before may still be edited, by cert-manager for instance. So is a host and path that another Ingress is served on
//! already, as in ingress-nginx: a warning scrolls by, or is never seen where a pipeline applies, and then one of two teams
//! wonders about its requests. `--conflicts=warn` is for those who move an Ingress by making the new one first.
//!
//! **Warned** is about all that may be right in a moment: a backend, a pool or a class that is not there yet may come with the next
//! document. And never is a Service denied for what others have: it works inside the cluster without its address outside.

use super::index::Index;
use super::review::{Outline, Request, Verdict};
use crate::model::facts::{Exposure, Facts, IngressFacts, ServiceFacts};
use crate::model::rejection::{Rejection, Severity};
use crate::plan::{PlanOptions, plan};
use crate::sources::SourceOptions;
use crate::sources::document::{Contents, Document, Object, Read, parse};
use crate::sources::fold::fold;
use crate::sources::kube::Namespaces;

/// What the operator decided: the same as for the agents.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub sources: SourceOptions,
    pub plan: PlanOptions,
    pub namespaces: Namespaces,
    pub conflicts: Conflicts,
}

/// What becomes of a host and path that is another Ingress's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    #[default]
    Deny,
    Warn,
}

pub(super) fn judge(request: &Request<'_>, index: &Index, rules: &Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let ends = !["CREATE", "UPDATE"].contains(&request.operation.as_str()) || !request.sub_resource.is_empty();
    let Some(text) = request.object.filter(|_| !ends) else { return verdict };
    let Ok(outline) = serde_json::from_str::<Outline<'_>>(text.get()) else {
        // Metadata of another form than every object has: the parser has the words for it.
        verdict.deny_all(&read(text.get(), rules).faults);
        return verdict;
    };
    let before = request.old_object.and_then(|old| serde_json::from_str::<Outline<'_>>(old.get()).ok());
    if before.is_some_and(|before| outline.says_the_same(&before)) {
        return verdict;
    }
    let followed = ["Ingress", "Service"].contains(&request.kind.kind.as_str());
    if followed && !rules.namespaces.has(outline.metadata.namespace.as_deref().unwrap_or_default(), index.facts()) {
        // No agent will see it.
        return verdict;
    }
    let now = read(text.get(), rules);
    verdict.deny_all(&now.faults);
    let Some(now) = now.objects.into_iter().next() else { return verdict };
    let was = request.old_object.and_then(|old| read(old.get(), rules).objects.into_iter().next());
    let change = Change { now, was, index, rules };
    let Some(scope) = change.scope() else { return verdict };
    change.own(scope, &mut verdict);
    change.others(scope, &mut verdict);
    verdict
}

fn read(text: &str, rules: &Rules) -> Contents {
    parse(Document { text, line: 1 }, true, "", &rules.sources)
}

/// An object as it is to be, and as it was.
struct Change<'a> {
    now: Read,
    was: Option<Read>,
    index: &'a Index,
    rules: &'a Rules,
}

/// How far the object is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Ours,
    /// A Service that others expose, or nobody. Only what bears our name is judged.
    Partly,
    /// An Ingress that nobody serves, as it seems, which its owner may want to know. Nothing in it is judged.
    Foreign,
}

impl Change<'_> {
    /// `None`: none of our business.
    fn scope(&self) -> Option<Scope> {
        let (facts, options) = (self.index.facts(), &self.rules.plan);
        match &self.now.object {
            Ok(Object::Ingress(_)) if !self.index.is_complete() => None,
            Ok(Object::Ingress(ingress)) if options.classes.is_ours(&ingress.class, &facts.classes) => {
                Some(Scope::Ours)
            }
            Ok(Object::Ingress(_)) => Some(Scope::Foreign),
            Ok(Object::Service(service)) => Some(if exposed(service, options) { Scope::Ours } else { Scope::Partly }),
            Ok(Object::Class(class)) => options.classes.owns(class).then_some(Scope::Ours),
            Ok(Object::VirtualIpPool(_) | Object::Streams(_)) | Err(_) => Some(Scope::Ours),
            Ok(
                Object::Slice(_)
                | Object::Certificate(_)
                | Object::Node(_)
                | Object::Namespace(_)
                | Object::ConfigMap(_)
                | Object::Secret(_),
            ) => None,
        }
    }

    /// What is wrong with the object, whoever else there is.
    fn own(&self, scope: Scope, verdict: &mut Verdict) {
        if scope == Scope::Foreign {
            return;
        }
        let whole = self.now.object.as_ref().err();
        for finding in self.now.notes.iter().chain(whole) {
            let service = self.now.identity.kind == "Service";
            let by_name = finding.field.starts_with("metadata.annotations[sluicegate.io/");
            if scope == Scope::Partly && !by_name {
                continue;
            }
            // Ports and affinity of a Service mean something inside the cluster, too.
            let shared = service && !by_name && !OUTSIDE.iter().any(|field| finding.field.starts_with(field));
            if finding.severity == Severity::Rejected && !shared && !self.was_so(finding) {
                verdict.denials.push(words(finding));
            } else {
                verdict.warnings.push(words(finding));
            }
        }
    }

    fn was_so(&self, finding: &Rejection) -> bool {
        let before = self.was.iter().flat_map(|was| was.notes.iter().chain(was.object.as_ref().err()));
        before.into_iter().any(|b| (&b.field, &b.reason) == (&finding.field, &finding.reason))
    }

    /// What the plan says of the object among its rivals, and of the rivals because of it.
    fn others(&self, scope: Scope, verdict: &mut Verdict) {
        let Ok(now) = &self.now.object else { return };
        if !self.index.is_complete() || scope == Scope::Partly {
            return;
        }
        let was = self.was.as_ref().and_then(|was| was.object.as_ref().ok());
        let Some(around) = self.around(now, was) else { return };
        let before = self.planned(&around, was);
        let identity = &self.now.identity;
        for finding in self.planned(&around, Some(now)) {
            let own = finding.kind == identity.kind && finding.name == identity.name;
            let new = !before.contains(&finding);
            let contested = finding.severity == Severity::Rejected && self.is_contested(&finding);
            match (own, new) {
                (true, _) if !is_about_nodes(&finding) => verdict.say(new && contested, words(&finding)),
                // Whoever is served now, and would not be any more.
                (false, true) if finding.severity == Severity::Rejected && finding.kind == identity.kind => {
                    let text = format!("takes from {} {}: {}", finding.kind, finding.name, finding.reason);
                    verdict.say(contested, text);
                }
                _ => {}
            }
        }
    }

    /// Whether it is denied when a change brings it about.
    fn is_contested(&self, finding: &Rejection) -> bool {
        match finding.kind.as_str() {
            // Not its backend, which may be there in a moment.
            "Ingress" => {
                self.rules.conflicts == Conflicts::Deny
                    && finding.field.contains(".http.paths[")
                    && finding.field.ends_with(']')
            }
            "VirtualIPPool" => true,
            _ => false,
        }
    }

    fn around(&self, now: &Object, was: Option<&Object>) -> Option<Facts> {
        let states = || [Some(now), was].into_iter().flatten();
        Some(match now {
            Object::Ingress(_) => self.index.around_ingress(&states().filter_map(ingress_of).collect::<Vec<_>>()),
            Object::Service(_) => self.index.around_service(&states().filter_map(service_of).collect::<Vec<_>>()),
            Object::VirtualIpPool(pool) => self.index.around_pool(&pool.origin.name),
            Object::Streams(streams) => self.index.around_references(streams.ports.iter().map(|p| &p.backend)),
            Object::Class(_)
            | Object::Slice(_)
            | Object::Certificate(_)
            | Object::Node(_)
            | Object::Namespace(_)
            | Object::ConfigMap(_)
            | Object::Secret(_) => return None,
        })
    }

    fn planned(&self, around: &Facts, object: Option<&Object>) -> Vec<Rejection> {
        let mut facts = around.clone();
        if let Some(object) = object {
            let object = match object {
                // Nobody here reads Secrets, so nothing can be said of certificates.
                Object::Ingress(ingress) if !ingress.tls.is_empty() => {
                    let mut bare = (**ingress).clone();
                    bare.tls.clear();
                    &Object::Ingress(bare.into())
                }
                object => object,
            };
            fold(&mut facts, &self.now.identity.name, None, Some(object));
        }
        plan(&facts, &self.rules.plan, None).snapshot.rejections.clone()
    }
}

/// Fields of a Service that only mean something to whoever serves it to the outside.
const OUTSIDE: [&str; 3] = [
    "spec.loadBalancerSourceRanges",
    "spec.loadBalancerIP",
    "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]",
];

fn ingress_of(object: &Object) -> Option<&IngressFacts> {
    match object {
        Object::Ingress(ingress) => Some(ingress),
        _ => None,
    }
}

fn service_of(object: &Object) -> Option<&ServiceFacts> {
    match object {
        Object::Service(service) => Some(service),
        _ => None,
    }
}

fn exposed(service: &ServiceFacts, options: &PlanOptions) -> bool {
    match &service.exposure {
        Exposure::LoadBalancer(asks) => options.watch_services_without_class || !asks.classless,
        Exposure::Internal | Exposure::OtherLoadBalancer | Exposure::ExternalName(_) => false,
    }
}

/// Which nodes hold a pool's addresses each node says for itself; here is none.
fn is_about_nodes(finding: &Rejection) -> bool {
    finding.kind == "VirtualIPPool" && finding.severity == Severity::Warning
}

fn words(finding: &Rejection) -> String {
    // Which address it gets instead only a plan of the whole cluster knows.
    let reason = finding.reason.split("; it is ").next().unwrap_or_default();
    match finding.field.as_str() {
        "" => reason.to_owned(),
        field => format!("{field}: {reason}"),
    }
}

impl Verdict {
    fn say(&mut self, denied: bool, text: String) {
        if denied {
            self.denials.push(text);
        } else {
            self.warnings.push(text);
        }
    }

    fn deny_all(&mut self, faults: &[Rejection]) {
        for fault in faults {
            // A version that is not known here is somebody's future, and his alone to judge.
            self.say(fault.field != "apiVersion", words(fault));
        }
    }
}

#[cfg(test)]
mod tests;
