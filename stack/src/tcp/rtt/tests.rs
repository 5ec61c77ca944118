use super::*;
use crate::time::Duration;
use proptest::prelude::*;

/// RFC 6298 §2 as it is written, in real numbers.
#[derive(Default)]
struct Oracle {
    srtt: f64,
    rttvar: f64,
    measured: bool,
}

impl Oracle {
    fn measured(&mut self, rtt: f64) {
        if !self.measured {
            (self.srtt, self.rttvar, self.measured) = (rtt, rtt / 2.0, true);
            return;
        }
        self.rttvar = 0.75 * self.rttvar + 0.25 * (self.srtt - rtt).abs();
        self.srtt = 0.875 * self.srtt + 0.125 * rtt;
    }

    fn timeout_us(&self) -> f64 {
        self.srtt + (4.0 * self.rttvar).max(1_000.0)
    }
}

proptest! {
    #[test]
    fn the_timeout_is_that_of_the_rfc(samples in proptest::collection::vec(1u32..5_000_000, 1..200)) {
        let config = TcpConfig { rto_min: Duration::from_millis(1), ..TcpConfig::default() };
        let (mut rtt, mut oracle) = (Rtt::default(), Oracle::default());
        for sample in samples {
            rtt.measured(sample);
            oracle.measured(sample.into());
            let (is, should) = (f64::from(rtt.timeout_ms(&config)), oracle.timeout_us() / 1_000.0);
            // Each step rounds by up to 7 µs of SRTT and 3 of RTTVAR; a tick is added.
            prop_assert!(is >= should - 0.1 && is <= should + 2.2, "{} and not {}", is, should);
        }
    }

    #[test]
    fn any_measurement_and_any_back_off_stay_within_the_limits(samples: Vec<u32>, backoff: u8) {
        let config = TcpConfig::default();
        let mut rtt = Rtt::default();
        for sample in samples {
            rtt.measured(sample);
            rtt.backoff = backoff;
            let timeout_ms = rtt.timeout_ms(&config);
            prop_assert!((200..=60_001).contains(&timeout_ms));
        }
    }
}

proptest! {
    #[test]
    fn what_is_said_to_be_short_need_not_be_worked_out(
        samples in proptest::collection::vec(1u32..300_000, 0..20), backoff in 0u8..2, min_ms in 1u64..500
    ) {
        let config = TcpConfig { rto_min: Duration::from_millis(min_ms), ..TcpConfig::default() };
        let mut rtt = Rtt { backoff, ..Rtt::default() };
        samples.into_iter().for_each(|sample| rtt.measured(sample));
        let is_min = u64::from(rtt.timeout_ms(&config)) == min_ms + 1;
        prop_assert!(is_min || backoff > 0 || !rtt.is_short(Rtt::short_us(&config)));
    }
}

#[test]
fn the_first_timeout_is_one_second_and_three_after_a_lost_syn() {
    let config = TcpConfig::default();
    let mut rtt = Rtt::default();
    assert_eq!(rtt.timeout_ms(&config), 1_001);
    assert!(!rtt.is_short(Rtt::short_us(&config)));
    rtt.backoff = 2;
    rtt.handshake_was_slow();
    assert_eq!(rtt.timeout_ms(&config), 3_001);
    rtt.measured(20_000);
    assert_eq!(rtt.timeout_ms(&config), 201);
    assert!(rtt.is_short(Rtt::short_us(&config)));
    rtt.handshake_was_slow();
    assert_eq!(rtt.timeout_ms(&config), 201);
}

#[test]
fn each_back_off_doubles_up_to_the_largest() {
    let config = TcpConfig::default();
    let mut rtt = Rtt { srtt_us: 400_000, rttvar_us: 0, backoff: 0 };
    let timeouts: alloc::vec::Vec<u32> = (0..10)
        .map(|backoff| {
            rtt.backoff = backoff;
            rtt.timeout_ms(&config)
        })
        .collect();
    assert_eq!(timeouts, [402, 803, 1605, 3209, 6417, 12833, 25665, 51329, 60001, 60001]);
}
