//! `tree`: who descends from whom, drawn.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::branches::TreeView;
use crate::control::protocol::params::TreeParams;
use crate::control::protocol::volumes::VolumeView;
use crate::units::{ByteSize, VolumeName};
use clap::Args;

/// Draw which volumes and snapshots were made from which
#[derive(Debug, Args)]
pub struct TreeArgs {
    /// Only the family of this one
    #[arg(value_parser = volume_name())]
    volume: Option<VolumeName>,
}

pub(super) fn run(global: &Global, args: TreeArgs) -> Result<(), Failure> {
    let params = TreeParams { name: args.volume.map(|name| name.to_string()) };
    let mut target = Target::choose(global, Reach::Metadata)?;
    let families: Vec<TreeView> = target.call(Method::Tree, &params, None, &Job::default())?;
    print(global.json, &families, |families| draw(families))
}

fn draw(families: &[TreeView]) -> String {
    let mut lines = Vec::new();
    for family in families {
        lines.push(label(family));
        draw_children(&family.children, "", &mut lines);
    }
    lines.join("\n")
}

fn draw_children(children: &[TreeView], indent: &str, lines: &mut Vec<String>) {
    for (index, child) in children.iter().enumerate() {
        let (branch, below) =
            if index + 1 == children.len() { ("└── ", "    ") } else { ("├── ", "│   ") };
        lines.push(format!("{indent}{branch}{}", label(child)));
        draw_children(&child.children, &format!("{indent}{below}"), lines);
    }
}

fn label(node: &TreeView) -> String {
    match &node.volume {
        None => format!("(removed: {})", node.id),
        Some(volume) => format!("{} ({})", volume.name, details(volume)),
    }
}

fn details(volume: &VolumeView) -> String {
    let mut details = format!("{}, {}", volume.kind, ByteSize(volume.size));
    if volume.state != "closed" {
        details.push_str(", ");
        details.push_str(&volume.state);
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: Option<&str>, children: Vec<TreeView>) -> TreeView {
        let volume = |name: &str| VolumeView {
            name: name.into(),
            size: 1 << 30,
            kind: if name.contains('@') { "snapshot" } else { "disk" }.into(),
            state: "closed".into(),
            ..VolumeView::default()
        };
        TreeView { id: "1d".into(), volume: name.map(volume), children }
    }

    #[test]
    fn descent_is_drawn_with_its_branches() {
        let clone = node(Some("web2"), vec![]);
        let families = [
            node(Some("web1"), vec![node(Some("web1@1"), vec![clone]), node(None, vec![node(Some("web3"), vec![])])]),
            node(Some("web4"), vec![]),
        ];
        let expected = "\
web1 (disk, 1GiB)
├── web1@1 (snapshot, 1GiB)
│   └── web2 (disk, 1GiB)
└── (removed: 1d)
    └── web3 (disk, 1GiB)
web4 (disk, 1GiB)";
        assert_eq!(draw(&families), expected);
    }
}
