//! The content of the demo's cards: a small school library, made anew and always the same, so that the demo
//! needs no download.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// One file of the library.
pub struct ContentFile {
    /// Name below the content folder.
    pub name: &'static str,
    /// Bytes.
    pub size: u64,
    /// BLAKE3, hex.
    pub blake3: String,
}

/// Names and sizes. About 48 MB in all: enough to watch, small enough for a laptop on battery.
const FILES: [(&str, u64); 4] = [
    ("encyclopaedia.zim", 32 * 1024 * 1024),
    ("mathematics-course.zim", 8 * 1024 * 1024 + 4321),
    ("first-aid-handbook.pdf", 6 * 1024 * 1024 + 17),
    ("readme.txt", 1200),
];

/// Writes the library into `folder`; what is there already is written again.
///
/// # Errors
/// Those of the file system.
pub fn make(folder: &Path) -> io::Result<Vec<ContentFile>> {
    std::fs::create_dir_all(folder)?;
    FILES.iter().map(|(name, size)| make_one(folder, name, *size)).collect()
}

fn make_one(folder: &Path, name: &'static str, size: u64) -> io::Result<ContentFile> {
    // The name is the seed: other bytes in each file, the same in each run.
    let mut bytes = vec![0; usize::try_from(size).expect("constants above")];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    std::fs::write(folder.join(name), &bytes)?;
    Ok(ContentFile { name, size, blake3: blake3::hash(&bytes).to_string() })
}

/// Serves `folder` over HTTP on a free port of this machine, as a library on the net would, until the process
/// ends. Gives its address without a trailing slash.
///
/// # Errors
/// When no port or thread can be had.
pub fn serve(folder: PathBuf) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener =
        runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = axum::Router::new().fallback_service(tower_http::services::ServeDir::new(folder));
    std::thread::Builder::new().name("content".into()).spawn(move || {
        let served = runtime.block_on(axum::serve(listener, router).into_future());
        tracing::error!(?served, "the content server ended");
    })?;
    Ok(url)
}
