//! Tap: requests and byte streams of a proxy as they end, one line of JSON each, on `/tap` of its admin socket, or of its mesh port for the
//! identities that its configuration names.
//!
//! The question says which requests ([`TapFilter`], as a query); the proxy looks, so what is not wanted is never told. The
//! answer is a stream of [`TapLine`]s that ends when its reader goes. A reader that is slow, or wants more than the rate, is
//! told how many it missed: no request waits for it.

use crate::admin::Direction;
use mesh_policy::decide::Verdict;
use mesh_policy::request::Protocol;
use mesh_trust::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The path.
pub const PATH: &str = "/tap";
/// Requests a second that one reader gets, unless it says less; and the most that it may say.
pub const RATE_DEFAULT: u32 = 100;
/// See [`RATE_DEFAULT`].
pub const RATE_MAX: u32 = 1_000;
/// Headers that are told, if they stand; no other ever is.
pub const HEADERS_TOLD: [&str; 4] = [
    "content-length",
    "content-type",
    "user-agent",
    "x-request-id",
];
/// Bytes of one value of the question.
const VALUE_BYTES_MAX: usize = 1_024;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TapLine {
    /// A request that has ended.
    Request(Box<TapRequest>),
    /// A byte stream that has ended, or was never opened.
    Connection(Box<TapConnection>),
    /// What was wanted and not told, since the last of these.
    Missed {
        /// Beyond the rate; or so many at once that it is not known whether their ends were wanted.
        over_rate: u64,
        /// Not read in time.
        slow_reader: u64,
    },
    /// The first: what ends from now on is told, if it also began from now on.
    Open,
    /// There was nothing to tell for some seconds.
    Idle,
}

/// Kinds of [`TapLine`].
const KINDS: [&str; 5] = ["request", "connection", "missed", "open", "idle"];

