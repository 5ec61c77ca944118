//! One core's loop: run to completion, one driver queue, one stack, one application.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use arrayvec::ArrayVec;
use handfast_drivers::burst::{BURST, RxBurst, TxBurst};
use handfast_drivers::driver::Driver;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock::Clock;
use super::mailbox::{Mailbox, Note, PostOffice};
use super::sync::Gate;
use super::{Error, Idle, Snapshot, WorkerReport};
use crate::app::App;
use crate::metrics::DropReason;
use crate::stack::Stack;
use crate::time::{Duration, Instant};

/// What the workers of one runtime have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) office: PostOffice,
    /// Set from outside: the workers are to end.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) gates: [Gate; GATES],
    pub(super) clock: Clock,
    pub(super) idle: Idle,
    pub(super) drain: Duration,
}

impl Shared {
    /// Begins the end of all workers.
    pub(super) fn stop_all(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.office.boxes().iter().for_each(Mailbox::ring);
    }
}

/// What each worker passes on its way to the end. None goes on before all are there: segments and frames of one worker
/// may be with any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
enum Passed {
    /// No connection is left here, or the time to close them is over.
    Drained,
    /// Receives no more, so that it hands nothing over any more.
    Quiet,
    /// Has freed all it had, and sent home what is not its own.
    SentHome,
}

const GATES: usize = 3;

/// One core's loop.
#[derive(Debug)]
pub(super) struct Worker<D: Driver, A: App> {
    driver: D,
    stack: Stack,
    app: A,
    rx: RxBurst,
    /// What is to be sent.
    tx: TxBurst,
    /// Answers to what was received while `tx` waited for the device.
    answers: TxBurst,
    /// Until when those may keep us from receiving.
    patience: Instant,
    attendance: Attendance,
    /// How long the next sleep may last, for a driver that cannot wake anybody.
    nap: Duration,
    /// When to ask next whether the device has ended.
    look_at: Instant,
    /// What has ended it.
    fault: Option<String>,
}

/// What came of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Something came or went.
    Busy,
    /// Nothing moved, but something waits for the device.
    Stuck,
    /// Nothing is to be done.
    Idle,
}

impl<D: Driver, A: App> Worker<D, A> {
    pub(super) fn new(driver: D, stack: Stack, app: A, attendance: Attendance) -> Worker<D, A> {
        let (rx, tx, answers) = (RxBurst::new(), TxBurst::new(), TxBurst::new());
        let (patience, look_at) = (Instant::ZERO, Instant::ZERO);
        Worker { driver, stack, app, rx, tx, answers, patience, attendance, nap: NAP_MIN, look_at, fault: None }
    }

    /// Runs until it is told to stop, and then until the connections are closed or their time is up.
    ///
    /// # Errors
    /// The device has ended. Then nothing is waited for, and the other workers are stopped.
    pub(super) fn run(mut self) -> Result<WorkerReport, Error> {
        self.stack.start(self.now(), &mut self.app);
        while !self.shared().stop.load(Ordering::Relaxed) {
            let turn = self.turn();
            self.rest(turn, SLEEP_MAX);
        }
        let aborted = self.drain();
        let (core, fault) = (self.attendance.core as u16, self.fault.take());
        let report = self.end(aborted);
        match fault {
            None => Ok(report),
            Some(message) => Err(Error::Fault { core, message }),
        }
    }

