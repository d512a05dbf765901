//! Container images: from a stock registry to an archive that a stock tool reads, and from registries that lie.

#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::print_stdout)] // a test that is skipped says so

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use cardshop_creator::{BuildError, Options, Recipe, StopFlag, check};
use common::server::{Reply, Request, Server};
use common::{Bench, DATA_START, noise, read_data};
use serde_json::{Value, json};
use sha2::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn sha256(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image of one layer.
struct Image {
    config: Vec<u8>,
    layer: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    fn new(seed: u64) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let content = noise(seed, 700_001);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "app.bin", content.as_slice()).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let layer = gzip.finish().unwrap();
        let config = json!({"architecture": "arm64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}});
        let config = config.to_string().into_bytes();
        let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": blob("application/vnd.oci.image.config.v1+json", &config),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip", &layer)]});
        Self { config, layer, manifest: manifest.to_string().into_bytes() }
    }

    /// As a folder in OCI layout.
    fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        for bytes in [&self.config, &self.layer, &self.manifest] {
            std::fs::write(folder.join("blobs").join(sha256(bytes).replace(':', "/")), bytes).unwrap();
        }
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST,
            "digest": sha256(&self.manifest), "size": self.manifest.len()}]});
        std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
    }

    /// As a registry answers, an index for two platforms at the tag.
    fn answer(&self, request: &Request) -> Reply {
        let path = request.path.strip_prefix("/v2/app/").unwrap_or_default();
        let platform = |architecture: &str| json!({"os": "linux", "architecture": architecture});
        let index = json!({"manifests": [
            {"digest": sha256(b"another"), "platform": platform("amd64")},
            {"digest": sha256(&self.manifest), "platform": platform("arm64")},
        ]});
        let index = index.to_string().into_bytes();
        let known = |bytes: &[u8]| path.ends_with(&sha256(bytes));
        let body = match path {
            "manifests/1" => index,
            _ if known(&self.manifest) => self.manifest.clone(),
            _ if known(&self.config) => self.config.clone(),
            _ if known(&self.layer) => self.layer.clone(),
            _ => return Reply::status(404),
        };
        Reply { body, ..Reply::status(200) }
    }
}

fn recipe(server: &Server) -> String {
    format!("oci_images: [{{ident: '{}/app:1'}}]", server.url("").trim_start_matches("http://"))
}

/// The archive's path on the data partition.
fn archive(server: &Server) -> String {
    let host = server.url("").trim_start_matches("http://").replace(':', "_");
    format!("/images/{host}_app_1.tar")
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Debian's docker-registry on a free port.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(bench: &Bench) -> Self {
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            bench.path("registry").display()
        );
        bench.write("registry.yml", config.as_bytes());
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(bench.path("registry.yml")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            let rest = line.split_once("listening on ")?.1.to_owned();
            Some(rest.split(['"', ' ', ',']).next().unwrap().to_owned())
        });
        // What it says later would fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens") }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skopeo(args: &[&str]) {
    let output = Command::new("skopeo").args(["--insecure-policy", "copy"]).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_image_of_a_stock_registry_becomes_an_archive_that_a_stock_tool_loads() {
    for tool in ["docker-registry", "skopeo"] {
        if !has(tool) {
            println!("SKIPPED: {tool} is not on this machine (package {tool})");
            return;
        }
    }
    let (bench, image) = (Bench::new(), Image::new(1));
    let registry = Registry::start(&bench);
    image.write(&bench.path("layout"));
    let from = format!("oci:{}", bench.path("layout").display());
    skopeo(&["--dest-tls-verify=false", &from, &format!("docker://{}/tools/app:1.2", registry.address)]);

    let text = format!("oci_images: [{{ident: '{}/tools/app:1.2'}}]", registry.address);
    let built = bench.build("card.img", &text);
    let path = format!("/images/{}_tools_app_1.2.tar", registry.address.replace(':', "_"));
    let archive = read_data(&built.image, DATA_START, &path);
    bench.write("app.tar", &archive);
    for kind in ["oci-archive", "docker-archive"] {
        let (from, to) = (format!("{kind}:{}", bench.path("app.tar").display()), bench.path(kind));
        skopeo(&[&from, &format!("dir:{}", to.display())]);
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(to.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["config"]["digest"], sha256(&image.config), "{kind}");
        let config = std::fs::read(to.join(sha256(&image.config).trim_start_matches("sha256:"))).unwrap();
        assert!(config == image.config, "{kind}");
    }
    // The layer as the registry had it, byte for byte.
    assert!(archive.windows(image.layer.len()).any(|w| w == image.layer));

    // The registry gone, the cache gives the same image.
    drop(registry);
    let offline = Options { offline: true, ..bench.options("again.img") };
    let recipe = Recipe::from_text(&text).unwrap();
    let again = cardshop_creator::build(&recipe, &offline, &StopFlag::new(), &mut |_| ()).unwrap();
    assert_eq!(again.index.id(), built.index.id());
}

