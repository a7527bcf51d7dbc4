//! The demo shop without a mesh: each application is told where the next one is, and all of them get through.
#![cfg(test)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Reports that may say something else before the wanted one: processes start in any order.
const REPORTS_MAX: usize = 200;

/// A process that ends with the test.
struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn app(role: &str, variables: &[(&str, &str)]) -> App {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command
        .args(["demo-app", "--role", role])
        .envs(variables.iter().copied());
    App(command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mesh runs"))
}

/// An address that was free a moment ago.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

/// Waits for a report of `app` about `to` with `outcome`; false once it says nothing for long, or something else too often.
fn saw(app: &mut App, to: &str, outcome: &str) -> bool {
    let stdout = app.0.stdout.take().expect("stdout");
    let (send, reports) = channel();
    thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| send.send(line))
    });
    for _ in 0..REPORTS_MAX {
        let Ok(line) = reports.recv_timeout(Duration::from_secs(10)) else {
            return false;
        };
        let report: serde_json::Value = serde_json::from_str(&line).expect("a report");
        if report["to"] == to && report["outcome"] == outcome {
            return true;
        }
    }
    false
}

#[test]
fn each_edge_of_the_shop_works() {
    let (orders_at, payments_at, ledger_at) = (free_address(), free_address(), free_address());
    let _ledger = app("ledger", &[("MESH_APP_ADDR", &ledger_at)]);
    let mut payments = app(
        "payments",
        &[
            ("MESH_APP_ADDR_GRPC", &payments_at),
            ("MESH_UPSTREAM_LEDGER", &ledger_at),
        ],
    );
    let mut orders = app(
        "orders",
        &[
            ("MESH_APP_ADDR", &orders_at),
            ("MESH_UPSTREAM_PAYMENTS", &payments_at),
        ],
    );
    let mut web = app("web", &[("MESH_UPSTREAM_ORDERS", &orders_at)]);
    assert!(saw(&mut web, "orders", "200"));
    assert!(saw(&mut orders, "payments", "grpc:0"));
    assert!(saw(&mut payments, "ledger", "ok"));
    let plain = [
        ("MESH_PLAIN_ORDERS", &*orders_at),
        ("MESH_PLAIN_PAYMENTS", &*payments_at),
        ("MESH_PLAIN_LEDGER", &*ledger_at),
    ];
    assert!(
        saw(&mut app("plaintext", &plain), "ledger", "ok"),
        "nothing stands between a plaintext client and its target here"
    );
}

#[test]
fn nobody_there_is_reported_as_refused() {
    let nowhere = free_address();
    let upstreams = [
        ("MESH_UPSTREAM_ORDERS", &*nowhere),
        ("MESH_UPSTREAM_PAYMENTS", &*nowhere),
        ("MESH_UPSTREAM_LEDGER", &*nowhere),
    ];
    assert!(saw(&mut app("intruder", &upstreams), "payments", "refused"));
}

#[test]
fn a_connection_that_is_closed_is_reported_as_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || listener.incoming().for_each(drop));
    for to in ["orders", "payments", "ledger"] {
        let upstreams = [
            ("MESH_UPSTREAM_ORDERS", &*address),
            ("MESH_UPSTREAM_PAYMENTS", &*address),
            ("MESH_UPSTREAM_LEDGER", &*address),
        ];
        assert!(saw(&mut app("intruder", &upstreams), to, "closed"), "{to}");
    }
}

#[test]
fn an_application_without_addresses_says_which_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["demo-app", "--role", "web"])
        .output()
        .expect("mesh runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("MESH-0630") && text.contains("MESH_UPSTREAM_ORDERS"),
        "{text}"
    );
}
