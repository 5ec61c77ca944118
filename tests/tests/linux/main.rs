//! Handfast against Linux: kernels, curl and nginx at the other end of a wire. All of it needs root.

mod beside;
mod device;
mod errors;
mod half_close;
mod load;
mod many;
mod peers;
mod proxy;
mod queues;
mod scenarios;
mod transfer;
mod vanish;
mod wire;

/// Leaves a test that cannot run here; says which and why.
macro_rules! needs {
    (root) => {
        if !handfast_tests::root_or_skip(&needs!(name)) {
            return;
        }
        let _alone = handfast_tests::alone();
    };
    (root, $($program:literal),+) => {
        needs!(root);
        let missing: Vec<_> = [$($program),+].into_iter().filter(|program| !handfast_tests::process::exists(program)).collect();
        if !missing.is_empty() {
            return handfast_tests::skip(&needs!(name), &format!("needs {}", missing.join(", ")));
        }
    };
    (name) => {
        std::thread::current().name().unwrap_or("a test").to_owned()
    };
}
use needs;
