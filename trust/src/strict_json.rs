//! JSON in which a key given twice is an error: serde_json would keep the last, others the first.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

use crate::quoted::Quoted;

/// Reads one value and nothing after it. Depth is bounded by serde_json's own limit of 128.
pub(crate) fn parse(document: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(document).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "key `{}` is given twice",
                    Quoted::new(&key)
                )));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use serde_json::Value;

    #[test]
    fn keys_given_twice_are_refused_at_any_depth() {
        for document in [
            r#"{"a":1,"a":1}"#,
            r#"[{"x":{"b":1,"c":2,"b":3}}]"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            let error = parse(document.as_bytes()).expect_err(document).to_string();
            assert!(error.contains("given twice"), "{error}");
        }
    }

    #[test]
    fn everything_else_reads_as_serde_json_reads_it() {
        for document in [
            r#"{"a":[1,-2,3.5,null,true,"x"],"b":{"c":{}}}"#,
            "18446744073709551615",
            r#""""#,
        ] {
            assert_eq!(
                parse(document.as_bytes()).expect(document),
                document.parse::<Value>().expect(document)
            );
        }
        for document in ["", "{", r#"{"a":1}x"#, "nul", "\u{feff}{}", "1e999"] {
            assert!(parse(document.as_bytes()).is_err(), "{document}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
