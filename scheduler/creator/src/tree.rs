//! What will lie on the data partition: folders, files and links by path, each path once. Pure; archives and
//! plain files are put here before any file system exists, so that nothing an archive names is ever used as a
//! path of this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::recipe::path_fault;

/// Blocks of the data partition, bytes.
pub(crate) use cardshop_protocol::configuration::size::{BLOCK_SIZE, file_bytes};
/// Time of everything that brings none of its own: 2025-01-01T00:00:00Z, seconds since 1970. Fixed, so that
/// the same recipe gives the same image.
pub(crate) const IMAGE_TIME: u64 = 1_735_689_600;

/// Most memory of all names, bytes: a million files with names of usual length.
const MAX_TREE_SIZE: usize = 512 * 1024 * 1024;
/// Bytes of a node beside its name.
const NODE_SIZE: usize = 300;

/// Owner, mode and time of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits, `0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

impl Meta {
    pub(crate) const FILE: Self = Self { mode: 0o644, uid: 0, gid: 0, mtime: IMAGE_TIME };
    pub(crate) const FOLDER: Self = Self { mode: 0o755, uid: 0, gid: 0, mtime: IMAGE_TIME };
}

/// Name, with its name space, and value of an extended attribute.
pub(crate) type Xattr = (String, Vec<u8>);

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    /// The bytes of a file of this machine.
    File {
        source: PathBuf,
        size: u64,
    },
    Link {
        target: String,
    },
    /// Another name of the file at this path.
    Same {
        of: String,
    },
}

/// Why a node cannot be put where it wants to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("/data{path} {fault}")]
pub struct TreeError {
    /// On the data partition.
    pub path: String,
    /// Why not.
    pub fault: &'static str,
}

/// The data partition to be.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, (Node, Meta)>,
    xattrs: BTreeMap<String, Vec<Xattr>>,
    /// Bytes of memory, about.
    size: usize,
}

impl Tree {
    /// Puts a node at `path` (`/a/b`), and the folders above it. A folder may be named again.
    pub(crate) fn put(&mut self, path: &str, node: Node, meta: Meta) -> Result<(), TreeError> {
        let error = |fault| TreeError { path: path.to_owned(), fault };
        if let Some(fault) = path_fault(path) {
            return Err(error(fault));
        }
        if path == "/lost+found" || path.starts_with("/lost+found/") {
            return Err(error("belongs to the file system"));
        }
        for (at, _) in path.match_indices('/').skip(1) {
            match self.nodes.get(&path[..at]) {
                None => {
                    self.insert(&path[..at], Node::Folder, Meta::FOLDER)?;
                }
                Some((Node::Folder, _)) => {}
                Some((Node::File { .. }, _)) => return Err(error("lies below a file")),
                Some((Node::Link { .. }, _)) => return Err(error("lies below a link")),
                Some((Node::Same { .. }, _)) => return Err(error("lies below a hard link")),
            }
        }
        match self.nodes.get(path) {
            Some((Node::Folder, _)) if node == Node::Folder => {}
            Some(_) => return Err(error("is put twice")),
            None => {}
        }
        self.insert(path, node, meta)
    }

    /// Sets the extended attributes of what was put at `path`; of another name of a file, nothing: the file has them.
    pub(crate) fn set_xattrs(&mut self, path: &str, xattrs: &[Xattr]) -> Result<(), TreeError> {
        if xattrs.is_empty() || matches!(self.nodes.get(path), None | Some((Node::Same { .. }, _))) {
            return Ok(());
        }
        self.count_memory(path, xattrs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        self.xattrs.insert(path.to_owned(), xattrs.to_vec());
        Ok(())
    }

    pub(crate) fn xattrs(&self, path: &str) -> &[Xattr] {
        self.xattrs.get(path).map_or(&[], Vec::as_slice)
    }

    fn insert(&mut self, path: &str, node: Node, meta: Meta) -> Result<(), TreeError> {
        self.count_memory(path, 0)?;
        self.nodes.insert(path.to_owned(), (node, meta));
        Ok(())
    }

    fn count_memory(&mut self, path: &str, more: usize) -> Result<(), TreeError> {
        self.size += path.len() + NODE_SIZE + more;
        if self.size > MAX_TREE_SIZE {
            return Err(TreeError {
                path: path.to_owned(),
                fault: "is one too many: no card has so many names",
            });
        }
        Ok(())
    }

    /// The path of the file that `path` is or is another name of.
    pub(crate) fn file<'t>(&'t self, path: &'t str) -> Option<&'t str> {
        match &self.nodes.get(path)?.0 {
            Node::File { .. } => Some(path),
            Node::Same { of } => Some(of),
            Node::Folder | Node::Link { .. } => None,
        }
    }

    /// Everything, folders before what is in them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node, &Meta)> {
        self.nodes.iter().map(|(path, (node, meta))| (path.as_str(), node, meta))
    }

