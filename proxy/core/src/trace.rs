//! Which trace a request belongs to: W3C Trace Context (`traceparent`), or B3 in one header or several, as they came.
//!
//! A trace that a client marked as sampled goes on with a span of ours between; one that it marked as not sampled stays as it
//! is. What cannot be read is no trace. W3C is read first; only what was read is written anew, in the form that it had.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// W3C Trace Context §3.2.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context §3.3: means nothing without the other.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// B3 in one header.
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Characters of a `traceparent` of version 00.
const TRACEPARENT_LEN: usize = 55;
/// The flag of what is sampled.
const SAMPLED: u8 = 0x01;
/// Flags that go on as they came: sampled, and that the trace's number is random (level 2).
const FLAGS_KNOWN: u8 = 0x03;

/// The number of a trace; never all zeros.
pub type TraceId = [u8; 16];
/// The number of a span in it; never all zeros.
pub type SpanId = [u8; 8];

/// What the headers of a request say of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing that can be read.
    Nothing,
    /// That it is not to be sampled.
    NotSampled,
    /// That it is.
    Sampled(Context),
    /// B3 without a word on sampling: whoever gets it decides.
    Undecided(Context),
}

/// A place in a trace: below which span, and in which form it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span that sent the request; `None`: the trace begins here.
    pub parent: Option<SpanId>,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    W3c {
        flags: u8,
    },
    /// `short`: the trace's number came with 16 digits.
    B3One {
        short: bool,
    },
    B3Many,
}

impl Context {
    /// A trace that begins here.
    pub fn begin(trace: TraceId) -> Self {
        let form = Form::W3c { flags: SAMPLED };
        Self {
            trace,
            parent: None,
            form,
        }
    }

    /// Tells the next hop that the request comes from span `own` of this trace, and that it is sampled.
    pub fn tell(&self, headers: &mut HeaderMap, own: &SpanId) {
        match self.form {
            Form::W3c { flags } => {
                if self.parent.is_none() {
                    headers.remove(TRACESTATE); // of no trace
                }
                let trace = Hex(&self.trace);
                let text = format!("00-{trace}-{}-{:02x}", Hex(own), flags | SAMPLED);
                headers.insert(TRACEPARENT, value(&text));
            }
            Form::B3One { short } => {
                let trace = self.trace.get(if short { 8.. } else { 0.. });
                let mut text = format!("{}-{}-1", Hex(trace.unwrap_or_default()), Hex(own));
                if let Some(parent) = &self.parent {
                    text += &format!("-{}", Hex(parent));
                }
                headers.insert(B3, value(&text));
            }
            Form::B3Many => {
                headers.insert(B3_SPAN, value(&Hex(own).to_string()));
                if let Some(parent) = &self.parent {
                    headers.insert(B3_PARENT, value(&Hex(parent).to_string()));
                }
                if !headers.contains_key(B3_FLAGS) {
                    headers.insert(B3_SAMPLED, HeaderValue::from_static("1"));
                }
            }
        }
    }
}

/// Digits, letters and dashes are a header's value.
fn value(text: &str) -> HeaderValue {
    // INVARIANT: what is written here is nothing else.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("0"))
}

/// What a request's headers say of its trace.
pub fn said(headers: &HeaderMap) -> Said {
    if let Some(said) = only(headers, &TRACEPARENT).and_then(traceparent) {
        return said;
    }
    if headers.contains_key(B3) {
        return only(headers, &B3).and_then(b3).unwrap_or(Said::Nothing);
    }
    b3_many(headers).unwrap_or(Said::Nothing)
}

/// The one value of a header.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    if all.next().is_some() {
        return None;
    }
    first.to_str().ok()
}

/// `version-trace-parent-flags`; a later version may have more behind another dash.
fn traceparent(text: &str) -> Option<Said> {
    let (known, more) = text.split_at_checked(TRACEPARENT_LEN)?;
    let mut parts = known.split('-');
    let [version] = hex::<1>(parts.next()?)?;
    let trace = number::<16>(parts.next()?)?;
    let parent = number::<8>(parts.next()?)?;
    let [flags] = hex::<1>(parts.next()?)?;
    let fits = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.is_empty() || more.starts_with('-'),
    };
    if !fits || parts.next().is_some() {
        return None;
    }
    if flags & SAMPLED == 0 {
        return Some(Said::NotSampled);
    }
    let form = Form::W3c {
        flags: flags & FLAGS_KNOWN,
    };
    Some(Said::Sampled(Context {
        trace,
        parent: Some(parent),
        form,
    }))
}

