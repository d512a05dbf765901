//! Pictures of a brand: whatever people upload becomes a PNG of a bounded size, so that no byte of a stranger's file gets
//! onto a card or a page. Decoding is bounded in width, height and memory.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, ImageEncoder, ImageReader, Limits};

/// Longest side that is decoded, pixels.
const MAX_SIDE: u32 = 8192;
/// Most memory of a decoded picture, bytes: 16 megapixels with four channels.
const MAX_MEMORY: u64 = 64 * 1024 * 1024;
/// Longest sides that are kept, pixels: the first whose PNG is small enough.
const SIDES: [u32; 4] = [512, 384, 256, 128];
/// Largest PNG that is kept, bytes: with its base64 several fit a configuration.
const MAX_PNG: usize = 64 * 1024;
/// Endings of names that are pictures.
const ENDINGS: [&str; 4] = [".png", ".jpg", ".jpeg", ".webp"];

/// Name and base64 of what is kept of a file of a brand: pictures as PNG, everything else as it is.
///
/// # Errors
/// What is wrong with the picture.
pub(crate) fn kept(name: &str, base64: &str) -> Result<(String, String), String> {
    let Some(ending) = ENDINGS.iter().find(|ending| name.to_ascii_lowercase().ends_with(**ending)) else {
        return Ok((name.to_owned(), base64.to_owned()));
    };
    let bytes = BASE64.decode(base64).map_err(|e| format!("is not base64: {e}"))?;
    let png = png(&bytes)?;
    let stem = &name[..name.len() - ending.len()];
    Ok((format!("{stem}.png"), BASE64.encode(png)))
}

/// A picture as PNG; one that is a small PNG already is made anew too, without what else is in its file.
fn png(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let picture =
        reader.decode().map_err(|e| format!("is no PNG, JPEG or WebP picture that can be read: {e}"))?;
    for side in SIDES {
        let png = encode(&shrunk(&picture, side))?;
        if png.len() <= MAX_PNG {
            return Ok(png);
        }
    }
    Err(format!("has more than {MAX_PNG} bytes as a PNG, even at {} pixels: take a plainer one", SIDES[3]))
}

fn shrunk(picture: &DynamicImage, side: u32) -> DynamicImage {
    if picture.width() <= side && picture.height() <= side {
        picture.clone()
    } else {
        picture.thumbnail(side, side)
    }
}

fn encode(picture: &DynamicImage) -> Result<Vec<u8>, String> {
    let (mut png, rgba) = (Vec::new(), picture.to_rgba8());
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::Adaptive);
    let colour = image::ExtendedColorType::Rgba8;
    encoder.write_image(rgba.as_raw(), rgba.width(), rgba.height(), colour).map_err(|e| e.to_string())?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
        let pixels = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(pixels).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn size(name: &str, bytes: &[u8]) -> Result<(String, u32, u32), String> {
        let (name, kept) = kept(name, &BASE64.encode(bytes))?;
        let png = BASE64.decode(kept).unwrap();
        assert!(png.len() <= MAX_PNG);
        let read = image::load_from_memory_with_format(&png, image::ImageFormat::Png).unwrap();
        Ok((name, read.width(), read.height()))
    }

    #[test]
    fn pictures_become_small_pngs_whatever_they_were() {
        let jpeg = picture(2000, 1000, image::ImageFormat::Jpeg);
        let (name, width, height) = size("logo.JPG", &jpeg).unwrap();
        assert_eq!((name.as_str(), width, height), ("logo.png", 2 * height, height));
        let webp = picture(64, 32, image::ImageFormat::WebP);
        assert_eq!(
            size("favicon.webp", &webp),
            Ok(("favicon.png".into(), 64, 32)),
            "small ones keep their size"
        );
        let mut hidden = picture(16, 16, image::ImageFormat::Png);
        hidden.extend(b"<script>a stranger's bytes</script>");
        let (_, kept) = kept("x.png", &BASE64.encode(&hidden)).unwrap();
        assert!(!BASE64.decode(kept).unwrap().windows(8).any(|w| w == b"stranger"));
        assert_eq!(super::kept("style.css", "aGVsbG8=").unwrap().0, "style.css");
    }

    #[test]
    fn what_is_no_picture_or_claims_to_be_huge_is_refused_without_the_memory_for_it() {
        assert!(size("logo.png", b"GIF89a").unwrap_err().contains("no PNG, JPEG or WebP"));
        assert!(kept("logo.png", "%").unwrap_err().contains("base64"));
        // A PNG whose header says 60000 × 60000.
        let mut huge = picture(16, 16, image::ImageFormat::Png);
        huge[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        assert!(size("logo.png", &huge).is_err());
        let whole = picture(100, 100, image::ImageFormat::Jpeg);
        for end in (0..whole.len()).step_by(97) {
            let _ = size("logo.jpg", &whole[..end]);
        }
    }

    #[test]
    fn broken_pictures_never_break_the_reader() {
        // xorshift: the same damage in every run.
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for format in [image::ImageFormat::Png, image::ImageFormat::Jpeg, image::ImageFormat::WebP] {
            let whole = picture(40, 40, format);
            for _ in 0..150 {
                let mut bytes = whole.clone();
                for _ in 0..4 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let at = random as usize % bytes.len();
                    bytes[at] = (random >> 32) as u8;
                }
                let _ = kept("logo.png", &BASE64.encode(&bytes));
            }
        }
    }
}
