//! Who is who in a user namespace: what a container with a map of its own has written belongs on disk
//! to other numbers than in the container.

use crate::error::{Context, Error, Result};
use crate::image::document;
use serde::Deserialize;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Where minirun says, in the directory of a writable layer, whose the files in it are.
const FILE: &str = "owners.json";
/// Who has no number in the namespace (the kernel's overflow user and group).
const NOBODY: u32 = 65534;
/// The flags of a file capability (linux/capability.h): the revision is in the highest byte, and
/// the third has four bytes more, the number of root.
const REVISION_2: u8 = 2;
const REVISION_3: u8 = 3;
const BYTES_3: usize = 24;

/// The map of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMap {
    uid_mappings: Vec<Range>,
    gid_mappings: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Range {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    outside: u32,
    size: u32,
}

impl IdMap {
    /// The map beside an upper directory; `None`, when its owners are the host's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn beside(upper: &Path) -> Result<Option<Self>> {
        let file = upper.with_file_name(FILE);
        let step = || format!("read {}", file.display());
        match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::from(error)).context(step),
            Ok(bytes) => document::parse(&bytes).map(Some).context(step),
        }
    }

    /// The user inside.
    pub fn user_inside(&self, outside: u32) -> u32 {
        inside(&self.uid_mappings, outside)
    }

    /// The group inside.
    pub fn group_inside(&self, outside: u32) -> u32 {
        inside(&self.gid_mappings, outside)
    }

    /// Makes a file capability that is for this namespace's root only one for every root.
    pub fn capability_inside(&self, value: &mut Vec<u8>) {
        if value.len() != BYTES_3 || value[3] != REVISION_3 {
            return;
        }
        let root = value[BYTES_3 - 4..].try_into().map(u32::from_le_bytes);
        if root.is_ok_and(|root| self.user_inside(root) == 0) {
            value[3] = REVISION_2;
            value.truncate(BYTES_3 - 4);
        }
    }
}

fn inside(ranges: &[Range], outside: u32) -> u32 {
    let within = |range: &&Range| outside >= range.outside && outside - range.outside < range.size;
    let range = ranges.iter().find(within);
    let id = range.and_then(|range| range.inside.checked_add(outside - range.outside));
    id.unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> IdMap {
        let range = |inside, outside, size| Range { inside, outside, size };
        let ranges = vec![range(0, 300_000, 1000), range(5000, 7, 1)];
        IdMap { uid_mappings: ranges.clone(), gid_mappings: ranges }
    }

    #[test]
    fn numbers_come_back() {
        let expected = [(300_000, 0), (300_999, 999), (301_000, NOBODY), (7, 5000), (0, NOBODY)];
        for (outside, inside) in expected {
            assert_eq!(map().user_inside(outside), inside, "{outside}");
            assert_eq!(map().group_inside(outside), inside, "{outside}");
        }
    }

    #[test]
    fn capabilities_are_for_every_root() {
        let mut value = vec![1, 0, 0, 3];
        value.extend([0; 16]);
        let short = [&[1, 0, 0, 2][..], &[0; 16]].concat();
        let mut ours = [&value[..], &300_000_u32.to_le_bytes()].concat();
        map().capability_inside(&mut ours);
        assert_eq!(ours, short);
        // Of another root, or of the second revision: as they are.
        let foreign = [&value[..], &9_u32.to_le_bytes()].concat();
        for other in [foreign, short, vec![3; 3]] {
            let mut same = other.clone();
            map().capability_inside(&mut same);
            assert_eq!(same, other);
        }
    }
}
