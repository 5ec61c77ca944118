use super::*;

#[test]
fn an_area_is_zeroed_page_aligned_and_rounded_up_to_pages() {
    let page = rustix::param::page_size();
    let area = Area::new(3 * page + 1, PageSize::Normal).unwrap();
    assert_eq!(area.len(), 4 * page);
    assert_eq!(area.as_ptr().as_ptr() as usize % page, 0);
    // SAFETY: the area was just made and nothing else refers to it.
    let bytes = unsafe { std::slice::from_raw_parts(area.as_ptr().as_ptr(), area.len()) };
    assert!(bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn an_area_of_no_bytes_is_refused() {
    assert!(matches!(Area::new(0, PageSize::Normal), Err(Error::MemorySize { len: 0, .. })));
    assert!(matches!(Area::new(usize::MAX, PageSize::Normal), Err(Error::MemorySize { .. })));
}

#[test]
fn huge_pages_are_given_or_the_error_says_how_to_reserve_them() {
    // More than any test machine has reserved.
    let error = Area::new(1 << 46, PageSize::Huge2M).unwrap_err();
    assert!(matches!(error, Error::HugePages { needed: 33_554_432, .. }), "{error}");
    assert!(error.to_string().contains("sysctl vm.nr_hugepages="), "{error}");
    match Area::new(1, PageSize::Huge2M) {
        Ok(area) => assert_eq!(area.len(), 2 << 20),
        Err(error) => assert!(matches!(error, Error::HugePages { needed: 1, .. }), "{error}"),
    }
}
