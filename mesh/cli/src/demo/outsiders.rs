//! The two who must not get in: the intruder (a valid SVID, no grant) and the plaintext client (no SVID, no proxy).
//!
//! Both try orders, payments and the ledger twice a second, each time on a new connection. They differ only in where
//! they dial: the intruder through its own proxy, the plaintext client at the pods themselves.

use super::grpc::GrpcClient;
use super::http::HttpClient;
use super::orders::{CHARGE, charge_request};
use super::tcp::LedgerClient;
use super::{App, DemoError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Pause between two rounds.
const PACE: Duration = Duration::from_millis(500);

/// Tries all three until it is ended; addresses come from variables that begin with `prefix`.
pub(super) async fn run(app: &App, prefix: &str) -> Result<(), DemoError> {
    let orders = app.upstream(prefix, "orders")?;
    let payments = app.upstream(prefix, "payments")?;
    let ledger = app.upstream(prefix, "ledger")?;
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut http = HttpClient::new(orders.clone(), "orders");
        app.reporter
            .attempt("orders", "http", http.get("/orders/1"))
            .await;
        let grpc = GrpcClient::new(payments.clone());
        app.reporter
            .attempt("payments", "grpc", grpc.unary(CHARGE, charge_request(1)))
            .await;
        let mut tcp = LedgerClient::new(ledger.clone());
        app.reporter.attempt("ledger", "tcp", tcp.post(1)).await;
    }
}
