//! Other programs: run to their end, or for as long as a test needs them.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// Runs it to its end and gives what it wrote. It has to succeed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Runs it to its end, for at most `limit`.
pub fn run_for(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let child = with_us(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_child(&child);
    let waiter = thread::spawn(move || child.wait_with_output());
    let deadline = Instant::now() + limit;
    while !waiter.is_finished() {
        if Instant::now() > deadline {
            // It was not waited for yet, so the number is still its own.
            let _ = kill_process(pid, Signal::KILL);
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    waiter.join().expect("waiting does not panic")
}

/// Whether there is a program of that name. Without it a test cannot be made.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

/// A program that runs beside the test, and ends with it.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts it in the namespace of this thread. What it writes is kept for [`Running::stop`].
    pub fn start(command: &mut Command) -> Running {
        let command = with_us(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    /// Waits for the first line that it writes to standard error, and takes it.
    pub fn first_line(&mut self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        // No more than that: the rest is for `stop`.
        while let Some(stream) = &mut self.child.stderr
            && stream.read(&mut byte).is_ok_and(|count| count == 1 && byte != *b"\n")
        {
            line.push(byte[0]);
        }
        text(&line)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Waits for its end; `None` if it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ended() {
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                ended => return ended,
            }
        }
    }

    /// Interrupts it, as Ctrl-C would, and gives its status and what it wrote: standard output, then errors.
    pub fn stop(&mut self) -> (ExitStatus, String) {
        self.signal(Signal::INT);
        let ended = self.wait(Duration::from_secs(20));
        if ended.is_none() {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("our own child");
        let mut written = String::new();
        let streams = (self.child.stdout.take(), self.child.stderr.take());
        let _ = streams.0.map(|mut stream| stream.read_to_string(&mut written));
        let _ = streams.1.map(|mut stream| stream.read_to_string(&mut written));
        assert!(ended.is_some(), "it did not end when interrupted: {written}");
        (status, written)
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait().expect("our own child");
        assert_eq!(status.signal(), Some(9));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the program killed when this thread ends, in whatever way.
fn with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
