//! A card that lies, as a disk of QEMU: a network block device whose memory is smaller than it says, or that
//! does worse. One connection, then the thread ends.
//!
//! **Source:** Network Block Device, *doc/proto.md*: fixed newstyle negotiation, simple replies.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const ERROR_UNSUPPORTED: u32 = 0x8000_0001;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
/// Has flags, takes a flush.
const EXPORT_FLAGS: u16 = 1 | 1 << 2;

/// What is wrong with it.
#[derive(Clone, Copy)]
pub(crate) enum Lie {
    /// Only so many bytes exist: addresses wrap around.
    Wraps(u64),
    /// Writes at or behind this byte are acknowledged and dropped.
    DropsFrom(u64),
    /// This byte is stored with its lowest bit flipped.
    Flips(u64),
    /// A write to this byte is never answered.
    Hangs(u64),
}

/// Serves a card of `size` bytes at `socket`.
pub(crate) fn serve(socket: &Path, size: u64, lie: Lie) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        // QEMU goes away when the test is over; what is then half said does not matter.
        let _ = listener
            .accept()
            .and_then(|(stream, _)| Card { stream, size, lie, bytes: memory(size, lie) }.talk());
    });
}

fn memory(size: u64, lie: Lie) -> Vec<u8> {
    let real = if let Lie::Wraps(real) = lie { real } else { size };
    vec![0x5a; real as usize]
}

struct Card {
    stream: UnixStream,
    size: u64,
    lie: Lie,
    bytes: Vec<u8>,
}

impl Card {
    fn talk(&mut self) -> io::Result<()> {
        self.stream.write_all(b"NBDMAGIC")?;
        self.stream.write_all(OPTION_MAGIC)?;
        self.stream.write_all(&3_u16.to_be_bytes())?; // fixed newstyle, no zeroes
        self.number::<4>()?;
        while !self.option()? {}
        while self.request()? {}
        Ok(())
    }

    fn number<const N: usize>(&mut self) -> io::Result<u64> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Answers one option; true when the transmission begins.
    fn option(&mut self) -> io::Result<bool> {
        self.number::<8>()?;
        let (option, length) = (self.number::<4>()? as u32, self.number::<4>()?);
        io::copy(&mut (&mut self.stream).take(length), &mut io::sink())?;
        if option != OPTION_GO {
            self.answer(option, ERROR_UNSUPPORTED, &[])?;
            return Ok(false);
        }
        let mut info = vec![0, 0];
        info.extend(self.size.to_be_bytes());
        info.extend(EXPORT_FLAGS.to_be_bytes());
        self.answer(option, REPLY_INFO, &info)?;
        self.answer(option, REPLY_ACK, &[])?;
        Ok(true)
    }

    fn answer(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = OPTION_REPLY.to_be_bytes().to_vec();
        for number in [option, kind, data.len() as u32] {
            reply.extend(number.to_be_bytes());
        }
        reply.extend(data);
        self.stream.write_all(&reply)
    }

    /// Serves one request; false when the other end is done.
    fn request(&mut self) -> io::Result<bool> {
        assert_eq!(self.number::<4>()? as u32, REQUEST_MAGIC);
        self.number::<2>()?;
        let kind = self.number::<2>()?;
        let (cookie, offset, length) = (self.number::<8>()?, self.number::<8>()?, self.number::<4>()?);
        if matches!(self.lie, Lie::Hangs(bad) if kind == 1 && (offset..offset + length).contains(&bad)) {
            // Until QEMU goes away.
            io::copy(&mut self.stream, &mut io::sink())?;
            return Ok(false);
        }
        let mut data = vec![0; if kind < 2 { length as usize } else { 0 }];
        match kind {
            0 => (offset..).zip(&mut data).for_each(|(at, byte)| *byte = self.bytes[self.place(at)]),
            1 => {
                self.stream.read_exact(&mut data)?;
                (offset..).zip(data.drain(..)).for_each(|(at, byte)| self.store(at, byte));
            }
            2 => return Ok(false),
            _ => {}
        }
        let mut reply = SIMPLE_REPLY.to_be_bytes().to_vec();
        reply.extend([0; 4]);
        reply.extend(cookie.to_be_bytes());
        reply.extend(data);
        self.stream.write_all(&reply)?;
        Ok(true)
    }

    fn place(&self, at: u64) -> usize {
        (at % self.bytes.len() as u64) as usize
    }

    fn store(&mut self, at: u64, byte: u8) {
        let place = self.place(at);
        match self.lie {
            Lie::DropsFrom(from) if at >= from => {}
            Lie::Flips(bad) if at == bad => self.bytes[place] = byte ^ 1,
            _ => self.bytes[place] = byte,
        }
    }
}
