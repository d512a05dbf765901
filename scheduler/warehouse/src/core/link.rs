//! What the file of a public link or a torrent is called: a part of an address and of a person's disk. Pure.

/// Longest name, bytes, without `.img`.
const MAX_LENGTH: usize = 100;

/// The name with everything else than letters, digits, `-`, `_` and `.` turned into `-`; `image` when nothing is left.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).take(MAX_LENGTH).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "image".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_never_a_path_and_never_empty() {
        for (name, file) in [
            ("Library 2026", "Library-2026"),
            ("../../etc/passwd", "etc-passwd"),
            ("школа", "image"),
            ("", "image"),
            ("a.img\r\nX: y", "a.img--X--y"),
        ] {
            assert_eq!(file_name(name), file, "{name:?}");
        }
        assert_eq!(file_name(&"x".repeat(500)).len(), MAX_LENGTH);
    }
}
