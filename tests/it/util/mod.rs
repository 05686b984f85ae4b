//! A broker as a process, and clients that are not ours.

pub mod cutting;
pub mod http;
pub mod peer;
pub mod random;
pub mod raw;
pub mod sse;
pub mod throttled;
pub mod ws;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The longest anything may take before the test calls it broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A broker process with its data directory.
pub struct Broker {
    child: Option<Child>,
    pub dir: PathBuf,
    pub public: String,
    pub admin: String,
    /// Of the public listener.
    pub scheme: &'static str,
    args: Vec<String>,
    _temporary: Option<tempfile::TempDir>,
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_tidings")
}

impl Broker {
    /// A broker on free ports in a directory of its own.
    pub fn start() -> Broker {
        Broker::with(&[])
    }

    /// The same with these flags.
    pub fn with(args: &[&str]) -> Broker {
        let temporary = tempfile::tempdir().unwrap();
        let mut broker = Broker::at(temporary.path(), args);
        broker._temporary = Some(temporary);
        broker
    }

    /// A broker on this data directory.
    pub fn at(dir: &Path, args: &[&str]) -> Broker {
        let mut broker = Broker::stopped(dir, args);
        broker.restart();
        broker
    }

    /// The same, not started yet.
    pub fn stopped(dir: &Path, args: &[&str]) -> Broker {
        Broker {
            child: None,
            dir: dir.join("data"),
            public: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            scheme: "http",
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            _temporary: None,
        }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(&self.dir);
        command.args(["--listen", &self.public, "--admin", &self.admin]).args(&self.args);
        command.env("TIDINGS_LOG", "tidings=warn");
        command
    }

    /// Starts it, on the ports it had before if it had any.
    pub fn restart(&mut self) {
        let command = self.command();
        self.run(command);
    }

    /// Starts it by this command, which must run the broker in the end.
    pub fn run(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = |name: &str| {
            let url = line.split(&format!("{name}=")).nth(1)?.split_whitespace().next()?;
            Some(url.split_once("://")?.1.to_owned())
        };
        let (Some(public), Some(admin)) = (address("public"), address("admin")) else {
            panic!("the broker did not start: {line:?}, {:?}", child.wait());
        };
        (self.public, self.admin) = (public, admin);
        self.scheme = if line.contains("public=https:") { "https" } else { "http" };
        self.child = Some(child);
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    /// Kills it as a power cut of the process would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Asks it to stop, and gives its exit code and how long it took.
    pub fn terminate(&mut self) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        let code = self.wait();
        (code, asked.elapsed())
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.public)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero()))
                .unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The command line of this binary against this broker.
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).env("TIDINGS_URL", self.url());
        command.env_remove("TIDINGS_TOKEN").env_remove("TIDINGS_CA");
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A child that is killed when the test is over.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something to become true; only for what announces itself nowhere.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
