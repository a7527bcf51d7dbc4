//! Proxying decided without IO: detection, framing of the mesh transport, hygiene, balancing, limits. No clock and no
//! randomness: times are microseconds on a clock that never goes back, both come as arguments.
//!
//! - [`detect`]: which protocol a connection speaks; start at [`detect::Detector`]
//! - [`mesh_header`]: the first twelve bytes of a stream between proxies
//! - [`mux`]: many requests over one connection between proxies
//! - [`http_hygiene`]: one reading of every request; start at [`http_hygiene::admit`]
//! - [`http1`]: HTTP/1.1 to the application, as bytes
//! - [`route`]: which rule takes a request to a Service, what it changes, and which backend gets it
//! - [`balance`]: which endpoint of a service gets the next request
//! - [`capture`]: which connections are redirected to the proxy, as rules
//! - [`redirect`]: whether a redirected connection may go on to where it was going
//! - [`limit`]: local rate limits
//! - [`fault`]: which fault is injected into a request for a test
//! - [`first_use`]: which uses of policy are new, and so recorded
//! - [`admission`]: how many connections a listener holds, and how it ends
//! - [`trace`]: which trace a request belongs to, as its headers say
//! - [`metrics`]: counters and latencies of one core, merged over cores; [`exposition`] writes and reads their text
//! - [`error`]: what goes wrong at the borders

pub mod admission;
pub mod balance;
pub mod capture;
pub mod detect;
pub mod error;
pub mod exposition;
pub mod fault;
pub mod first_use;
pub mod http1;
pub mod http_hygiene;
pub mod limit;
pub mod mesh_header;
pub mod metrics;
pub mod mux;
pub mod redirect;
pub mod route;
pub mod trace;
