//! A command in a container of a pod, run by the API server for whoever may do that, and the lines that it prints.
//!
//! Who may is settled by the API server alone: the right to `create` (of older servers: to `get`) `pods/exec` there.
//! The command's standard input stays open for as long as its lines are wanted, so that it can tell when they no longer are.

use crate::error::KubernetesError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, AttachParams, AttachedProcess};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Time until the command runs.
const BEGUN_WITHIN: Duration = Duration::from_secs(10);
/// Longest line that is taken.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that wait to be read here; more wait in the pod.
const BUFFER_BYTES: usize = 16 * 1024;
/// Bytes of what a command says on its standard error that are kept.
const SAID_BYTES_MAX: usize = 4 * 1024;

type Pipe = Box<dyn AsyncRead + Send + Unpin>;

/// What a command prints. Dropping it ends the command's standard input, and its output is no longer taken.
pub struct Lines {
    what: String,
    stdout: Pipe,
    stderr: Option<Pipe>,
    /// How it ended; gone once that is known.
    status: Option<BoxFuture<'static, Option<Status>>>,
    ended: Option<Status>,
    read: Vec<u8>,
    said: Vec<u8>,
    /// Holds the connection, and the standard input open.
    _process: AttachedProcess,
}

/// Runs `command` in a container, given as namespace, pod and name. No shell reads the words.
///
/// # Errors
/// [`KubernetesError::Refused`] if the right is missing, [`KubernetesError::Failed`] if it does not begin within ten seconds.
pub async fn lines(
    client: &Client,
    (namespace, pod, container): (&str, &str, &str),
    command: &[&str],
) -> Result<Lines, KubernetesError> {
    let what = format!("run a command in pod {namespace}/{pod}, container {container}");
    let failed = |why: &str| KubernetesError::Failed {
        what: what.clone(),
        why: why.to_owned(),
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters = AttachParams::default()
        .container(container)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .max_stdout_buf_size(BUFFER_BYTES);
    let begun = pods.exec(pod, command.iter().copied(), &parameters);
    let mut process = tokio::time::timeout(BEGUN_WITHIN, begun)
        .await
        .map_err(|_elapsed| failed("it did not begin in time"))?
        .map_err(|error| KubernetesError::of(what.clone(), &error))?;
    let stdout = process.stdout().ok_or_else(|| failed("it has no output"))?;
    let stderr = process.stderr().map(|pipe| Box::new(pipe) as Pipe);
    let status = process.take_status().map(FutureExt::boxed);
    Ok(Lines {
        what,
        stdout: Box::new(stdout),
        stderr,
        status,
        ended: None,
        read: Vec::new(),
        said: Vec::new(),
        _process: process,
    })
}

impl Lines {
    /// The next line, without its end; `None`: the command ended well. Giving up while waiting loses nothing.
    ///
    /// # Errors
    /// [`KubernetesError::Command`] if the command ends otherwise, with what it said; [`KubernetesError::Failed`] if the
    /// connection breaks off, or for a line that is too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, KubernetesError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(self.failed("a line is too long".to_owned()));
            }
            tokio::select! {
                // Output first: how it ended counts only when all of it is read.
                biased;
                read = self.stdout.read_buf(&mut self.read) => match read {
                    Ok(0) => return self.end().await,
                    Ok(_) => {}
                    Err(error) => return Err(self.failed(error.to_string())),
                },
                read = hear(&mut self.stderr, &mut self.said) => match read {
                    Ok(0) | Err(_) => self.stderr = None,
                    Ok(_) => self.said.truncate(SAID_BYTES_MAX),
                },
                status = known(&mut self.status) => {
                    self.status = None;
                    self.ended = status;
                    if self.ended.is_none() {
                        // The connection broke, and nobody will say that the output has ended.
                        return Err(self.failed("the connection broke off".to_owned()));
                    }
                }
            }
        }
    }

    /// All output is read: how did it end?
    async fn end(&mut self) -> Result<Option<Vec<u8>>, KubernetesError> {
        if let Some(status) = self.status.take() {
            self.ended = status.await;
        }
        while let Some(Ok(1..)) = hear(&mut self.stderr, &mut self.said).now_or_never() {
            self.said.truncate(SAID_BYTES_MAX);
        }
        let Some(status) = &self.ended else {
            return Err(self.failed("the connection broke off".to_owned()));
        };
        if status.status.as_deref() == Some("Success") {
            return Ok(None);
        }
        // A report of several lines becomes a sentence.
        let said = String::from_utf8_lossy(&self.said);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let why = match said.is_empty() {
            true => status.message.clone().unwrap_or_default(),
            false => said,
        };
        Err(KubernetesError::Command {
            what: self.what.clone(),
            why,
        })
    }

    fn failed(&self, why: String) -> KubernetesError {
        KubernetesError::Failed {
            what: self.what.clone(),
            why,
        }
    }
}

/// Reads a pipe that is still open; waits for ever on one that is not.
async fn hear(pipe: &mut Option<Pipe>, into: &mut Vec<u8>) -> std::io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read_buf(into).await,
        None => std::future::pending().await,
    }
}

