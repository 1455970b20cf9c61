//! One run of the test command.
//!
//! In: a command line, a limit. Out: how it ended and what it said.
//! Never: waits longer than the limit; leaves a process running.
//! Thread: the caller's, and one that reads the output.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use engine::CancelToken;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::capture::Reading;
use super::{Sandbox, environment, processes};
use crate::Error;
use crate::evidence::TestOutcome;

/// How often the command is looked at: a cancel is felt at once, and looking costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long the output may stay open after everyone we know is dead.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn run(
    sandbox: &Sandbox,
    command: &str,
    timeout: Duration,
    cancel: &CancelToken,
) -> Result<TestOutcome, Error> {
    let started = Instant::now();
    let (mut child, reading) =
        spawn(sandbox, command).map_err(|source| Error::Command { action: "start", source })?;
    let end = wait(&child, started + timeout, cancel);
    // The group is killed before its leader is reaped: until then its number cannot go to anyone else.
    let _nobody_left = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait();
    let duration = started.elapsed();
    processes::kill_marked(&sandbox.folder);
    // A reader knows the files by their paths in the repository; where the copy lies is different each time.
    let output = reading.finish(OUTPUT_PATIENCE).replace(&format!("{}/", sandbox.tree.display()), "");
    let (end, status) =
        end.and_then(|end| Ok((end, status?))).map_err(|source| Error::Command { action: "stop", source })?;
    Ok(TestOutcome {
        exit: status.code().filter(|_| end == End::Itself),
        timed_out: end == End::TimedOut,
        cancelled: end == End::Cancelled,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        output,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Itself,
    TimedOut,
    Cancelled,
}

fn spawn(sandbox: &Sandbox, command: &str) -> io::Result<(Child, Reading)> {
    let (reader, writer) = io::pipe()?;
    // Before the command: if no thread can be had, nothing has been started that would have to be stopped.
    let reading = Reading::start(reader)?;
    let child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .current_dir(sandbox.tree.join(&sandbox.prefix))
        .env_clear()
        .envs(environment::environment(sandbox, std::env::vars_os()))
        .stdin(Stdio::null())
        // One pipe for both keeps their order.
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    // The command value is dropped by now, and our ends of the pipe for writing with it.
    Ok((child, reading))
}

/// Waits for the command's end without reaping it.
fn wait(child: &Child, deadline: Instant, cancel: &CancelToken) -> io::Result<End> {
    let leader = WaitId::Pid(Pid::from_child(child));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        match waitid(leader.clone(), options) {
            Ok(Some(_)) => return Ok(End::Itself),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if cancel.is_cancelled() {
            return Ok(End::Cancelled);
        }
        if Instant::now() >= deadline {
            return Ok(End::TimedOut);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
