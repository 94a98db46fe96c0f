//! `tree`: who descends from whom.
//!
//! The links are those that headers keep: a snapshot's parent is its volume, a clone's parent its snapshot or volume. A removed
//! volume keeps its place as long as something that descends from it exists, without a name. A parent that is gone, or a circle
//! of parents (which only damage can make), leaves its child at the top.

use super::info::{VolumeInfo, describe};
use crate::map::format::header::{Header, HeaderState};
use crate::store::io::{self, Io};
use crate::store::{ListScope, ObjectName, Store};
use crate::units::{VolumeId, VolumeName};
use crate::volume::open::{find, list_all, read_header_of};
use crate::volume::{VolumeError, VolumeErrorKind};
use futures_util::future::join_all;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Headers and names read at once.
const BATCH: usize = 64;

/// A volume with those that were made from it, oldest first.
#[derive(Debug, Clone)]
pub struct TreeNode {
    pub id: VolumeId,
    /// `None` when it was removed and only its descendants are left.
    pub volume: Option<VolumeInfo>,
    pub children: Vec<TreeNode>,
}

/// # Errors
/// When the store cannot be listed. A damaged volume is left out, and logged.
pub fn tree(store: &Arc<dyn Store>) -> Result<Vec<TreeNode>, VolumeError> {
    let (headers, names) = io::block_on(store, None, |io| async move {
        // Names first: a volume that is made meanwhile may miss its name, and none has a name without a header.
        let names = names(&io).await?;
        Ok::<_, VolumeError>((headers(&io).await?, names))
    })?;
    let mut volumes = BTreeMap::new();
    for header in &headers {
        let named = names.get(&header.id).filter(|_| header.state != HeaderState::Removed);
        let mut info = named.map(|name| describe(store, name, header));
        if let Some(parent) = info.as_mut().and_then(|info| info.parent.as_mut()) {
            parent.name = names.get(&parent.id).cloned();
        }
        volumes.insert(header.id, info);
    }
    Ok(arrange(links(&headers), volumes))
}

/// A volume's place among others.
#[derive(Debug, Clone, Copy)]
struct Link {
    id: VolumeId,
    parent: Option<VolumeId>,
    created: u64,
}

fn links(headers: &[Header]) -> Vec<Link> {
    let link = |header: &Header| Link {
        id: header.id,
        parent: header.parent.map(|parent| parent.id),
        created: header.created,
    };
    headers.iter().map(link).collect()
}

/// The tree of these volumes; those without an info only where something below them has one.
fn arrange(mut links: Vec<Link>, mut volumes: BTreeMap<VolumeId, Option<VolumeInfo>>) -> Vec<TreeNode> {
    links.sort_by_key(|link| (link.created, link.id));
    let parents: HashMap<VolumeId, VolumeId> = links.iter().filter_map(|link| Some((link.id, link.parent?))).collect();
    let known: HashSet<VolumeId> = links.iter().map(|link| link.id).collect();
    let parent_of = |id: &VolumeId| parents.get(id).copied().filter(|parent| known.contains(parent));
    let in_circle = circles(&links, &parent_of);
    let mut children: HashMap<Option<VolumeId>, Vec<VolumeId>> = HashMap::new();
    for Link { id, .. } in &links {
        let parent = parent_of(id).filter(|_| !in_circle.contains(id));
        children.entry(parent).or_default().push(*id);
    }
    // Parents before children, so that going backwards every node finds its children made.
    let mut order = children.get(&None).cloned().unwrap_or_default();
    let mut at = 0;
    while let Some(id) = order.get(at).copied() {
        order.extend(children.get(&Some(id)).into_iter().flatten());
        at += 1;
    }
    let mut made: HashMap<VolumeId, TreeNode> = HashMap::new();
    for id in order.into_iter().rev() {
        let below = children.get(&Some(id)).into_iter().flatten().filter_map(|child| made.remove(child)).collect();
        let node = TreeNode { id, volume: volumes.remove(&id).flatten(), children: below };
        if node.volume.is_some() || !node.children.is_empty() {
            made.insert(id, node);
        }
    }
    children.get(&None).into_iter().flatten().filter_map(|root| made.remove(root)).collect()
}

/// Of every circle of parents, the oldest member: it is put at the top.
fn circles(links: &[Link], parent_of: &impl Fn(&VolumeId) -> Option<VolumeId>) -> HashSet<VolumeId> {
    let mut in_circle = HashSet::new();
    let mut settled: HashSet<VolumeId> = HashSet::new();
    for start in links {
        let mut path = HashSet::new();
        let mut at = Some(start.id);
        while let Some(id) = at.filter(|id| !settled.contains(id)) {
            if !path.insert(id) {
                tracing::warn!(%id, "a volume descends from itself: its header's parent is wrong");
                in_circle.insert(id);
                break;
            }
            at = parent_of(&id);
        }
        settled.extend(path);
    }
    in_circle
}

