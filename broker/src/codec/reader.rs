//! Takes MQTT's integers, strings and properties off a slice. Nothing here allocates, and nothing reads past
//! the end: every shortage is [`WireError::Malformed`].

use super::{WireError, property};

/// The rest of a packet.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, size: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(size).ok_or(WireError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    /// A variable byte integer (§1.5.5): up to four bytes of seven bits.
    pub(super) fn varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed("an integer of more than four bytes"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let size = self.u16()?;
        self.take(usize::from(size))
    }

    /// A string (§1.5.4): UTF-8 without U+0000.
    pub(super) fn text(&mut self) -> Result<&'a str, WireError> {
        match std::str::from_utf8(self.bytes()?) {
            Ok(text) if text.contains('\0') => Err(WireError::Malformed("a string with U+0000")),
            Ok(text) => Ok(text),
            Err(_) => Err(WireError::Malformed("a string that is not UTF-8")),
        }
    }

    /// A packet id, which is never 0 (§2.2.1).
    pub(super) fn id(&mut self) -> Result<u16, WireError> {
        match self.u16()? {
            0 => Err(WireError::Protocol("packet id 0")),
            id => Ok(id),
        }
    }

    /// A section of properties.
    pub(super) fn properties(&mut self) -> Result<Reader<'a>, WireError> {
        let size = self.varint()?;
        Ok(Reader(self.take(size as usize)?))
    }
}

/// Which properties of one section have been seen: all but user properties come once (5.0 §2.2.2.2 and below).
#[derive(Default)]
pub(super) struct Once(u64);

impl Once {
    pub(super) fn first(&mut self, property: u8) -> Result<(), WireError> {
        let bit = 1_u64.checked_shl(property.into()).unwrap_or(0);
        if property != property::USER_PROPERTY && self.0 & bit != 0 {
            return Err(WireError::Protocol("a property twice"));
        }
        self.0 |= bit;
        Ok(())
    }
}
