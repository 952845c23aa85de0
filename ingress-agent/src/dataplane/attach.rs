//! Loads the programs and puts them on the interfaces through pinned links. An existing link is updated in place
//! (`BPF_LINK_UPDATE`), so that every packet meets the old or the new program and none meets neither.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaMode};
use aya::sys::SyscallError;
use aya::{Ebpf, EbpfLoader};
use xdp_ebpf::program;

use super::device::{self, Device};
use super::kernel;
use super::options::XdpMode;
use super::pins::{MapSpec, Pins};
use crate::model::traffic::{AttachMode, Attachment};

/// Loads the object on the pinned maps, creating and pinning those that are missing, and has the verifier see both programs.
pub(super) fn load(object: &[u8], pins: &Pins, specs: &[MapSpec]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // No program reads kernel types, and parsing the kernel's BTF would cost tens of megabytes.
    loader.btf(None);
    for spec in specs {
        loader.map_max_entries(spec.name, spec.entries).map_pin_path(spec.name, pins.map(spec.name));
    }
    let mut ebpf = loader.load(object).context("create the maps of the data plane")?;
    let xdp: &mut Xdp = ebpf.program_mut(program::INGRESS).context("no XDP program in the object")?.try_into()?;
    xdp.load().context("load the XDP program")?;
    pin_anew(&pins.program(program::INGRESS), |path| Ok(xdp.pin(path)?))?;
    let tc: &mut SchedClassifier =
        ebpf.program_mut(program::EGRESS).context("no TC program in the object")?.try_into()?;
    tc.load().context("load the TC program")?;
    pin_anew(&pins.program(program::EGRESS), |path| Ok(tc.pin(path)?))?;
    Ok(ebpf)
}

/// Attaches both programs to every interface, adopting links; then removes links to interfaces that are not named any more.
///
/// `namespace` is where the devices are: an interface's number means nothing in another one, so this thread has to be there.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    devices: &[Device],
    namespace: u64,
    mode: XdpMode,
) -> Result<Vec<Attachment>> {
    ensure!(namespace == network_namespace()?, "this thread left the network namespace of the data plane");
    let links = Links { dir: pins.links(), namespace };
    let mut attachments: Vec<Attachment> = Vec::new();
    let mut wanted = Vec::new();
    let xdp: &mut Xdp = ebpf.program_mut(program::INGRESS).context("no XDP program in the object")?.try_into()?;
    for device in devices {
        let found = links.xdp_on(xdp, device, mode)?;
        wanted.extend(found.iter().map(|a| links.xdp_path(a.index, a.mode)));
        attachments.extend(found);
    }
    let tc: &mut SchedClassifier =
        ebpf.program_mut(program::EGRESS).context("no TC program in the object")?.try_into()?;
    for device in devices {
        links.egress_on(tc, device)?;
        wanted.push(links.egress_path(device.index));
    }
    for entry in fs::read_dir(&links.dir).context("read the pinned links")?.flatten() {
        if !wanted.contains(&entry.path()) {
            tracing::info!(link = %entry.path().display(), "detached: its interface is gone or not named any more");
            kernel::detach(&entry.path()).with_context(|| format!("detach {}", entry.path().display()))?;
        }
    }
    Ok(attachments)
}

/// Moves the links of another schema's directory here, where [`attach`] finds and updates them: its programs go on until then.
pub(super) fn take_over(pins: &Pins, other: &Path) -> Result<()> {
    for entry in fs::read_dir(other.join("links")).into_iter().flatten().flatten() {
        let target = pins.links().join(entry.file_name());
        if !target.exists() {
            fs::rename(entry.path(), &target)
                .with_context(|| format!("move the link {} to {}", entry.path().display(), target.display()))?;
        }
    }
    Ok(())
}

/// Number of this thread's network namespace.
pub(super) fn network_namespace() -> Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net").context("find the network namespace")?.ino())
}

/// The directory of links, and the network namespace.
struct Links {
    dir: PathBuf,
    namespace: u64,
}

impl Links {
    /// Interfaces go by number: names change, and may hold a dot, which bpffs refuses.
    fn xdp_path(&self, index: u32, mode: AttachMode) -> PathBuf {
        let mode = match mode {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        };
        self.dir.join(format!("xdp_{mode}_{}_{index}", self.namespace))
    }

    fn egress_path(&self, index: u32) -> PathBuf {
        self.dir.join(format!("egress_{}_{index}", self.namespace))
    }

