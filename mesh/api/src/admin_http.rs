//! HTTP, as little of it as admin sockets and probes need: GET, one answer, close.
//!
//! Who may ask on a Unix socket is the mode of its file (0600), set where it is made: `mesh_platform::unix::bind`. On a
//! port of the network everybody may: what is answered there must be for everybody.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// The most bytes an answer may have. The findings and snapshot of 10,000 rules are about 20 MB.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How long one question may take, connecting included; the answers come from memory.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take to send the head of its question.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that one admin socket serves at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// Why an admin socket gave no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AdminError {
    /// Nobody answers there.
    #[error("nothing answers on `{socket}`")]
    #[diagnostic(
        code("MESH-0821"),
        help("the process is not running or still starting: look at `mesh status` and its log")
    )]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What answered does not speak HTTP, or broke off, or sent too much.
    #[error("`{socket}` gave no whole answer to `{path}`")]
    #[diagnostic(
        code("MESH-0822"),
        help("ask again; if it stays, the process at that socket is not of this version")
    )]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that is a refusal.
    #[error("`{socket}` answered `{path}` with status {status}: {text}")]
    #[diagnostic(
        code("MESH-0823"),
        help(
            "404: the process does not know that path; 503: it is not ready, for the reason given"
        )
    )]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// HTTP status.
        status: u16,
        /// First line of the answer.
        text: String,
    },
    /// No answer in time.
    #[error("`{socket}` did not answer `{path}` within {secs} s")]
    #[diagnostic(
        code("MESH-0824"),
        help(
            "the process hangs or the machine is overloaded: look at its log, then end it; it is started again"
        )
    )]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// How long was waited.
        secs: u64,
    },
}

/// What is asked of which socket.
#[derive(Clone, Debug)]
struct Question {
    socket: PathBuf,
    path: String,
}

/// Drives a connection; ends it when dropped.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Question {
    fn new(socket: &Path, path: &str) -> Self {
        Self {
            socket: socket.to_owned(),
            path: path.to_owned(),
        }
    }

    /// Asks, on a connection of its own.
    async fn ask(&self) -> Result<(Response<Incoming>, Driver), AdminError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| AdminError::Unreachable {
                    socket: self.socket.clone(),
                    source,
                })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let driver = Driver(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let request = Request::get(&self.path)
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "close")
            .body(Full::<Bytes>::default())
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await;
        Ok((response.map_err(|error| self.broken(error))?, driver))
    }

    /// What comes within the time that a question may take.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, AdminError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(AdminError::Timeout {
                socket: self.socket.clone(),
                path: self.path.clone(),
                secs: ANSWER_TIMEOUT.as_secs(),
            }),
        }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AdminError {
        AdminError::Broken {
            socket: self.socket.clone(),
            path: self.path.clone(),
            source: source.into(),
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> AdminError {
        let text = String::from_utf8_lossy(body);
        let first = text.lines().next().unwrap_or_default();
        AdminError::Refused {
            socket: self.socket.clone(),
            path: self.path.clone(),
            status: status.as_u16(),
            text: first.chars().take(200).collect(),
        }
    }
}

/// Asks `path` of the admin socket `socket`; the body of a 200.
///
/// # Errors
/// [`AdminError`]; a status other than 200 is [`AdminError::Refused`].
pub async fn get(socket: &Path, path: &str) -> Result<Vec<u8>, AdminError> {
    let question = Question::new(socket, path);
    let answer = async {
        let (response, _driver) = question.ask().await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await;
        let body = body.map_err(|error| question.broken(error))?.to_bytes();
        match status {
            StatusCode::OK => Ok(body.into()),
            _ => Err(question.refused(status, &body)),
        }
    };
    question.in_time(answer).await
}

/// Largest line of a stream.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A stream of lines that an admin socket answers with. Dropping it ends the question.
#[derive(Debug)]
pub struct Lines {
    question: Question,
    body: Incoming,
    read: Vec<u8>,
    _driver: Driver,
}

/// Asks `path` of the admin socket `socket` for lines; they come for as long as they are read.
///
/// # Errors
/// [`AdminError`]; a status other than 200 is [`AdminError::Refused`].
pub async fn follow(socket: &Path, path: &str) -> Result<Lines, AdminError> {
    let question = Question::new(socket, path);
    let (response, driver) = question.in_time(question.ask()).await?;
    let status = response.status();
    let mut lines = Lines {
        question: question.clone(),
        body: response.into_body(),
        read: Vec::new(),
        _driver: driver,
    };
    if status == StatusCode::OK {
        return Ok(lines);
    }
    let first = question.in_time(lines.next()).await?;
    Err(question.refused(status, &first.unwrap_or_default()))
}

impl Lines {
    /// The next line, without its end; `None`: there are no more.
    ///
    /// # Errors
    /// [`AdminError::Broken`] if the stream breaks off, or a line is too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, AdminError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(self.question.broken("a line is too long"));
            }
            match self.body.frame().await {
                None if self.read.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.read))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(self.question.broken(error)),
            }
        }
    }
}

