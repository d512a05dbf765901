//! A version on its way: signed by whoever releases, put into the warehouse, rolled out by the scheduler, fetched, checked
//! and written by the agent. Real programs over real sockets; only the machine is not restarted for real.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bench, Process, Shop, agent_binary, cardshop, eventually, text_of};
use serde_json::{Value, json};

/// Bytes of what stands for the initramfs: some chunks.
const INITRAMFS_SIZE: usize = 700_001;

struct Release {
    folder: tempfile::TempDir,
    key: PathBuf,
}

impl Release {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("update.key");
        good(cardshop().args(["admin", "update", "keygen", "-o"]).arg(&key));
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600,
            "nobody else reads the key"
        );
        Self { folder, key }
    }

    fn public(&self) -> PathBuf {
        self.key.with_added_extension("pub")
    }

    /// A partition set that is not signed, as it comes onto a new disk.
    fn set(&self, version: &str) -> PathBuf {
        let (kernel, initramfs) = (self.folder.path().join("kernel"), self.folder.path().join("initramfs"));
        let mut bytes = vec![0; INITRAMFS_SIZE];
        blake3::Hasher::new().update(version.as_bytes()).finalize_xof().fill(&mut bytes);
        fs::write(&kernel, b"a kernel").unwrap();
        fs::write(&initramfs, bytes).unwrap();
        let set = self.folder.path().join(format!("{version}.set"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../appliance-image/make-set");
        let mut make = Command::new(script);
        make.arg("--kernel").arg(kernel).arg("--initramfs").arg(initramfs).args(["--version", version]);
        good(make.arg("--update-key").arg(self.public()).arg("-o").arg(&set));
        set
    }

    fn update(&self, version: &str) -> PathBuf {
        let update = self.folder.path().join(format!("{version}.upd"));
        good(
            cardshop()
                .args(["admin", "update", "sign"])
                .arg(self.set(version))
                .arg("--key")
                .arg(&self.key)
                .arg("-o")
                .arg(&update),
        );
        update
    }
}

fn good(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text_of(&output));
    text_of(&output)
}

/// Adds to an appliance's settings a boot partition in a folder, on which version 1.0 runs.
fn with_boot_partition(shop: &Shop, release: &Release) -> PathBuf {
    let boot = shop.folder.path().join("boot");
    fs::create_dir_all(boot.join("cardshop")).unwrap();
    fs::copy(release.set("1.0"), boot.join("set-a.img")).unwrap();
    let mut env = b"# GRUB Environment Block\nset=a\n".to_vec();
    env.resize(1024, b'#');
    fs::write(boot.join("cardshop/grubenv"), env).unwrap();
    let restart = boot.join("restart");
    fs::write(&restart, format!("#!/bin/sh\n: >{}/restarted\n", boot.display())).unwrap();
    fs::set_permissions(&restart, fs::Permissions::from_mode(0o700)).unwrap();
    let mut config: Value = toml::from_str(&fs::read_to_string(shop.agent_config()).unwrap()).unwrap();
    config["update"] =
        json!({"boot": boot, "command_line": boot.join("cmdline"), "decided": boot.join("decided")});
    config["bench"] = json!({"reboot": restart});
    fs::write(shop.agent_config(), toml::to_string(&config).unwrap()).unwrap();
    boot
}

fn publish(shop: &Shop, update: &Path, words: &[&str]) {
    let mut command = cardshop();
    command.args(["admin", "update", "publish"]).arg(update).args([
        "--server",
        &shop.http,
        "--username",
        &shop.username,
    ]);
    good(command.args(words).env("CARDSHOP_PASSWORD", &shop.password));
}

