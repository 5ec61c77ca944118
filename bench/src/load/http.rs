//! As much of HTTP/1.1 (RFC 9112) as loading and serving need: messages whose length is said, or that end with the connection.

/// A GET request.
pub(super) fn request(path: &str, host: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: handfast-load\r\n\r\n").into_bytes()
}

/// A response with a body of so many bytes. The last one says that the connection closes after it (RFC 9112 §9.6).
pub(super) fn response(body_len: usize, last: bool) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nServer: handfast-load\r\nContent-Type: text/plain\r\nContent-Length:";
    let close = if last { "Connection: close\r\n" } else { "" };
    let mut message = format!("{head} {body_len}\r\n{close}\r\n").into_bytes();
    message.resize(message.len() + body_len, b'.');
    message
}

/// What is not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// What a message says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message {
    /// The connection closes after it.
    pub(super) last: bool,
    /// Of a response; 0 of a request.
    pub(super) status: u16,
    /// It ends when the connection does (RFC 9112 §6.3).
    pub(super) until_close: bool,
}

/// Reads messages from a stream that comes in pieces.
#[derive(Clone, Default, Debug)]
pub(super) struct Reader {
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    /// The message whose body comes, and how many bytes of it are to come.
    current: Option<(Message, u64)>,
}

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Request,
    Response,
}

impl Reader {
    /// Takes in what came; calls `on_message` at the end of each message.
    ///
    /// # Errors
    /// What is no HTTP, a head of more than 16 KiB, and a body in chunks.
    pub(super) fn read(
        &mut self,
        kind: Kind,
        mut bytes: &[u8],
        mut on_message: impl FnMut(Message),
    ) -> Result<(), Malformed> {
        loop {
            if let Some((message, body_left)) = &mut self.current {
                let taken = bytes.len().min(usize::try_from(*body_left).unwrap_or(usize::MAX));
                bytes = &bytes[taken..];
                *body_left -= taken as u64;
                if *body_left > 0 {
                    return Ok(());
                }
                on_message(*message);
                self.current = None;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let before = self.head.len();
            let head = match before {
                0 => parse(kind, bytes)?,
                _ => {
                    self.head.extend_from_slice(bytes);
                    parse(kind, &self.head)?
                }
            };
            let Some((message, head_len, body_len)) = head else {
                if before == 0 {
                    self.head.extend_from_slice(bytes);
                }
                return if self.head.len() > HEAD_MAX { Err(Malformed) } else { Ok(()) };
            };
            bytes = &bytes[head_len - before..];
            self.head = Vec::new();
            self.current = Some((message, body_len));
        }
    }

    /// The message that the end of the connection ends.
    pub(super) fn at_close(&self) -> Option<Message> {
        self.current.map(|(message, _)| message).filter(|message| message.until_close)
    }
}

/// The message, the length of its head and that of its body; `None` while the head is not all there.
fn parse(kind: Kind, bytes: &[u8]) -> Result<Option<(Message, usize, u64)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let (parsed, version, status, headers) = match kind {
        Kind::Request => {
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(bytes).map_err(|_| Malformed)?;
            (parsed, request.version, 0, request.headers)
        }
        Kind::Response => {
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(bytes).map_err(|_| Malformed)?;
            (parsed, response.version, response.code.unwrap_or(0), response.headers)
        }
    };
    let httparse::Status::Complete(head_len) = parsed else { return Ok(None) };
    let mut last = version == Some(0);
    let mut body_len = None;
    for header in headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or("").trim();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("connection") {
            let says = |option: &str| value.split(',').any(|said| said.trim().eq_ignore_ascii_case(option));
            last = says("close") || last && !says("keep-alive");
        } else if is("content-length") {
            body_len = Some(value.parse().map_err(|_| Malformed)?);
        } else if is("transfer-encoding") {
            return Err(Malformed);
        }
    }
    // RFC 9112 §6.3: a request without a length has no body; nor have these responses.
    let bodiless = kind == Kind::Request || matches!(status, 100..=199 | 204 | 304);
    let until_close = body_len.is_none() && !bodiless;
    let body_len = body_len.unwrap_or(if until_close { u64::MAX } else { 0 });
    Ok(Some((Message { last: last || until_close, status, until_close }, head_len, body_len)))
}

const HEAD_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests;
