//! The boot loader's environment block: 1024 bytes, lines of `name=value`, filled up with `#`. **Source:** GRUB manual, "The
//! GRUB environment block". What we say lies in its first sector, so that a power cut leaves the old or the new text.

/// Bytes of the block.
pub const SIZE: usize = 1024;
/// The sector in which everything has to be.
const SECTOR: usize = 512;
const HEADER: &str = "# GRUB Environment Block\n";

/// What is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrubEnv(Vec<(String, String)>);

impl GrubEnv {
    /// Reads a block; `None` when it is none. The loader then does as if it were empty.
    pub fn read(block: &[u8]) -> Option<Self> {
        if block.len() != SIZE {
            return None;
        }
        let text = std::str::from_utf8(block).ok()?.strip_prefix(HEADER)?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Some(Self(lines.filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect()))
    }

    /// A value; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// The block with this value changed; `None` when the others leave no room in the first sector.
    pub fn with(&self, name: &str, value: &str) -> Option<Self> {
        let mut changed = self.clone();
        changed.0.retain(|(known, _)| known != name);
        changed.0.push((name.into(), value.into()));
        (changed.text().len() <= SECTOR).then_some(changed)
    }

    /// The whole block.
    pub fn block(&self) -> [u8; SIZE] {
        let mut block = [b'#'; SIZE];
        let text = self.text();
        block[..text.len()].copy_from_slice(text.as_bytes());
        block
    }

    fn text(&self) -> String {
        let line = |(name, value): &(String, String)| format!("{name}={value}\n");
        HEADER.to_owned() + &self.0.iter().map(line).collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_changed_and_stays_in_its_first_sector() {
        let mut block = format!("{HEADER}set=a\ntry=\n").into_bytes();
        block.resize(SIZE, b'#');
        let env = GrubEnv::read(&block).unwrap();
        assert_eq!((env.get("set"), env.get("try"), env.get("x")), (Some("a"), None, None));
        let changed = env.with("try", "b").unwrap();
        assert_eq!(GrubEnv::read(&changed.block()), Some(changed.clone()));
        assert_eq!((changed.get("set"), changed.get("try")), (Some("a"), Some("b")));
        assert_eq!(env.with("x", &"y".repeat(480)), None);
        assert_eq!(GrubEnv::read(&block[1..]), None);
        assert_eq!(GrubEnv::read(&[0; SIZE]), None);
    }
}