/// `trace-span-sampled-parent`, of which the last two may be missing; or the sampling alone.
fn b3(text: &str) -> Option<Said> {
    if text == "0" {
        return Some(Said::NotSampled);
    }
    let mut parts = text.split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let (sampled, parent) = (parts.next(), parts.next());
    if parts.next().is_some() || parent.is_some_and(|parent| number::<8>(parent).is_none()) {
        return None;
    }
    let context = Context {
        trace: b3_trace(trace)?,
        parent: Some(number::<8>(span)?),
        form: Form::B3One {
            short: trace.len() == 16,
        },
    };
    match sampled {
        None => Some(Said::Undecided(context)),
        Some("0") => Some(Said::NotSampled),
        Some("1" | "d") => Some(Said::Sampled(context)),
        Some(_) => None,
    }
}

fn b3_many(headers: &HeaderMap) -> Option<Said> {
    let sampled = match headers.contains_key(B3_SAMPLED) {
        true => Some(match only(headers, &B3_SAMPLED)? {
            "1" | "true" => true,
            "0" | "false" => false,
            _ => return None,
        }),
        false => None,
    };
    let debug = only(headers, &B3_FLAGS) == Some("1");
    if sampled == Some(false) && !debug {
        return Some(Said::NotSampled);
    }
    let context = Context {
        trace: b3_trace(only(headers, &B3_TRACE)?)?,
        parent: Some(number::<8>(only(headers, &B3_SPAN)?)?),
        form: Form::B3Many,
    };
    Some(match sampled.is_some() || debug {
        true => Said::Sampled(context),
        false => Said::Undecided(context),
    })
}

/// A trace's number of 16 or 8 bytes; the shorter has zeros before it.
fn b3_trace(text: &str) -> Option<TraceId> {
    if text.len() != 16 {
        return number::<16>(text);
    }
    let short = number::<8>(text)?;
    let mut trace = [0; 16];
    let (_, low) = trace.split_at_mut(8);
    low.copy_from_slice(&short);
    Some(trace)
}

/// Lower-case hex of exactly so many bytes, not all of them zero.
fn number<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::<N>(text).filter(|bytes| bytes.iter().any(|byte| *byte != 0))
}

