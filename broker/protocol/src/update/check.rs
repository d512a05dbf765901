//! Whether a whole update is what its head says: takes the file as a stream, keeps one block and one digest.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{Head, PARTS, UpdateError, tar};

/// Where the stream is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the head, so many bytes before its end.
    Head(u64),
    /// In the header of a part.
    Header(usize),
    /// In its bytes, so many before their end.
    Body(usize, u64),
    /// In the zeros behind them.
    Padding(usize, u64),
    /// In the zeros that end the file.
    End(u64),
}

/// Checks a file that is given to it from its first byte on.
pub struct Check<'a> {
    head: &'a Head,
    place: Place,
    block: Vec<u8>,
    digest: Sha256,
}

impl<'a> Check<'a> {
    /// Of the file that `head` was read from.
    pub fn new(head: &'a Head) -> Self {
        Self { head, place: Place::Head(head.size), block: Vec::with_capacity(512), digest: Sha256::new() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `Damaged` or `Format`, as soon as it is known.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), UpdateError> {
        while !bytes.is_empty() {
            let count = self.most().min(bytes.len() as u64) as usize;
            let (now, rest) = bytes.split_at(count);
            self.take(now)?;
            bytes = rest;
        }
        Ok(())
    }

    /// The file has ended.
    ///
    /// # Errors
    /// `Short`.
    pub fn finish(self) -> Result<(), UpdateError> {
        match self.place {
            Place::End(seen) if seen >= tar::END_SIZE => Ok(()),
            _ => Err(UpdateError::Short),
        }
    }

    /// Bytes up to the next change of place.
    fn most(&self) -> u64 {
        match self.place {
            Place::Head(left) | Place::Body(_, left) | Place::Padding(_, left) => left,
            Place::Header(_) => 512 - self.block.len() as u64,
            Place::End(_) => u64::MAX,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), UpdateError> {
        let count = bytes.len() as u64;
        self.place = match self.place {
            // What is in it was read and signed; a tar's padding there says nothing.
            Place::Head(left) if left > count => Place::Head(left - count),
            Place::Head(_) => Place::Header(0),
            Place::Header(part) => {
                self.block.extend_from_slice(bytes);
                if self.block.len() < 512 {
                    return Ok(());
                }
                let expected = &self.head.manifest.parts[part];
                if tar::read(&self.block)? != (PARTS[part], expected.size) {
                    return Err(UpdateError::Format("its files are not those of the manifest"));
                }
                self.block.clear();
                Place::Body(part, expected.size)
            }
            Place::Body(part, left) => {
                self.digest.update(bytes);
                if left > count { Place::Body(part, left - count) } else { self.end_of(part)? }
            }
            Place::Padding(part, left) => {
                must_be_zero(bytes)?;
                if left > count { Place::Padding(part, left - count) } else { self.behind(part) }
            }
            Place::End(seen) => {
                must_be_zero(bytes)?;
                Place::End(seen + count)
            }
        };
        Ok(())
    }

    fn end_of(&mut self, part: usize) -> Result<Place, UpdateError> {
        let expected = &self.head.manifest.parts[part];
        if HEXLOWER.encode(&self.digest.finalize_reset()) != expected.sha256 {
            return Err(UpdateError::Damaged(expected.name.clone()));
        }
        let padding = tar::padded(expected.size) - expected.size;
        Ok(if padding > 0 { Place::Padding(part, padding) } else { self.behind(part) })
    }

    fn behind(&self, part: usize) -> Place {
        if part + 1 < PARTS.len() { Place::Header(part + 1) } else { Place::End(0) }
    }
}

fn must_be_zero(bytes: &[u8]) -> Result<(), UpdateError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(UpdateError::Format("there is something between or behind its files"))
}
