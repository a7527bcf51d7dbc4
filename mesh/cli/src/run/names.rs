//! Questions for names, carried from the command's network namespace to the resolvers of this machine. Nothing else of UDP
//! leaves it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Where the resolvers are listed (resolv.conf(5)).
const LIST: &str = "/etc/resolv.conf";
/// As many as the C library asks.
const RESOLVERS_MAX: usize = 3;
/// Where they listen.
const PORT: u16 = 53;
/// Questions under way at each; one more is lost, as datagrams may be.
const QUESTIONS_MAX: usize = 64;
/// Largest question or answer: EDNS asks for no more than 4,096.
const BYTES_MAX: usize = 4_096;
/// Time for an answer; as long as the C library waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The resolvers of this machine; none if the list cannot be read.
pub(super) fn resolvers() -> Vec<SocketAddr> {
    listed(&std::fs::read_to_string(LIST).unwrap_or_default())
}

fn listed(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let at = (words.next() == Some("nameserver")).then(|| words.next())??;
        at.parse::<IpAddr>().ok()
    });
    let mut found = Vec::new();
    for ip in lines {
        let at = SocketAddr::new(ip, PORT);
        if !ip.is_unspecified() && !ip.is_multicast() && !found.contains(&at) {
            found.push(at);
        }
    }
    found.truncate(RESOLVERS_MAX);
    found
}

/// Listens for questions.
///
/// # Errors
/// What the kernel says.
pub(super) fn listen(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Carries questions that come to `inside` to `resolver`, and its answers back.
pub(super) async fn carry(inside: UdpSocket, resolver: SocketAddr) {
    let (inside, places) = (Arc::new(inside), Arc::new(Semaphore::new(QUESTIONS_MAX)));
    let mut question = vec![0; BYTES_MAX];
    loop {
        let Ok((length, from)) = inside.recv_from(&mut question).await else {
            continue; // of a client that has gone
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let (inside, question) = (inside.clone(), question.get(..length).map(<[u8]>::to_vec));
        tokio::spawn(async move {
            let asked = ask(resolver, question.unwrap_or_default());
            if let Ok(Ok(answer)) = timeout(ANSWER_WITHIN, asked).await {
                let _ = inside.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

/// One question from a port of its own.
async fn ask(resolver: SocketAddr, question: Vec<u8>) -> io::Result<Vec<u8>> {
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(&question).await?;
    let mut answer = vec![0; BYTES_MAX];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_those_that_the_library_asks() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 127.0.0.53\n nameserver\t10.0.0.2 \nnameserver 10.0.0.2\n\
                    nameserver fe80::1%eth0\nnameserver x\nnameserver 0.0.0.0\nnameserver fd00::1\nnameserver 10.0.0.3\nnameservers 1.1.1.1\n";
        let found: Vec<_> = listed(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "10.0.0.2:53", "[fd00::1]:53"]);
        assert!(listed("").is_empty());
    }

    #[tokio::test]
    async fn questions_are_carried_and_answers_come_back_to_who_asked() {
        let resolver = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let inside = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let (at, to) = (
            resolver.local_addr().expect("it"),
            inside.local_addr().expect("it"),
        );
        tokio::spawn(carry(inside, at));
        let (one, two) = (
            UdpSocket::bind("127.0.0.1:0").await.expect("a socket"),
            UdpSocket::bind("127.0.0.1:0").await.expect("a socket"),
        );
        one.send_to(b"one", to).await.expect("sent");
        two.send_to(b"two", to).await.expect("sent");
        let mut bytes = [0; 16];
        for _ in 0..2 {
            let (length, from) = resolver.recv_from(&mut bytes).await.expect("a question");
            let answer = [&bytes[..length], b"!"].concat();
            resolver.send_to(&answer, from).await.expect("sent");
        }
        for (client, want) in [(one, b"one!"), (two, b"two!")] {
            let length = client.recv(&mut bytes).await.expect("an answer");
            assert_eq!(&bytes[..length], want);
        }
    }
}