    /// One turn: what came goes through the stack, what is owed goes to the device, what belongs elsewhere goes there.
    fn turn(&mut self) -> Turn {
        let now = self.now();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            self.look();
        }
        let mut moved = self.read_mail();
        if self.may_receive(now) {
            self.receive();
        }
        moved |= !self.rx.is_empty();
        // While the device takes nothing, nothing new is sent, so that senders feel it.
        match self.tx.is_empty() && self.answers.is_empty() {
            true => self.stack.turn(now, &mut self.rx, &mut self.tx, &mut self.app),
            false => self.stack.take_in(now, &mut self.rx, &mut self.answers, &mut self.app),
        }
        let (sent, left) = self.send();
        self.send_mail();
        match (moved | sent, left) {
            (true, _) => Turn::Busy,
            (false, true) => Turn::Stuck,
            (false, false) => Turn::Idle,
        }
    }

    /// Asks whether the device has ended. That is the end of all workers: a part of what is sent to us comes no more.
    #[cold]
    fn look(&mut self) {
        if self.fault.is_none()
            && let Some(fault) = self.driver.fault()
        {
            self.fault = Some(fault.to_string());
            self.shared().stop_all();
        }
    }

    /// What is received while the device takes nothing is answered in a second burst. While that waits too, more stays where it is,
    /// for there is no room for the answers; but not for ever, or two ends of a wire could wait for each other.
    fn may_receive(&mut self, now: Instant) -> bool {
        if self.answers.is_empty() {
            self.patience = now + PATIENCE;
        }
        self.answers.is_empty() || now >= self.patience
    }

    /// Half of the burst at most is of other queues' segments while this queue has enough of its own.
    fn receive(&mut self) {
        self.take_strays(BURST / 2);
        self.driver.rx_burst(&mut self.rx);
        self.take_strays(BURST);
    }

    fn take_strays(&mut self, len_max: usize) {
        while self.rx.len() < len_max
            && let Some(stray) = self.mailbox().stray()
        {
            let frame = self.stack.pool().adopt(stray);
            self.rx.push(frame);
        }
    }

    /// Sends until nothing is owed or the device takes no more. Whether anything was sent, and whether anything is left.
    fn send(&mut self) -> (bool, bool) {
        let (mut sent, mut owed) = (false, true);
        for _ in 0..TX_BURSTS_MAX {
            let waiting = self.tx.len() + self.answers.len();
            self.driver.tx_burst(&mut self.tx);
            if self.tx.is_empty() {
                self.driver.tx_burst(&mut self.answers);
            }
            let left = self.tx.len() + self.answers.len();
            sent |= left < waiting;
            if !owed || left > 0 {
                break;
            }
            owed = !self.stack.output(&mut self.tx);
            // Nothing to send, or no frame to send it in.
            if self.tx.is_empty() {
                break;
            }
        }
        self.driver.flush();
        (sent, owed || !self.tx.is_empty() || !self.answers.is_empty())
    }

    /// Frames that came home, and notes.
    fn read_mail(&mut self) -> bool {
        let Worker { driver, stack, attendance, .. } = self;
        let mailbox = attendance.mailbox();
        while let Some(frame) = mailbox.returned() {
            stack.pool().bring_home(frame);
        }
        let mut any = false;
        while let Some(note) = mailbox.read_note() {
            any = true;
            match note {
                Note::Learned(learned) => stack.learn(learned),
                Note::IcmpError(error) => stack.icmp_error(&error),
                // Whoever asked may have gone: then nobody misses it.
                Note::Snapshot(to) => drop(to.try_send(snapshot(attendance.core, stack, driver))),
            }
        }
        any
    }

    /// What this turn has for other workers.
    fn send_mail(&mut self) {
        let Worker { stack, attendance, .. } = self;
        let office = &attendance.shared.office;
        let (mut refused, pool) = (0, stack.pool().clone());
        for (home, stray) in stack.take_strays() {
            if let Err(stray) = office.boxes()[usize::from(home)].hand_over(stray) {
                drop(pool.adopt(stray));
                refused += 1;
            }
        }
        for _ in 0..refused {
            stack.metrics_mut().dropped(DropReason::HandoverFull);
        }
        for (home, error) in stack.take_icmp_errors() {
            // In a box that is full of notes it is lost, as any packet may be.
            office.boxes()[usize::from(home)].note(Note::IcmpError(error));
        }
        for learned in stack.take_learned() {
            let others = office.boxes().iter().enumerate().filter(|(core, _)| *core != attendance.core);
            // A box that is full of notes: that worker asks the neighbour itself.
            others.for_each(|(_, mailbox)| mailbox.note(Note::Learned(learned)));
        }
        while let Some(frame) = pool.take_away() {
            office.send_home(frame);
        }
    }

    /// Waits for something to do, for `span_max` at most.
    fn rest(&mut self, turn: Turn, span_max: Duration) {
        match (turn, self.shared().idle) {
            (Turn::Busy, _) => self.nap = NAP_MIN,
            (_, Idle::Spin) => core::hint::spin_loop(),
            (Turn::Stuck, Idle::Sleep) => self.sleep(NAP_MIN),
            (Turn::Idle, Idle::Sleep) if self.driver.is_busy() => self.sleep(NAP_MIN),
            (Turn::Idle, Idle::Sleep) => {
                let mut span = span_max;
                if self.driver.pollable().is_none() {
                    span = span.min(self.nap);
                    self.nap = (self.nap + self.nap).min(NAP_MAX);
                }
                let now = self.now();
                self.sleep(self.stack.next_deadline().map_or(span, |at| at.since(now).min(span)));
            }
        }
    }

    /// Sleeps until a packet or a message comes, for `span` at most.
    fn sleep(&mut self, span: Duration) {
        let Some(bell) = self.mailbox().lie_down() else { return };
        let timeout = Timespec {
            tv_sec: (span.as_micros() / 1_000_000) as i64,
            tv_nsec: (span.as_micros() % 1_000_000 * 1_000) as i64,
        };
        let bell = PollFd::from_borrowed_fd(bell, PollFlags::IN);
        let device = self.driver.pollable().map(|device| PollFd::from_borrowed_fd(device, PollFlags::IN));
        let mut waits: ArrayVec<PollFd<'_>, 2> = [Some(bell), device].into_iter().flatten().collect();
        // An interrupted or failed wait is a short one.
        let _ = poll(&mut waits, Some(&timeout));
        // A device that was removed is always ready, with an error: waiting for it would be spinning.
        if waits
            .get(1)
            .is_some_and(|device| device.revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL))
        {
            thread::sleep(span.min(NAP_MAX).into());
        }
        self.mailbox().get_up(waits[0].revents().contains(PollFlags::IN));
    }

    /// Lets connections close, within the time there is for that; resets the others, and says how many.
    fn drain(&mut self) -> u32 {
        let now = self.now();
        let deadline = now + self.shared().drain;
        self.stack.shut_down(now, &mut self.app);
        loop {
            let turn = self.turn();
            if self.stack.connections() + self.stack.half_open() == 0 {
                self.attendance.pass(Passed::Drained);
            }
            // The segments of other workers' connections may still come to this one's queue.
            if self.attendance.all(Passed::Drained) || self.now() >= deadline || self.fault.is_some() {
                break;
            }
            self.rest(turn, NAP_MAX);
        }
        self.attendance.pass(Passed::Drained);
        let aborted = self.stack.connections();
        self.stack.abort_all();
        let deadline = self.now() + LAST_TURNS;
        loop {
            let turn = self.turn();
            if turn == Turn::Idle || self.now() >= deadline {
                break aborted;
            }
            self.rest(turn, NAP_MIN);
        }
    }

    /// Gives everything back.
    fn end(self, aborted: u32) -> WorkerReport {
        let mut last = snapshot(self.attendance.core, &self.stack, &self.driver);
        let Worker { driver, stack, app, rx, mut tx, mut answers, mut attendance, .. } = self;
        let pool = stack.pool().clone();

        attendance.pass_and_wait(Passed::Quiet);
        while let Some(stray) = attendance.mailbox().stray() {
            drop(pool.adopt(stray));
        }
        last.device = driver.stats();
        drop((app, stack, rx));
        tx.cancel();
        answers.cancel();
        drop(driver);
        while let Some(frame) = pool.take_away() {
            attendance.shared.office.send_home(frame);
        }

        attendance.pass_and_wait(Passed::SentHome);
        while let Some(frame) = attendance.mailbox().returned() {
            pool.bring_home(frame);
        }
        WorkerReport { last, aborted, frames: pool.census() }
    }

    #[inline]
    fn now(&self) -> Instant {
        self.shared().clock.now()
    }

    #[inline]
    fn shared(&self) -> &Shared {
        &self.attendance.shared
    }

    #[inline]
    fn mailbox(&self) -> &Mailbox {
        self.attendance.mailbox()
    }
}

