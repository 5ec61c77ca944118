use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use handfast::Closed;
use handfast::time::{Duration, Instant};
use handfast_tests::world::apps::{Ends, Plan, Starts, Told};

use super::*;

/// A request of three segments and a response of five, over a connection of its own; how long it took until both ends knew that
/// it was over. `fate` befalls its `nth` segment.
fn exchange(nth: Option<usize>, fate: Fate) -> (Duration, Vec<(Instant, Segment)>) {
    let mut world = two();
    // They know each other's Ethernet addresses.
    let plain = || Plan { ends: Ends::AfterPeer, ..Plan::default() };
    world.connect(CLIENT, server(), Plan::default(), plain());
    world.run(MSL + MSL + Duration::from_secs(5));
    let before = world.segments() as usize;
    let logged = world.log.len();
    world.filter = Some(Box::new(move |number, _| match nth == Some(number as usize - before) {
        true => fate,
        false => Fate::Pass,
    }));
    let response = Plan { bytes: 7_000, starts: Starts::AfterBytes(4_000), ends: Ends::AfterPeer, ..Plan::default() };
    world.connect(CLIENT, server(), Plan { bytes: 4_000, ends: Ends::AfterBytes(7_000), ..Plan::default() }, response);
    let begun = world.now;
    world.finish(Duration::from_secs(600));
    let over = |host: usize| {
        let told = &world.hosts[host].app().told;
        told.iter().rfind(|(_, _, told)| *told == Told::Closed(Closed::Orderly)).expect("an orderly end").0
    };
    (over(CLIENT).max(over(SERVER)).since(begun), world.log.split_off(logged))
}

/// What is done to the segments, one at a time.
const FATES: [(&str, Fate); 4] = [
    ("lost", Fate::Lose),
    ("30 ms late", Fate::Late(Duration::from_millis(30))),
    ("twice", Fate::Twice(Duration::from_millis(30))),
    ("damaged", Fate::Damage),
];

#[test]
fn any_one_segment_may_be_lost_late_doubled_or_damaged() {
    let (undisturbed, segments) = exchange(None, Fate::Pass);
    let mut table = format!(
        "Undisturbed it takes {} ms, over a path of 20 ms there and back. More than that, in ms, when one segment is:\n\n",
        undisturbed.as_millis()
    );
    let names: String = FATES.iter().map(|(name, _)| format!(" {name} |")).collect();
    writeln!(table, "| | segment |{names}\n| --- | --- |{}", " --- |".repeat(FATES.len())).unwrap();
    let first = [segments[0].1.seq, segments[1].1.seq];
    for (nth, (_, segment)) in segments.iter().enumerate() {
        write!(table, "| {} | {} |", nth + 1, name(segment, first)).unwrap();
        for (what, fate) in FATES {
            let (took, _) = exchange(Some(nth), fate);
            let more = took.saturating_sub(undisturbed).as_millis();
            assert!(more < 1_500, "segment {nth} {what}: {more} ms more: {segment:?}");
            write!(table, " {more} |").unwrap();
        }
        table.push('\n');
    }
    check("one segment", &table);
}

/// From whom, what and which bytes.
fn name(segment: &Segment, first: [u32; 2]) -> String {
    let (who, first) = if segment.from == server() { ("server", first[1]) } else { ("client", first[0]) };
    let flags = [(SYN, "SYN"), (FIN, "FIN"), (ACK, "ACK")];
    let flags: Vec<_> = flags.iter().filter(|(flag, _)| segment.has(*flag)).map(|(_, name)| *name).collect();
    let from = segment.seq.wrapping_sub(first).wrapping_sub(1);
    let text = match segment.text_len() {
        0 => String::new(),
        len => format!(", bytes {from} to {}", from + len - 1),
    };
    format!("{who}: {}{text}", flags.join("+"))
}

/// The numbers are the same on every machine, so the document has them as they are. With `HANDFAST_WRITE=1` it gets them.
fn check(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack/docs/proof.md");
    let text = fs::read_to_string(&path).expect("the document is there");
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let from = text.find(&begin).expect("it has a place for the table") + begin.len();
    let until = text.find(&end).expect("the place has an end");
    if text[from..until] == *table {
        return;
    }
    println!("{table}");
    if env::var_os("HANDFAST_WRITE").is_some_and(|value| value == "1") {
        let new = format!("{}{table}{}", &text[..from], &text[until..]);
        return fs::write(&path, new).expect("the document can be written");
    }
    panic!("stack/docs/proof.md says something else: if this is better, run again with HANDFAST_WRITE=1");
}
