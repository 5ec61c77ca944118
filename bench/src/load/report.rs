//! The outcome as text and as JSON.
//!
//! # The JSON object
//! | key | means |
//! | --- | --- |
//! | `driver` | `wire`, `tap` or `af_xdp` |
//! | `role` | `client`, `server` or `both`; what follows is the client's but of a server alone |
//! | `cores` | how many workers |
//! | `seconds` | from the beginning of the load to the end of the last connection |
//! | `opened` | connections begun, or due; of a server: accepted |
//! | `established` | connections that reached ESTABLISHED |
//! | `closed` | connections that ended as they were to end |
//! | `failed` | all others: `opened` = `closed` + `failed` |
//! | `failures_by_cause` | those by cause; only causes that occurred |
//! | `connections_per_second` | `closed` / `seconds` |
//! | `connections_per_second_best_100ms` | the best of all windows of 100 ms, as a rate |
//! | `handshake_us` | from SYN to ESTABLISHED; in open loop from when the connection was due. Microseconds: `p50`, `p90`, `p99`, `p999`, `max`, each `null` if there was none |
//! | `first_byte_us` | from the end of a request to the first byte of its response; of a server: from ESTABLISHED to the first byte |
//! | `close_us` | from the first FIN to the end of the connection |
//! | `packets_sent`, `packets_received` | all packets, ARP and the like included |
//! | `bytes_sent`, `bytes_received` | with link headers, without checksum and gap |
//! | `packets_per_connection` | packets both ways / `closed`; `null` without any |
//! | `retransmissions` | segments sent again, by each end that is ours |
//! | `drops` | packets discarded by each end that is ours, by reason; `device` are those that the device lost |
//! | `cpu_us_per_connection` | CPU time of the process / `closed`; a worker that looks for packets takes all of its core. `null` without any |
//! | `resident_bytes_max` | the most memory that the process had resident |
//! | `queues` | of each queue: `queue`, `attach` (`native`, `generic`, `none`), `copy_mode` (`copy`, `zero_copy`), `packets` both ways |

use std::collections::BTreeMap;
use std::fmt::Write;

use handfast::metrics::{Counter, DropReason};
use handfast_drivers::driver::Description;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::{DriverKind, Role};
use super::plan::Plan;
use super::run::{EndOutcome, Outcome};

/// What is said at the end. The fields are the keys of the JSON object, in this order.
#[derive(Serialize, Debug)]
pub(super) struct Report {
    driver: &'static str,
    role: &'static str,
    cores: usize,
    seconds: f64,
    opened: u64,
    established: u64,
    closed: u64,
    pub(super) failed: u64,
    failures_by_cause: BTreeMap<&'static str, u64>,
    connections_per_second: f64,
    connections_per_second_best_100ms: f64,
    handshake_us: Percentiles,
    first_byte_us: Percentiles,
    close_us: Percentiles,
    packets_sent: u64,
    packets_received: u64,
    bytes_sent: u64,
    bytes_received: u64,
    packets_per_connection: Option<f64>,
    retransmissions: u64,
    drops: BTreeMap<&'static str, u64>,
    cpu_us_per_connection: Option<f64>,
    resident_bytes_max: u64,
    queues: Vec<QueueReport>,
    #[serde(skip)]
    notes: Vec<String>,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct Percentiles {
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
    max: Option<u64>,
}

#[derive(Serialize, Debug)]
struct QueueReport {
    queue: u32,
    attach: &'static str,
    copy_mode: &'static str,
    packets: u64,
}

impl Report {
    pub(super) fn new(plan: &Plan, outcome: &Outcome) -> Report {
        let ends = || [&outcome.client, &outcome.server].into_iter().flatten();
        let shown = match plan.role {
            Some(Role::Server) => outcome.server.as_ref(),
            _ => outcome.client.as_ref(),
        };
        let shown = shown.expect("the end whose role it is has run");
        let (measure, metrics) = (&shown.measure, &shown.metrics);
        let seconds = measure.seconds();
        let each = |total: f64| (measure.closed > 0).then(|| total / measure.closed as f64);
        let (sent, received) = (metrics.get(Counter::PacketsSent), metrics.get(Counter::PacketsReceived));
        let mut drops = BTreeMap::new();
        for end in ends() {
            let counted = DropReason::ALL.iter().map(|&reason| (reason.name(), end.metrics.drops(reason)));
            for (name, count) in counted.chain([("device", end.device_lost)]).filter(|&(_, count)| count > 0) {
                *drops.entry(name).or_default() += count;
            }
        }
        Report {
            driver: match plan.driver {
                DriverKind::Wire => "wire",
                DriverKind::Tap => "tap",
                DriverKind::AfXdp => "af_xdp",
            },
            role: match plan.role {
                None => "both",
                Some(Role::Client) => "client",
                Some(Role::Server) => "server",
            },
            cores: plan.cpus.len(),
            seconds,
            opened: measure.opened,
            established: measure.established,
            closed: measure.closed,
            failed: measure.failed(),
            failures_by_cause: measure.failures().collect(),
            connections_per_second: if seconds > 0.0 { measure.closed as f64 / seconds } else { 0.0 },
            connections_per_second_best_100ms: measure.best_per_second(),
            handshake_us: Percentiles::of(&measure.handshake_us),
            first_byte_us: Percentiles::of(&measure.first_byte_us),
            close_us: Percentiles::of(&measure.close_us),
            packets_sent: sent,
            packets_received: received,
            bytes_sent: metrics.get(Counter::BytesSent),
            bytes_received: metrics.get(Counter::BytesReceived),
            packets_per_connection: each((sent + received) as f64),
            retransmissions: ends().map(|end| end.metrics.get(Counter::Retransmissions)).sum(),
            drops,
            cpu_us_per_connection: each(outcome.cpu.as_secs_f64() * 1e6),
            resident_bytes_max: outcome.resident_bytes_max,
            queues: shown.queues.iter().map(QueueReport::from).collect(),
            notes: notes(plan, outcome, shown),
        }
    }

