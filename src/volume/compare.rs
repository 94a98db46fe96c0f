//! Where two open volumes differ, by their maps ([`crate::map::compare`]).

use super::open::tree_error;
use super::{Access, Port, Volume, VolumeError, VolumeErrorKind};
use crate::map::compare::{CompareError, Pair, Part, Side, Which};
use std::sync::Arc;

impl Port {
    /// Compares this port's volume with `from`, or with nothing: the differences of one leaf at `offset` or behind it, and
    /// how far that went; `None` when nothing more differs.
    ///
    /// # Errors
    /// When a map cannot be read, or the two have objects of different sizes.
    ///
    /// # Panics
    /// When one of them is open for writing: its map would change meanwhile.
    pub async fn differences(&self, from: Option<&Arc<Volume>>, offset: u64) -> Result<Option<Part>, VolumeError> {
        let to = self.volume();
        let both = [Some(to), from].into_iter().flatten();
        assert!(both.into_iter().all(|volume| volume.access == Access::ReadOnly), "maps that are compared hold still");
        if let Some(from) = from.filter(|from| from.object_size != to.object_size) {
            let text = format!("volumes {} and {} have objects of different sizes", from.name, to.name);
            return Err(VolumeError::new(VolumeErrorKind::OutOfRange, text));
        }
        let side = |volume: &'_ Arc<Volume>| volume.size().bytes();
        let pair = Pair {
            from: from.map(|from| Side { map: &from.map, size: side(from) }),
            to: Side { map: &to.map, size: side(to) },
            object_size: to.object_size,
        };
        pair.part(self.io(), offset).await.map_err(|CompareError { which, source }| {
            let volume = match which {
                Which::From => from.unwrap_or(to),
                Which::To => to,
            };
            tree_error(&volume.name, source)
        })
    }
}
