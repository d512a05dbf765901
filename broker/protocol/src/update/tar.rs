//! The headers of a tar, as far as updates have them: plain files with short names. **Source:** POSIX.1-1988, ustar.

use super::UpdateError;

/// Two blocks of zeros end a tar.
pub(super) const END_SIZE: u64 = 1024;

/// `size` with the rest of its last block.
pub(super) fn padded(size: u64) -> u64 {
    size.next_multiple_of(512)
}

/// Name and size of the file that begins here.
pub(super) fn read(block: &[u8]) -> Result<(&str, u64), UpdateError> {
    let block: &[u8; 512] =
        block.get(..512).and_then(|block| block.try_into().ok()).ok_or(UpdateError::Short)?;
    let wrong = UpdateError::Format("it is not made of the files of an update");
    // "ustar" is followed by a zero, or by a blank in GNU's older format.
    if &block[257..262] != b"ustar" || !matches!(block[156], b'0' | 0) || block[345] != 0 {
        return Err(wrong);
    }
    if octal(&block[148..156]) != Some(checksum(block)) {
        return Err(wrong);
    }
    let end = block[..100].iter().position(|byte| *byte == 0).unwrap_or(100);
    let name = std::str::from_utf8(&block[..end]).map_err(|_| wrong.clone())?;
    Ok((name, octal(&block[124..136]).ok_or(wrong)?))
}

/// The header of a file.
pub(super) fn header(name: &str, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Appends a whole file.
pub(super) fn put(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.extend_from_slice(&header(name, bytes.len() as u64));
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// The sum of all bytes, with blanks where it stands itself.
fn checksum(block: &[u8; 512]) -> u64 {
    let own = &block[148..156];
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(block) - sum(own) + 8 * u64::from(b' ')
}
