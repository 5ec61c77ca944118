use alloc::string::ToString;

use super::*;
use crate::burst::{RxBurst, TxBurst};
use crate::clock::Clock;
use crate::impair::{Impair, Impairment};
use crate::wire;

#[test]
fn every_queue_is_wrapped_with_its_number() {
    let (a, b) = wire::ports(wire::Config { queues: 2, ..wire::Config::default() }, wire::Config::default());
    let a = Wrapped::new(a, |queue, driver| {
        assert_eq!(queue, Driver::caps(&driver).queue);
        // Only the second queue loses what it sends.
        let tx = Impairment { loss_ppm: queue as u32 * 1_000_000, ..Impairment::default() };
        Ok(Impair::new(Impair::new(driver, tx, tx, 1, Clock::manual()), tx, tx, 1, Clock::manual()))
    });
    let mut b = b.open(1).unwrap().remove(0).start().unwrap();
    let mut a: Vec<_> = a.open(2).unwrap().into_iter().map(|queue| queue.start().unwrap()).collect();
    for (driver, arrives) in a.iter_mut().zip([1, 0]) {
        let (mut tx, mut rx) = (TxBurst::new(), RxBurst::new());
        let mut frame = driver.pool().alloc().unwrap();
        frame.append(60);
        tx.push(frame);
        driver.tx_burst(&mut tx);
        driver.flush();
        b.rx_burst(&mut rx);
        assert_eq!(rx.len(), arrives);
    }
}

#[test]
fn errors_of_the_device_and_of_the_middleware_are_told_apart() {
    let port = || wire::ports(wire::Config::default(), wire::Config::default()).0;
    let keep = |_, driver: wire::WireDriver| Ok(driver);
    assert!(matches!(Wrapped::new(port(), keep).open(5), Err(WrapError::Device(wire::Error::Queues { .. }))));
    let refuse = |_, _: wire::WireDriver| Err::<wire::WireDriver, _>("no disk".into());
    let error = Wrapped::new(port(), refuse).open(1).unwrap().remove(0).start().unwrap_err();
    assert!(matches!(error, WrapError::Middleware(_)));
    assert_eq!(error.to_string(), "no disk");
}
