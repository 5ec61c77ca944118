use super::*;

#[test]
fn the_layout_is_the_kernels() {
    assert_eq!(TxMetadata::LEN, 24);
    assert_eq!(std::mem::offset_of!(TxMetadata, csum_start), 8);
    assert_eq!(std::mem::offset_of!(TxMetadata, csum_offset), 10);
    assert_eq!(std::mem::offset_of!(TxMetadata, launch_time), 16);
}

#[test]
fn metadata_is_written_before_the_frame_and_marks_its_descriptor() {
    let mut chunk = [0xffu8; 128];
    let mut desc = Desc::new(32, 96);
    let start = NonNull::new(chunk.as_mut_ptr()).unwrap();
    // SAFETY: 32 bytes of the array lie before the frame.
    unsafe { TxMetadata::checksum(34, 16).write(start.add(32), 32, &mut desc) };
    assert_eq!(chunk[..8], 2u64.to_ne_bytes());
    assert_eq!(chunk[8..10], 34u16.to_ne_bytes());
    assert_eq!(chunk[10..12], 16u16.to_ne_bytes());
    assert_eq!(chunk[24..], [0xff; 104]);
    assert_eq!(desc.options, Desc::METADATA);
}