/// The headers of all volumes that exist, or did.
async fn headers(io: &Io) -> Result<Vec<Header>, VolumeError> {
    let ids: Vec<VolumeId> = list_all(io, ListScope::Volumes)
        .await?
        .into_iter()
        .filter_map(|object| match object {
            ObjectName::Header { volume, .. } => Some(volume),
            _ => None,
        })
        .collect();
    let mut headers = Vec::with_capacity(ids.len());
    for batch in ids.chunks(BATCH) {
        let read = batch.iter().map(|id| async move { (id, read_header_of(io, *id, &nameless(*id)).await) });
        for (id, read) in join_all(read).await {
            match read {
                Ok((header, _)) => headers.push(header),
                // In the making, or just gone.
                Err(error) if error.kind() == VolumeErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%id, %error, "a damaged volume is left out of the tree"),
            }
        }
    }
    Ok(headers)
}

/// For messages about a volume whose name is not known.
fn nameless(id: VolumeId) -> VolumeName {
    VolumeName::new(&id.to_string()).expect("hexadecimal digits are a legal name")
}

async fn names(io: &Io) -> Result<HashMap<VolumeId, VolumeName>, VolumeError> {
    let mut names = HashMap::new();
    for batch in list_all(io, ListScope::Names).await?.chunks(BATCH) {
        let found = batch.iter().filter_map(|object| match object {
            ObjectName::Name(name) => Some(async move { (find(io, name).await, name.clone()) }),
            _ => None,
        });
        for (id, name) in join_all(found).await {
            match id {
                Ok(id) => drop(names.insert(id, name)),
                Err(error) => tracing::warn!(%name, %error, "a damaged name is left out of the tree"),
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::create::{CreateRequest, create};
    use crate::map::format::header::Parent;
    use crate::store::PublishMode;
    use crate::store::memory::MemoryStore;
    use crate::units::{Epoch, ObjectSize, VolumeSize};

    fn store_with(names: &[&str]) -> (Arc<dyn Store>, Vec<VolumeId>) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let ids = names.iter().map(|name| {
            let (name, size) = (VolumeName::new(name).unwrap(), VolumeSize::new(1 << 20).unwrap());
            create(&store, &CreateRequest { name, size, object_size: ObjectSize::DEFAULT }).unwrap().id
        });
        let ids = ids.collect();
        (store, ids)
    }

    fn amend(store: &Arc<dyn Store>, id: VolumeId, change: impl Fn(&mut Header) + 'static) {
        io::block_on(store, None, |io| async move {
            let (mut header, generation) = read_header_of(&io, id, &nameless(id)).await.unwrap();
            change(&mut header);
            let object = ObjectName::Header { volume: id, generation };
            io.publish(object, &header.encode(), PublishMode::Replace).await
        })
        .unwrap();
    }

    fn set_parent(store: &Arc<dyn Store>, child: VolumeId, parent: VolumeId, created: u64) {
        amend(store, child, move |header| {
            header.parent = Some(Parent { id: parent, epoch: Epoch(1) });
            header.created = created;
        });
    }

    /// As `a(b c(d))`, with `-` for a removed volume.
    fn shape(nodes: &[TreeNode]) -> String {
        let one = |node: &TreeNode| {
            let name = node.volume.as_ref().map_or("-".into(), |volume| volume.name.to_string());
            if node.children.is_empty() { name } else { format!("{name}({})", shape(&node.children)) }
        };
        nodes.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn children_stand_below_their_parent_in_the_order_of_their_age() {
        let (store, ids) = store_with(&["disk", "snap", "young", "old"]);
        amend(&store, ids[0], |header| header.created = 1);
        set_parent(&store, ids[1], ids[0], 2);
        set_parent(&store, ids[2], ids[1], 9);
        set_parent(&store, ids[3], ids[1], 8);
        assert_eq!(shape(&tree(&store).unwrap()), "disk(snap(old young))");
    }

    #[test]
    fn a_removed_volume_is_shown_while_it_has_descendants() {
        let (store, ids) = store_with(&["disk", "snap", "clone"]);
        set_parent(&store, ids[1], ids[0], 2);
        set_parent(&store, ids[2], ids[1], 3);
        amend(&store, ids[1], |header| header.state = HeaderState::Removed);
        assert_eq!(shape(&tree(&store).unwrap()), "disk(-(clone))");
        amend(&store, ids[2], |header| header.state = HeaderState::Removed);
        assert_eq!(shape(&tree(&store).unwrap()), "disk");
    }

    #[test]
    fn missing_parents_and_circles_hide_nobody() {
        let (store, ids) = store_with(&["orphan", "a", "b", "c"]);
        set_parent(&store, ids[0], VolumeId([9; 16]), 1);
        set_parent(&store, ids[1], ids[3], 2);
        set_parent(&store, ids[2], ids[1], 3);
        set_parent(&store, ids[3], ids[2], 4);
        assert_eq!(shape(&tree(&store).unwrap()), "orphan a(b(c))");
    }
}
