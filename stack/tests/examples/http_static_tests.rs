use std::path::PathBuf;

use handfast::app::Closed;
use handfast::metrics::Counter;
use handfast::time::Duration;

use crate::client::{Client, Talk};
use crate::http_static::{Server, open_root};
use crate::world::World;

/// A folder to serve, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let outside = std::env::temp_dir().join(format!("handfast-{}-{name}", std::process::id()));
        let root = outside.join("root");
        std::fs::create_dir_all(root.join("sub/empty")).unwrap();
        let write = |path: &str, text: &str| std::fs::write(outside.join(path), text).unwrap();
        write("secret.txt", "secret");
        write("root/index.html", "<p>home");
        write("root/sub/index.html", "<p>sub");
        write("root/a b.txt", "spaced");
        std::os::unix::fs::symlink("../secret.txt", root.join("leak")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret.txt"), root.join("far-leak")).unwrap();
        std::os::unix::fs::symlink("index.html", root.join("link")).unwrap();
        Folder(outside)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn world(folder: &Folder, talks: impl IntoIterator<Item = Talk>) -> World<Server, Client> {
    let server = Server::new(open_root(&folder.root()).expect("it is there"));
    World::new(server, Client::new(80, talks), |config| config.listen = vec![80])
}

/// What each talk heard. Nothing is left over on either side.
fn hear(folder: &Folder, talks: impl IntoIterator<Item = Talk>) -> Vec<Talk> {
    let mut world = world(folder, talks);
    world.run_until(Duration::from_secs(120), |world| world.client.app.is_done());
    assert_eq!(world.server.count(Counter::PayloadBytesCopied), 0);
    world.finish().1.talks
}

fn get(target: &str) -> String {
    request("GET", target, "")
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// The status and the body of each of several responses to GET.
fn responses(mut text: &str) -> Vec<(u16, String)> {
    let mut all = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|head| head[..3].parse().ok()).expect(text);
        let len = head.split("Content-Length: ").nth(1).map_or(0, |len| len.lines().next().unwrap().parse().unwrap());
        all.push((status, rest[..len].to_string()));
        text = &rest[len..];
    }
    assert_eq!(text, "", "nothing follows the last response");
    all
}

fn statuses(folder: &Folder, requests: &[String]) -> Vec<u16> {
    let talks = hear(folder, requests.iter().map(|request| Talk::saying([request])));
    talks.iter().flat_map(|talk| responses(&talk.text())).map(|(status, _)| status).collect()
}

#[test]
fn requests_are_understood_wherever_segments_divide_them() {
    let folder = Folder::new("divided");
    let requests = get("/") + &get("/nothing") + &get("/sub/") + &get("/a%20b.txt");
    let whole = requests.len();
    let talks = (1..whole).map(|at| Talk::saying([&requests[..at], &requests[at..]]));
    let byte_by_byte = Talk::saying(requests.as_bytes().chunks(1));
    for talk in hear(&folder, talks.chain([byte_by_byte])) {
        let expected = [(200, "<p>home"), (404, "404 Not Found\n"), (200, "<p>sub"), (200, "spaced")];
        assert_eq!(responses(&talk.text()), expected.map(|(status, body)| (status, body.to_string())));
        assert_eq!(talk.closed, Some(Closed::Orderly));
    }
}

#[test]
fn nothing_outside_the_folder_is_served() {
    let folder = Folder::new("outside");
    let targets = [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/sub/../../secret.txt",
        "/..%2fsecret.txt",
        "/leak",
        "/far-leak",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/%2Fetc%2Fpasswd",
        "/sub/%2e%2e/%2e%2e/secret.txt",
        "/sub/empty/",
        "/proc/self/root",
    ];
    assert_eq!(statuses(&folder, &targets.map(get)), [404; 12]);
    assert_eq!(
        statuses(&folder, &["/link", "/sub/../index.html", "http://h/", "HTTP://h", "/?q=/../x"].map(get)),
        [200; 5]
    );
}

