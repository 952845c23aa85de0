//! A pod's container as a runtime runs it: the image's files as its root, in a mount namespace of its own, with the mounts, the
//! environment and the capabilities that the pod's spec says, and no others. The kernel enforces all of it; what a runtime adds and this
//! does not is a seccomp profile and a cgroup.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};

use crate::cluster::process::expand;
use crate::netns::Namespace;

/// linux/capability.h, as Kubernetes names them: those that the project grants or takes away in tests.
const CAPABILITIES: [(&str, u32); 7] = [
    ("NET_BIND_SERVICE", 10),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("SYS_ADMIN", 21),
    ("SYS_RESOURCE", 24),
    ("PERFMON", 38),
    ("BPF", 39),
];

/// The node that a pod runs on.
pub struct Machine<'a> {
    pub ns: &'a Namespace,
    pub name: &'a str,
    pub address: &'a str,
    /// What the node has at the paths that pods mount from it (`hostPath`).
    pub paths: BTreeMap<&'static str, PathBuf>,
    /// Where this node unpacks images and keeps volumes that are nobody's else.
    pub directory: &'a Path,
}

/// An image on this node's disk.
pub struct Unpacked {
    pub root: PathBuf,
    pub entrypoint: Vec<String>,
}

impl Machine<'_> {
    /// A command that becomes a container of a pod when it is started, in the node's network as `hostNetwork` has it. `more` is mounted
    /// as it is, by path in the container: a service account's token. `environment` is what a kubelet adds of its own.
    pub fn container(
        &self,
        image: &Unpacked,
        pod: &Pod,
        container: &Container,
        more: &[(&str, PathBuf)],
        environment: &[(&str, String)],
    ) -> Result<Command> {
        let spec = pod.spec.as_ref().context("a pod's spec")?;
        ensure!(spec.host_network == Some(true), "this runs pods in the node's network only");
        let security = container.security_context.as_ref().context("a securityContext")?;
        ensure!(security.privileged != Some(true), "a privileged container would prove nothing");
        let mut mounts = self.volumes(pod, container)?;
        mounts.extend(more.iter().map(|(target, source)| ((*target).to_owned(), source.clone())));
        let steps = Steps::new(&image.root, &mounts, security.read_only_root_filesystem == Some(true))?;
        let keep = capabilities(security)?;
        let no_new_privileges = security.allow_privilege_escalation == Some(false);

        let command = container.command.clone().unwrap_or_else(|| image.entrypoint.clone());
        let mut variables: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        for variable in container.env.iter().flatten() {
            let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
            let value = match field {
                Some(field) => self.field(pod, &field.field_path)?,
                None => expand(variable.value.as_deref().unwrap_or_default(), &variables),
            };
            variables.push((variable.name.clone(), value));
        }
        let words: Vec<String> =
            command.iter().chain(container.args.iter().flatten()).map(|word| expand(word, &variables)).collect();
        let (program, arguments) = words.split_first().context("a command")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(variables);
        self.ns.settle(&mut command);
        // SAFETY: only system calls, on memory that was allocated before the fork.
        unsafe {
            command.pre_exec(move || {
                steps.take()?;
                restrict(keep, no_new_privileges)
            });
        }
        Ok(command)
    }

    fn field(&self, pod: &Pod, path: &str) -> Result<String> {
        Ok(match path {
            "spec.nodeName" => self.name.to_owned(),
            "status.hostIP" => self.address.to_owned(),
            "metadata.namespace" => pod.metadata.namespace.clone().unwrap_or_default(),
            "metadata.name" => pod.metadata.name.clone().unwrap_or_default(),
            other => bail!("no field {other} is known here"),
        })
    }

    /// By path in the container.
    fn volumes(&self, pod: &Pod, container: &Container) -> Result<Vec<(String, PathBuf)>> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = volumes.into_iter().flatten().find(|volume| volume.name == mount.name);
            let volume = volume.with_context(|| format!("the pod has no volume {}", mount.name))?;
            let source = if let Some(host) = &volume.host_path {
                let known = self.paths.get(host.path.as_str());
                known.with_context(|| format!("a pod mounts {}, which it should not", host.path))?.clone()
            } else {
                ensure!(volume.empty_dir.is_some(), "volume {} is neither hostPath nor emptyDir", mount.name);
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let directory = self.directory.join(format!("volume-{name}-{}", mount.name));
                fs::create_dir_all(&directory).context("make an emptyDir")?;
                directory
            };
            mounts.push((mount.mount_path.clone(), source));
        }
        Ok(mounts)
    }
}

