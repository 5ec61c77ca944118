use super::*;

fn port() -> AfXdp {
    AfXdp::interface("eth1")
}

#[test]
fn every_receive_queue_needs_a_worker() {
    assert_eq!(port().queues(4, 4).unwrap(), 0..4);
    let error = port().queues(2, 4).unwrap_err().to_string();
    assert!(error.contains("ethtool -L eth1 combined 2") && error.contains("Start 4 workers"), "{error}");
    assert!(matches!(port().first_queue(1).queues(3, 4), Err(XdpError::UnboundQueues { .. })));
    assert_eq!(port().first_queue(1).allow_unbound_queues(true).queues(3, 4).unwrap(), 1..4);
}

#[test]
fn a_worker_without_a_queue_is_refused() {
    for (first, count) in [(0, 5), (0, 0), (4, 1), (3, 2), (u32::MAX, 1), (0, usize::MAX)] {
        let port = port().first_queue(first).allow_unbound_queues(true);
        let error = port.queues(count, 4).unwrap_err();
        assert!(matches!(error, XdpError::Queues { .. }) && error.to_string().contains("ethtool -L eth1"), "{error}");
    }
}

#[test]
fn the_frame_size_follows_the_mtu() {
    assert_eq!(port().frame_size_for(1500).unwrap(), FrameSize::Small);
    assert_eq!(port().frame_size_for(1774).unwrap(), FrameSize::Small);
    assert_eq!(port().frame_size_for(1775).unwrap(), FrameSize::Large);
    assert_eq!(port().frame_size_for(3822).unwrap(), FrameSize::Large);
    assert_eq!(port().frame_size(FrameSize::Large).frame_size_for(1500).unwrap(), FrameSize::Large);
    let error = port().frame_size_for(9000).unwrap_err().to_string();
    assert!(error.contains("ip link set eth1 mtu 3822"), "{error}");
    let error = port().frame_size(FrameSize::Small).frame_size_for(3000).unwrap_err().to_string();
    assert!(error.contains("1774"), "{error}");
}

#[test]
fn a_number_of_frames_that_cannot_work_is_refused() {
    for (frames, count) in [(0, 1), (127, 1), (1 << 31, 2)] {
        let region = port().frames_per_queue(frames).region(count, FrameSize::Small);
        assert!(matches!(region, Err(XdpError::Frames { .. })));
    }
}