#[test]
fn a_published_version_is_fetched_checked_and_written_beside_what_runs() {
    let (shop, release) = (Shop::open(), Release::new());
    let manager = shop.manager();
    shop.stock(&manager);
    let bench = Bench { slots: 1, card_sizes: vec![8_000_000], write_bps: 0 };
    shop.prepare_agent(&cardshop_sim::shop::join_file(&manager, &shop.http).unwrap(), &bench);
    let boot = with_boot_partition(&shop, &release);
    fs::write(boot.join("cmdline"), "cardshop.set=a").unwrap();
    let agent = shop.start_agent();
    cardshop_sim::shop::approve_first(&manager, &|| true).unwrap().unwrap();
    eventually("the shop hears what runs", || {
        let appliance = manager.list("/appliances").ok()?.pop()?;
        (appliance["info"]["system"] == json!({"set": "a", "version": "1.0"})).then_some(())
    });

    let update = release.update("1.1");
    publish(&shop, &update, &["--rings", "100", "--paused"]);
    let rollout = manager.list("/updates").unwrap().pop().unwrap();
    assert_eq!(
        (&rollout["state"], &rollout["appliances"][0]["outcome"]),
        (&json!("paused"), &json!("waiting"))
    );
    let keys: Value = manager.get("/keys").unwrap();
    let kid = rollout["kid"].as_str().unwrap();
    let listed = |key: &&Value| key["use"] == "update" && key["kid"] == kid;
    assert_eq!(keys["items"].as_array().unwrap().iter().filter(listed).count(), 1, "{keys}");
    let _: Value =
        manager.post(&format!("/updates/{}/resume", rollout["id"].as_str().unwrap()), &json!({})).unwrap();
    eventually("the appliance restarts", || boot.join("restarted").exists().then_some(()));
    let env = fs::read_to_string(boot.join("cardshop/grubenv")).unwrap();
    assert!(env.contains("set=a\n") && env.contains("try=b\n"), "{env}");
    let written = fs::read(boot.join("set-b.img")).unwrap();
    assert!(written == fs::read(&update).unwrap(), "what was signed, byte by byte");
    assert!(
        fs::read(boot.join("set-a.img")).unwrap() == fs::read(release.folder.path().join("1.0.set")).unwrap()
    );
    agent.terminate();

    // The boot loader starts b once.
    fs::write(boot.join("cmdline"), "cardshop.set=b cardshop.trial=1").unwrap();
    let agent = Process::start(Command::new(agent_binary()).arg("--config").arg(shop.agent_config()));
    eventually("the shop sees the trial", || {
        let appliance = manager.list("/appliances").ok()?.pop()?;
        let rollout = manager.list("/updates").ok()?.pop()?;
        (appliance["info"]["system"] == json!({"set": "b", "version": "1.1"})
            && rollout["appliances"][0]["outcome"] == "under_way")
            .then_some(())
    });
    agent.kill();

    // It was not kept: the boot loader starts a again, and the roll-out has come to its end.
    fs::write(boot.join("cmdline"), "cardshop.set=a").unwrap();
    let _agent = shop.start_agent();
    eventually("the roll-out stops by itself", || {
        let rollout = manager.list("/updates").ok()?.pop()?;
        (rollout["state"] == "stopped" && rollout["appliances"][0]["outcome"] == "failed").then_some(())
    });
    let appliance = manager.list("/appliances").unwrap().pop().unwrap();
    assert!(appliance["alerts"]["update_failed"]["text"].as_str().unwrap().contains("1.1"), "{appliance}");
    let id = appliance["id"].as_str().unwrap();
    let support = eventually("the file for whoever helps", || {
        let url = format!("{}/api/v1/appliances/{id}/support", shop.http);
        let request = ureq::post(url).header("Authorization", format!("Bearer {}", manager.access_token()));
        request.send_empty().ok()?.into_body().read_to_vec().ok()
    });
    assert!(support.starts_with(&[0x1f, 0x8b]), "a gzip");
}

#[test]
fn an_update_that_was_changed_or_signed_by_another_key_is_refused_by_name() {
    let (release, other) = (Release::new(), Release::new());
    let update = release.update("1.1");
    let verify = |file: &Path, key: &Path| {
        cardshop().args(["admin", "update", "verify"]).arg(file).arg("--key").arg(key).output().unwrap()
    };
    assert!(text_of(&verify(&update, &release.public())).contains("version 1.1"));
    let refused = verify(&update, &other.public());
    assert!(!refused.status.success() && text_of(&refused).contains("not trusted"), "{}", text_of(&refused));
    let mut bytes = fs::read(&update).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let flipped = release.folder.path().join("flipped");
    fs::write(&flipped, bytes).unwrap();
    let refused = verify(&flipped, &release.public());
    assert!(!refused.status.success() && text_of(&refused).contains("damaged"), "{}", text_of(&refused));
    let again = cardshop().args(["admin", "update", "keygen", "-o"]).arg(&release.key).output().unwrap();
    assert!(!again.status.success(), "a key that is there is not overwritten");
}
