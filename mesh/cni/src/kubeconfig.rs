//! How the plugin reaches the API server: a kubeconfig with the token of the DaemonSet's service account. No IO.
//!
//! The token is in the file: the plugin runs on the node, where no pod's volume is. Whoever reads it may `get` pods, and
//! root alone reads it (mode 0600).

use crate::error::InstallError;
use data_encoding::BASE64;
use serde_json::json;
use std::net::{IpAddr, Ipv6Addr};

/// What the service account of a pod is.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its token, as mounted.
    pub token: Vec<u8>,
    /// Certificates of those who sign for the API server, PEM.
    pub authorities: Vec<u8>,
}

/// The file, as JSON, which is YAML too.
///
/// # Errors
/// [`InstallError::Credentials`] if a part of it cannot be what it must be.
pub fn write(host: &str, port: u16, account: &Account) -> Result<String, InstallError> {
    let fault = |why: &str| InstallError::Credentials {
        why: why.to_owned(),
    };
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => bracketed(ip),
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_) if is_host(host) => host.to_owned(),
        Err(_) => return Err(fault("KUBERNETES_SERVICE_HOST is no address and no name")),
    };
    let token = std::str::from_utf8(&account.token)
        .unwrap_or_default()
        .trim();
    if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(fault(
            "the token of the service account is empty, or no token",
        ));
    }
    if !account
        .authorities
        .starts_with(b"-----BEGIN CERTIFICATE-----")
    {
        return Err(fault("the API server's authority is no certificate"));
    }
    let named =
        |field: &str, value: serde_json::Value| json!([{ "name": "mesh-cni", field: value }]);
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": named("cluster", json!({
            "server": format!("https://{host}:{port}"),
            "certificate-authority-data": BASE64.encode(&account.authorities),
        })),
        "users": named("user", json!({ "token": token })),
        "contexts": named("context", json!({ "cluster": "mesh-cni", "user": "mesh-cni" })),
        "current-context": "mesh-cni",
    });
    Ok(format!("{file:#}\n"))
}

fn bracketed(ip: Ipv6Addr) -> String {
    format!("[{ip}]")
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn account(token: &str) -> Account {
        Account {
            token: token.as_bytes().to_vec(),
            authorities: b"-----BEGIN CERTIFICATE-----\nMA==\n".to_vec(),
        }
    }

    #[test]
    fn the_file_says_where_and_who() {
        for (host, want) in [
            ("10.96.0.1", "https://10.96.0.1:443"),
            ("fd00::1", "https://[fd00::1]:443"),
            ("api.example", "https://api.example:443"),
        ] {
            let text = write(host, 443, &account("abc.def.ghi\n")).expect("a file");
            let file: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(file["clusters"][0]["cluster"]["server"], want);
            assert_eq!(file["users"][0]["user"]["token"], "abc.def.ghi");
        }
    }

    #[test]
    fn what_is_no_token_no_host_and_no_certificate_is_refused() {
        for token in ["", "\n", "a b", "a\nb", "a\0b"] {
            assert!(
                write("10.96.0.1", 443, &account(token)).is_err(),
                "{token:?}"
            );
        }
        for host in ["", "10.96.0.1:443", "a/b", "a b", "user@host", "[::1]"] {
            assert!(write(host, 443, &account("abc")).is_err(), "{host:?}");
        }
        for authorities in [&b""[..], b"certificate", b"-----BEGIN PRIVATE KEY-----\n"] {
            let account = Account {
                authorities: authorities.to_vec(),
                ..account("abc")
            };
            assert!(write("10.96.0.1", 443, &account).is_err());
        }
    }
}
