//! A PostgreSQL server of a test's own: in a temporary folder, on a socket there, run by an unprivileged user, gone with
//! the test's process however that ends. Included by the tests that need one.
#![allow(dead_code)] // not every test uses all of it
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes and starts a server in the folder `$2` with the programs of `$1`, then does what is read, a line each; at the
/// end of input it stops the server and removes the folder. With an address `$3` it listens there too, encrypted by the
/// certificate in the folder, for who knows the password.
const SCRIPT: &str = r#"
trap 'rm -rf "$2"' EXIT
trap '' INT TERM
if [ "$(id -u)" = 0 ]; then
    as="setpriv --reuid=postgres --regid=postgres --clear-groups"
    chown -R postgres "$2"
fi
options="-k $2 -c listen_addresses=$3 -c max_connections=300"
control() { $as "$1/pg_ctl" -D "$2/data" -l "$2/log" -w -t 120 -o "$options" $3; }
cd "$2"
$as "$1/initdb" -D "$2/data" -U cardshop -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null || exit 1
if [ -n "$3" ]; then
    options="$options -c ssl=on -c ssl_cert_file=$2/server.pem -c ssl_key_file=$2/server.key"
    printf 'local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n' >"$2/data/pg_hba.conf"
fi
control "$1" "$2" start >/dev/null </dev/null || { cat "$2/log" >&2; exit 1; }
echo ready
while read -r what; do
    control "$1" "$2" "-m immediate $what" >/dev/null </dev/null || { cat "$2/log" >&2; exit 1; }
    echo ready
done
control "$1" "$2" "-m immediate stop" >/dev/null 2>&1 </dev/null
"#;

/// The running server.
pub(crate) struct Server {
    folder: PathBuf,
    programs: PathBuf,
    script: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    databases: AtomicU32,
}

impl Server {
    /// Starts one; `None`, and says SKIPPED, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_at("", &[])
    }

    /// The same, listening at `address` too under TLS, with these files (`server.pem`, `server.key`) in its folder.
    pub(crate) fn start_at(address: &str, files: &[(&str, String)]) -> Option<Self> {
        let Some(programs) = programs() else {
            println!("SKIPPED: PostgreSQL is not installed (package postgresql)");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("cardshop-postgres.").tempdir().unwrap().keep();
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        }
        let mut script = Command::new("sh")
            .args(["-c", SCRIPT, "postgres"])
            .args([&programs, &folder])
            .arg(address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = script.stdin.take();
        let answers = BufReader::new(script.stdout.take().unwrap());
        let mut server = Self { folder, programs, script, commands, answers, databases: AtomicU32::new(0) };
        server.wait();
        Some(server)
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "PostgreSQL does not start");
    }

    /// Kills the server as a crash would, and starts it again.
    pub(crate) fn crash(&mut self) {
        self.commands.as_mut().unwrap().write_all(b"restart\n").unwrap();
        self.wait();
    }

    /// Gives the user a password, which is asked for on the network.
    pub(crate) fn set_password(&self, password: &str) {
        let sql = format!("alter role cardshop password '{password}'");
        let made = Command::new(self.programs.join("psql"))
            .args(["-q", "-U", "cardshop", "-d", "postgres", "-c", &sql, "-h"])
            .arg(&self.folder)
            .status();
        assert!(made.unwrap().success());
    }

    /// The address of a new, empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(self.programs.join("createdb"))
            .args(["-U", "cardshop", "-h"])
            .args([self.folder.as_os_str(), name.as_ref()])
            .status();
        assert!(made.unwrap().success());
        format!("postgres://cardshop@/{name}?host={}", self.folder.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.script.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let mut versions: Vec<_> =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|e| e.path()).collect();
    versions.sort();
    versions.into_iter().rev().map(|path| path.join("bin")).find(|path| path.join("initdb").exists())
}
