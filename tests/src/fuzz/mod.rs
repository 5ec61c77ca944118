//! Hostile bytes. Each [`Target`] makes of any bytes a case, runs it and panics where something is wrong; so the same targets serve
//! seeds, the kept corpus and a coverage-guided fuzzer.
//!
//! A case is only its bytes: decisions are drawn from them front to back, and where they end the case does.

mod app;
mod device;
mod frames;
mod parsers;
mod source;
mod stack;

pub use self::source::{Source, bytes_of_seed};

/// Something to throw bytes at.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line and in the corpus.
    pub name: &'static str,
    /// Runs a case. Panics where it finds something wrong.
    pub run: fn(&[u8], &mut Seen),
    /// The most bytes of a case made from a seed.
    pub len_max: usize,
}

/// Every target.
pub const TARGETS: [Target; 2] = [
    // Each parser alone, then a whole packet.
    Target { name: "parsers", run: parsers::run, len_max: 256 },
    // A whole stack: segments of peers, raw frames, what the application does, time, a device that stalls.
    Target { name: "stack", run: stack::run, len_max: 1024 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// How far the cases came: without that, a million cases could all end at the first check.
#[derive(Clone, Default, Debug)]
pub struct Seen {
    /// Cases.
    pub cases: u64,
    /// Frames given to stacks.
    pub frames: u64,
    /// What stacks counted, drops included.
    pub metrics: handfast::Metrics,
    /// Turns that a connection was in each state, by [`State`](handfast::tcp::state::State).
    pub states: [u64; 10],
    /// Prints what stacks do.
    pub tell: bool,
}

impl Seen {
    /// Adds what others saw.
    pub fn merge(&mut self, other: &Seen) {
        self.cases += other.cases;
        self.frames += other.frames;
        self.metrics.merge(&other.metrics);
        self.states.iter_mut().zip(other.states).for_each(|(sum, n)| *sum += n);
    }

    /// How many turns a connection was in each state.
    pub fn states_by_name(&self) -> String {
        use handfast::tcp::state::State::*;
        let states = [SynSent, SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait];
        let each: Vec<_> = states.iter().map(|state| format!("{state:?} {}", self.states[*state as usize])).collect();
        each.join(", ")
    }
}