fn snapshot(core: usize, stack: &Stack, driver: &impl Driver) -> Snapshot {
    Snapshot {
        core: core as u16,
        metrics: stack.metrics().clone(),
        device: driver.stats(),
        connections: stack.connections(),
        half_open: stack.half_open(),
        time_waits: stack.time_waits(),
        frames_free: stack.pool().free() as u32,
    }
}

/// One worker's place among the others. When it ends before its time, by a panic, the others are told to stop and do not
/// wait for it.
#[derive(Debug)]
pub(super) struct Attendance {
    shared: Arc<Shared>,
    core: usize,
    passed: [bool; GATES],
}

impl Attendance {
    pub(super) fn new(shared: Arc<Shared>, core: usize) -> Attendance {
        Attendance { shared, core, passed: [false; GATES] }
    }

    #[inline]
    fn mailbox(&self) -> &Mailbox {
        &self.shared.office.boxes()[self.core]
    }

    fn pass(&mut self, gate: Passed) {
        if !core::mem::replace(&mut self.passed[gate as usize], true) {
            self.shared.gates[gate as usize].pass();
        }
    }

    fn all(&self, gate: Passed) -> bool {
        self.shared.gates[gate as usize].is_open()
    }

    fn pass_and_wait(&mut self, gate: Passed) {
        self.pass(gate);
        while !self.all(gate) {
            thread::sleep(NAP_MIN.into());
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        for gate in [Passed::Drained, Passed::Quiet, Passed::SentHome] {
            self.pass(gate);
        }
        self.shared.stop_all();
    }
}

/// Bursts sent in one turn: what is received should not wait for ever.
const TX_BURSTS_MAX: usize = 8;
/// The longest sleep, so that what a device has finished with is collected now and then.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Sleeps beside a device that cannot wake anybody, or has not finished.
const NAP_MIN: Duration = Duration::from_micros(100);
const NAP_MAX: Duration = Duration::from_millis(1);
/// A neighbour that is merely slow, or was not given its core, is there again by then.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often the device is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For the resets and acknowledgments of the end.
const LAST_TURNS: Duration = Duration::from_millis(100);
