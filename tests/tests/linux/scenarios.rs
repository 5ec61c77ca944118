//! The scenarios for which TCP is as it is, against Linux: a chosen segment of the kernel's does not arrive, or comes again.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handfast::metrics::Counter;
use handfast_tests::apps::{Echo, Opener, Plan, Tally};
use handfast_tests::kernel::{FirstToClose, REQUEST, Server, Service};
use handfast_tests::lab::{Device, EVERY_WAY, Family, Lab, Setting, nothing_left, service};
use handfast_tests::pick::{Pick, Picks};
use handfast_tests::world::packet::{ACK, FIN, RST, SYN, Segment};
use handfast_tests::{example, say};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use crate::needs;

fn is_syn(segment: &Segment) -> bool {
    segment.has(SYN) && !segment.has(ACK)
}

fn is_bare_ack(segment: &Segment) -> bool {
    segment.is_empty() && !segment.has(RST)
}

/// A setting in which the first segment that is like this is lost.
fn losing(mut like: impl FnMut(&Segment) -> bool + Send + 'static) -> Setting {
    let mut lost = false;
    let picks = Picks::new(move |segment, _| match !lost && like(segment) {
        true => {
            lost = true;
            Pick::Lose
        }
        false => Pick::Pass,
    });
    Setting { picks, ..Setting::default() }
}

/// Says the request and hears it.
fn echo(stream: &mut TcpStream) {
    let mut heard = [0; REQUEST.len()];
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(REQUEST).unwrap();
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, REQUEST);
}

/// Closes its half and hears the other's end.
fn close(mut stream: TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_syn_of_the_kernel_that_is_lost_comes_again() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
        let app = tally.clone();
        let running = lab.spawn(losing(is_syn), move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
        lab.peer().run(|| {
            let begun = Instant::now();
            let mut stream = TcpStream::connect_timeout(&service(family), Duration::from_secs(10)).unwrap();
            let took = begun.elapsed();
            say(format_args!("{device:?} {family:?}: open after {} ms", took.as_millis()));
            assert!(took > Duration::from_millis(900), "{took:?}: it was lost");
            echo(&mut stream);
            close(stream);
        });
        nothing_left(running, Duration::from_secs(10));
        tally.assert_all_orderly(1);
    }
}

#[test]
fn a_syn_ack_of_the_kernel_that_is_lost_is_had_again() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
        let app = tally.clone();
        let to = SocketAddr::new(family.peer(), 7);
        let plan = Plan {
            to: vec![to],
            connections: 1,
            at_a_time: 1,
            request: REQUEST,
            close_after: Some(REQUEST.len() as u64),
        };
        let setting = losing(|segment| segment.has(SYN) && segment.has(ACK));
        // The kernel listens before anybody asks: with a TAP device its address comes with us.
        let any = SocketAddr::new(if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() }, 7);
        let server = lab.peer().run(|| Server::start(any, Service::Echo, 4));
        let begun = std::time::Instant::now();
        let running = lab.spawn(setting, move |_| Opener::new(&app, plan.clone())).unwrap();
        assert!(tally.wait_for(1, Duration::from_secs(20)), "{:?}", tally.how());
        let report = nothing_left(running, Duration::from_secs(10));
        tally.assert_all_orderly(1);
        let again = report.metrics().get(Counter::Retransmissions);
        say(format_args!("{device:?} {family:?}: {again} segments sent again"));
        // Whose timer was first, our SYN's or that of the kernel's SYN-ACK, is chance; neither goes off before a second.
        assert!(begun.elapsed() >= Duration::from_millis(900), "nothing was lost: {report}");
        drop(server);
    }
}

#[test]
fn a_third_segment_of_the_kernel_that_is_lost_is_asked_for_or_made_up_for_by_data() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        for data_follows in [false, true] {
            let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
            let app = tally.clone();
            let running = lab.spawn(losing(is_bare_ack), move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
            lab.peer().run(|| {
                let begun = Instant::now();
                let mut stream = TcpStream::connect_timeout(&service(family), Duration::from_secs(10)).unwrap();
                if data_follows {
                    echo(&mut stream);
                    assert!(begun.elapsed() < Duration::from_millis(500), "data opens it at once");
                }
                while tally.accepted() == 0 && begun.elapsed() < Duration::from_secs(10) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let (took, how) = (begun.elapsed(), if data_follows { "by data" } else { "by the SYN-ACK again" });
                say(format_args!("{device:?} {family:?}: open after {} ms {how}", took.as_millis()));
                assert!(data_follows || took > Duration::from_millis(900), "{took:?}: it was lost");
                echo(&mut stream);
                close(stream);
            });
            nothing_left(running, Duration::from_secs(10));
            tally.assert_all_orderly(1);
        }
    }
}

