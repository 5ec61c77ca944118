use super::*;
use crate::ip::routes::OwnAddress;
use crate::wire::address::Address;

fn refused(change: impl FnOnce(&mut Config)) -> Option<&'static str> {
    let mut config = Config::default();
    config.ip.addresses.push(OwnAddress { address: Address::v4([192, 0, 2, 1]), prefix_len: 24 });
    change(&mut config);
    match config.check() {
        Ok(()) => None,
        Err(ConfigError::OutOfRange { name, .. }) => Some(name),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_span_that_no_deadline_can_tell_is_refused() {
    let month = Duration::from_secs(30 * 24 * 3_600);
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|config| config.tcp.keepalive_idle = Some(month)), Some("keepalive_idle in ms"));
    assert_eq!(refused(|config| config.tcp.keepalive_interval = month), Some("keepalive_interval in ms"));
    assert_eq!(refused(|config| config.tcp.give_up = month), Some("give_up in ms"));
    assert_eq!(refused(|config| config.tcp.connect_give_up = month), Some("connect_give_up in ms"));
    assert_eq!(refused(|config| config.tcp.fin_wait_2_timeout = month), Some("fin_wait_2_timeout in ms"));
}

#[test]
fn more_ports_than_listeners_are_refused_and_not_forgotten() {
    assert_eq!(refused(|config| config.listen = (1..=1024).collect()), None);
    assert_eq!(refused(|config| config.listen = (1..=1025).collect()), Some("listen: the number of ports"));
}
