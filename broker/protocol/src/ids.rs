//! The names of things: image, appliance, order, task, slot, channel. Parsed once at the edge, then
//! carried as types, so that a topic or a path never holds what nobody checked.

use std::fmt;
use std::str::FromStr;

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct BadId {
    /// What was given, shortened to 80 characters.
    pub text: String,
    /// What it should have been, with the form.
    pub wanted: &'static str,
}

impl BadId {
    fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), wanted }
    }
}

/// Serde by `Display` and `FromStr`, so that every id is a plain string on the wire; the pattern is for its description.
macro_rules! serde_as_text {
    ($type:ty, $pattern:expr) => {
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern})
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// Fixed bytes written as lower-case hex.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $size:literal, $digits:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let wrong = || BadId::new(text, $wanted);
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
                Ok(Self(bytes.try_into().map_err(|_| wrong())?))
            }
        }
        serde_as_text!($name, concat!("^[0-9a-f]{", $digits, "}$"));
    };
}

hex_id!(
    /// BLAKE3 of an image's index up to its signature: names content, map and chunk size.
    ImageId, 32, 64, "an image id (64 lower-case hex digits)"
);
hex_id!(
    /// A BLAKE3 digest.
    Digest, 32, 64, "a BLAKE3 digest (64 lower-case hex digits)"
);
hex_id!(
    /// First 8 bytes of BLAKE3 of the appliance's public key.
    ApplianceId, 8, 16, "an appliance id (16 lower-case hex digits)"
);
hex_id!(
    /// First 8 bytes of BLAKE3 of a public key that signs indexes, tokens or passports.
    KeyId, 8, 16, "a key id (16 lower-case hex digits)"
);

/// A lower-case ULID: the id of every object that has no name of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(ulid::Ulid);

impl ObjectId {
    /// Makes an id from a time and randomness the caller supplies.
    pub fn from_parts(now_ms: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(now_ms, random))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().to_lowercase())
    }
}
impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for ObjectId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let wrong = || BadId::new(text, "an object id (26 characters, a lower-case ULID)");
        if text.len() != 26 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong());
        }
        let id = ulid::Ulid::from_string(text).map_err(|_| wrong())?;
        // Crockford's alphabet reads `o` as 0 and so on; only the one canonical spelling is an id.
        let id = Self(id);
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}
serde_as_text!(ObjectId, "^[0-7][0-9a-hjkmnp-tv-z]{25}$");

/// An order.
pub type OrderId = ObjectId;
/// A lease: copies of one image for one appliance.
pub type LeaseId = ObjectId;

/// A task. Creation: `{order}-image`; write: `{order}-{copy}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The order the task belongs to.
    pub order: OrderId,
    /// Which copy it writes, from 1; `None` is the creation task.
    pub copy: Option<u32>,
}

impl TaskId {
    /// The task that makes the order's image.
    pub fn creation(order: OrderId) -> Self {
        Self { order, copy: None }
    }
    /// The task that writes copy `copy` of the order.
    pub fn write(order: OrderId, copy: u32) -> Self {
        Self { order, copy: Some(copy) }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.copy {
            Some(copy) => write!(f, "{}-{copy}", self.order),
            None => write!(f, "{}-image", self.order),
        }
    }
}
impl FromStr for TaskId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let wrong = || BadId::new(text, "a task id ({order}-image or {order}-{copy})");
        let (order, rest) = text.split_once('-').ok_or_else(wrong)?;
        let order = order.parse().map_err(|_| wrong())?;
        if rest == "image" {
            return Ok(Self::creation(order));
        }
        let copy: u32 = rest.parse().map_err(|_| wrong())?;
        let id = Self::write(order, copy);
        if copy > 0 && id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}
serde_as_text!(TaskId, "^[0-7][0-9a-hjkmnp-tv-z]{25}-(image|[1-9][0-9]{0,9})$");

/// A short lower-case name that is safe in topics, paths and host names.
macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $max:literal, $more:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                let starts = text.bytes().next().is_some_and(|b| b != b'-');
                if starts && text.len() <= $max && text.bytes().all(good) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadId::new(text, $wanted))
                }
            }
        }
        serde_as_text!($name, concat!("^[a-z0-9][a-z0-9-]{0,", $more, "}$"));
    };
}

slug!(
    /// The slug that routes orders to workers and gives the sender's identity.
    Channel, 40, 39, "a channel slug (1 to 40 of a-z 0-9 -, not starting with -)"
);
slug!(
    /// A slot of an appliance: `s01`, `s02` … bound to a USB port path and LUN.
    SlotId, 16, 15, "a slot id (1 to 16 of a-z 0-9 -, not starting with -)"
);

impl SlotId {
    /// The id of the slot with this number, from 1: `s01`.
    pub fn numbered(number: u32) -> Self {
        Self(format!("s{number:02}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_as_they_are_written() {
        let order = OrderId::from_parts(1_790_000_000_000, 7);
        assert_eq!(order.to_string().len(), 26);
        assert_eq!(order.to_string().parse::<OrderId>(), Ok(order));
        for task in [TaskId::creation(order), TaskId::write(order, 12)] {
            assert_eq!(task.to_string().parse::<TaskId>(), Ok(task));
        }
        let image = ImageId([0xab; 32]);
        assert_eq!(image.to_string().parse::<ImageId>(), Ok(image));
        assert_eq!(serde_json::to_string(&SlotId::numbered(3)).unwrap(), "\"s03\"");
    }

    #[test]
    fn other_spellings_of_an_id_are_refused() {
        let order = OrderId::from_parts(1_790_000_000_000, 7).to_string();
        assert!(order.to_uppercase().parse::<OrderId>().is_err());
        assert!(format!("{order}-0").parse::<TaskId>().is_err());
        assert!(format!("{order}-01").parse::<TaskId>().is_err());
        assert!("AB".repeat(32).parse::<ImageId>().is_err());
        for text in ["", "-a", "a/b", "a+", "#", "A", &"a".repeat(41)] {
            assert!(text.parse::<Channel>().is_err(), "{text:?}");
        }
    }
}