    /// One line of JSON.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("maps have text as keys") + "\n"
    }

    /// For people.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes all");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out)?;
        writeln!(
            out,
            "connections     {} opened, {} established, {} closed, {} failed, in {:.2} s",
            grouped(self.opened),
            grouped(self.established),
            grouped(self.closed),
            grouped(self.failed),
            self.seconds
        )?;
        for (cause, count) in &self.failures_by_cause {
            writeln!(out, "  failed        {:>13} {}", grouped(*count), cause.replace('_', " "))?;
        }
        let rate = |rate: f64| grouped(rate.round() as u64);
        writeln!(
            out,
            "rate            {} connections/s; {} in the best 100 ms",
            rate(self.connections_per_second),
            rate(self.connections_per_second_best_100ms)
        )?;
        writeln!(out, "latency in µs   {:>11} {:>11} {:>11} {:>11} {:>11}", "p50", "p90", "p99", "p99.9", "max")?;
        self.handshake_us.write(out, "handshake")?;
        self.first_byte_us.write(out, "first byte")?;
        self.close_us.write(out, "close")?;
        writeln!(
            out,
            "packets         {} sent, {} received{}",
            grouped(self.packets_sent),
            grouped(self.packets_received),
            self.packets_per_connection.map_or(String::new(), |each| format!("; {each:.2} per connection"))
        )?;
        writeln!(out, "bytes           {} sent, {} received", grouped(self.bytes_sent), grouped(self.bytes_received))?;
        writeln!(out, "retransmitted   {}", grouped(self.retransmissions))?;
        let drops: Vec<_> =
            self.drops.iter().map(|(name, n)| format!("{} {}", name.replace('_', " "), grouped(*n))).collect();
        writeln!(out, "dropped         {}", if drops.is_empty() { "0".into() } else { drops.join(", ") })?;
        let cpu = self.cpu_us_per_connection.map_or("-".into(), |us| format!("{us:.2} µs per connection"));
        writeln!(out, "CPU             {cpu}, on {} core{}", self.cores, if self.cores == 1 { "" } else { "s" })?;
        writeln!(out, "memory          {} MiB at most", grouped(self.resident_bytes_max >> 20))?;
        for QueueReport { queue, attach, copy_mode, packets } in &self.queues {
            let mode = match (self.driver, *attach) {
                ("af_xdp", attach) => format!("XDP {attach}, {}", copy_mode.replace('_', "-")),
                (driver, _) => driver.into(),
            };
            writeln!(out, "queue {queue:<9} {mode}, {} packets", grouped(*packets))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note            {note}"))
    }
}

/// What whoever reads the figures should know.
fn notes(plan: &Plan, outcome: &Outcome, shown: &EndOutcome) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, end) in [("client", &outcome.client), ("server", &outcome.server)] {
        let Some(end) = end else { continue };
        let made = end.metrics.get(Counter::TimeWaits);
        if made > 0 {
            let short = end.metrics.drops(DropReason::TimeWaitFull);
            let kept = match short {
                0 => "none was cut short".into(),
                short => format!("{} were cut short: raise --time-wait-max", grouped(short)),
            };
            let reused = match end.metrics.get(Counter::TimeWaitReused) {
                0 => String::new(),
                reused => format!("{} made way for a new connection (RFC 6191); ", grouped(reused)),
            };
            notes.push(format!(
                "the {name} kept {} connections in TIME-WAIT, {} of them still at the end; {reused}{kept}",
                grouped(made),
                grouped(end.time_waits)
            ));
        }
        if end.frames_missing > 0 {
            notes.push(format!("{} frames of the {name}'s did not come back", end.frames_missing));
        }
        let failed = end.measure.failed();
        if !std::ptr::eq(end, shown) && failed > 0 {
            let causes: Vec<_> = end.measure.failures().map(|(name, n)| format!("{name} {}", grouped(n))).collect();
            notes.push(format!("at the {name}, {} ended otherwise: {}", grouped(failed), causes.join(", ")));
        }
    }
    let causes: BTreeMap<_, _> = shown.measure.failures().collect();
    if causes.contains_key("no_port") {
        notes.push(
            "every port was in use or in TIME-WAIT: give the client more addresses, such as \
                    --address 192.0.2.1-192.0.2.100/24"
                .into(),
        );
    }
    if causes.contains_key("no_record") {
        notes.push("every connection record was in use: raise --conns-max".into());
    }
    if outcome.interrupted && plan.role != Some(Role::Server) {
        notes.push("interrupted before its end".into());
    }
    notes
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |quantile| (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile));
        Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }

    fn write(&self, out: &mut String, name: &str) -> std::fmt::Result {
        let Percentiles { p50: Some(_), .. } = self else { return Ok(()) };
        write!(out, "  {name:<12}")?;
        for value in [self.p50, self.p90, self.p99, self.p999, self.max] {
            write!(out, "  {:>11}", value.map_or("-".into(), grouped))?;
        }
        writeln!(out)
    }
}

impl From<&super::run::QueueOutcome> for QueueReport {
    fn from(queue: &super::run::QueueOutcome) -> QueueReport {
        let super::run::QueueOutcome { queue: Description { queue, attach, copies, .. }, packets } = queue;
        QueueReport { queue: *queue, attach, copy_mode: if *copies { "copy" } else { "zero_copy" }, packets: *packets }
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
