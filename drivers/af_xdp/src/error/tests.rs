use super::*;

/// Each error, with a part of the message that says what to do.
#[test]
fn every_message_says_what_failed_and_what_to_do() {
    let interface = || "eth1".to_owned();
    let errno = Errno::INVAL;
    let running = "5.10.0".to_owned();
    let table = [
        (Error::Privilege { call: "socket(AF_XDP)", errno: Errno::PERM }, "CAP_NET_RAW"),
        (Error::NoAfXdp, "CONFIG_XDP_SOCKETS"),
        (
            Error::KernelTooOld { feature: "multi_buffer", needed: "6.6", running },
            "Linux 6.6 or later and this is 5.10.0",
        ),
        (Error::NoInterface { interface: interface() }, "`ip link`"),
        (Error::NoQueue { interface: interface(), queue: 4, rx: 4, tx: 4 }, "`ethtool -L eth1`"),
        (Error::InterfaceDown { interface: interface() }, "`ip link set eth1 up`"),
        (Error::InterfaceGone { interface: interface() }, "bind again"),
        (Error::QueueBusy { interface: interface(), queue: 4, waited_ms: 2000 }, "`ss --xdp -a -p`"),
        (Error::ZeroCopyRefused { interface: interface(), errno }, "BindMode::Auto"),
        (Error::SharedUmem { what: "mode", first: "copy" }, "another UMEM"),
        (Error::MemoryLock { bytes: 1 << 20, errno: Errno::NOBUFS }, "CAP_IPC_LOCK"),
        (Error::HugePages { needed: 8, free: Some(3), errno: Errno::NOMEM }, "3 are free"),
        (Error::HugePages { needed: 8, free: None, errno: Errno::NOMEM }, "sysctl vm.nr_hugepages=8"),
        (Error::MemorySize { len: 3000, chunk_size: 2048 }, "round the length"),
        (Error::MemoryAlignment { page: 4096 }, "map it"),
        (Error::ChunkSize { chunk_size: 1, page: 4096 }, "2048"),
        (Error::Headroom { headroom: 1792, chunk_size: 2048 }, "256 more"),
        (Error::TxMetadataLen { len: 7 }, "multiple of 8"),
        (Error::RingSize { ring: "fill", size: 3 }, "power of two"),
        (Error::TxBudget { budget: 1, tx_size: 64 }, "32 up to"),
        (Error::MtuTooLarge { interface: interface(), mtu: 9000, room: 1792 }, "multi_buffer"),
        (Error::Call { call: "bind(AF_XDP)", errno }, "Invalid argument"),
    ];
    for (error, advice) in table {
        let text = error.to_string();
        assert!(text.contains(advice), "{advice:?} is not in {text:?}");
        assert!(!text.contains("  ") && !text.ends_with('.'), "{text:?}");
    }
}
