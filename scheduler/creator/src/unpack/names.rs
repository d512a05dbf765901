//! Names that archives bring: paths inside, targets of links, extended attributes. Pure: each is what it will be on
//! the data partition, or the reason why it is refused.

use crate::tree::Xattr;

/// Most bytes of one entry's extended attributes, names and values: what a block of 4 KiB holds beside its headers.
const MAX_XATTR_BYTES: usize = 3072;

/// `./a//b/` → `/a/b`; absolute names and `..` are refused.
pub(super) fn inner_path(name: &str) -> Result<String, &'static str> {
    if name.starts_with('/') {
        return Err("has an absolute path");
    }
    let mut path = String::new();
    for part in name.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            return Err("leaves the archive with `..`");
        }
        path.push('/');
        path.push_str(part);
    }
    Ok(path)
}

/// Why a symbolic link at `path` (`/a/b`) to `target` is refused, if it is.
pub(super) fn link_fault(path: &str, target: &str) -> Option<String> {
    if target.is_empty() || target.len() > 1024 || target.chars().any(char::is_control) {
        return Some("is a link to a name that cannot be".into());
    }
    if target.starts_with('/') {
        return Some(format!("is a link out of the archive, to {target:?}"));
    }
    let mut depth = path.matches('/').count() as i64 - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Some(format!("is a link out of the archive, to {target:?}"));
        }
    }
    None
}

/// Why an entry's extended attributes are refused, if they are.
pub(super) fn xattr_fault(xattrs: &[Xattr]) -> Option<String> {
    let known = |name: &str| {
        let spaces = ["user.", "trusted.", "security."];
        spaces.iter().any(|s| name.strip_prefix(s).is_some_and(|rest| !rest.is_empty()))
            || matches!(name, "system.posix_acl_access" | "system.posix_acl_default")
    };
    for (name, _) in xattrs {
        if name.len() > 255 || name.chars().any(char::is_control) || !known(name) {
            let shown: String = name.chars().take(100).collect();
            return Some(format!("has an extended attribute {shown:?}, which ext4 does not take"));
        }
    }
    let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    (bytes > MAX_XATTR_BYTES).then(|| format!("has more than {MAX_XATTR_BYTES} bytes of extended attributes"))
}