/// A bit for each capability that stays.
fn capabilities(security: &SecurityContext) -> Result<u64> {
    let capabilities = security.capabilities.as_ref().context("capabilities")?;
    ensure!(capabilities.drop.as_deref() == Some(&["ALL".to_owned()]), "all capabilities are dropped first");
    let mut keep = 0;
    for name in capabilities.add.iter().flatten() {
        let known = CAPABILITIES.iter().find(|(known, _)| known == name);
        keep |= 1 << known.with_context(|| format!("capability {name} is not known here"))?.1;
    }
    Ok(keep)
}

/// Root's exec gives it what the bounding set has, and nothing else.
fn restrict(keep: u64, no_new_privileges: bool) -> std::io::Result<()> {
    for capability in 0..64_u32 {
        if keep >> capability & 1 == 1 {
            continue;
        }
        // SAFETY: no pointers. EINVAL: the kernel knows no capability of that number, nor a higher one.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) } != 0 {
            break;
        }
    }
    // SAFETY: no pointers.
    if no_new_privileges && unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// The mounts, in order, as system calls want them.
struct Steps {
    root: CString,
    mounts: Vec<Mount>,
}

struct Mount {
    source: CString,
    target: CString,
    kind: CString,
    flags: libc::c_ulong,
}

impl Steps {
    fn new(root: &Path, volumes: &[(String, PathBuf)], read_only: bool) -> Result<Self> {
        let own = c(root)?;
        let mut steps = Self { root: own, mounts: Vec::new() };
        let inside = |path: &str| root.join(path.trim_start_matches('/'));
        let readonly = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        steps.add(Path::new("none"), Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE)?;
        steps.add(root, root, "", libc::MS_BIND | libc::MS_REC)?;
        // What every runtime gives a container that is not privileged.
        steps.add(Path::new("proc"), &inside("proc"), "proc", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
        steps.add(&inside("proc/sys"), &inside("proc/sys"), "", libc::MS_BIND)?;
        steps.add(Path::new("none"), &inside("proc/sys"), "", readonly)?;
        steps.add(Path::new("sysfs"), &inside("sys"), "sysfs", libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV)?;
        for (target, source) in volumes {
            let target = inside(target);
            // Below /sys the mount point is the kernel's.
            if !target.starts_with(inside("sys")) {
                fs::create_dir_all(&target).with_context(|| format!("make the mount point {}", target.display()))?;
            }
            steps.add(source, &target, "", libc::MS_BIND | libc::MS_REC)?;
        }
        if read_only {
            steps.add(Path::new("none"), root, "", readonly)?;
        }
        Ok(steps)
    }

    fn add(&mut self, source: &Path, target: &Path, kind: &str, flags: libc::c_ulong) -> Result<()> {
        self.mounts.push(Mount { source: c(source)?, target: c(target)?, kind: CString::new(kind)?, flags });
        Ok(())
    }

    /// After a fork, so it allocates nothing.
    fn take(&self) -> std::io::Result<()> {
        let done = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
        // SAFETY: no pointers.
        done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        for mount in &self.mounts {
            let Mount { source, target, kind, flags } = mount;
            // SAFETY: NUL-terminated strings that outlive the call; no data.
            done(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), *flags, std::ptr::null()) })?;
        }
        // SAFETY: a NUL-terminated string that outlives the call.
        done(unsafe { libc::chroot(self.root.as_ptr()) })?;
        // SAFETY: as above.
        done(unsafe { libc::chdir(c"/".as_ptr()) })
    }
}

fn c(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} as a C string", path.display()))
}
