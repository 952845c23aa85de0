//! Which IngressClasses and Ingresses are ours. Asked by whoever reads, plans and judges them, so that all come to one answer.
//!
//! The rules are those of ingress-nginx 1.15 (`--controller-class`, `--ingress-class`, `--ingress-class-by-name`,
//! `--watch-ingress-without-class`), with two additions of our own: without `--ingress-class` the deprecated annotation may name any
//! class that is ours, and a default class takes what the API server's admission has not given one.

use super::facts::{ClassChoice, IngressClassFacts};
use super::objects::Objects;
use super::snapshot::ObjectName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRule {
    /// `spec.controller` of the classes that are ours.
    pub controller: String,
    /// The value of the deprecated annotation that is ours. `None`: the name of any class that is.
    pub annotation: Option<String>,
    /// The class of that name is ours, whatever its controller.
    pub by_name: bool,
    /// Ingresses that name no class are ours.
    pub without_class: bool,
}

impl Default for ClassRule {
    fn default() -> Self {
        let controller = "sluicegate.io/ingress-controller".to_owned();
        Self { controller, annotation: None, by_name: false, without_class: false }
    }
}

impl ClassRule {
    pub fn owns(&self, class: &IngressClassFacts) -> bool {
        class.controller == self.controller || self.by_name && self.annotation.as_ref() == Some(&class.origin.name.name)
    }

    /// With a value to compare it with, an empty annotation is a value like any other, as in ingress-nginx. Otherwise it says
    /// nothing.
    pub fn meant<'a>(&self, choice: &'a ClassChoice) -> &'a ClassChoice {
        match choice {
            ClassChoice::Annotation(name) if name.is_empty() && self.annotation.is_none() => &ClassChoice::None,
            choice => choice,
        }
    }

    /// Whether an Ingress that says this of its class is ours.
    pub fn is_ours(&self, choice: &ClassChoice, classes: &Objects<IngressClassFacts>) -> bool {
        let named = |name: &str| classes.find(&ObjectName::new("", name)).is_some_and(|class| self.owns(class));
        match (self.meant(choice), &self.annotation) {
            (ClassChoice::Annotation(name), Some(ours)) => name == ours,
            (ClassChoice::Named(name) | ClassChoice::Annotation(name), _) => named(name),
            (ClassChoice::None, _) => self.without_class || classes.iter().any(|c| c.default && self.owns(c)),
        }
    }
}
