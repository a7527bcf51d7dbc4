//! Sessions: a client says itself, in a cookie or a header, which endpoint its earlier requests went to (Gateway API,
//! GEP-1619).
//!
//! What it is given is a hash of names, never of an address, so that it learns none; and the same from every proxy, so that
//! a session outlives the proxy that began it. It is believed: who makes one up chooses an endpoint of a service that it
//! may call anyway.

use crate::http_hygiene::cookie;
use crate::route::filter::FilterFault;
use data_encoding::HEXLOWER;
use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use mesh_policy::fields::may_carry_session;
use mesh_policy::traffic::{self, SessionCarrier};
use mesh_trust::{SpiffeId, Timestamp};
use ring::digest::{Context, SHA256};
use std::fmt;

/// Bytes of a token: no two endpoints of a service have the same by chance.
const TOKEN_BYTES: usize = 16;

/// Digits of the end of a session, hexadecimal seconds: past the year 30,000.
const END_DIGITS_MAX: usize = 10;

/// Stands for one endpoint of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token([u8; TOKEN_BYTES]);

impl Token {
    /// Of the endpoint at `port` of the pod `workload`, which has this identity.
    pub fn of(service: &str, workload: &str, port: u16, identity: &SpiffeId) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"mesh session 1");
        for part in [service, workload, identity.as_str()] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(&port.to_be_bytes());
        let mut out = [0; TOKEN_BYTES];
        out.iter_mut()
            .zip(hash.finish().as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(out)
    }

    /// Some of its bits, as a hash of the endpoint.
    pub fn bits(self) -> u64 {
        self.0
            .iter()
            .take(8)
            .fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }

    /// As [`fmt::Display`] writes it, and in no other way.
    fn parse(text: &str) -> Option<Self> {
        let mut out = [0; TOKEN_BYTES];
        let digits = text.as_bytes();
        if digits.len() != HEXLOWER.encode_len(TOKEN_BYTES) {
            return None;
        }
        HEXLOWER.decode_mut(digits, &mut out).ok()?;
        Some(Self(out))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

/// How the sessions of a rule are carried.
#[derive(Debug)]
pub struct Session {
    carrier: Carrier,
    /// How long one lasts at most; `None`: as long as its endpoint.
    lives_secs: Option<i64>,
}

#[derive(Debug)]
enum Carrier {
    Cookie {
        name: String,
        /// What follows the value.
        attributes: String,
    },
    Header(HeaderName),
}

impl Session {
    /// Checks names.
    ///
    /// # Errors
    /// [`FilterFault::Header`] or [`FilterFault::Name`] for a name that may not be.
    pub fn compile(data: &traffic::Session) -> Result<Self, FilterFault> {
        let name = HeaderName::from_bytes(data.name.as_bytes());
        let name = name.map_err(|_| FilterFault::Header {
            text: data.name.clone(),
        })?;
        let lives_secs = data.lives_secs.map(i64::from).filter(|secs| *secs > 0);
        let carrier = match data.carrier {
            SessionCarrier::Header => {
                if !may_carry_session(name.as_str()) {
                    let name = data.name.clone();
                    return Err(FilterFault::Name { name });
                }
                Carrier::Header(name)
            }
            // A cookie's name is a token as a header's is, and has cases.
            SessionCarrier::Cookie => Carrier::Cookie {
                name: data.name.clone(),
                attributes: attributes(&data.path, lives_secs.filter(|_| data.permanent)),
            },
        };
        Ok(Self {
            carrier,
            lives_secs,
        })
    }

    /// The endpoint that a request asks for; `None`: it asks for none, or for longer than a session lasts.
    pub fn asked(&self, headers: &HeaderMap, now: impl FnOnce() -> Timestamp) -> Option<Token> {
        let value = match &self.carrier {
            Carrier::Header(name) => headers.get(name)?.to_str().ok()?,
            Carrier::Cookie { name, .. } => cookie(headers, name)?,
        };
        let Some(lives) = self.lives_secs else {
            return Token::parse(value);
        };
        let (token, end) = value.split_once('.')?;
        if end.is_empty() || end.len() > END_DIGITS_MAX || !end.bytes().all(is_lower_hex) {
            return None;
        }
        let (end, now) = (i64::from_str_radix(end, 16).ok()?, now().unix_secs());
        let lasts = now < end && end <= now.saturating_add(lives);
        lasts.then(|| Token::parse(token)).flatten()
    }

    /// Tells the client which endpoint answered: from `now` on it is to ask for that.
    pub fn tell(&self, headers: &mut HeaderMap, token: Token, now: impl FnOnce() -> Timestamp) {
        let value = match self.lives_secs {
            None => token.to_string(),
            Some(lives) => format!("{token}.{:x}", now().plus_secs(lives).unix_secs().max(0)),
        };
        let (name, text) = match &self.carrier {
            Carrier::Header(name) => (name.clone(), value),
            Carrier::Cookie { name, attributes } => {
                (SET_COOKIE, format!("{name}={value}{attributes}"))
            }
        };
        // INVARIANT: names were checked, the rest is ours.
        let Ok(value) = HeaderValue::from_str(&text) else {
            return;
        };
        match &self.carrier {
            Carrier::Header(_) => drop(headers.insert(name, value)),
            Carrier::Cookie { .. } => drop(headers.append(name, value)),
        }
    }
}

fn is_lower_hex(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'a'..=b'f')
}