/// One answer of an admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// 200 with `value` as JSON; 500 if it has no JSON form.
    pub fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self::json_bytes(bytes),
            Err(error) => Self::text(500, format!("no JSON form: {error}\n")),
        }
    }

    /// 200 with bytes that are JSON already.
    pub fn json_bytes(bytes: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            content_type: "application/json",
            body: bytes.into(),
        }
    }

    /// `status` with plain text.
    pub fn text(status: u16, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: text.into(),
        }
    }

    /// 404: a path that is not served.
    pub fn not_found() -> Self {
        Self::text(404, "no such path\n")
    }
}

/// Answers GET on `listener` until dropped: `answer` gets the path (without query) and the query.
///
/// Anything but GET is refused with 405. One connection cannot hold another up.
pub async fn serve<F>(listener: impl Listener, answer: F)
where
    F: Fn(&str, Option<&str>) -> Answer + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.next() => match accepted {
                Ok(stream) => { connections.spawn(serve_one(stream, Arc::clone(&answer))); }
                // Out of file descriptors, most likely: do not spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Where connections come from: a Unix socket, or a port.
pub trait Listener: Send {
    /// One of them.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

fn serve_one<S, F>(stream: S, answer: Arc<F>) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(&str, Option<&str>) -> Answer + Send + Sync + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answered = if request.method() == Method::GET {
            answer(request.uri().path(), request.uri().query())
        } else {
            Answer::text(405, "only GET\n")
        };
        std::future::ready(Ok::<_, Infallible>(to_response(answered)))
    });
    async move {
        // A client that breaks off is its own affair.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .keep_alive(false)
            .max_headers(32)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

fn to_response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(answer.content_type),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_port_answers_like_a_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, |path, _| match path {
            "/live" => Answer::text(200, "live\n"),
            _ => Answer::not_found(),
        }));
        for (path, want) in [("/live", "HTTP/1.1 200 "), ("/status", "HTTP/1.1 404 ")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(want), "{answer}");
        }
    }

    fn served() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(serve(listener, |path, query| match path {
            "/status" => Answer::json(&serde_json::json!({ "query": query })),
            "/ready" => Answer::text(503, "no SVID yet\nsecond line\n"),
            _ => Answer::not_found(),
        }));
        (dir, socket)
    }

    #[tokio::test]
    async fn an_answer_comes_back_and_a_refusal_has_its_reason() {
        let (_dir, socket) = served();
        assert_eq!(
            get(&socket, "/status?all").await.unwrap(),
            br#"{"query":"all"}"#
        );
        match get(&socket, "/ready").await.unwrap_err() {
            AdminError::Refused {
                status: 503, text, ..
            } => assert_eq!(text, "no SVID yet"),
            other => panic!("{other}"),
        }
        assert!(matches!(
            get(&socket, "/other").await,
            Err(AdminError::Refused { status: 404, .. })
        ));
    }

    #[tokio::test]
    async fn only_get_is_served() {
        let (_dir, socket) = served();
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream
            .write_all(b"POST /status HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[tokio::test]
    async fn silence_and_other_tongues_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        assert!(matches!(
            get(&socket, "/").await,
            Err(AdminError::Unreachable { .. })
        ));
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-hello\r\n").await.unwrap();
        });
        assert!(matches!(
            get(&socket, "/").await,
            Err(AdminError::Broken { .. })
        ));
    }

    /// Answers one question with these bytes, and hangs up.
    async fn answering(bytes: Vec<u8>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            let _ = stream.write_all(&bytes).await;
        });
        (dir, socket)
    }

    #[tokio::test]
    async fn lines_come_one_by_one_however_they_were_cut() {
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\na\nb\nc\r\n2\r\nd\n\r\n1\r\ne\r\n0\r\n\r\n";
        let (_dir, socket) = answering(chunked.to_vec()).await;
        let mut lines = follow(&socket, "/tap").await.unwrap();
        for want in [Some(&b"a"[..]), Some(b"b"), Some(b"cd"), Some(b"e"), None] {
            assert_eq!(lines.next().await.unwrap().as_deref(), want);
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_has_no_good_end_and_no_line_is_endless() {
        let cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na\n\r\n5\r\nb";
        let (_dir, socket) = answering(cut.to_vec()).await;
        let mut lines = follow(&socket, "/tap").await.unwrap();
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"a"[..]));
        let broken = lines.next().await;
        assert!(
            matches!(broken, Err(AdminError::Broken { .. })),
            "{broken:?}"
        );
        let mut long = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
        long.extend([b'x'; 200_000]);
        let (_dir, socket) = answering(long).await;
        let endless = follow(&socket, "/tap").await.unwrap().next().await;
        assert!(
            matches!(endless, Err(AdminError::Broken { .. })),
            "{endless:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_process_does_not_hang_its_caller() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        let _mute = UnixListener::bind(&socket).unwrap();
        assert!(matches!(
            get(&socket, "/").await,
            Err(AdminError::Timeout { .. })
        ));
    }
}
