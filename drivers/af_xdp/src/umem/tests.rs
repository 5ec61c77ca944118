use super::*;
use crate::{Area, PageSize};
use std::ptr::NonNull;

fn umem(config: UmemConfig) -> Result<Umem, Error> {
    Umem::new(Arc::new(Area::new(1 << 20, PageSize::Normal).unwrap()), config)
}

#[test]
fn chunks_are_counted_and_found_by_any_address_in_them() {
    let umem = umem(UmemConfig { chunk_size: 4096, ..UmemConfig::default() }).unwrap();
    assert_eq!(umem.chunks(), 256);
    assert_eq!(umem.chunk_of(0), 0);
    assert_eq!(umem.chunk_of(4095), 0);
    assert_eq!(umem.chunk_of(3 * 4096 + 256), 3 * 4096);
    assert_eq!(umem.config().room(), 3840);
    assert_eq!(UmemConfig::default().room(), 1792);
}

#[test]
fn settings_that_the_kernel_would_refuse_are_named() {
    let default = UmemConfig::default;
    for chunk_size in [0, 1024, 3000, 1 << 20] {
        let error = umem(UmemConfig { chunk_size, ..default() }).unwrap_err();
        assert!(matches!(error, Error::ChunkSize { chunk_size: size, .. } if size == chunk_size), "{error}");
    }
    let error = umem(UmemConfig { headroom: 1792, ..default() }).unwrap_err();
    assert!(matches!(error, Error::Headroom { headroom: 1792, chunk_size: 2048 }), "{error}");
    let error = umem(UmemConfig { headroom: u32::MAX, ..default() }).unwrap_err();
    assert!(matches!(error, Error::Headroom { .. }), "{error}");
    for size in [0, 3, 2047, u32::MAX] {
        let error = umem(UmemConfig { fill_size: size, ..default() }).unwrap_err();
        assert!(matches!(error, Error::RingSize { ring: "fill", .. }), "{error}");
        let error = umem(UmemConfig { completion_size: size, ..default() }).unwrap_err();
        assert!(matches!(error, Error::RingSize { ring: "completion", .. }), "{error}");
    }
    for tx_metadata_len in [4, 256] {
        let error = umem(UmemConfig { tx_metadata_len, ..default() }).unwrap_err();
        assert!(matches!(error, Error::TxMetadataLen { .. }), "{error}");
    }
}

#[test]
fn memory_must_start_on_a_page_and_hold_whole_chunks() {
    struct Part(Area, usize, usize);
    // SAFETY: a fixed part of an area that lives as long as the value.
    unsafe impl Memory for Part {
        fn as_ptr(&self) -> NonNull<u8> {
            // SAFETY: the tests below stay inside the area.
            unsafe { self.0.as_ptr().add(self.1) }
        }
        fn len(&self) -> usize {
            self.2
        }
    }
    let part = |at, len| {
        Umem::new(Arc::new(Part(Area::new(1 << 16, PageSize::Normal).unwrap(), at, len)), UmemConfig::default())
    };
    assert!(part(4096, 4096).is_ok());
    assert!(matches!(part(2048, 4096), Err(Error::MemoryAlignment { .. })));
    assert!(matches!(part(0, 3000), Err(Error::MemorySize { len: 3000, chunk_size: 2048 })));
    assert!(matches!(part(0, 0), Err(Error::MemorySize { len: 0, .. })));
}
