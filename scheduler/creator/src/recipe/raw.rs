//! A recipe's text as serde sees it: keys and kinds of values, nothing more. Unknown keys are refused here,
//! by name and with their line; what the values mean is decided in `checks`.

use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::RecipeError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRecipe {
    #[serde(default)]
    pub base: RawBase,
    #[serde(default)]
    pub output: RawOutput,
    #[serde(default)]
    pub oci_images: Option<Vec<RawOci>>,
    #[serde(default)]
    pub files: Option<Vec<RawFile>>,
    #[serde(default)]
    pub write_config: bool,
    #[serde(default)]
    pub offspot: Option<Value>,
}

/// `none`, a file or URL, or a map.
#[derive(Debug, Default)]
pub(super) enum RawBase {
    #[default]
    None,
    Image(RawImage),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawImage {
    pub source: String,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub rootfs_size: Option<u64>,
    #[serde(default)]
    pub checksum: Option<RawChecksum>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutput {
    #[serde(default)]
    pub size: RawSize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOci {
    pub ident: String,
    #[serde(default)]
    pub platform: Option<String>,
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub filesize: Option<u64>,
    /// Of the image when loaded, which an archive does not need.
    #[serde(default)]
    #[allow(dead_code)] // known to older recipes, and without effect
    pub fullsize: Option<u64>,
}

/// `auto` or bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(super) enum RawSize {
    #[default]
    Auto,
    Bytes(u64),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub to: String,
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub content: Option<String>,
    #[serde(default)]
    pub via: Option<String>,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub checksum: Option<RawChecksum>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChecksum {
    pub algo: String,
    pub value: String,
    #[serde(default)]
    pub kind: Option<String>,
}

/// Reads YAML twice: for its keys with their lines, and as a plain value.
pub(super) fn parse_text(text: &str) -> Result<(RawRecipe, Value), RecipeError> {
    // `country: NO` is Norway, not false.
    let options = || serde_saphyr::options! { strict_booleans: true };
    let raw = serde_saphyr::from_str_with_options(text, options()).map_err(at_line)?;
    let value = match serde_saphyr::from_str_with_options(text, options()).map_err(at_line)? {
        // An empty text is a recipe without keys, and reads as one when it comes back as a value.
        Value::Null => Value::Object(Default::default()),
        value => value,
    };
    Ok((raw, value))
}

/// YAML as a plain value, whatever is in it.
pub(crate) fn plain_value(text: &str) -> Result<Value, RecipeError> {
    if text.len() > super::MAX_RECIPE_SIZE {
        return Err(RecipeError::TooLarge(text.len()));
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(at_line)
}

pub(super) fn parse_value(value: &Value) -> Result<RawRecipe, RecipeError> {
    serde_json::from_value(value.clone()).map_err(|e| RecipeError::Malformed(e.to_string()))
}

pub(crate) fn at_line(error: serde_saphyr::Error) -> RecipeError {
    let line = error.location().map_or(0, |l| l.line());
    // Rendered without the quoted source, and on one line.
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default().to_owned();
    if line == 0 { RecipeError::Malformed(text) } else { RecipeError::AtLine { line, text } }
}

impl<'de> Deserialize<'de> for RawBase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BaseVisitor;
        impl<'de> Visitor<'de> for BaseVisitor {
            type Value = RawBase;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("none, a file or URL, or a map with `source`")
            }
            fn visit_unit<E: de::Error>(self) -> Result<RawBase, E> {
                Ok(RawBase::None)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawBase, E> {
                if text == "none" {
                    return Ok(RawBase::None);
                }
                let source = text.to_owned();
                Ok(RawBase::Image(RawImage { source, size: None, rootfs_size: None, checksum: None }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawBase, A::Error> {
                RawImage::deserialize(MapAccessDeserializer::new(map)).map(RawBase::Image)
            }
        }
        deserializer.deserialize_any(BaseVisitor)
    }
}

impl<'de> Deserialize<'de> for RawSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = RawSize;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("auto or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawSize, E> {
                if text == "auto" {
                    Ok(RawSize::Auto)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<RawSize, E> {
                Ok(RawSize::Bytes(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<RawSize, E> {
                u64::try_from(bytes)
                    .map(RawSize::Bytes)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}