    /// Native on the device, else native on all devices below it (VLANs have no native XDP, bonds only in some modes), else
    /// generic on the device.
    fn xdp_on(&self, xdp: &mut Xdp, device: &Device, mode: XdpMode) -> Result<Vec<Attachment>> {
        if mode == XdpMode::Generic {
            return Ok(vec![self.xdp(xdp, device, AttachMode::Generic, Some("asked for by --xdp-mode".into()))?]);
        }
        // What a former agent of this namespace attached goes on as it is.
        if mode == XdpMode::Auto && self.xdp_path(device.index, AttachMode::Generic).exists() {
            let note = "attached so by an earlier start".to_owned();
            if let Ok(adopted) = self.xdp(xdp, device, AttachMode::Generic, Some(note)) {
                return Ok(vec![adopted]);
            }
        }
        let refused = match self.xdp(xdp, device, AttachMode::Native, None) {
            Ok(attachment) => return Ok(vec![attachment]),
            Err(e) => e,
        };
        if taken(&refused) {
            bail!(
                "another XDP program is attached to {}: `ip link show {0}` tells which, `ip link set dev {0} xdp off` removes it",
                device.name
            );
        }
        let below = device::below(device);
        let lower: Result<Vec<_>> = below.iter().map(|d| self.xdp(xdp, d, AttachMode::Native, None)).collect();
        match lower {
            Ok(mut attachments) if !attachments.is_empty() => {
                for attachment in &mut attachments {
                    let note = format!("on {}, since {} has no native XDP", attachment.interface, device.name);
                    (attachment.interface, attachment.note) = (device.name.clone(), Some(note));
                }
                return Ok(attachments);
            }
            Ok(_) => {}
            Err(e) => {
                tracing::debug!(interface = device.name, error = format!("{e:#}"), "no native XDP below it either");
            }
        }
        if mode == XdpMode::Native {
            return Err(refused).with_context(|| {
                format!("{} has no native XDP; --xdp-mode auto or generic would attach after the driver", device.name)
            });
        }
        let note = format!("no native XDP: {}", refused.root_cause());
        tracing::warn!(interface = device.name, reason = note, "attached in generic mode, which is much slower");
        Ok(vec![self.xdp(xdp, device, AttachMode::Generic, Some(note))?])
    }

    fn xdp(&self, xdp: &mut Xdp, device: &Device, mode: AttachMode, note: Option<String>) -> Result<Attachment> {
        let path = self.xdp_path(device.index, mode);
        // An interface has one XDP program: a link in the other mode would be in the way.
        let other = match mode {
            AttachMode::Native => AttachMode::Generic,
            AttachMode::Generic => AttachMode::Native,
        };
        let in_the_way = self.xdp_path(device.index, other);
        if in_the_way.exists() {
            kernel::detach(&in_the_way).with_context(|| format!("detach {}", in_the_way.display()))?;
        }
        let adopted = match pinned(&path)? {
            None => None,
            Some(link) => {
                let link = link.try_into().with_context(|| format!("{} is no XDP link", path.display()))?;
                match xdp.attach_to_link(link) {
                    Ok(id) => Some(id),
                    Err(e) => {
                        defunct(&path, &e)?;
                        None
                    }
                }
            }
        };
        if let Some(id) = adopted {
            // Dropping it closes the descriptor; the pin keeps the link.
            drop(xdp.take_link(id)?);
        } else {
            let flag = match mode {
                AttachMode::Native => AyaMode::Driver,
                AttachMode::Generic => AyaMode::Skb,
            };
            let id = xdp.attach_to_if_index(device.index, flag)?;
            let link: FdLink = xdp.take_link(id)?.try_into().context("this kernel has no XDP links")?;
            link.pin(&path).with_context(|| format!("pin {}", path.display()))?;
        }
        Ok(Attachment { interface: device.name.clone(), index: device.index, mode, note })
    }

    fn egress_on(&self, tc: &mut SchedClassifier, device: &Device) -> Result<()> {
        let path = self.egress_path(device.index);
        if let Some(link) = pinned(&path)? {
            let link = link.try_into().with_context(|| format!("{} is no tcx link", path.display()))?;
            match tc.attach_to_link(link) {
                Ok(id) => {
                    drop(tc.take_link(id)?);
                    return Ok(());
                }
                Err(e) => defunct(&path, &e)?,
            }
        }
        let id = tc
            .attach(&device.name, TcAttachType::Egress)
            .with_context(|| format!("attach the TC program to egress of {}", device.name))?;
        let link: FdLink = tc.take_link(id)?.try_into().context("this kernel has no tcx links")?;
        link.pin(&path).with_context(|| format!("pin {}", path.display()))?;
        Ok(())
    }
}

fn pinned(path: &Path) -> Result<Option<FdLink>> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(PinnedLink::from_pin(path).with_context(|| format!("{} is no link", path.display()))?.into()))
}

/// A link whose interface was removed (and perhaps made again) says ENOLINK; it is replaced by a new one.
fn defunct(path: &Path, error: &ProgramError) -> Result<()> {
    tracing::info!(link = %path.display(), %error, "the pinned link is dead: attaching anew");
    kernel::detach(path).with_context(|| format!("remove {}", path.display()))
}

fn taken(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<ProgramError>(),
        Some(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if matches!(io_error.kind(), ErrorKind::ResourceBusy | ErrorKind::AlreadyExists)
    )
}

fn pin_anew(path: &Path, pin: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("remove {}", path.display())),
        _ => pin(path).with_context(|| format!("pin {}", path.display())),
    }
}