#[test]
fn when_the_kernels_last_acknowledgment_is_lost_the_fin_goes_again() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
        let (app, mut fin) = (tally.clone(), false);
        // After its FIN the kernel has nothing to acknowledge but ours.
        let setting = losing(move |segment| {
            fin |= segment.has(FIN);
            fin && is_bare_ack(segment) && !segment.has(FIN)
        });
        let running = lab.spawn(setting, move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
        lab.peer().run(|| {
            let mut stream = TcpStream::connect_timeout(&service(family), Duration::from_secs(10)).unwrap();
            echo(&mut stream);
            close(stream);
        });
        let report = nothing_left(running, Duration::from_secs(10));
        tally.assert_all_orderly(1);
        let again = report.metrics().get(Counter::Retransmissions);
        say(format_args!("{device:?} {family:?}: {again} segments sent again"));
        assert!(again >= 1, "{report}");
    }
}

/// Connects from this port, which may be one that was used before.
fn connect_from(port: u16, to: SocketAddr) -> TcpStream {
    let (family, any) = match to {
        SocketAddr::V4(_) => (AddressFamily::INET, SocketAddr::from(([0, 0, 0, 0], port))),
        SocketAddr::V6(_) => (AddressFamily::INET6, SocketAddr::from(([0_u16; 8], port))),
    };
    let socket: OwnedFd = socket(family, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &any).unwrap();
    connect(&socket, &to).unwrap();
    socket.into()
}

/// What the old duplicate of a SYN comes before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    TheSyn,
    TheThirdSegment,
    Data,
}

#[test]
fn an_old_duplicate_syn_of_the_kernel_opens_nothing_and_the_true_connection_works() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        for when in [Before::TheSyn, Before::TheThirdSegment, Before::Data] {
            let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
            let (app, mut old, mut syns, mut done) = (tally.clone(), Vec::new(), 0, false);
            let picks = Picks::new(move |segment, frame| {
                if is_syn(segment) {
                    syns += 1;
                    if syns == 1 {
                        old = frame.to_vec();
                    }
                }
                let now = match when {
                    Before::TheSyn => is_syn(segment),
                    Before::TheThirdSegment => is_bare_ack(segment) && !segment.has(SYN),
                    Before::Data => segment.text_len() > 0,
                };
                if syns < 2 || done || !now {
                    return Pick::Pass;
                }
                done = true;
                Pick::After(old.clone())
            });
            let setting = Setting { picks, ..Setting::default() };
            let running = lab.spawn(setting, move |_| Echo::new(&app, FirstToClose::Server)).unwrap();
            lab.peer().run(|| {
                for _ in 0..2 {
                    let mut stream = connect_from(4_000, service(family));
                    echo(&mut stream);
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the server closes first, and has the TIME-WAIT");
                    drop(stream);
                    std::thread::sleep(Duration::from_millis(700)); // it is over
                }
            });
            let report = nothing_left(running, Duration::from_secs(10));
            tally.assert_all_orderly(2);
            assert_eq!(tally.accepted(), 2, "{when:?}: {report}");
            say(format_args!("{device:?} {family:?}: {when:?}: two connections, and no third"));
        }
    }
}

#[test]
fn a_handfast_that_was_killed_and_came_back_resets_what_the_kernel_believes_open() {
    needs!(root);
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new(Device::AfXdp, 1);
        let to = SocketAddr::new(family.ours(), 7);
        let mut first = example::start(&lab, &mut example::on(&lab, "echo"), to);
        let mut stream = lab.peer().run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap());
        echo(&mut stream);
        first.kill();
        drop(first);
        let second = example::start(&lab, &mut example::on(&lab, "echo"), to);
        // RFC 9293 §3.5.1, figure 10.
        let begun = Instant::now();
        stream.write_all(REQUEST).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        say(format_args!("{family:?}: {error} after {} ms", begun.elapsed().as_millis()));
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // And serves whoever comes.
        let mut stream = lab.peer().run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap());
        echo(&mut stream);
        close(stream);
        example::stop(second);
    }
}
