//! `xml`: what a libvirt domain needs to use an attached volume.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::daemon;
use crate::control::failure::{Failure, FailureKind};
use crate::control::protocol::attachments::AttachmentView;
use crate::device::QUEUES_DEFAULT;
use crate::units::VolumeName;
use clap::Args;
use serde::Serialize;

/// Seconds after which libvirt lets the front-end try to connect again.
const RECONNECT_SECONDS: u32 = 1;

/// Print the libvirt XML for an attached volume
///
/// `<memoryBacking>` belongs into `<domain>`, once, since the daemon reads and writes the guest's memory; `<disk>` belongs
/// into `<devices>`, one per volume. `virsh attach-device` takes the disk alone (`--part disk`).
#[derive(Debug, Args)]
pub struct XmlArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// The disk's name in the domain
    #[arg(long, value_name = "DEVICE", default_value = "vda", value_parser = device_name)]
    target: String,
    /// What to print
    #[arg(long, value_enum, default_value = "both")]
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Disk,
    MemoryBacking,
    Both,
}

#[derive(Debug, Serialize)]
struct XmlView {
    disk: String,
    memory_backing: String,
}

pub(super) fn run(global: &Global, args: XmlArgs) -> Result<(), Failure> {
    let attachments: Vec<AttachmentView> = daemon(global)?.call("attachments", &())?;
    let attachment = choose(&attachments, args.name.as_str())?;
    let view = XmlView { disk: disk(attachment, &args.target), memory_backing: MEMORY_BACKING.to_owned() };
    print(global.json, &view, |view| match args.part {
        Part::Disk => view.disk.clone(),
        Part::MemoryBacking => view.memory_backing.clone(),
        Part::Both => format!("{}\n{}", view.memory_backing, view.disk),
    })
}

fn choose<'a>(attachments: &'a [AttachmentView], name: &str) -> Result<&'a AttachmentView, Failure> {
    let meant = |view: &&AttachmentView| view.volume == name && view.socket.is_some();
    let missing = || Failure::new(FailureKind::NotFound, format!("volume {name} is not attached: attach it first"));
    attachments.iter().find(meant).ok_or_else(missing)
}

const MEMORY_BACKING: &str = "\
<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>";

fn disk(attachment: &AttachmentView, target: &str) -> String {
    let socket = escaped(attachment.socket.as_deref().unwrap_or_default());
    // Whether the disk may be written is said by the device itself (VIRTIO_BLK_F_RO).
    format!(
        "\
<disk type='vhostuser' device='disk'>
  <driver name='qemu' type='raw'{queues}/>
  <source type='unix' path='{socket}'>
    <reconnect enabled='yes' timeout='{RECONNECT_SECONDS}'/>
  </source>
  <target dev='{target}' bus='virtio'/>
</disk>",
        queues = queues_attribute(attachment.queues)
    )
}

/// Without the attribute a guest gets one queue per virtual processor, which the default allows for.
fn queues_attribute(queues: u16) -> String {
    if queues == QUEUES_DEFAULT { String::new() } else { format!(" queues='{queues}'") }
}

/// For an attribute in single quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push_str(&format!("&#{};", u32::from(character))),
            other => escaped.push(other),
        }
    }
    escaped
}

fn device_name(text: &str) -> Result<String, String> {
    let legal = !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if legal { Ok(text.to_owned()) } else { Err("a device is named like vda or vdb".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escaped("/run/a&b<c>'d\""), "/run/a&amp;b&lt;c&gt;&apos;d&quot;");
    }

    #[test]
    fn device_names_cannot_break_out_of_their_attribute() {
        assert!(device_name("vdb").is_ok());
        assert!(device_name("vdb' bus='ide").is_err());
    }
}