impl TapLine {
    /// Reads a line; `None`: of a kind that only a newer proxy knows.
    ///
    /// # Errors
    /// Of a line that is none, or of a known kind and not as it is.
    pub fn read(line: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Any {
            kind: String,
        }
        match serde_json::from_slice(line) {
            Ok(line) => Ok(Some(line)),
            Err(error) => match serde_json::from_slice::<Any>(line) {
                Ok(any) if !KINDS.contains(&any.kind.as_str()) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// A request that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapRequest {
    /// When it came.
    pub time: Timestamp,
    /// Until the last byte of its answer.
    pub duration_us: u64,
    /// Namespace and name of the workload whose proxy tells.
    pub workload: String,
    /// Which way it went through that proxy.
    pub direction: Direction,
    /// `http` or `grpc`.
    pub protocol: Protocol,
    /// Its method; `-` if it could not be read.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// The host that it named.
    pub host: Option<String>,
    /// Port of the workload; of what goes out, the service.
    pub target: String,
    /// Who asked, of what comes in.
    pub client: Option<TapClient>,
    /// Who was to answer, of what goes out into the mesh.
    pub server: Option<SpiffeId>,
    /// What was decided.
    pub decision: Option<TapDecision>,
    /// `None`: its client did not wait.
    pub status: Option<u16>,
    /// Of gRPC.
    pub grpc_status: Option<u16>,
    /// Why it failed, as `mesh_failed_total` has it.
    pub failure: Option<String>,
    /// Endpoints that it was sent to, of what goes out.
    pub tries: u32,
    /// Its trace, if it is sampled.
    pub trace_id: Option<String>,
    /// Those of [`HEADERS_TOLD`] that it has.
    pub headers: BTreeMap<String, String>,
}

/// A byte stream that has ended, or was never opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapConnection {
    /// When it came.
    pub time: Timestamp,
    /// Until its end.
    pub duration_us: u64,
    /// Namespace and name of the workload whose proxy tells.
    pub workload: String,
    /// Which way it went through that proxy.
    pub direction: Direction,
    /// Port of the workload; of what goes out, the service.
    pub target: String,
    /// Who came, of what comes in.
    pub client: Option<TapClient>,
    /// Who was to answer, of what goes out into the mesh.
    pub server: Option<SpiffeId>,
    /// What was decided.
    pub decision: Option<TapDecision>,
    /// Why it failed, or was ended, as `mesh_failed_total` has it.
    pub failure: Option<String>,
    /// Bytes that its client sent.
    pub from_client_bytes: u64,
    /// Bytes that it was sent.
    pub to_client_bytes: u64,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapClient {
    /// Its address.
    pub ip: IpAddr,
    /// Its identity, if it has one.
    pub spiffe_id: Option<SpiffeId>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapDecision {
    /// Allowed or not.
    pub verdict: Verdict,
    /// Which layer decided.
    pub phase: String,
    /// Of an allow the first grant, of a denial what `mesh_denied_total` calls it.
    pub reason: String,
    /// Namespace and name of the Server, if there is one.
    pub server: Option<String>,
    /// Kind, namespace, name and rule of the route.
    pub route: Option<String>,
    /// Generation of the policy.
    pub generation: Option<u64>,
}

/// Which requests and byte streams are wanted: those that meet all that is said. What is said of something that only
/// requests have is met by no byte stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// Which way they go.
    pub direction: Option<Direction>,
    /// What they are: `tcp` are byte streams.
    pub protocol: Option<Protocol>,
    /// Exactly this method.
    pub method: Option<String>,
    /// What the path begins with.
    pub path: Option<String>,
    /// Exactly this host, as it came.
    pub host: Option<String>,
    /// The client's identity, of what comes in.
    pub from: Option<SpiffeId>,
    /// Port of the workload, or the service.
    pub target: Option<String>,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// A status, or a class of them as its first digit: 404, or 5.
    pub status: Option<u16>,
    /// Requests a second.
    pub rate: Option<u32>,
}

/// A question that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` of the question cannot be used: {why}")]
pub struct TapQuestion {
    key: String,
    why: &'static str,
}

impl TapFilter {
    /// As a query.
    pub fn to_query(&self) -> String {
        let direction = self.direction.map(|direction| match direction {
            Direction::Inbound => "inbound".to_owned(),
            Direction::Outbound => "outbound".to_owned(),
        });
        let verdict = self.verdict.map(|verdict| match verdict {
            Verdict::Allow => "allow".to_owned(),
            Verdict::Deny => "deny".to_owned(),
        });
        let protocol = self.protocol.map(|protocol| match protocol {
            Protocol::Http => "http".to_owned(),
            Protocol::Grpc => "grpc".to_owned(),
            Protocol::Tcp => "tcp".to_owned(),
        });
        let pairs = [
            ("direction", direction),
            ("protocol", protocol),
            ("method", self.method.clone()),
            ("path", self.path.clone()),
            ("host", self.host.clone()),
            ("from", self.from.as_ref().map(ToString::to_string)),
            ("target", self.target.clone()),
            ("verdict", verdict),
            ("status", self.status.map(|status| status.to_string())),
            ("rate", self.rate.map(|rate| rate.to_string())),
        ];
        let said = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let texts: Vec<_> = said
            .map(|(key, value)| format!("{key}={}", encoded(&value)))
            .collect();
        texts.join("&")
    }

    /// Reads a query; what is unknown or said twice is refused, or it would be taken for a filter.
    ///
    /// # Errors
    /// [`TapQuestion`].
    pub fn read(query: &str) -> Result<Self, TapQuestion> {
        let mut filter = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = |why| TapQuestion {
                key: key.chars().take(40).collect(),
                why,
            };
            let value = decoded(value).ok_or_else(|| wrong("it is not encoded as a query is"))?;
            if value.is_empty() || value.len() > VALUE_BYTES_MAX {
                return Err(wrong("it is empty, or too long"));
            }
            filter.set(key, value).map_err(wrong)?;
        }
        Ok(filter)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), &'static str> {
        fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
            match slot.replace(value) {
                None => Ok(()),
                Some(_) => Err("it stands twice"),
            }
        }
        match key {
            "direction" => {
                let direction = match value.as_str() {
                    "inbound" => Direction::Inbound,
                    "outbound" => Direction::Outbound,
                    _ => return Err("it is `inbound` or `outbound`"),
                };
                once(&mut self.direction, direction)
            }
            "protocol" => {
                let protocol = match value.as_str() {
                    "http" => Protocol::Http,
                    "grpc" => Protocol::Grpc,
                    "tcp" => Protocol::Tcp,
                    _ => return Err("it is `http`, `grpc` or `tcp`"),
                };
                once(&mut self.protocol, protocol)
            }
            "verdict" => {
                let verdict = match value.as_str() {
                    "allow" => Verdict::Allow,
                    "deny" => Verdict::Deny,
                    _ => return Err("it is `allow` or `deny`"),
                };
                once(&mut self.verdict, verdict)
            }
            "method" => once(&mut self.method, value),
            "path" => once(&mut self.path, value),
            "host" => once(&mut self.host, value),
            "target" => once(&mut self.target, value),
            "from" => {
                let id = SpiffeId::parse(&value).map_err(|_| "it is no SPIFFE ID")?;
                once(&mut self.from, id)
            }
            "status" => {
                let status = value.parse::<u16>().ok();
                let status = status.filter(|status| matches!(status, 1..=5 | 100..=599));
                once(
                    &mut self.status,
                    status.ok_or("it is a status, or the first digit of one")?,
                )
            }
            "rate" => {
                let rate = value.parse::<u32>().ok();
                let rate = rate.filter(|rate| (1..=RATE_MAX).contains(rate));
                once(&mut self.rate, rate.ok_or("it is a number from 1 to 1000")?)
            }
            _ => Err("nobody knows it"),
        }
    }

