use super::*;

fn messages(kind: Kind, pieces: &[&[u8]]) -> Result<(Vec<Message>, Reader), Malformed> {
    let (mut reader, mut messages) = (Reader::default(), Vec::new());
    for piece in pieces {
        reader.read(kind, piece, |message| messages.push(message))?;
    }
    Ok((messages, reader))
}

#[test]
fn what_one_end_writes_the_other_reads_however_it_is_cut() {
    let mut stream = response(100, false);
    stream.extend(response(0, true));
    for cut in 0..stream.len() {
        let (first, second) = stream.split_at(cut);
        let (messages, reader) = messages(Kind::Response, &[first, second]).unwrap();
        assert_eq!(messages.len(), 2, "cut at {cut}");
        assert!(messages.iter().all(|message| message.status == 200));
        assert_eq!(messages.iter().map(|message| message.last).collect::<Vec<_>>(), [false, true]);
        assert_eq!(reader.at_close(), None);
    }
    let request = request("/index.html", "192.0.2.1:80");
    let bytes: Vec<&[u8]> = request.chunks(1).collect();
    assert_eq!(messages(Kind::Request, &bytes).unwrap().0.len(), 1);
}

#[test]
fn connection_close_and_old_versions_make_a_message_the_last() {
    for (head, last) in [
        ("GET / HTTP/1.1\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        let (messages, _) = messages(Kind::Request, &[head.as_bytes()]).unwrap();
        assert_eq!(messages[0].last, last, "{head}");
    }
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    let (messages, reader) = messages(Kind::Response, &[b"HTTP/1.1 200 OK\r\n\r\nhello", b"world"]).unwrap();
    assert!(messages.is_empty());
    assert!(reader.at_close().is_some_and(|message| message.last && message.status == 200));
}

#[test]
fn a_body_that_must_not_be_is_not_waited_for() {
    let stream = b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!";
    let (messages, _) = messages(Kind::Response, &[stream]).unwrap();
    assert_eq!(messages.iter().map(|message| message.status).collect::<Vec<_>>(), [304, 404]);
}

#[test]
fn what_is_not_understood_is_refused() {
    for stream in [
        &b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(messages(Kind::Response, &[stream]).map(|_| ()), Err(Malformed));
    }
    let endless = [b'a'; 1000];
    let mut pieces = vec![&b"GET / HTTP/1.1\r\nX: "[..]];
    pieces.extend([&endless[..]; 20]);
    assert_eq!(messages(Kind::Request, &pieces).map(|_| ()), Err(Malformed));
}
