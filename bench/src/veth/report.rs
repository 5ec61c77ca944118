//! What was measured, as a table and as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::forward::FRAME_LEN;
use super::windows::Rates;

/// Round trips in nanoseconds, one after the other: nothing passes between two of them.
#[derive(Clone, Default, Debug)]
pub(super) struct Latency {
    took_ns: Vec<u32>,
}

impl Latency {
    #[inline]
    pub(super) fn add(&mut self, took: Duration) {
        self.took_ns.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }

    /// In microseconds; infinite if there is none.
    fn at(&self, quantile: f64) -> f64 {
        let mut sorted = self.took_ns.clone();
        sorted.sort_unstable();
        match sorted.len() {
            0 => f64::INFINITY,
            len => f64::from(sorted[((len - 1) as f64 * quantile).round() as usize]) / 1e3,
        }
    }

    /// Those of each 50 ms.
    fn windows(&self) -> impl Iterator<Item = Latency> + '_ {
        let mut left = &self.took_ns[..];
        std::iter::from_fn(move || {
            let mut passed = 0;
            let end = left.iter().position(|&ns| {
                passed += u64::from(ns);
                passed >= WINDOW_NS
            })?;
            let (window, rest) = left.split_at(end + 1);
            left = rest;
            Some(Latency { took_ns: window.to_vec() })
        })
    }
}

/// One case in all its rounds.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) counts: Vec<u64>,
    /// Of cases whose connections are counted.
    pub(super) packets: Vec<u64>,
    /// One for each round.
    pub(super) latencies: Vec<Latency>,
    pub(super) failed: u64,
}

impl Outcome {
    fn all(&self) -> Latency {
        Latency { took_ns: self.latencies.iter().flat_map(|one| &one.took_ns).copied().collect() }
    }

    /// The least of all windows.
    fn best(&self, quantile: f64) -> f64 {
        let windows = self.latencies.iter().flat_map(Latency::windows);
        windows.map(|window| window.at(quantile)).fold(f64::INFINITY, f64::min)
    }
}

/// What a case counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Packets,
    Connections,
    RoundTrips,
    Bytes,
}

/// A case that has run: its key, what it is, what it counts.
pub(super) struct Row {
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) outcome: Outcome,
}

/// The figures that are asked for, from the rates that one window in twenty exceeds.
struct Ratios {
    packets_of_forwarder: f64,
    packets_of_forwarder_3_to_2: f64,
    connections_of_kernel: f64,
    p50_of_kernel: f64,
    p99_of_kernel: f64,
    best_p99_of_kernel: f64,
    bulk_of_forwarder: f64,
    bulk_of_kernel: f64,
}

impl Ratios {
    fn of(rows: &[Row]) -> Option<Ratios> {
        let outcome = |key| rows.iter().find(|row| row.key == key).map(|row| &row.outcome);
        let rate = |key| outcome(key).map(|outcome| Rates::of(outcome.counts.clone()).p95);
        let ours = outcome("open_close")?;
        // Against the better of both kinds of waiting.
        let kernels = [outcome("round_trip_kernel_spinning")?.all(), outcome("round_trip_kernel_sleeping")?.all()];
        let kernel = |quantile| kernels.iter().map(|one| one.at(quantile)).fold(f64::INFINITY, f64::min);
        let best = |key| Some(outcome(key)?.best(0.99));
        let kernels_best = best("round_trip_kernel_spinning")?.min(best("round_trip_kernel_sleeping")?);
        let round_trip = outcome("round_trip")?.all();
        Some(Ratios {
            packets_of_forwarder: Rates::of(ours.packets.clone()).p95 / rate("forwarder")?,
            packets_of_forwarder_3_to_2: Rates::of(ours.packets.clone()).p95 / rate("forwarder_3_to_2")?,
            connections_of_kernel: rate("open_close")? / rate("open_close_kernel")?,
            p50_of_kernel: round_trip.at(0.5) / kernel(0.5),
            p99_of_kernel: round_trip.at(0.99) / kernel(0.99),
            best_p99_of_kernel: best("round_trip")? / kernels_best,
            bulk_of_forwarder: rate("bulk")? / rate("bulk_forwarder")?,
            bulk_of_kernel: rate("bulk")? / rate("bulk_kernel")?,
        })
    }
}

