//! The data plane: one proxy beside one application, on both sides of every connection in the mesh.
//!
//! An inbound request's way: [`inbound`] (mutual TLS or plain) → protocol ([`detection`]) → one reading of the head
//! (`mesh_proxy_core::http_hygiene`) → decision (`mesh_policy`) → filters, rate limit → the application ([`app`]). An
//! outbound one's: [`outbound`] → endpoint and its expected identity → mutual TLS to that endpoint's proxy.
//!
//! - [`config`], [`limits`], [`error`]: what a proxy is started with
//! - [`core`]: one event loop per core, with everything that needs no lock; [`state`], [`services`]: what all threads
//!   share
//! - [`identity`], [`control`]: SVID, trust bundles and policy, kept fresh on the control thread
//! - [`shadow`]: a candidate policy, tried beside the one in force
//! - [`live`]: what runs now, so that a change of policy ends it; [`body`], [`copy`], [`tunnel`]: what carries bytes
//! - [`names`]: addresses of names outside of the mesh
//! - [`deadline`]: the time that clients give their requests
//! - [`serve`], [`io`], [`onward`], [`original`]: HTTP connections and sockets; [`answer`]: what the proxy says itself
//! - [`admin`], [`telemetry`], [`audit`]: what it tells about itself
//! - [`account`]: what became of one request, for who wants to know; [`tap`]: lines for who looks now
//! - [`traces`], [`pushes`]: spans and metrics for a collector; [`collector`]: the way there
//! - [`capture`]: redirects the connections of a network namespace to its proxy
//! - [`pages`]: what the start needed is given back
//! - [`start`]: start and end, and `confine`: what the process gives up before; begin reading at [`run`]

mod account;
mod admin;
mod answer;
mod app;
mod audit;
mod body;
pub mod capture;
mod classes;
mod collector;
pub mod config;
mod confine;
mod control;
mod copy;
mod core;
mod cross_check;
mod deadline;
mod denials;
mod detection;
pub mod error;
mod http1;
mod identity;
mod inbound;
mod io;
pub mod limits;
mod live;
mod mux;
mod names;
mod onward;
mod original;
mod outbound;
mod pace;
mod pages;
mod pushes;
mod random;
mod remotes;
mod replay;
mod roll;
mod serve;
mod services;
mod shadow;
mod start;
mod state;
mod tap;
mod telemetry;
mod traces;
mod trust;
mod tunnel;

pub use config::ProxyConfig;
pub use error::ProxyError;
pub use start::{Running, run, start, start_beside};
