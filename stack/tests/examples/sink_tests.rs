use handfast::metrics::Counter;
use handfast::time::Duration;
use sha2::{Digest, Sha256};

use crate::client::{Client, Talk};
use crate::sink::Sink;
use crate::world::World;

#[test]
fn what_was_sent_is_counted_and_its_digest_printed() {
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let mut world = World::new(Sink::new(Vec::new(), true), Client::new(9, [Talk::saying([&bytes])]), |config| {
        config.listen = vec![9];
    });
    world.run_until(Duration::from_secs(60), |world| world.client.app.is_done());
    assert_eq!(world.server.count(Counter::PayloadBytesCopied), 0);
    let (sink, client) = world.finish();
    let said = String::from_utf8(sink.out).expect("it writes text");
    let digest = format!("{} bytes sha256 {:x}\n", bytes.len(), Sha256::digest(&bytes));
    assert!(said.contains(&digest), "{said}");
    assert!(client.talks[0].ended, "it closes when the client does");
}

#[test]
fn many_uploads_are_told_apart() {
    let talks = (0..300usize).map(|n| Talk::saying([vec![b'x'; n]]));
    let mut world = World::new(Sink::new(Vec::new(), false), Client::new(9, talks), |config| config.listen = vec![9]);
    world.run_until(Duration::from_secs(60), |world| world.client.app.is_done());
    let (sink, _) = world.finish();
    let said = String::from_utf8(sink.out).expect("it writes text");
    for n in 0..300 {
        assert_eq!(said.matches(&format!(": {n} bytes\n")).count(), 1, "{n}");
    }
}