pub(super) fn print_table(rows: &[Row]) {
    println!("{:<58} {:>12} {:>12} {:>12}", "windows of 10 ms", "best", "p95", "p50");
    for row in rows.iter().filter(|row| row.unit != Unit::RoundTrips) {
        let (unit, scale, digits) = match row.unit {
            Unit::Bytes => ("Gbit/s", 8e-9, 2),
            Unit::Packets => ("packets/s", 1.0, 0),
            _ => ("connections/s", 1.0, 0),
        };
        line(row.title, Rates::of(row.outcome.counts.clone()), scale, digits, unit);
        if !row.outcome.packets.is_empty() {
            line("", Rates::of(row.outcome.packets.clone()), 1.0, 0, "packets/s");
        }
        if row.outcome.failed > 0 {
            println!("{:<58} {:>12} failed", "", row.outcome.failed);
        }
    }
    if rows.iter().any(|row| row.unit == Unit::RoundTrips) {
        println!("\n{:<58} {:>12} {:>12} {:>12}", "round trips of 1 byte, µs", "p50", "p99", "of best 50 ms");
    }
    for row in rows.iter().filter(|row| row.unit == Unit::RoundTrips) {
        let all = row.outcome.all();
        println!("{:<58} {:>12.1} {:>12.1} {:>12.1}", row.title, all.at(0.5), all.at(0.99), row.outcome.best(0.99));
    }
    if let Some(ratios) = Ratios::of(rows) {
        println!(
            "\nhandfast, opening and closing: {:.0} % of the bare packets where two come back for three, {:.0} % of those where all do, \
             {:.1}× the kernel's connections\n\
             its round trip: {:.2}× the kernel's p50, {:.2}× its p99, {:.2}× in the best 50 ms; of the kernel's two whichever is shorter\n\
             its bulk: {:.0} % of the bare one, {:.2}× the kernel's",
            100.0 * ratios.packets_of_forwarder_3_to_2,
            100.0 * ratios.packets_of_forwarder,
            ratios.connections_of_kernel,
            ratios.p50_of_kernel,
            ratios.p99_of_kernel,
            ratios.best_p99_of_kernel,
            100.0 * ratios.bulk_of_forwarder,
            ratios.bulk_of_kernel
        );
    }
    println!(
        "\nRatios are of the windows that one in twenty exceeds (p95). Each end has a core of its own. Offloads are off: packets as a wire carries them; the \
         forwarder's have {FRAME_LEN} bytes."
    );
}

fn line(title: &str, rates: Rates, scale: f64, digits: usize, unit: &str) {
    let [best, p95, p50] = [rates.best, rates.p95, rates.p50].map(|rate| grouped(rate * scale, digits));
    println!("{title:<58} {best:>12} {p95:>12} {p50:>12} {unit}");
}

fn grouped(number: f64, digits: usize) -> String {
    if digits > 0 { format!("{number:.digits$}") } else { crate::load::grouped(number.round() as u64) }
}

/// One object: an entry for each case, and `ratios`.
pub(super) fn to_json(rows: &[Row]) -> Value {
    let mut object = Map::new();
    let rates = |windows: &[u64]| {
        let Rates { best, p95, p50 } = Rates::of(windows.to_vec());
        json!({ "best": best, "p95": p95, "p50": p50, "windows": windows.len() })
    };
    for Row { key, unit, outcome, .. } in rows {
        let mut entry = Map::new();
        match unit {
            Unit::Packets => drop(entry.insert("packets_per_second".into(), rates(&outcome.counts))),
            Unit::Bytes => drop(entry.insert("bytes_per_second".into(), rates(&outcome.counts))),
            Unit::Connections => {
                entry.insert("connections_per_second".into(), rates(&outcome.counts));
                entry.insert("failed".into(), outcome.failed.into());
                if !outcome.packets.is_empty() {
                    entry.insert("packets_per_second".into(), rates(&outcome.packets));
                }
            }
            Unit::RoundTrips => {
                let all = outcome.all();
                let percentiles = json!({
                    "p50": all.at(0.5), "p99": all.at(0.99), "p999": all.at(0.999),
                    "best_50ms_p50": outcome.best(0.5), "best_50ms_p99": outcome.best(0.99),
                    "count": all.took_ns.len(),
                });
                entry.insert("round_trip_us".into(), percentiles);
            }
        }
        object.insert((*key).into(), entry.into());
    }
    if let Some(ratios) = Ratios::of(rows) {
        object.insert(
            "ratios".into(),
            json!({
                "packets_of_forwarder": ratios.packets_of_forwarder,
                "packets_of_forwarder_3_to_2": ratios.packets_of_forwarder_3_to_2,
                "connections_of_kernel": ratios.connections_of_kernel,
                "round_trip_p50_of_kernel": ratios.p50_of_kernel,
                "round_trip_p99_of_kernel": ratios.p99_of_kernel,
                "round_trip_best_50ms_p99_of_kernel": ratios.best_p99_of_kernel,
                "bulk_of_forwarder": ratios.bulk_of_forwarder,
                "bulk_of_kernel": ratios.bulk_of_kernel,
            }),
        );
    }
    object.into()
}

const WINDOW_NS: u64 = 50_000_000;
