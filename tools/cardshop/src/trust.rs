//! Whose certificates a service accepts when it asks another: those of the public CAs, of our own where this process
//! serves with one, and of whoever `--ca` names.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::tls::OwnCa;

/// Largest file that is read, bytes: a system's whole bundle has a quarter of that.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// Whom to trust beside the public CAs.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TrustArgs {
    /// Also trust the CAs in this file, PEM, when asking other services: a site's own is in its DIR/tls/ca.pem.
    #[arg(long, env = "CARDSHOP_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

impl TrustArgs {
    /// The CAs that count for this process.
    pub(crate) fn roots(&self, own: Option<&OwnCa>) -> anyhow::Result<RootCerts> {
        let files: Vec<&Path> = own.map(|own| &*own.pem).into_iter().chain(self.ca.as_deref()).collect();
        if files.is_empty() {
            return Ok(RootCerts::WebPki);
        }
        let mut all: Vec<Certificate<'static>> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect();
        for file in files {
            all.extend(read(file)?);
        }
        Ok(RootCerts::from(all))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let cannot = || format!("cannot read the CA in {}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).with_context(cannot)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE_SIZE), &mut text)
        .with_context(cannot)?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.with_context(cannot)? {
            found.push(certificate);
        }
    }
    anyhow::ensure!(!found.is_empty(), "{} holds no certificate in PEM form", path.display());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_is_trusted_beside_the_public_ones_and_a_file_without_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let count = |args: &TrustArgs| match args.roots(None).unwrap() {
            RootCerts::Specific(all) => Some(all.len()),
            _ => None,
        };
        assert_eq!(count(&TrustArgs::default()), None);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let (good, empty) = (folder.path().join("ca.pem"), folder.path().join("empty.pem"));
        std::fs::write(&good, format!("{ca}{}", key.serialize_pem())).unwrap();
        std::fs::write(&empty, "nothing here\n").unwrap();
        let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.len();
        assert_eq!(count(&TrustArgs { ca: Some(good) }), Some(public + 1));
        let error = TrustArgs { ca: Some(empty) }.roots(None).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