/// Not `Secure`: between an application and its proxy there is plaintext, over which a client would not send it back.
fn attributes(path: &str, max_age: Option<i64>) -> String {
    let clean = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'"' | b'\\');
    let fits = path.starts_with('/') && path.bytes().all(clean);
    let path = if fits { path } else { "/" };
    let age = max_age.map(|secs| format!("; Max-Age={secs}"));
    format!(
        "; Path={path}; HttpOnly; SameSite=Lax{}",
        age.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> SpiffeId {
        SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap()
    }

    fn token(workload: &str) -> Token {
        Token::of("shop/cart:80", workload, 8080, &id())
    }

    fn session(name: &str, carrier: SessionCarrier, lives_secs: Option<u32>) -> Session {
        let data = traffic::Session {
            name: name.to_owned(),
            carrier,
            path: "/shop".to_owned(),
            lives_secs,
            permanent: true,
        };
        Session::compile(&data).unwrap()
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_secs(secs)
    }

    fn headers(name: &str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn every_part_of_an_endpoint_counts_and_none_runs_into_the_next() {
        let other = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/other").unwrap();
        let all = [
            token("cart-0"),
            token("cart-1"),
            Token::of("shop/cart:81", "cart-0", 8080, &id()),
            Token::of("shop/cart:80", "cart-0", 8081, &id()),
            Token::of("shop/cart:80", "cart-0", 8080, &other),
            Token::of("shop/cart:80c", "art-0", 8080, &id()),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|known| known == one), Some(at));
        }
        assert_eq!(token("cart-0"), token("cart-0"), "from every proxy");
    }

    #[test]
    fn a_cookie_goes_out_and_comes_back() {
        let session = session("sid", SessionCarrier::Cookie, None);
        let mut answer = headers("set-cookie", &["mine=1"]);
        session.tell(&mut answer, token("cart-0"), || panic!("no end"));
        let set: Vec<_> = answer.get_all(SET_COOKIE).iter().collect();
        let want = format!(
            "sid={}; Path=/shop; HttpOnly; SameSite=Lax",
            token("cart-0")
        );
        assert_eq!(set, ["mine=1", &*want], "the application's own stays");
        for cookies in [
            vec![format!("sid={}", token("cart-0"))],
            vec![
                "a=b".to_owned(),
                format!("c=d;sid={} ; e=f", token("cart-0")),
            ],
        ] {
            let cookies: Vec<&str> = cookies.iter().map(String::as_str).collect();
            let asked = session.asked(&headers("cookie", &cookies), || panic!("no end"));
            assert_eq!(asked, Some(token("cart-0")), "{cookies:?}");
        }
    }

    #[test]
    fn what_is_no_token_asks_for_nothing() {
        let session = session("sid", SessionCarrier::Cookie, None);
        let good = token("cart-0").to_string();
        let shorter = good.get(..30).unwrap();
        for value in [
            String::new(),
            "sid".to_owned(),
            "sid=".to_owned(),
            format!("SID={good}"),
            format!("xsid={good}"),
            format!("sid={}", good.to_uppercase() + "A"),
            format!("sid={shorter}zz"),
            format!("sid={shorter}"),
            format!("sid={good}0"),
            format!("sid={good}.ffffffff"),
            format!("sid=\"{good}\""),
        ] {
            let asked = session.asked(&headers("cookie", &[&value]), || at(0));
            assert_eq!(asked, None, "{value}");
        }
    }

    #[test]
    fn a_session_ends_and_no_client_makes_it_last_longer() {
        let session = session("X-Session", SessionCarrier::Header, Some(60));
        let mut answer = headers("x-session", &["liar"]);
        session.tell(&mut answer, token("cart-0"), || at(1_000));
        let told = answer["x-session"].to_str().unwrap().to_owned();
        assert_eq!(told, format!("{}.424", token("cart-0")), "1,060 s");
        let asked =
            |value: &str, now: i64| session.asked(&headers("x-session", &[value]), || at(now));
        assert_eq!(asked(&told, 1_000), Some(token("cart-0")));
        assert_eq!(asked(&told, 1_059), Some(token("cart-0")));
        assert_eq!(asked(&told, 1_060), None, "over");
        assert_eq!(asked(&told, 999), None, "longer than a session lasts");
        for end in ["", "-1", "+424", "ffffffffffffffff", "0x424", "424.1"] {
            let value = format!("{}.{end}", token("cart-0"));
            assert_eq!(asked(&value, 1_000), None, "{end}");
        }
        assert_eq!(asked(&token("cart-0").to_string(), 1_000), None, "no end");
    }

    #[test]
    fn names_that_only_proxies_write_carry_no_session() {
        for (name, carrier) in [
            ("mesh-session", SessionCarrier::Header),
            ("l5d-client-id", SessionCarrier::Header),
            ("Cookie", SessionCarrier::Header),
            ("host", SessionCarrier::Header),
            ("a b", SessionCarrier::Header),
            ("a=b", SessionCarrier::Cookie),
            ("a;b", SessionCarrier::Cookie),
            ("", SessionCarrier::Cookie),
        ] {
            let data = traffic::Session {
                name: name.to_owned(),
                carrier,
                path: "/".to_owned(),
                lives_secs: None,
                permanent: false,
            };
            assert!(Session::compile(&data).is_err(), "{name}");
        }
        assert_eq!(attributes("/a;Domain=x", None), attributes("/", None));
        assert!(attributes("/", Some(5)).ends_with("; Max-Age=5"));
    }

    proptest! {
        #[test]
        fn whatever_a_cookie_says_is_a_token_as_it_is_written_or_none(text in "[ -~]{0,80}") {
            let session = session("sid", SessionCarrier::Cookie, None);
            let value = format!("sid={text}");
            let asked = session.asked(&headers("cookie", &[&value]), || at(0));
            if let Some(token) = asked {
                let first = text.split(';').next().unwrap_or_default();
                prop_assert_eq!(token.to_string(), first.trim());
            }
        }

        #[test]
        fn a_token_that_is_written_is_read_again(bytes in any::<[u8; 16]>()) {
            let token = Token(bytes);
            prop_assert_eq!(Token::parse(&token.to_string()), Some(token));
        }
    }
}