    pub(crate) fn count(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Bytes of all blocks that contents and folders take.
    pub(crate) fn bytes(&self) -> u64 {
        // A name takes its length, 8 bytes and padding in its folder; blocks of names fill to a half at worst.
        let name_bytes = |path: &str| 2 * (path.rsplit('/').next().unwrap_or_default().len() as u64 + 12);
        let nodes: u64 = self.nodes.iter().map(|(path, (node, _))| node_bytes(node) + name_bytes(path)).sum();
        nodes + self.xattrs.len() as u64 * BLOCK_SIZE
    }
}

fn node_bytes(node: &Node) -> u64 {
    match node {
        Node::File { size, .. } => file_bytes(*size),
        Node::Folder => BLOCK_SIZE,
        Node::Same { .. } => 0,
        // Short ones lie in the inode.
        Node::Link { target } => {
            if target.len() < 60 {
                0
            } else {
                BLOCK_SIZE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Node {
        Node::File { source: "x".into(), size: 1 }
    }

    #[test]
    fn folders_above_a_file_come_first_and_once() {
        let mut tree = Tree::default();
        tree.put("/b/c/d", file(), Meta::FILE).unwrap();
        tree.put("/b/a", file(), Meta::FILE).unwrap();
        tree.put("/b-", Node::Folder, Meta::FOLDER).unwrap();
        let paths: Vec<&str> = tree.iter().map(|n| n.0).collect();
        assert_eq!(paths, ["/b", "/b-", "/b/a", "/b/c", "/b/c/d"]);
        assert_eq!(tree.bytes().div_ceil(BLOCK_SIZE), 6);
    }

    #[test]
    fn names_take_a_bounded_amount_of_memory() {
        let mut tree = Tree { size: MAX_TREE_SIZE - 2 * NODE_SIZE - 10, ..Tree::default() };
        tree.put("/a/b", file(), Meta::FILE).unwrap();
        let refusal = tree.put("/a/c", file(), Meta::FILE).unwrap_err().to_string();
        assert_eq!(refusal, "/data/a/c is one too many: no card has so many names");
    }

    #[test]
    fn a_path_is_taken_once_and_nothing_lies_below_a_file_or_link() {
        let mut tree = Tree::default();
        tree.put("/f", file(), Meta::FILE).unwrap();
        tree.put("/l", Node::Link { target: "f".into() }, Meta::FILE).unwrap();
        tree.put("/d", Node::Folder, Meta::FOLDER).unwrap();
        tree.put("/d", Node::Folder, Meta { mode: 0o700, ..Meta::FOLDER }).unwrap();
        for (path, message) in [
            ("/f", "/data/f is put twice"),
            ("/d", "/data/d is put twice"),
            ("/f/x", "/data/f/x lies below a file"),
            ("/l/x", "/data/l/x lies below a link"),
            ("/a/../x", "/data/a/../x has `.` or `..` in it"),
            ("/lost+found", "/data/lost+found belongs to the file system"),
            ("/a\nb", "/data/a\nb has a control character"),
        ] {
            assert_eq!(tree.put(path, file(), Meta::FILE).unwrap_err().to_string(), message);
        }
    }
}