    /// Whether an end with this status and verdict is wanted.
    pub fn wants_end(&self, status: Option<u16>, verdict: Option<Verdict>) -> bool {
        let status_fits = self.status.is_none_or(|wanted| {
            status.is_some_and(|status| status == wanted || status / 100 == wanted)
        });
        let verdict_fits = self.verdict.is_none_or(|wanted| verdict == Some(wanted));
        status_fits && verdict_fits
    }
}

/// Percent-encoded, all but letters, digits and what is plain in a query.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_meant() {
        let all = TapFilter {
            direction: Some(Direction::Inbound),
            protocol: Some(Protocol::Grpc),
            method: Some("GET".to_owned()),
            path: Some("/a b&c=%/ü".to_owned()),
            host: Some("[::1]:80".to_owned()),
            from: Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
            target: Some("shop/cart:80".to_owned()),
            verdict: Some(Verdict::Deny),
            status: Some(5),
            rate: Some(RATE_MAX),
        };
        assert_eq!(TapFilter::read(&all.to_query()), Ok(all));
        assert_eq!(TapFilter::read(""), Ok(TapFilter::default()));
        assert_eq!(TapFilter::default().to_query(), "");
    }

    #[test]
    fn what_is_no_filter_is_refused_and_not_left_out() {
        for query in [
            "verdit=deny",
            "verdict=denied",
            "direction=",
            "direction=in",
            "protocol=udp",
            "method",
            "method=GET&method=PUT",
            "from=web",
            "status=0",
            "status=99",
            "status=600",
            "status=ok",
            "rate=0",
            "rate=1001",
            "path=%",
            "path=%zz",
            "path=%ff",
            &format!("path=/{}", "x".repeat(2_000)),
        ] {
            assert!(TapFilter::read(query).is_err(), "{query}");
        }
    }

    #[test]
    fn ends_are_wanted_by_status_class_and_verdict() {
        let status = |status| TapFilter {
            status: Some(status),
            ..TapFilter::default()
        };
        assert!(status(5).wants_end(Some(503), None) && !status(5).wants_end(Some(404), None));
        assert!(status(404).wants_end(Some(404), None) && !status(404).wants_end(Some(403), None));
        assert!(!status(5).wants_end(None, None));
        let denied = TapFilter {
            verdict: Some(Verdict::Deny),
            ..TapFilter::default()
        };
        assert!(denied.wants_end(None, Some(Verdict::Deny)));
        assert!(
            !denied.wants_end(Some(200), Some(Verdict::Allow))
                && !denied.wants_end(Some(403), None)
        );
    }

    #[test]
    fn lines_are_told_apart_by_their_kind() {
        let line = TapLine::Missed {
            over_rate: 3,
            slow_reader: 0,
        };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"kind":"missed","over_rate":3,"slow_reader":0}"#);
        assert_eq!(serde_json::from_str::<TapLine>(&text).unwrap(), line);
        let idle = serde_json::to_string(&TapLine::Idle).unwrap();
        assert_eq!(idle, r#"{"kind":"idle"}"#);
        let open = serde_json::to_string(&TapLine::Open).unwrap();
        assert_eq!(open, r#"{"kind":"open"}"#);
    }

    #[test]
    fn a_line_of_a_newer_proxy_is_passed_over_and_a_broken_one_is_not() {
        let read = |text: &str| TapLine::read(text.as_bytes()).ok();
        assert_eq!(read(r#"{"kind":"idle"}"#), Some(Some(TapLine::Idle)));
        assert_eq!(read(r#"{"kind":"weather","is":"fine"}"#), Some(None));
        for kind in KINDS.iter().filter(|kind| !["open", "idle"].contains(kind)) {
            assert_eq!(read(&format!(r#"{{"kind":"{kind}"}}"#)), None, "{kind}");
        }
        for text in ["", "idle", r#"{"king":"idle"}"#, r#"{"kind":7}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
