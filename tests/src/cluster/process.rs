//! The process that stands for a pod's first container: its `command`, `args` and `env` from the Pod, run in the pod's network.
//! Images are not looked at: the program is one that was built beside the tests, or one in `PATH`.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use tokio::process::Child;

use super::node::{Network, Node};

/// A process and the group of all that it started. If it still runs when the value drops, both end.
pub(super) struct Process {
    pub(super) child: Child,
    group: libc::pid_t,
}

impl Process {
    /// SIGTERM to the process, as a kubelet sends it: what it started is its own business.
    pub(super) fn terminate(&self) {
        let Some(id) = self.child.id() else { return };
        // SAFETY: kill has no memory preconditions; the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(id as libc::pid_t, libc::SIGTERM) };
    }

    /// SIGKILL to all of the group: nothing that the process started outlives its pod.
    pub(super) fn end_group(&self) {
        // SAFETY: kill has no memory preconditions. While a process of the group lives, the kernel gives its number to nobody else;
        // an empty group is asked for at once after its leader was reaped, long before the numbers come round.
        unsafe { libc::kill(-self.group, libc::SIGKILL) };
    }
}

/// Starts a container's process, its output appended to `log`. It ends with the calling thread.
pub(super) fn start(pod: &Pod, container: &Container, node: &Node, network: &Network, log: &Path) -> Result<Process> {
    let mut environment = Vec::new();
    for variable in container.env.iter().flatten() {
        let value = value(variable, pod, node, network, &environment)?;
        environment.push((variable.name.clone(), value));
    }
    let given = container.command.iter().chain(&container.args).flatten();
    let words: Vec<String> = given.map(|word| expand(word, &environment)).collect();
    command(&words, network, log, environment)
}

/// Runs a command beside the container's process, in its network; for hooks.
pub(super) fn run(words: &[String], network: &Network, log: &Path) -> Result<Process> {
    command(words, network, log, Vec::new())
}

fn command(words: &[String], network: &Network, log: &Path, environment: Vec<(String, String)>) -> Result<Process> {
    let Some((program, arguments)) = words.split_first() else {
        bail!("the container has no command: the test kubelet runs programs, not images");
    };
    let log = File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path()?).envs(environment);
    // A group of its own, so that what it started ends with it.
    command.process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone().context("share a log")?).stderr(log);
    network.ns.settle(&mut command);
    let mut command = tokio::process::Command::from(command);
    let child = command.kill_on_drop(true).spawn().with_context(|| format!("start {program}"))?;
    let group = child.id().context("a process that was not waited for has an id")?;
    Ok(Process { child, group: group as libc::pid_t })
}

/// Programs that were built beside this one come first; a test's own lies one directory deeper, in `deps`.
fn path() -> Result<OsString> {
    let own = std::env::current_exe().context("find this program")?;
    let beside = own.ancestors().skip(1).take(2).map(Path::to_owned);
    let usual = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(beside.chain(std::env::split_paths(&usual))).context("make a PATH")
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.end_group();
        }
    }
}

fn value(variable: &EnvVar, pod: &Pod, node: &Node, network: &Network, before: &[(String, String)]) -> Result<String> {
    let Some(source) = &variable.value_from else {
        return Ok(expand(variable.value.as_deref().unwrap_or_default(), before));
    };
    let Some(field) = &source.field_ref else {
        bail!("{}: the test kubelet knows values from fieldRef only", variable.name);
    };
    let labelled = field.field_path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
    if let Some(label) = labelled {
        return Ok(pod
            .metadata
            .labels
            .iter()
            .flatten()
            .find(|(key, _)| *key == label)
            .map(|(_, v)| v.clone())
            .unwrap_or_default());
    }
    let metadata = &pod.metadata;
    let address = |address: Option<&std::net::IpAddr>| address.map(ToString::to_string);
    let found = match field.field_path.as_str() {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => Some(node.name.clone()),
        "spec.serviceAccountName" => pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" => address(network.addresses.first()),
        "status.hostIP" => address(node.addresses.first()),
        other => bail!("{}: the test kubelet knows no field {other}", variable.name),
    };
    Ok(found.unwrap_or_default())
}

/// `$(NAME)` is the value of a variable that was defined before; of an unknown one it stays as it is, and `$$` is a dollar sign.
pub(crate) fn expand(text: &str, environment: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded += before;
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let named = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let known = named.and_then(|(name, after)| {
            environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| (value, after))
        });
        match known {
            Some((value, after)) => {
                expanded += value;
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_a_kubelet_does() {
        let environment = [("A".to_owned(), "one".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (text, expanded) in [
            ("x", "x"),
            ("$(A)", "one"),
            ("-$(A)-$(A)", "-one-one"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &environment), expanded, "{text}");
        }
    }
}
