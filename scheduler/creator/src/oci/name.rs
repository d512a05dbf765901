//! Names of container images, as people write them. Pure.
//! **Source:** the grammar of `distribution/reference`; what a name without a host or tag means is Docker's.

/// What is to be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Host and perhaps port of the registry.
    pub host: String,
    /// Path of the repository there.
    pub repository: String,
    /// A tag, or a digest with its algorithm.
    pub reference: String,
}

/// Longest name, bytes. **Source:** the registries' limit of 255 for a repository, and a reference.
const MAX_NAME_SIZE: usize = 400;

impl ImageName {
    /// Reads `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`; the digest counts more than the tag.
    ///
    /// # Errors
    /// One line for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |fault: &str| Err(format!("{text:?} {fault}"));
        if text.is_empty() || text.len() > MAX_NAME_SIZE {
            return Err(format!("an image's name has 1 to {MAX_NAME_SIZE} bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (host, rest) = match rest.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => ("docker.io", rest),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let plain = |part: &str, more: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
        };
        if !path.split('/').all(|part| plain(part, "._-") && !part.starts_with('.')) {
            return wrong("has no repository of lower-case letters, digits and . _ -");
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b)) {
            return wrong("names no host");
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.is_some_and(|t| {
            t.is_empty() || t.len() > 128 || t.starts_with(['.', '-']) || !t.chars().all(word)
        }) {
            return wrong("has a tag that cannot be");
        }
        if let Some(digest) = digest {
            let good = digest.split_once(':').map(|(algo, hex)| crate::digest::Checksum::parse(algo, hex));
            if !matches!(good, Some(Ok(_))) {
                return wrong("has a digest that cannot be");
            }
        }
        let (host, path) = match host {
            "docker.io" | "index.docker.io" if !path.contains('/') => {
                ("docker.io", format!("library/{path}"))
            }
            "index.docker.io" => ("docker.io", path.to_owned()),
            host => (host, path.to_owned()),
        };
        let reference = digest.or(tag).unwrap_or("latest").to_owned();
        Ok(Self { host: host.to_owned(), repository: path, reference })
    }

    /// What the archive's file is called.
    pub(crate) fn file_name(&self) -> String {
        let name = format!("{}/{}:{}", self.host, self.repository, self.reference);
        format!("{}.tar", name.replace(['/', ':'], "_"))
    }

    /// Address of the registry: http on this machine, https elsewhere.
    pub(crate) fn base(&self) -> String {
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let local =
            name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        format!("{}://{host}", if local { "http" } else { "https" })
    }
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.reference.contains(':') { '@' } else { ':' };
        write!(f, "{}/{}{mark}{}", self.host, self.repository, self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_docker_means_by_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, shown, base) in [
            ("alpine", "docker.io/library/alpine:latest", "https://registry-1.docker.io"),
            ("offspot/x:1.2", "docker.io/offspot/x:1.2", "https://registry-1.docker.io"),
            ("index.docker.io/a/b", "docker.io/a/b:latest", "https://registry-1.docker.io"),
            ("ghcr.io/offspot/metrics:0.3.0", "ghcr.io/offspot/metrics:0.3.0", "https://ghcr.io"),
            ("localhost:5000/x", "localhost:5000/x:latest", "http://localhost:5000"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "http://127.0.0.1:5000"),
            ("10.0.0.1:5000/x:1", "10.0.0.1:5000/x:1", "https://10.0.0.1:5000"),
        ] {
            let name = ImageName::parse(text).unwrap();
            assert_eq!((name.to_string().as_str(), name.base().as_str()), (shown, base), "{text}");
        }
        let name = ImageName::parse(&format!("ghcr.io/a/b:1@{digest}")).unwrap();
        assert_eq!(name.reference, digest);
        assert_eq!(ImageName::parse("ghcr.io/a/b:1").unwrap().file_name(), "ghcr.io_a_b_1.tar");
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let long = "a".repeat(401);
        for text in [
            "",
            "A/b",
            "a//b",
            "a/../b",
            "a:",
            "a:-x",
            "a:b c",
            "a@sha256:12",
            "a@x",
            "http://h/a",
            "h.x/a?b",
            &long,
            "ev il.com/a",
        ] {
            assert!(ImageName::parse(text).is_err(), "{text:?}");
        }
    }
}
