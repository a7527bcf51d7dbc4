//! Many processes that each hold an SVID, verify by the trust bundle and acknowledge it, as a proxy does: what a rotation
//! has to take along.
//!
//!     cargo run --release -p mesh-ca-client --example verifiers -- SOCKET COUNT [FIRST_UID]
//!
//! Starts itself COUNT times, one process after the other, each with the Workload API at SOCKET. With FIRST_UID (for
//! root), process n runs as user FIRST_UID + n, so that each can have an identity of its own. They end with the standard
//! input of this one. Lines of JSON come out: `{"svid":"…","ms":1.5}` for each SVID, with the time since the process began
//! for its first; `{"generation":2,"at":…}` once a bundle is acknowledged, `at` in microseconds since the epoch.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement for people, with the clock that there is"
)]

use futures_util::StreamExt;
use mesh_api::trust::{Outcome, Update};
use mesh_platform::{Platform, System};
use mesh_trust::Svid;
use mesh_trust::tls::{TlsIdentity, check_chain};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{WorkloadApiClient, X509Context};
use std::cell::RefCell;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let begun = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--one", socket] => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(verify(socket, begun)),
        [socket, count] => all(socket, count.parse()?, None),
        [socket, count, uid] => all(socket, count.parse()?, Some(uid.parse()?)),
        _ => Err("SOCKET COUNT [FIRST_UID]".into()),
    }
}

/// Starts the processes, each when the one before has its SVID, and ends them when nobody wants them any more.
fn all(socket: &str, count: u32, first_uid: Option<u32>) -> Fallible<()> {
    let mut children = Vec::new();
    for n in 0..count {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--one", socket]).stdout(Stdio::piped());
        if let Some(first) = first_uid {
            command.uid(first + n);
        }
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        println!("{}", lines.next().ok_or("it ended without an SVID")??);
        children.push(child);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                println!("{line}");
            }
        });
    }
    println!(r#"{{"started":{count}}}"#);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// Holds the SVIDs that the Workload API pushes, and applies and acknowledges each bundle.
async fn verify(socket: &str, begun: Instant) -> Fallible<()> {
    let api = WorkloadApiClient::connect_to(format!("unix:{socket}")).await?;
    let mut contexts = api.stream_x509_contexts().await?;
    let first = contexts.next().await.ok_or("no SVID")??;
    let held = RefCell::new(identity(&first)?);
    report(&held.borrow(), begun);
    let renew = async {
        while let Some(context) = contexts.next().await {
            let next = identity(&context?)?;
            if next.svid().serial() != held.borrow().svid().serial() {
                report(&next, begun);
                held.replace(next);
            }
        }
        Err::<(), Box<dyn Error>>("the Workload API ended".into())
    };
    let acknowledge = async {
        let mut said = None;
        let apply = |update: &Update, again: bool| {
            let tls = held.borrow().clone();
            let news = Some((update.generation, tls.svid().serial().to_owned()));
            if again && said == news {
                return None;
            }
            let now = System::new().wall_clock();
            if said.as_ref().map(|(generation, _)| *generation) != Some(update.generation) {
                println!(
                    r#"{{"generation":{},"at":{}}}"#,
                    update.generation,
                    now.unix_micros()
                );
            }
            said = news;
            let canary = check_chain(&update.bundles, update.canary.chain(), now);
            Some(Outcome {
                identity: tls,
                canary: canary.map(drop).map_err(|why| why.to_string()),
                now,
                refused_handshakes: 0,
            })
        };
        let channel = mesh_api::trust::channel(Path::new(socket))?;
        mesh_api::trust::follow(socket, channel, apply).await?;
        Err::<(), Box<dyn Error>>("the trust stream ended".into())
    };
    tokio::select! { end = renew => end, end = acknowledge => end }
}

fn identity(context: &X509Context) -> Fallible<TlsIdentity> {
    let svid = context.default_svid().ok_or("no SVID")?;
    let chain = svid
        .cert_chain()
        .iter()
        .map(|one| CertificateDer::from(one.as_bytes().to_vec()))
        .collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    Ok(TlsIdentity::new(
        Svid::parse(chain)?,
        PrivateKeyDer::Pkcs8(key),
    )?)
}

fn report(held: &TlsIdentity, begun: Instant) {
    let since: Duration = begun.elapsed();
    println!(
        r#"{{"svid":"{}","ms":{:.2}}}"#,
        held.svid().serial(),
        since.as_secs_f64() * 1e3
    );
}
