//! A stock mail server (aiosmtpd) as a process of its own. Included by the tests of each crate that sends mail.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Where Debian's Python is, before others that may lack the package.
const PYTHONS: [&str; 2] = ["/usr/bin/python3", "python3"];
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Password of whoever logs in; a plain server asks for none.
pub(crate) const PASSWORD: &str = "open sesame";

pub(crate) struct MailServer {
    child: Child,
    input: ChildStdin,
    lines: Receiver<Value>,
    kind: &'static str,
    port: u16,
    folder: tempfile::TempDir,
}

impl MailServer {
    /// Starts one that is `plain`, has `tls` or asks for `starttls`; the latter two want a login. `None` where there is none
    /// to be had.
    pub(crate) fn start(kind: &'static str) -> Option<Self> {
        let has = |python: &&&str| {
            let asked =
                Command::new(python).args(["-c", "import aiosmtpd.smtp"]).stderr(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        };
        let Some(python) = PYTHONS.iter().find(has) else {
            println!(
                "SKIPPED: letters to a stock mail server: aiosmtpd is not installed (package python3-aiosmtpd)"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut command = Command::new(python);
        command.arg("-c").arg(include_str!("mail_server.py")).arg(kind);
        match kind {
            "plain" => command.args(["", ""]),
            _ => command.arg(&cert).arg(&key),
        };
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if say.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, input, lines, kind, port: 0, folder };
        server.port = server.next()["port"].as_u64().unwrap().try_into().unwrap();
        Some(server)
    }

    /// As `--smtp` takes it.
    pub(crate) fn url(&self) -> String {
        let (scheme, user) = match self.kind {
            "plain" => ("smtp+plain", ""),
            "tls" => ("smtps", "shop@"),
            _ => ("smtp", "shop@"),
        };
        format!("{scheme}://{user}localhost:{}", self.port)
    }

    /// Its certificate, PEM.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The next thing it says.
    pub(crate) fn next(&mut self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("the mail server says something")
    }

    /// What it does from here on; gives the letters it took before.
    pub(crate) fn mode(&mut self, mode: &str) -> Vec<Value> {
        writeln!(self.input, "{}", json!({"mode": mode})).unwrap();
        let mut letters = Vec::new();
        loop {
            let said = self.next();
            if said["mode"] == mode {
                return letters;
            }
            letters.push(said);
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
