//! A device that goes away below a runtime ends it, and the error says which.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handfast::runtime::{Error, Idle, RunningRuntime, Runtime};
use handfast::{Cidr, Config};
use handfast_drivers::xdp::AfXdp;
use handfast_tests::apps::{Echo, Tally};
use handfast_tests::kernel::FirstToClose;
use handfast_tests::lab::{Device, Family, Lab, PORT, Setting, service};

use crate::needs;

/// Both ways of being idle, since a worker that sleeps hears of it otherwise.
fn on_veth(lab: &Lab, idle: Idle, tally: &Arc<Tally>) -> RunningRuntime {
    let address = Cidr::new(Family::V4.ours(), 24).expect("a host's address");
    let runtime = Runtime::new(Config::default()).port(AfXdp::interface(lab.interface())).idle(idle);
    let app = tally.clone();
    let runtime = runtime.address(address).listen(PORT).workers(2);
    lab.ours.run(|| runtime.spawn(move |_| Echo::new(&app, FirstToClose::Client))).unwrap()
}

/// It ends by itself, and soon.
#[track_caller]
fn ends(running: RunningRuntime) -> String {
    let begun = Instant::now();
    while running.is_running() {
        assert!(begun.elapsed() < Duration::from_secs(3), "it goes on without its device");
        std::thread::sleep(Duration::from_millis(5));
    }
    match running.join() {
        Err(Error::Fault { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_interface_that_is_removed_ends_the_runtime_which_says_so() {
    needs!(root);
    for idle in [Idle::Spin, Idle::Sleep] {
        for connected in [false, true] {
            let (lab, tally) = (Lab::new(Device::AfXdp, 2), Arc::new(Tally::default()));
            let running = on_veth(&lab, idle, &tally);
            assert_eq!(running.queues().iter().map(|queue| queue.queue).collect::<Vec<_>>(), [0, 1]);
            assert_eq!((running.queues()[1].attach, running.queues()[1].copies), ("native", true));
            let to = service(Family::V4);
            let open = connected.then(|| lab.peer().run(|| TcpStream::connect(to).expect("it listens")));
            lab.peer().ip(&format!("link del {}", lab.peer_interface()));
            let message = ends(running);
            assert!(message.starts_with("queue ") && message.contains(lab.interface()), "{message}");
            assert!(message.contains("was removed"), "{message}");
            drop(open);
        }
    }
}

#[test]
fn an_interface_that_is_down_for_a_while_ends_nothing() {
    needs!(root);
    let (lab, tally) = (Lab::new(Device::AfXdp, 2), Arc::new(Tally::default()));
    let running = on_veth(&lab, Idle::Sleep, &tally);
    lab.ours.ip(&format!("link set {} down", lab.interface()));
    std::thread::sleep(Duration::from_millis(400));
    assert!(running.is_running());
    lab.ours.ip(&format!("link set {} up", lab.interface()));
    drop(lab.peer().run(|| TcpStream::connect(service(Family::V4)).expect("it listens")));
    running.stop();
    running.join().unwrap();
}

#[test]
fn a_tap_device_that_is_removed_ends_the_runtime_which_says_so() {
    needs!(root);
    let (lab, tally) = (Lab::new(Device::Tap, 1), Arc::new(Tally::default()));
    let app = tally.clone();
    let running = lab.spawn(Setting::default(), move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
    lab.ours.ip(&format!("link del {}", lab.interface()));
    let message = ends(running);
    assert!(message.contains(&format!("'{}' is gone", lab.interface())), "{message}");
}
