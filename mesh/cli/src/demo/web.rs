//! web: asks orders for an order, ten times a second.

use super::attempt::Outcome;
use super::http::HttpClient;
use super::{App, DemoError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Pause between two requests.
const PACE: Duration = Duration::from_millis(100);

/// Orders that exist.
const ORDERS: u64 = 10;

/// Drives the shop until it is ended.
pub(super) async fn run(app: &App) -> Result<(), DemoError> {
    let mut orders = HttpClient::new(app.upstream("MESH_UPSTREAM_", "orders")?, "orders");
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        ticks.tick().await;
        let path = format!("/orders/{}", number % ORDERS);
        let outcome = app
            .reporter
            .attempt("orders", "http", orders.get(&path))
            .await;
        if outcome != Outcome::Http(200) {
            tracing::debug!(%outcome, path, "orders did not answer well");
        }
    }
    Ok(())
}