/// Lower-case hex of exactly so many bytes.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Writes lower-case hex.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    const OWN: SpanId = [1, 2, 3, 4, 5, 6, 7, 8];

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn of(lines: &[(&'static str, &str)]) -> Said {
        said(&headers(lines))
    }

    fn parent(text: &str) -> Said {
        of(&[("traceparent", text)])
    }

    /// What the next hop sees of these headers, which are sampled.
    fn told(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = headers(lines);
        let Said::Sampled(context) = said(&headers) else {
            panic!("not sampled: {lines:?}");
        };
        assert_eq!(
            context.parent.map(|id| Hex(&id).to_string()),
            Some(PARENT.to_owned())
        );
        context.tell(&mut headers, &OWN);
        headers
    }

    #[test]
    fn a_sampled_trace_goes_on_below_our_span() {
        let text = format!("00-{TRACE}-{PARENT}-01");
        let told = told(&[("traceparent", &text), ("tracestate", "a=1")]);
        assert_eq!(
            told["traceparent"],
            format!("00-{TRACE}-0102030405060708-01")
        );
        assert_eq!(told["tracestate"], "a=1");
    }

    #[test]
    fn flags_that_are_known_go_on_and_others_do_not() {
        for (flags, want) in [("01", "01"), ("03", "03"), ("ff", "03"), ("05", "01")] {
            let text = format!("00-{TRACE}-{PARENT}-{flags}");
            let told = told(&[("traceparent", &text)]);
            assert!(
                told["traceparent"].to_str().unwrap().ends_with(want),
                "{flags}"
            );
        }
        // A later version is answered in ours.
        let text = format!("cc-{TRACE}-{PARENT}-01-what-else");
        assert_eq!(
            told(&[("traceparent", &text)])["traceparent"],
            format!("00-{TRACE}-0102030405060708-01")
        );
    }

    #[test]
    fn a_client_that_does_not_sample_is_believed() {
        assert_eq!(parent(&format!("00-{TRACE}-{PARENT}-00")), Said::NotSampled);
        assert_eq!(parent(&format!("00-{TRACE}-{PARENT}-02")), Said::NotSampled);
        assert_eq!(of(&[("b3", "0")]), Said::NotSampled);
        assert_eq!(
            of(&[("b3", &format!("{TRACE}-{PARENT}-0"))]),
            Said::NotSampled
        );
        assert_eq!(of(&[("x-b3-sampled", "0")]), Said::NotSampled);
        assert_eq!(of(&[("x-b3-sampled", "false")]), Said::NotSampled);
    }

    #[test]
    fn what_is_no_traceparent_is_no_trace() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("cc-{TRACE}-{PARENT}-01more"),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{PARENT}-0x"),
            format!("00_{TRACE}_{PARENT}_01"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}{PARENT}--01xxxxxx"),
        ] {
            assert_eq!(parent(&text), Said::Nothing, "{text}");
        }
        let one = format!("00-{TRACE}-{PARENT}-01");
        assert_eq!(
            of(&[("traceparent", &one), ("traceparent", &one)]),
            Said::Nothing,
            "two are none"
        );
        assert_eq!(of(&[("tracestate", "a=1")]), Said::Nothing);
    }

    #[test]
    fn b3_keeps_its_form() {
        let one = format!("{TRACE}-{PARENT}-1-1112131415161718");
        assert_eq!(
            told(&[("b3", &one)])["b3"],
            format!("{TRACE}-0102030405060708-1-{PARENT}")
        );
        // 64 bits stay 64 bits.
        let short = format!("{PARENT}-{PARENT}-d");
        let seen = told(&[("b3", &short)]);
        assert_eq!(seen["b3"], format!("{PARENT}-0102030405060708-1-{PARENT}"));
        assert!(!seen.contains_key("traceparent"));

        let many = told(&[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", PARENT),
            ("x-b3-sampled", "1"),
        ]);
        assert_eq!(many["x-b3-traceid"], TRACE);
        assert_eq!(many["x-b3-spanid"], "0102030405060708");
        assert_eq!(many["x-b3-parentspanid"], PARENT);
        let debug = told(&[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", PARENT),
            ("x-b3-flags", "1"),
        ]);
        assert!(!debug.contains_key("x-b3-sampled"), "debug implies it");
    }

    #[test]
    fn b3_may_leave_sampling_to_who_gets_it() {
        let undecided = [
            of(&[("b3", &format!("{TRACE}-{PARENT}"))]),
            of(&[("x-b3-traceid", TRACE), ("x-b3-spanid", PARENT)]),
        ];
        for said in undecided {
            assert!(matches!(said, Said::Undecided(_)), "{said:?}");
        }
    }

    #[test]
    fn what_is_no_b3_is_no_trace() {
        for text in [
            "1",
            "",
            TRACE,
            &format!("{TRACE}-{PARENT}-2"),
            &format!("{TRACE}-{PARENT}-1-x"),
            &format!("{TRACE}-{PARENT}-1-{PARENT}-1"),
            &format!("{TRACE}-{TRACE}-1"),
            &format!("{}-{PARENT}-1", "0".repeat(32)),
        ] {
            assert_eq!(of(&[("b3", text)]), Said::Nothing, "{text}");
        }
        assert_eq!(of(&[("x-b3-traceid", TRACE)]), Said::Nothing);
        assert_eq!(
            of(&[
                ("x-b3-traceid", TRACE),
                ("x-b3-spanid", PARENT),
                ("x-b3-sampled", "yes")
            ]),
            Said::Nothing
        );
    }

    #[test]
    fn w3c_comes_first() {
        let w3c = format!("00-{TRACE}-{PARENT}-00");
        let b3 = format!("{TRACE}-{PARENT}-1");
        assert_eq!(of(&[("b3", &b3), ("traceparent", &w3c)]), Said::NotSampled);
        // What of it cannot be read leaves the word to the other.
        assert!(matches!(
            of(&[("b3", &b3), ("traceparent", "00")]),
            Said::Sampled(_)
        ));
    }

    #[test]
    fn a_trace_that_begins_here_has_no_state_of_another() {
        let mut headers = headers(&[("traceparent", "nonsense"), ("tracestate", "a=1")]);
        let trace = hex::<16>(TRACE).unwrap();
        Context::begin(trace).tell(&mut headers, &OWN);
        assert_eq!(
            headers["traceparent"],
            format!("00-{TRACE}-0102030405060708-01")
        );
        assert!(!headers.contains_key("tracestate"));
        let Said::Sampled(read) = said(&headers) else {
            panic!("what is told is read again");
        };
        assert_eq!((read.trace, read.parent), (trace, Some(OWN)));
    }
}