/// How it ended, once; waits for ever afterwards.
async fn known(status: &mut Option<BoxFuture<'static, Option<Status>>>) -> Option<Status> {
    match status {
        Some(status) => status.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use kube::Config;
    use std::net::SocketAddr;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    const SUCCESS: &[u8] = br#"{"metadata":{},"status":"Success"}"#;
    const FAILURE: &[u8] =
        br#"{"metadata":{},"status":"Failure","message":"command terminated with exit code 1"}"#;

    /// An API server that runs nothing: what is asked of it, and its end of the connection.
    async fn server() -> (Client, JoinHandle<(String, WebSocketStream<TcpStream>)>) {
        let (client, listener) = listening().await;
        let accepted = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (asked, knows) = oneshot::channel();
            #[expect(clippy::result_large_err, reason = "the library's callback")]
            let accept = |request: &Request, mut response: Response| {
                let protocol = "v5.channel.k8s.io".parse().unwrap();
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", protocol);
                asked.send(request.uri().to_string()).unwrap();
                Ok(response)
            };
            let socket = tokio_tungstenite::accept_hdr_async(stream, accept).await;
            (knows.await.unwrap(), socket.unwrap())
        });
        (client, accepted)
    }

    async fn listening() -> (Client, TcpListener) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let config = Config::new(format!("http://{address}").parse().unwrap());
        (Client::try_from(config).unwrap(), listener)
    }

    async fn begin(
        client: &Client,
        accepted: JoinHandle<(String, WebSocketStream<TcpStream>)>,
    ) -> (Lines, String, WebSocketStream<TcpStream>) {
        let place = ("shop", "web-0", "mesh-proxy");
        let lines = lines(client, place, &["/x", "a b&c"]).await.unwrap();
        let (asked, socket) = accepted.await.unwrap();
        (lines, asked, socket)
    }

    async fn say(socket: &mut WebSocketStream<TcpStream>, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        socket.send(Message::binary(message)).await.unwrap();
    }

    #[tokio::test]
    async fn lines_are_put_together_and_the_words_arrive_as_they_are() {
        let (client, accepted) = server().await;
        let (mut lines, asked, mut socket) = begin(&client, accepted).await;
        assert!(
            asked.starts_with("/api/v1/namespaces/shop/pods/web-0/exec?"),
            "{asked}"
        );
        for part in [
            "container=mesh-proxy",
            "stdin=true",
            "command=%2Fx&command=a+b%26c",
        ] {
            assert!(asked.contains(part), "{asked}: {part}");
        }
        say(&mut socket, 1, b"on").await;
        say(&mut socket, 1, b"e\ntwo\n").await;
        say(&mut socket, 3, SUCCESS).await;
        for want in [Some(&b"one"[..]), Some(b"two"), None] {
            assert_eq!(lines.next().await.unwrap().as_deref(), want);
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let (client, accepted) = server().await;
        let (mut lines, _, mut socket) = begin(&client, accepted).await;
        say(&mut socket, 1, b"one\n").await;
        say(&mut socket, 2, b"no such proxy\n").await;
        say(&mut socket, 3, FAILURE).await;
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"one"[..]));
        let error = lines.next().await.unwrap_err();
        assert!(matches!(error, KubernetesError::Command { .. }), "{error}");
        let error = error.to_string();
        assert!(
            error.ends_with("and the command failed: no such proxy"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_no_good_end() {
        let (client, accepted) = server().await;
        let (mut lines, _, mut socket) = begin(&client, accepted).await;
        say(&mut socket, 1, b"one\n").await;
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"one"[..]));
        drop(socket);
        let error = tokio::time::timeout(Duration::from_secs(5), lines.next()).await;
        let error = error.expect("an end").unwrap_err().to_string();
        assert!(error.contains("broke off"), "{error}");
    }

    #[tokio::test]
    async fn whoever_gives_up_hangs_up() {
        let (client, accepted) = server().await;
        let (lines, _, mut socket) = begin(&client, accepted).await;
        drop(lines);
        let rest = async { while let Some(Ok(_)) = socket.next().await {} };
        let hung_up = tokio::time::timeout(Duration::from_secs(5), rest).await;
        assert!(hung_up.is_ok(), "the connection stands");
    }

    #[tokio::test]
    async fn a_missing_right_is_told_as_one() {
        let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"cannot create resource pods/exec","reason":"Forbidden","code":CODE}"#;
        for (status, body, refused) in [
            ("403 Forbidden", body, true),
            ("403 Forbidden", "", true),
            ("401 Unauthorized", body, true),
            ("404 Not Found", body, false),
            ("200 OK", "", false),
        ] {
            let (client, listener) = listening().await;
            let body = body.replace("CODE", &status[..3]);
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut head).await.unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            let place = ("shop", "web-0", "mesh-proxy");
            let error = lines(&client, place, &["/x"]).await.err().unwrap();
            assert_eq!(error.is_refusal(), refused, "{status}: {error}");
            let says_which = error.to_string().contains("pods/exec");
            assert_eq!(says_which, length > 0, "{status}: {error}");
        }
    }
}
