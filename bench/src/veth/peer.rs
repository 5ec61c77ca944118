//! The other end of the wire: a process in a namespace of its own, which does what it is told on its standard input, a line at a
//! time, and ends with that.

use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::forward::{self, Shape};
use super::ours::{Place, Service};
use super::windows::Windows;
use super::{kernel, wire};

type Failure = Box<dyn Error + Send + Sync>;

/// What the other end can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Role {
    Forward,
    ForwardTwoOfThree,
    ForwardSink,
    OursSink,
    OursEcho,
    Nginx,
    KernelServe,
    KernelEchoSpinning,
    KernelEchoSleeping,
    KernelSink,
}

impl Service {
    fn of(role: Role) -> Option<Service> {
        match role {
            Role::OursSink => Some(Service::Sink),
            Role::OursEcho => Some(Service::Echo),
            _ => None,
        }
    }
}

/// The other end, seen from the one that measures.
pub(super) struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Peer {
    /// Starts it, in a namespace that ends with it.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start() -> Result<Peer, Failure> {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(std::env::current_exe()?).arg("--peer");
        // Not of the terminal's group: Ctrl-C ends the one that measures, and that ends this one.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let orders = child.stdin.take().ok_or("no pipe to the other end")?;
        let output = child.stdout.take().ok_or("no pipe from the other end")?;
        let (to, answers) = channel();
        thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        let peer = Peer { child, orders, answers };
        peer.answer()?;
        Ok(peer)
    }

    /// Its process, and so its namespace.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it take its end of the wire.
    ///
    /// # Errors
    /// What it says, or that it says nothing.
    pub(super) fn set_up(&mut self) -> Result<(), Failure> {
        self.ask("set-up").map(drop)
    }

    /// Has it be something; returns when it is.
    ///
    /// # Errors
    /// What it says, or that it says nothing.
    pub(super) fn be(&mut self, role: Role) -> Result<(), Failure> {
        self.ask(&name(role)).map(drop)
    }

    /// Has it end that, and say what it counted.
    ///
    /// # Errors
    /// What it says, or that it says nothing.
    pub(super) fn stop(&mut self) -> Result<Vec<u64>, Failure> {
        Ok(serde_json::from_str(&self.ask("stop")?)?)
    }

    fn ask(&mut self, order: &str) -> Result<String, Failure> {
        writeln!(self.orders, "{order}")?;
        self.answer().map_err(|error| format!("the other end, told to {order}: {error}").into())
    }

    fn answer(&self) -> Result<String, Failure> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => match answer.strip_prefix("error: ") {
                None => Ok(answer),
                Some(error) => Err(error.into()),
            },
            Err(RecvTimeoutError::Timeout) => Err(format!("no answer for {} s", PATIENCE.as_secs()).into()),
            Err(RecvTimeoutError::Disconnected) => Err("it has ended".into()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have an nginx to end.
        let _ = writeln!(self.orders, "end");
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the other end.
///
/// # Errors
/// Standard output is closed.
pub(super) fn run() -> io::Result<()> {
    let say = |answer: &str| writeln!(io::stdout(), "{answer}");
    say("here")?;
    let mut current: Option<Current> = None;
    for order in io::stdin().lines() {
        let answer = match (order?.as_str(), current.take()) {
            ("end", _) => break,
            ("set-up", _) => wire::set_up_peer().map(|()| "done".into()),
            ("stop", Some(current)) => current.stop().and_then(|counts| Ok(serde_json::to_string(&counts)?)),
            (role, _) => Current::start(role).map(|started| {
                current = Some(started);
                "ready".into()
            }),
        };
        match answer {
            Ok(answer) => say(&answer)?,
            Err(error) => say(&format!("error: {}", error.to_string().replace('\n', " ")))?,
        }
    }
    Ok(())
}

/// What runs at the other end.
enum Current {
    Thread { stop: Arc<AtomicBool>, thread: thread::JoinHandle<Result<Windows, Failure>> },
    Nginx { child: Child, folder: PathBuf },
}

impl Current {
    fn start(role: &str) -> Result<Current, Failure> {
        let role = <Role as clap::ValueEnum>::from_str(role, false).map_err(|_| format!("what is {role}?"))?;
        if role == Role::Nginx {
            return Current::nginx();
        }
        let (stop, (to, ready)) = (Arc::<AtomicBool>::default(), channel());
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let ready = move || {
                let _ = to.send(());
            };
            be(role, ready, &stopped)
        });
        match ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(Current::Thread { stop, thread }),
            // It has said why before it dropped its end.
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err("it ended".into()),
            },
            Err(RecvTimeoutError::Timeout) => Err("it does not begin".into()),
        }
    }

    fn nginx() -> Result<Current, Failure> {
        let folder = std::env::temp_dir().join(format!("handfast-nginx-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let configuration = folder.join("nginx.conf");
        let service = wire::KERNEL_WEB;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
            .concat();
        // One process, on our core; nothing written down; everything else as it comes.
        let text = format!(
            "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log stderr crit;\n\
             events {{ worker_connections 16384; multi_accept on; }}\n\
             http {{ access_log off; {temporary} server {{ listen {service} backlog=65535; return 200 hello; }} }}\n",
            folder.display()
        );
        fs::write(&configuration, text)?;
        let core = wire::cores().1;
        core_affinity::set_for_current(core_affinity::CoreId { id: core });
        let mut command = Command::new("setpriv");
        // It ends with this process, whatever ends that.
        command.args(["--pdeathsig", "KILL", "nginx", "-e", "stderr", "-c"]).arg(&configuration);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut nginx = Current::Nginx { child, folder };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect_timeout(&service.into(), PATIENCE).is_err() {
            if let Current::Nginx { child, .. } = &mut nginx
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("nginx ended: {status}").into());
            }
            if Instant::now() >= deadline {
                return Err("nginx does not listen".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(nginx)
    }

    fn stop(mut self) -> Result<Vec<u64>, Failure> {
        let Current::Thread { stop, thread } = &mut self else { return Ok(Vec::new()) };
        stop.store(true, Ordering::Relaxed);
        let thread = std::mem::replace(thread, thread::spawn(|| Ok(Windows::default())));
        let windows = thread.join().map_err(|_| "it panicked")??;
        Ok(windows.steady())
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        match self {
            Current::Thread { stop, .. } => stop.store(true, Ordering::Relaxed),
            Current::Nginx { child, folder } => {
                let _ = child.kill();
                let _ = child.wait();
                let _ = fs::remove_dir_all(folder);
            }
        }
    }
}

fn be(role: Role, ready: impl FnOnce(), stop: &AtomicBool) -> Result<Windows, Failure> {
    let core = wire::cores().1;
    if let Some(service) = Service::of(role) {
        let place = Place { interface: wire::PEER, core, address: wire::ours_at_peer(), addresses: 1 };
        return place.serve(service, || {
            ready();
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    let go_on = |_| !stop.load(Ordering::Relaxed);
    match role {
        Role::Forward => forward::run(wire::PEER, Shape::Even, None, ready, go_on),
        Role::ForwardTwoOfThree => forward::run(wire::PEER, Shape::TwoOfThree, None, ready, go_on),
        Role::ForwardSink => forward::run(wire::PEER, Shape::Sink, None, ready, go_on),
        Role::KernelServe => Ok(kernel::serve(&wire::kernel_services(), ready, stop)?),
        Role::KernelSink => Ok(kernel::sink(wire::KERNEL_SERVICE, ready, stop)?),
        Role::KernelEchoSpinning => echo(true, ready, stop),
        Role::KernelEchoSleeping => echo(false, ready, stop),
        Role::OursSink | Role::OursEcho | Role::Nginx => unreachable!("begun above"),
    }
}

fn echo(spin: bool, ready: impl FnOnce(), stop: &AtomicBool) -> Result<Windows, Failure> {
    kernel::echo(wire::KERNEL_SERVICE, spin, ready, stop)?;
    Ok(Windows::default())
}

fn name(role: Role) -> String {
    clap::ValueEnum::to_possible_value(&role).map_or_else(String::new, |value| value.get_name().into())
}

/// How long anything may take: a device may need two seconds to be free again.
const PATIENCE: Duration = Duration::from_secs(10);