#[test]
fn a_registry_that_wants_a_token_gives_one_and_gives_another_when_it_has_ended() {
    let image = Image::new(2);
    let (given, ended) = (AtomicU32::new(0), AtomicU32::new(0));
    let server = Server::start(move |request| {
        let host = request.header("host").unwrap().to_owned();
        if request.path.starts_with("/token?") {
            assert_eq!(request.path, "/token?service=reg&scope=repository:app:pull");
            let number = given.fetch_add(1, Ordering::AcqRel) + 1;
            return Reply::json(&json!({"token": format!("t{number}"), "expires_in": 300}));
        }
        let Some(token) = request.header("authorization") else {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"reg\",scope=\"x\"");
            return Reply::status(401).with("www-authenticate", challenge);
        };
        // The first token of the downloads ends when the layer is asked for.
        let layer = request.path.ends_with(&sha256(&image.layer));
        if layer && ended.fetch_add(1, Ordering::AcqRel) == 0 {
            return Reply::status(401);
        }
        assert!(token.starts_with("Bearer t"), "{token}");
        image.answer(request)
    });
    let bench = Bench::new();
    let recipe_text = recipe(&server);
    let sizing =
        check(&Recipe::from_text(&recipe_text).unwrap(), &bench.options("x"), &StopFlag::new()).unwrap();
    let built = bench.build("card.img", &recipe_text);
    let found = read_data(&built.image, DATA_START, &archive(&server));
    let row = sizing.rows.iter().find(|row| row.what.ends_with("_app_1.tar")).unwrap();
    assert_eq!(found.len() as u64, row.bytes, "sized to the byte before anything came");
    let image = Image::new(2);
    assert_eq!(row.download_bytes as usize, image.layer.len() + image.config.len());
    assert_eq!(built.index.image_size(), sizing.image_bytes);
    // One for `check`, one for the sizing of the build, one for its downloads, and the one after.
    assert_eq!(server.requests("GET", "/token").len(), 4);
    assert!(server.requests("GET", "/v2/app/manifests/1")[0].header("accept").unwrap().contains(MANIFEST));
}

fn refusal(handler: impl Fn(&Request, &Image) -> Option<Reply> + Send + Sync + 'static) -> BuildError {
    let image = Image::new(3);
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/" => handler(request, &image).unwrap_or(Reply::status(200)),
        _ => handler(request, &image).unwrap_or_else(|| image.answer(request)),
    });
    Bench::new().try_build("card.img", &recipe(&server)).unwrap_err()
}

#[test]
fn registries_that_lie_or_want_more_are_refused_by_name() {
    let damaged = refusal(|request, image| {
        let layer = request.path.ends_with(&sha256(&image.layer));
        layer.then(|| Reply { body: vec![7; image.layer.len()], ..Reply::status(200) })
    });
    assert!(damaged.is_permanent() && damaged.to_string().contains("its digest is sha256:"), "{damaged}");
    let longer = refusal(|request, image| {
        let layer = request.path.ends_with(&sha256(&image.layer));
        layer.then(|| Reply { body: vec![7; image.layer.len() + 1], ..Reply::status(200) })
    });
    assert!(longer.to_string().contains("bytes, expected"), "{longer}");
    let swapped = refusal(|request, image| {
        let manifest = request.path.ends_with(&sha256(&image.manifest));
        manifest.then(|| Reply { body: b"{}".to_vec(), ..Reply::status(200) })
    });
    assert!(swapped.to_string().contains("its digest is sha256:"), "{swapped}");
    let missing = refusal(|request, _| request.path.contains("/manifests/").then(|| Reply::status(404)));
    assert!(missing.is_permanent() && missing.to_string().contains("answers 404"), "{missing}");
    let endless = refusal(|request, _| {
        let manifest = request.path.contains("/manifests/");
        manifest.then(|| Reply { body: vec![b' '; 5 << 20], ..Reply::status(200) })
    });
    assert!(endless.to_string().ends_with("more than the 4194304 bytes that are read of it"), "{endless}");
    let password = refusal(|request, _| {
        (request.path == "/v2/").then(|| Reply::status(401).with("www-authenticate", "Basic realm=\"x\""))
    });
    assert!(password.to_string().ends_with("it wants a password, which recipes do not carry"), "{password}");
    let elsewhere = refusal(|request, _| {
        let challenge = "Bearer realm=\"http://192.0.2.1/token\",service=\"x\"";
        (request.path == "/v2/").then(|| Reply::status(401).with("www-authenticate", challenge))
    });
    assert!(elsewhere.to_string().ends_with("it names no address for tokens"), "{elsewhere}");
}
