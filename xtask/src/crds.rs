//! `cargo xtask crds`: the custom resource definitions in `deploy/crds`, from the agent's types. The test that compares them
//! writes them when it is told to, so that there is one way to make them.

use anyhow::Result;

use crate::{build, setup, steps};

pub(crate) fn crds() -> Result<()> {
    setup::tools(setup::For::Build)?;
    let mut write = build::cargo(&["test", "--package", "ingress-tests", "--test", "crds"])?;
    steps::run("write deploy/crds", write.env("UPDATE_GOLDEN", "1"))
}
