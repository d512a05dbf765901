//! Where debugfs put the blocks of a file: read from what it prints, and the commands that make them count as written.
//! Pure; [`crate::ext4`] runs them.
//!
//! `fallocate` of debugfs only gives uninitialized blocks, which read as zeros. `replace_node` writes an extent anew
//! without that mark. **Source:** debugfs(8) of e2fsprogs 1.47.0, and its output.

use std::fmt::Write as _;

use crate::tree::BLOCK_SIZE;

/// A piece of a file that lies in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes of the file.
    pub logical: u64,
    /// Bytes of the partition.
    pub physical: u64,
    /// Bytes, whole blocks.
    pub length: u64,
    /// True when it stands in a block of its own instead of the inode.
    deep: bool,
}

/// The extents of each file that `ex -l` was asked about, in the order of the questions; `None` when the output is not
/// what is expected, or a file has not `blocks` blocks without a gap.
pub(crate) fn parse(output: &str, blocks: &[u64]) -> Option<Vec<Vec<Extent>>> {
    let mut files: Vec<Vec<Extent>> = Vec::new();
    let mut inside = false;
    for line in output.lines() {
        if let Some(command) = line.strip_prefix("debugfs: ") {
            inside = command.starts_with("ex -l ");
            if inside {
                files.push(Vec::new());
            }
        } else if inside && !line.starts_with("Level") {
            files.last_mut()?.push(extent(line)?);
        }
    }
    let whole = |(file, blocks): (&Vec<Extent>, &u64)| {
        let mut at = 0;
        file.iter().all(|e| {
            let follows = e.logical == at && e.length > 0;
            at += e.length;
            follows
        }) && at == blocks * BLOCK_SIZE
    };
    (files.len() == blocks.len() && files.iter().zip(blocks).all(whole)).then_some(files)
}

/// ` 1/ 1   2/ 10  16468 -  49234  33014 -  65780  32767 Uninit`
fn extent(line: &str) -> Option<Extent> {
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let numbers: Vec<u64> = numbers.map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let [level, _, _, _, first, last, start, _, length] = numbers[..] else { return None };
    if first.checked_add(length)? != last.checked_add(1)? {
        return None;
    }
    let bytes = |blocks: u64| blocks.checked_mul(BLOCK_SIZE);
    Some(Extent { logical: bytes(first)?, physical: bytes(start)?, length: bytes(length)?, deep: level > 0 })
}

/// The commands that make the blocks of a file count as written. `name` is as debugfs reads it.
pub(crate) fn initialise(script: &mut String, name: &str, extents: &[Extent]) {
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(script, "{text}").expect("text grows");
    line(format_args!("eo {name}\nroot"));
    for (number, extent) in extents.iter().enumerate() {
        // In the inode itself the root is the first of them.
        if number > 0 || extent.deep {
            line(format_args!("next_leaf"));
        }
        let [logical, length, physical] =
            [extent.logical, extent.length, extent.physical].map(|bytes| bytes / BLOCK_SIZE);
        line(format_args!("replace_node {logical} {length} {physical}"));
    }
    line(format_args!("ec"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "debugfs: mkdir \"/a\"\ndebugfs: write empty \"/a/b\"\nAllocated inode: 14\n\
        debugfs: ex -l \"/a/b\"\nLevel Entries       Logical        Physical Length Flags\n \
        0/ 0   1/  2     0 - 26369   6398 -  32767  26370 Uninit\n 0/ 0   2/  2 26370 - 26371  32838 -  32839      2 Uninit\n\
        debugfs: ex -l \"/c\"\nLevel Entries         Logical        Physical Length Flags\n \
        1/ 1   1/  1      0 -      0  99 -  99      1 Uninit\n";

    #[test]
    fn what_debugfs_tells_of_files_becomes_the_commands_that_initialise_them() {
        let files = parse(OUTPUT, &[26372, 1]).unwrap();
        let first = Extent { logical: 0, physical: 6398 * 4096, length: 26370 * 4096, deep: false };
        assert_eq!((files[0][0], files[0].len(), files[1].len()), (first, 2, 1));
        let mut script = String::new();
        initialise(&mut script, "\"/a/b\"", &files[0]);
        initialise(&mut script, "\"/c\"", &files[1]);
        let expected = "eo \"/a/b\"\nroot\nreplace_node 0 26370 6398\nnext_leaf\nreplace_node 26370 2 32838\nec\n\
            eo \"/c\"\nroot\nnext_leaf\nreplace_node 0 1 99\nec\n";
        assert_eq!(script, expected);
    }

    #[test]
    fn a_file_with_a_gap_or_too_few_blocks_or_a_strange_output_is_refused() {
        assert_eq!(parse(OUTPUT, &[26372]), None);
        assert_eq!(parse(OUTPUT, &[26373, 1]), None);
        assert_eq!(parse(&OUTPUT.replace("26370 - 26371", "26371 - 26372"), &[26372, 1]), None);
        assert_eq!(parse(&OUTPUT.replace("26370 - 26371", "26370 - 26375"), &[26372, 1]), None);
        assert_eq!(parse(&OUTPUT.replace("0 - 26369", "0 - x"), &[26372, 1]), None);
    }
}
