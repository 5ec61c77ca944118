//! Peers that are suddenly not there any more leave nothing behind.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use handfast::metrics::Counter;
use handfast::time::Duration as Span;
use handfast_tests::apps::{Echo, Tally};
use handfast_tests::kernel::{self, FirstToClose};
use handfast_tests::lab::{EVERY_WAY, Lab, Metrics, Setting, nothing_left, service};
use handfast_tests::say;

use crate::needs;

/// Gives up within seconds rather than minutes.
fn impatient() -> Setting {
    let mut setting = Setting::default();
    let tcp = &mut setting.config.tcp;
    tcp.rto_initial = Span::from_millis(200);
    tcp.syn_ack_retries = 2;
    tcp.give_up = Span::from_secs(2);
    tcp.keepalive_idle = Some(Span::from_millis(500));
    tcp.keepalive_interval = Span::from_millis(200);
    tcp.keepalive_probes = 3;
    setting
}

const CLIENTS: usize = 200;

#[test]
fn a_client_that_vanishes_in_the_handshake_leaves_nothing_behind() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
        let app = tally.clone();
        let running = lab.spawn(impatient(), move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
        lab.peer().deafen(lab.peer_interface());
        let begun = lab.peer().run(|| kernel::begin(service(family), CLIENTS));
        thread::sleep(Duration::from_millis(100));
        let half_open: u32 = running.snapshot().iter().map(|snapshot| snapshot.half_open).sum();
        assert_eq!(half_open as usize, CLIENTS, "{}", Metrics(&running));
        // Not even their own retransmissions come any more.
        drop(begun);
        let report = nothing_left(running, Duration::from_secs(20));
        let expired = report.metrics().get(Counter::SynRcvdExpired);
        say(format_args!("{device:?} {family:?}: {half_open} half-open, {expired} given up"));
        assert_eq!((expired as usize, tally.accepted()), (CLIENTS, 0), "{report}");
    }
}

#[test]
fn a_client_that_vanishes_when_established_leaves_nothing_behind() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
        let app = tally.clone();
        let running = lab.spawn(impatient(), move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
        let begun = lab.peer().run(|| kernel::begin(service(family), CLIENTS));
        thread::sleep(Duration::from_millis(200));
        assert_eq!(tally.accepted() as usize, CLIENTS, "{}", Metrics(&running));
        lab.peer().deafen(lab.peer_interface());
        assert!(tally.wait_for(CLIENTS as u64, Duration::from_secs(20)), "{:?}\n{}", tally.how(), Metrics(&running));
        say(format_args!("{device:?} {family:?}: {:?}", tally.how()));
        let report = nothing_left(running, Duration::from_secs(20));
        assert_eq!(report.metrics().get(Counter::TimedOut) as usize, CLIENTS, "{report}");
        drop(begun);
    }
}
