//! Two queues on two cores: each connection has its core, and what arrives on the other is handed over.

use std::sync::Arc;
use std::time::Duration;

use handfast::metrics::{Counter, DropReason};
use handfast_tests::apps::{Echo, Opener, Plan, Tally};
use handfast_tests::kernel::{self, FirstToClose, Load, REQUEST, Server, Service};
use handfast_tests::lab::{Device, EVERY_WAY, Lab, Metrics, Setting, nothing_left, service};
use handfast_tests::{say, skip};

use crate::needs;

const CONNECTIONS: u64 = 10_000;

#[test]
fn connections_spread_over_two_queues_and_strays_are_handed_over() {
    needs!(root);
    if std::thread::available_parallelism().map_or(1, |cores| cores.get()) < 2 {
        return skip(&needs!(name), "needs two cores");
    }
    for (device, family) in EVERY_WAY {
        let (lab, tally) = (Lab::new(device, 2), Arc::new(Tally::default()));
        let (app, setting) = (tally.clone(), Setting { pinned: true, ..Setting::default() });
        let running = lab.spawn(setting, move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
        let load =
            Load { to: vec![service(family)], connections: CONNECTIONS, at_a_time: 32, first: FirstToClose::Client };
        let outcome = lab.peer().run(|| kernel::open_and_close(&load));
        assert_eq!((outcome.done, outcome.failures.len()), (CONNECTIONS, 0), "{outcome}\n{}", Metrics(&running));
        let report = nothing_left(running, Duration::from_secs(10));
        tally.assert_all_orderly(CONNECTIONS);
        let each = report.workers.iter().map(|worker| worker.last.metrics.get(Counter::Established));
        let each: Vec<u64> = each.collect();
        let strays = report.metrics().get(Counter::SteeredSegments);
        say(format_args!("{device:?} {family:?}: {outcome}; by worker {each:?}, {strays} strays"));
        assert!(each.iter().all(|&n| n > CONNECTIONS / 3), "{report}");
        assert!(strays > 0, "{report}");
        assert_eq!(report.metrics().drops(DropReason::HandoverFull), 0, "{report}");
    }
}

#[test]
fn connections_that_two_cores_open_are_answered_on_either() {
    needs!(root);
    let (lab, tally) = (Lab::new(Device::AfXdp, 2), Arc::new(Tally::default()));
    let to = std::net::SocketAddr::new(handfast_tests::lab::Family::V4.peer(), 9);
    let server = lab.peer().run(|| Server::start(to, Service::Echo, 64));
    let plan = Plan {
        to: vec![to],
        connections: CONNECTIONS / 2,
        at_a_time: 32,
        request: REQUEST,
        close_after: Some(REQUEST.len() as u64),
    };
    let app = tally.clone();
    let running = lab.spawn(Setting::default(), move |_| Opener::new(&app, plan.clone())).unwrap();
    assert!(tally.wait_for(CONNECTIONS, Duration::from_secs(60)), "{:?}\n{}", tally.how(), Metrics(&running));
    tally.assert_all_orderly(CONNECTIONS);
    nothing_left(running, Duration::from_secs(10));
    assert_eq!((server.done(), server.failures()), (CONNECTIONS, vec![]));
}
