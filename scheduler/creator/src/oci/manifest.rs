//! What a registry's manifests say: which manifest is for a platform, and which blobs an image is made of. Pure; what
//! comes here is hostile.
//! **Source:** OCI image specification 1.1, and Docker's manifest v2 schema 2, which differs in media types only.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::Checksum;

/// Most layers of an image. The kernels' overlay takes 500.
const MAX_LAYERS: usize = 500;
/// Kinds of manifests that are asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub digest: Checksum,
    pub size: u64,
}

/// An image's manifest and what it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub media_type: String,
    /// As the registry has it.
    pub bytes: Vec<u8>,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// What an answer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Image(Manifest),
    /// Of several platforms, the digest of the one that was asked for.
    Elsewhere(Checksum),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<RawEntry>>,
    #[serde(default)]
    config: Option<RawBlob>,
    #[serde(default)]
    layers: Option<Vec<RawBlob>>,
}

#[derive(Deserialize)]
struct RawEntry {
    digest: String,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
struct RawBlob {
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<Value>>,
}

fn digest(text: &str) -> Result<Checksum, String> {
    let found = text.split_once(':').map(|(algo, hex)| Checksum::parse(algo, hex));
    match found {
        Some(Ok(checksum)) if matches!(checksum.algo_name(), "sha256" | "sha512") => Ok(checksum),
        _ => Err(format!("{text:?} is no digest of sha256 or sha512")),
    }
}

/// Reads a manifest or an index for `platform` (`linux/arm64` or `linux/arm/v7`).
///
/// # Errors
/// One line for people.
pub(crate) fn read(bytes: Vec<u8>, platform: &str) -> Result<Answer, String> {
    let raw: Raw = serde_json::from_slice(&bytes).map_err(|e| format!("its manifest cannot be read: {e}"))?;
    if let Some(entries) = raw.manifests {
        let fits = |entry: &&RawEntry| {
            entry.platform.as_ref().is_some_and(|p| {
                let plain = format!("{}/{}", p.os, p.architecture);
                let variant = p.variant.as_deref().unwrap_or_default();
                // 64-bit Arm has one variant only, which some say and some do not.
                let v8 = p.architecture == "arm64" && format!("{plain}/v8") == platform;
                plain == platform || format!("{plain}/{variant}") == platform || v8
            })
        };
        let Some(entry) = entries.iter().find(fits) else {
            return Err(format!("is not there for {platform}"));
        };
        return digest(&entry.digest).map(Answer::Elsewhere);
    }
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
        return Err("its manifest lists no config and layers: is it of an old kind?".into());
    };
    if layers.len() > MAX_LAYERS {
        return Err(format!("has {} layers, at most {MAX_LAYERS} are taken", layers.len()));
    }
    let blob = |raw: RawBlob| {
        if raw.urls.is_some_and(|urls| !urls.is_empty()) {
            return Err("has a layer that its registry does not hold".to_owned());
        }
        Ok(Blob { digest: digest(&raw.digest)?, size: raw.size })
    };
    let media_type = raw.media_type.unwrap_or_else(|| OCI_MANIFEST.into());
    let config = blob(config)?;
    let layers = layers.into_iter().map(blob).collect::<Result<_, _>>()?;
    Ok(Answer::Image(Manifest { media_type, bytes, config, layers }))
}

impl Manifest {
    pub(crate) fn digest(&self) -> Checksum {
        let hex = sha256_hex(&self.bytes);
        Checksum::parse("sha256", &hex).expect("a digest of our own")
    }

    /// Every blob once, config first.
    pub(crate) fn blobs(&self) -> Vec<&Blob> {
        let mut blobs = vec![&self.config];
        for layer in &self.layers {
            // Empty layers come several times.
            if !blobs.iter().any(|b| b.digest == layer.digest) {
                blobs.push(layer);
            }
        }
        blobs
    }

    /// `index.json` of an OCI layout that holds this image alone, named for `podman` and `containerd`.
    pub(crate) fn layout_index(&self, name: &str, reference: &str) -> Vec<u8> {
        let annotations =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": reference});
        let size = self.bytes.len();
        let entry = json!({"mediaType": self.media_type, "digest": self.digest().to_string(), "size": size,
            "annotations": annotations});
        json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes()
    }

    /// `manifest.json` as `docker load` reads it, beside the layout.
    pub(crate) fn docker_manifest(&self, name: &str) -> Vec<u8> {
        let layers: Vec<String> = self.layers.iter().map(|l| blob_path(&l.digest)).collect();
        let tags = if name.contains('@') { vec![] } else { vec![name] };
        json!([{"Config": blob_path(&self.config.digest), "RepoTags": tags, "Layers": layers}])
            .to_string()
            .into_bytes()
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Where a blob lies in a layout.
pub(crate) fn blob_path(digest: &Checksum) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    #[test]
    fn of_several_platforms_the_wanted_one_is_taken() {
        let platform = |architecture: &str, variant: Option<&str>| json!({"os": "linux", "architecture": architecture, "variant": variant});
        let index = json!({"manifests": [
            {"digest": hex("a"), "platform": platform("amd64", None)},
            {"digest": hex("b"), "platform": platform("arm", Some("v7"))},
            {"digest": hex("c"), "platform": platform("arm64", Some("v8"))},
            {"digest": hex("d")},
        ]});
        let chosen = |platform: &str| read(index.to_string().into_bytes(), platform);
        for (platform, letter) in
            [("linux/amd64", "a"), ("linux/arm/v7", "b"), ("linux/arm64", "c"), ("linux/arm64/v8", "c")]
        {
            let expected = Checksum::parse("sha256", &letter.repeat(64)).unwrap();
            assert_eq!(chosen(platform), Ok(Answer::Elsewhere(expected)), "{platform}");
        }
        assert_eq!(chosen("linux/riscv64"), Err("is not there for linux/riscv64".into()));
    }

    #[test]
    fn manifests_that_cannot_be_are_refused() {
        let blob = |digest: &str| json!({"digest": digest, "size": 1});
        let good = blob(&hex("a"));
        let foreign = json!({"digest": hex("a"), "size": 1, "urls": ["https://x"]});
        for (manifest, fault) in [
            (json!({"config": good}), "lists no config and layers"),
            (json!({"schemaVersion": 1, "fsLayers": []}), "lists no config and layers"),
            (json!({"config": good, "layers": [foreign]}), "its registry does not hold"),
            (json!({"config": good, "layers": [blob("sha256:../../etc")]}), "is no digest"),
            (json!({"config": blob("md5:900150983cd24fb0d6963f7d28e17f72"), "layers": []}), "is no digest"),
            (json!({"config": good, "layers": vec![good.clone(); 501]}), "at most 500"),
            (json!({"config": good, "layers": [{"digest": hex("a"), "size": -1}]}), "cannot be read"),
            (json!("x"), "cannot be read"),
        ] {
            let error = read(manifest.to_string().into_bytes(), "linux/amd64").unwrap_err();
            assert!(error.contains(fault), "{manifest}: {error}");
        }
    }
}
