use super::*;
use crate::{Area, PageSize, UmemConfig};

fn bind(interface: &str, config: &SocketConfig) -> Error {
    let area = Arc::new(Area::new(1 << 16, PageSize::Normal).unwrap());
    let umem = Umem::new(area, UmemConfig::default()).unwrap();
    Socket::bind(&umem, interface, 0, config).unwrap_err()
}

#[test]
fn settings_are_checked_before_the_kernel_is_asked() {
    let default = SocketConfig::default;
    let error = bind("lo", &SocketConfig { rx_size: 0, ..default() });
    assert!(matches!(error, Error::RingSize { ring: "receive", size: 0 }), "{error}");
    let error = bind("lo", &SocketConfig { tx_size: 100, ..default() });
    assert!(matches!(error, Error::RingSize { ring: "transmit", size: 100 }), "{error}");
    for budget in [31, 4096] {
        let error = bind("lo", &SocketConfig { tx_budget: Some(budget), ..default() });
        assert!(matches!(error, Error::TxBudget { tx_size: 2048, .. }), "{error}");
    }
}

#[test]
fn an_unknown_interface_is_an_error_without_privileges_too() {
    let error = bind("hf-none", &SocketConfig::default());
    assert!(matches!(&error, Error::NoInterface { interface } if interface == "hf-none"), "{error}");
}

#[test]
fn an_mtu_that_does_not_fit_into_a_chunk_is_refused() {
    let error = bind("lo", &SocketConfig::default());
    assert!(matches!(error, Error::MtuTooLarge { mtu: 65536, room: 1792, .. }), "{error}");
}

#[test]
fn the_kernels_version_is_compared_by_its_numbers() {
    assert!(kernel_is((3, 10)) && kernel_is((4, 0)));
    assert!(!kernel_is((1000, 0)));
}
