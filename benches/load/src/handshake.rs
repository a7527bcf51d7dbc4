//! Full handshakes of mutual TLS 1.3, one after another: what a new connection costs the server is its processor time
//! divided by their number. Nothing is resumed, and no request is sent.

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long what the server says last (tickets, or the first bytes of its protocol) is waited for.
const LAST_WORDS: Duration = Duration::from_millis(2);

/// Handshakes as `client` of the folder `certs`, with the server `name` below its root.
pub fn run(port: u16, secs: u64, certs: &Path, name: &str, alpn: &str) -> io::Result<()> {
    let config = Arc::new(config(certs, alpn)?);
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let (mut done, mut group) = (0_u64, String::new());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(secs) {
        let mut tls = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket)?;
        }
        socket.set_read_timeout(Some(LAST_WORDS))?;
        // Also makes sure that the server has checked our certificate: a refusal would be an alert, and so an error here.
        match tls.read_tls(&mut socket).and_then(|_| tls.process_new_packets().map_err(io::Error::other)) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        done += 1;
        if group.is_empty() {
            group = tls.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())).unwrap_or_default();
        }
        tls.send_close_notify();
        while tls.wants_write() {
            tls.write_tls(&mut socket)?;
        }
        socket.flush()?;
        socket.shutdown(std::net::Shutdown::Write)?;
        // Until the server has closed as well, or says nothing for so long.
        while socket.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    println!("{{\"requests\":{done},\"requests_per_sec\":{rate:.1},\"group\":\"{group}\"}}");
    Ok(())
}

fn config(certs: &Path, alpn: &str) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(certs.join("ca.pem")).map_err(io::Error::other)? {
        roots.add(root.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let chain = CertificateDer::pem_file_iter(certs.join("client.pem")).map_err(io::Error::other)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(certs.join("client.key")).map_err(io::Error::other)?;
    let versions = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = versions.with_root_certificates(roots).with_client_auth_cert(chain, key).map_err(io::Error::other)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Ok(config)
}