#[test]
fn what_makes_no_sense_is_refused_and_closed() {
    let folder = Folder::new("nonsense");
    let long = "x".repeat(9_000);
    let requests = [
        ("nonsense\r\n\r\n".to_string(), 400),
        (get("no-slash"), 400),
        (get("/%zz"), 400),
        (get("/%0"), 400),
        (get("/%00"), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_string(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_string(), 400),
        (request("POST", "/", "Content-Length: 3\r\n") + "abc", 405),
        (request("GET", "/", "Content-Length: 3\r\n") + "abc", 413),
        (request("GET", "/", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 413),
        (get(&format!("/{long}")), 414),
        (request("GET", "/", &format!("X: {long}\r\n")), 431),
        (request("GET", "/", &"X: y\r\n".repeat(100)), 431),
        ("GET / HTTP/3.0\r\n\r\n".to_string(), 505),
    ];
    for (request, status) in requests {
        assert_eq!(statuses(&folder, std::slice::from_ref(&request)), [status], "{request}");
    }
}

#[test]
fn methods_conditions_and_ranges() {
    let folder = Folder::new("ranges");
    std::fs::write(folder.root().join("ten"), "0123456789").unwrap();
    let one = |request: String| hear(&folder, [Talk::saying([request])]).remove(0).text();
    let head = one(request("HEAD", "/ten", ""));
    assert!(head.contains("Content-Length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let etag = head.split("ETag: ").nth(1).unwrap().lines().next().unwrap();
    assert!(one(request("GET", "/ten", &format!("If-None-Match: \"x\", W/{etag}\r\n"))).starts_with("HTTP/1.1 304 "));
    assert!(one(request("GET", "/sub", "")).contains("Location: /sub/\r\n"));
    assert!(one(request("DELETE", "/ten", "")).contains("Allow: GET, HEAD\r\n"));
    assert!(one("GET /ten HTTP/1.0\r\n\r\n".into()).contains("Connection: close\r\n"));
    let range = |value: &str| responses(&one(request("GET", "/ten", &format!("Range: {value}\r\n")))).remove(0);
    assert_eq!(range("bytes=2-4"), (206, "234".into()));
    assert_eq!(range("bytes=7-"), (206, "789".into()));
    assert_eq!(range("bytes=-3"), (206, "789".into()));
    assert_eq!(range("bytes=0-99"), (206, "0123456789".into()));
    assert_eq!(range("bytes=10-"), (416, "416 Range Not Satisfiable\n".into()));
    assert_eq!(range("bytes=0-1,4-5"), (200, "0123456789".into()));
    assert_eq!(range("lines=1-2"), (200, "0123456789".into()));
}

#[test]
fn after_connection_close_nothing_more_is_answered() {
    let folder = Folder::new("close");
    let talk = Talk::saying([request("GET", "/", "Connection: close\r\n") + &get("/"), get("/"), get("/")]);
    let talk = hear(&folder, [talk]).remove(0);
    assert_eq!(responses(&talk.text()), [(200, "<p>home".to_string())]);
    assert_eq!(talk.closed, Some(Closed::Orderly), "no reset overtakes the response");
}

#[test]
fn a_large_file_reaches_fast_and_slow_readers_whole() {
    let folder = Folder::new("large");
    let large: Vec<u8> = (0..2_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(folder.root().join("large"), &large).unwrap();
    std::fs::write(folder.root().join("empty.txt"), "").unwrap();
    let requests = get("/large") + &get("/empty.txt") + &get("/large");
    let fast = || Talk::saying([&requests]);
    let slow = Talk { read_max: 1000, ..fast() };
    for talk in hear(&folder, [fast(), slow, fast()]) {
        let head_len = |heard: &[u8]| heard.windows(4).position(|w| w == b"\r\n\r\n").expect("a head ends") + 4;
        let (_, rest) = talk.heard.split_at(head_len(&talk.heard));
        let (first, rest) = rest.split_at(large.len());
        let (empty, rest) = rest.split_at(head_len(rest));
        let (_, second) = rest.split_at(head_len(rest));
        assert!(first == large && second == large);
        assert!(String::from_utf8_lossy(empty).contains("Content-Length: 0\r\n"));
    }
}

#[test]
fn a_client_that_stands_still_is_given_up() {
    let folder = Folder::new("idle");
    std::fs::write(folder.root().join("large"), vec![0; 4 << 20]).unwrap();
    let silent = Talk::default();
    let half_said = Talk { say: [b"GET / HT".to_vec()].into(), ..Talk::default() };
    let mut world = world(&folder, [silent, half_said]);
    world.run_until(Duration::from_secs(60), |world| world.client.app.is_done());
    assert!(world.finish().1.talks.iter().all(|talk| talk.ended && talk.heard.is_empty()));

    let mut world = self::world(&folder, [Talk { say: [get("/large").into_bytes()].into(), ..Talk::default() }]);
    world.run_until(Duration::from_secs(10), |world| world.server.stack.connections() == 1);
    world.client.app.pause = true;
    world.run_until(Duration::from_secs(120), |world| world.server.stack.connections() == 0);
    assert_eq!(world.server.count(Counter::ResetsSent), 1, "a response that is cut off ends in a reset");
    world.client.app.pause = false;
    world.run_until(Duration::from_secs(60), |world| world.client.app.is_done());
    world.finish();
}
