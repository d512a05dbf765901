//! Just enough MQTT 3.1.1 to load a broker: one client, its packets as they are.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// One connection that is logged in.
pub(super) struct Client {
    pub(super) reader: Reader,
    pub(super) writer: OwnedWriteHalf,
}

/// What comes from the broker.
pub(super) struct Reader(BufReader<OwnedReadHalf>);

/// A packet from the broker.
pub(super) enum Packet {
    /// Payload, with its id at QoS 1.
    Publish {
        id: Option<u16>,
        payload: Vec<u8>,
    },
    /// An acknowledged publish.
    PubAck,
    Other,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr, name: &str, password: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        let body = [&b"\0\x04MQTT\x04\xc2\0\x78"[..], &text(name), &text(name), &text(password)].concat();
        writer.write_all(&packet(0x10, &body)).await?;
        let mut reader = Reader(BufReader::with_capacity(2048, reader));
        let (_, body) = reader.raw().await?;
        if body.get(1) != Some(&0) {
            return Err(io::Error::other(format!("refused: {body:?}")));
        }
        Ok(Self { reader, writer })
    }

    pub(super) async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        self.writer.write_all(&packet(0x82, &[&[0, 1][..], &text(filter), &[1]].concat())).await?;
        let (head, body) = self.reader.raw().await?;
        if head != 0x90 || body.last() != Some(&1) {
            return Err(io::Error::other("the subscription is refused"));
        }
        Ok(())
    }
}

impl Reader {
    async fn raw(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let head = self.0.read_u8().await?;
        let mut size = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.0.read_u8().await?;
            size |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; size];
        self.0.read_exact(&mut body).await?;
        Ok((head, body))
    }

    pub(super) async fn packet(&mut self) -> io::Result<Packet> {
        let (head, body) = self.raw().await?;
        Ok(match head >> 4 {
            3 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let at = 2 + topic;
                if head & 0b110 == 0 {
                    Packet::Publish { id: None, payload: body[at..].to_vec() }
                } else {
                    let id = Some(u16::from_be_bytes([body[at], body[at + 1]]));
                    Packet::Publish { id, payload: body[at + 2..].to_vec() }
                }
            }
            4 => Packet::PubAck,
            _ => Packet::Other,
        })
    }
}

/// A publish at QoS 1.
pub(super) fn publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    packet(0x32, &[&text(topic)[..], &id.to_be_bytes(), payload].concat())
}

pub(super) fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).expect("names and tokens are short").to_be_bytes()[..], text.as_bytes()]
        .concat()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    let mut size = body.len();
    while size >= 0x80 {
        bytes.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    bytes.push(size as u8);
    bytes.extend_from_slice(body);
    bytes
}
