//! The guest's root: this test program itself as `/init`, the libraries it is linked with, and the kernel's
//! modules of readers, in the order in which they are loaded.
//!
//! **Source:** Linux `Documentation/driver-api/early-userspace/buffer-format.rst` (cpio *newc*).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the guest's kernel needs to see the readers of these tests.
const MODULES: [&str; 8] = [
    "crct10dif_generic",
    "xhci_pci",
    "sd_mod",
    "usb_storage",
    "uas",
    "sdhci_pci",
    "mmc_block",
    "crc64_rocksoft_generic",
];

/// The archive, with `plan` as the file `/plan`.
///
/// # Errors
/// What is missing here.
pub(crate) fn build(kernel: &Path, plan: &str) -> Result<Vec<u8>, String> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev"] {
        archive.folder(Path::new(folder));
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    archive.file(Path::new("init"), &stripped(&program)?, true);
    for library in libraries(&program)? {
        let bytes = fs::read(&library).map_err(|e| format!("{}: {e}", library.display()))?;
        archive.file(library.strip_prefix("/").unwrap_or(&library), &bytes, true);
    }
    let mut order = Vec::new();
    let known = modules_in(&kernel.join("modules"));
    for name in MODULES {
        add_module(name, &known, &mut order, &mut archive)?;
    }
    archive.file(Path::new("modules"), order.join("\n").as_bytes(), false);
    archive.file(Path::new("plan"), plan.as_bytes(), false);
    Ok(archive.finish())
}

/// A program without its debug information, which is most of it.
fn stripped(program: &Path) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let out = folder.path().join("program");
    tool(Command::new("strip").arg("-o").arg(&out).arg(program))?;
    fs::read(out).map_err(|e| e.to_string())
}

/// The files that ldd(1) lists.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    let text = tool(Command::new("ldd").arg(program))?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn tool(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("no {name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}

/// All modules by name; file names have `-` where names have `_`.
fn modules_in(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            match path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
                Some(name) => drop(found.insert(name.replace('-', "_"), path.clone())),
                None if path.is_dir() => open.push(path),
                None => {}
            }
        }
    }
    found
}

/// Adds a module behind those it depends on. What is in no file is built into the kernel.
fn add_module(
    name: &str,
    known: &BTreeMap<String, PathBuf>,
    order: &mut Vec<String>,
    archive: &mut Archive,
) -> Result<(), String> {
    let file = format!("lib/{name}.ko");
    let Some(path) = known.get(name) else { return Ok(()) };
    if order.contains(&file) {
        return Ok(());
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    for needed in depends(&bytes) {
        add_module(&needed, known, order, archive)?;
    }
    archive.file(Path::new(&file), &bytes, false);
    order.push(file);
    Ok(())
}

/// The `depends=` line of a module's `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let text = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    fn folder(&mut self, path: &Path) {
        if path.as_os_str().is_empty() || self.folders.contains(path) {
            return;
        }
        self.folder(path.parent().unwrap_or(Path::new("")));
        self.folders.insert(path.to_owned());
        self.entry(path, 0o040_755, &[]);
    }

    fn file(&mut self, path: &Path, bytes: &[u8], executable: bool) {
        self.folder(path.parent().unwrap_or(Path::new("")));
        self.entry(path, if executable { 0o100_755 } else { 0o100_644 }, bytes);
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) {
        let name = path.to_string_lossy();
        let size = bytes.len() as u32;
        // inode, mode, uid, gid, links, time, size, device (4 numbers), name's length, checksum
        let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.bytes
    }
}
