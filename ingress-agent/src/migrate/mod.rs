//! `sluicegate migrate`: tells somebody who comes from ingress-nginx what will be the same, object by object, before anything is
//! changed. Reads a cluster or a directory of manifests, asks the agent's own parser and plan, and adds what ingress-nginx knows and we
//! do not. Writes nothing, anywhere.
#![forbid(unsafe_code)]

mod known;

mod flags;

mod controller;

mod inventory;

mod directory;

mod cluster;

mod judge;

mod triggers;

pub mod report;

mod text;

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;

use crate::model::snapshot::ObjectName;
pub use flags::hint;
pub use report::{Report, Verdict};
pub use text::text;

/// The meaning of `sluicegate migrate …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateConfig {
    pub from: From,
    /// What holds whatever the controller's flags say.
    pub said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A file, or a directory with all that is in it.
    Manifests(PathBuf),
    /// `None`: of the pod that we run in.
    Cluster(Option<PathBuf>),
}

/// Named by the person who asks; otherwise found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub config_map: Option<ObjectName>,
    /// The Deployment or DaemonSet whose flags count.
    pub controller: Option<ObjectName>,
    pub controller_class: Option<String>,
    pub ingress_class: Option<String>,
}

/// Reads and judges. Fails only where nothing can be read at all; what could not be read of it is in the report.
pub fn migrate(config: &MigrateConfig) -> Result<Report> {
    let inventory = match &config.from {
        From::Manifests(path) => directory::read(path, &config.said)?,
        From::Cluster(kubeconfig) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(cluster::read(kubeconfig.as_deref(), &config.said))?
        }
    };
    Ok(judge::judge(&inventory))
}

/// The same for manifests that are there as text: a file's name and what it says.
pub fn migrate_text(files: &[(String, String)], said: &Said) -> Report {
    judge::judge(&directory::take(files, Vec::new(), said, SystemTime::now()))
}
