//! A control group in which block devices are as slow as told: this process and all it starts are in it.
//! Version 1 where the kernel has its throttle, else version 2.
//!
//! **Source:** Linux `Documentation/admin-guide/cgroup-v1/blkio-controller.rst`, `cgroup-v2.rst` *io.max*.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

enum Version {
    /// A file for reading and one for writing.
    V1,
    /// One file for both.
    V2,
}

/// The group; this process leaves it, and it is removed, when dropped.
pub(super) struct Caps {
    version: Version,
    group: PathBuf,
    /// Where this process was.
    before: PathBuf,
}

impl Caps {
    /// Makes the group and joins it.
    ///
    /// # Errors
    /// Why cards cannot be capped here.
    pub(super) fn new() -> anyhow::Result<Self> {
        let (version, root) = find()?;
        let group = root.join(format!("cardshop-bench.{}", std::process::id()));
        if matches!(version, Version::V2) {
            let file = root.join("cgroup.subtree_control");
            fs::write(&file, "+io").with_context(|| format!("cannot write {}", file.display()))?;
        }
        let before = root.join(own_group(&version)?);
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let caps = Self { version, group, before };
        join(&caps.group)?;
        Ok(caps)
    }

    /// Caps a device, by its `major:minor`, in both directions; nothing lifts the cap.
    pub(super) fn set(&self, device: &str, bytes_per_second: Option<u64>) -> anyhow::Result<()> {
        let lines = match self.version {
            Version::V1 => {
                let rate = bytes_per_second.unwrap_or(0);
                ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"]
                    .map(|file| (file, format!("{device} {rate}")))
                    .to_vec()
            }
            Version::V2 => {
                let rate = bytes_per_second.map_or("max".to_owned(), |rate| rate.to_string());
                vec![("io.max", format!("{device} rbps={rate} wbps={rate}"))]
            }
        };
        for (file, line) in lines {
            let file = self.group.join(file);
            fs::write(&file, line).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

impl Drop for Caps {
    fn drop(&mut self) {
        // Nothing is lost when it stays: an empty group caps nobody.
        let _ = join(&self.before).and_then(|()| Ok(fs::remove_dir(&self.group)?));
    }
}

fn join(group: &Path) -> anyhow::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("cannot join {}", group.display()))
}

fn find() -> anyhow::Result<(Version, PathBuf)> {
    let v1 = Path::new("/sys/fs/cgroup/blkio");
    if v1.join("blkio.throttle.write_bps_device").exists() {
        return Ok((Version::V1, v1.to_owned()));
    }
    let v2 = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(v2.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|name| name == "io") {
        return Ok((Version::V2, v2.to_owned()));
    }
    bail!("this kernel has neither the blkio throttle of control groups 1 nor io.max of 2")
}

/// The group this process is in, relative to the root of its hierarchy.
fn own_group(version: &Version) -> anyhow::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let is_it = |controllers: &str| match version {
        Version::V1 => controllers.split(',').any(|name| name == "blkio"),
        Version::V2 => controllers.is_empty(),
    };
    text.lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .find(|(controllers, _)| is_it(controllers))
        .map(|(_, path)| PathBuf::from(path.trim_start_matches('/')))
        .context("this process is in no such control group")
}
