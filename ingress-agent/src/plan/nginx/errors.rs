//! `custom-http-errors`, `default-backend`.

use http::StatusCode;

use super::Found;
use super::read::{Reader, Spoilt};
use super::settings::Settings;
use crate::model::policy::{ErrorPages, Policy};
use crate::model::snapshot::{ObjectName, PoolName, PoolScope, Protocol};

pub(super) fn read(reader: &mut Reader<'_>, settings: &Settings, found: &mut Found<'_>) -> Option<ErrorPages> {
    let mut codes = settings.errors.clone();
    let mut otherwise = StatusCode::INTERNAL_SERVER_ERROR;
    if let Some(text) = reader.text("custom-http-errors") {
        let read: Option<Vec<u16>> =
            text.split(',').map(|c| c.trim().parse().ok().filter(|c| (400..600).contains(c))).collect();
        match read {
            Some(read) => {
                codes = read;
                otherwise = StatusCode::NOT_FOUND;
            }
            None => reader.spoil("custom-http-errors", Spoilt::Ingress, "is not a list of statuses from 400 to 599"),
        }
    }
    let own = reader.text("default-backend").and_then(|name| {
        let name = ObjectName::new(reader.ingress.origin.name.namespace.as_str(), name);
        let pool = first_port(found, &name);
        if pool.is_none() {
            reader.ignore("default-backend", "is not the name of a Service with a TCP port in its namespace");
        }
        pool
    });
    let pool = own.clone().or_else(|| first_port(found, settings.default_backend.as_ref()?));
    if codes.is_empty() && own.is_none() {
        return None;
    }
    codes.sort_unstable();
    codes.dedup();
    Some(ErrorPages {
        codes,
        pool,
        otherwise,
        stands_in: own.is_some(),
        ingress: reader.ingress.origin.name.clone(),
        service: String::new(),
        service_port: String::new(),
        intercept: !reader.flag("disable-proxy-intercept-errors", false),
    })
}

/// `custom-http-errors` of the ConfigMap for hosts and paths that nobody has.
pub(in crate::plan) fn everywhere(settings: &Settings, pool: Option<PoolName>) -> Option<Policy> {
    if settings.errors.is_empty() {
        return None;
    }
    let mut codes = settings.errors.clone();
    codes.sort_unstable();
    codes.dedup();
    let errors = ErrorPages {
        codes,
        pool,
        otherwise: StatusCode::INTERNAL_SERVER_ERROR,
        stands_in: false,
        ingress: ObjectName::default(),
        service: String::new(),
        service_port: String::new(),
        intercept: true,
    };
    Some(Policy { errors: Some(std::sync::Arc::new(errors)), ..Policy::default() })
}

fn first_port(found: &mut Found<'_>, name: &ObjectName) -> Option<PoolName> {
    found.services.push(name.clone());
    let service = found.facts.services.find(name)?;
    let port = service.ports.iter().find(|p| p.protocol == Protocol::Tcp)?.port;
    Some(PoolName { service: name.clone(), port, protocol: Protocol::Tcp, scope: PoolScope::All })
}
