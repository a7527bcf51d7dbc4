//! Tokens on their way to the signer. A thread asks it; what waits meanwhile goes with the next question, so that the way there
//! and back is paid for many at once. Nobody waits behind more than [`TOKENS_WAITING_MAX`].

use super::TokenError;
use crate::error::{CaError, IssuanceError};
use crate::limits::TOKENS_WAITING_MAX;
use crate::signer::HeldKey;
use crate::signer::error::SignerError;
use mesh_issuance::Signer;
use mesh_issuance::jwt::{IssuedJwt, JwtIssueError, Unsigned};
use mesh_issuance::limits::SIGNED_AT_ONCE_MAX;
use std::sync::Arc;
use std::thread;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// The line before the signer. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub(super) struct Queue(mpsc::Sender<Waiting>);

struct Waiting {
    key: Arc<HeldKey>,
    unsigned: Unsigned,
    reply: oneshot::Sender<Result<IssuedJwt, JwtIssueError>>,
}

impl Queue {
    pub(super) fn start() -> Result<Self, CaError> {
        let (sender, waiting) = mpsc::channel(TOKENS_WAITING_MAX);
        let thread = thread::Builder::new().name("tokens".to_owned());
        let started = thread.spawn(move || sign_all(waiting));
        started.map_err(|error| SignerError::Start {
            why: error.to_string(),
        })?;
        Ok(Self(sender))
    }

    /// Has a token signed.
    pub(super) async fn sign(
        &self,
        key: Arc<HeldKey>,
        unsigned: Unsigned,
    ) -> Result<IssuedJwt, TokenError> {
        let (reply, signed) = oneshot::channel();
        let waiting = Waiting {
            key,
            unsigned,
            reply,
        };
        self.0.try_send(waiting).map_err(|refused| {
            TokenError::NotSigned(match refused {
                TrySendError::Full(_) => IssuanceError::Busy,
                TrySendError::Closed(_) => IssuanceError::Stopped,
            })
        })?;
        let stopped = |_| TokenError::NotSigned(IssuanceError::Stopped);
        Ok(signed.await.map_err(stopped)??)
    }
}

fn sign_all(mut waiting: mpsc::Receiver<Waiting>) {
    let mut some = Vec::with_capacity(SIGNED_AT_ONCE_MAX);
    while waiting.blocking_recv_many(&mut some, SIGNED_AT_ONCE_MAX) > 0 {
        // Who has gone costs no signature.
        some.retain(|one| !one.reply.is_closed());
        while let Some(first) = some.first() {
            // One key, but for the moment at which the next one takes its turn.
            let key = Arc::clone(&first.key);
            let with_it = |one: &mut Waiting| Arc::ptr_eq(&one.key, &key);
            let same: Vec<_> = some.extract_if(.., with_it).collect();
            sign(&key, same);
        }
    }
}

fn sign(key: &HeldKey, some: Vec<Waiting>) {
    let messages: Vec<_> = some.iter().map(|one| one.unsigned.to_be_signed()).collect();
    let signatures = key.sign_all(&messages);
    for (one, signature) in some.into_iter().zip(signatures) {
        let signed = one.unsigned.signed(key.public_key(), signature);
        // Nobody waits for it who gave up.
        let _ = one.reply.send(signed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, domain, id, signing};
    use mesh_issuance::jwt::{JwtRequest, prepare};

    fn unsigned() -> Unsigned {
        let request = JwtRequest {
            id: id("ns/shop/sa/cart"),
            audience: "checkout".to_owned(),
            lifetime_secs: None,
        };
        prepare(&request, &domain(), None, "kid", [7; 16], NOW).unwrap()
    }

    fn key() -> Arc<HeldKey> {
        let dir = tempfile::tempdir().unwrap();
        Arc::new(signing(dir.path()).unwrap().make_in_file().unwrap())
    }

    #[tokio::test]
    async fn who_finds_the_line_full_or_nobody_there_is_told_at_once() {
        let (sender, receiver) = mpsc::channel(1);
        let (queue, key) = (Queue(sender), key());
        let first = {
            let (queue, key) = (queue.clone(), Arc::clone(&key));
            tokio::spawn(async move { queue.sign(key, unsigned()).await })
        };
        while queue.0.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        let full = queue.sign(Arc::clone(&key), unsigned()).await;
        assert!(
            matches!(full, Err(TokenError::NotSigned(IssuanceError::Busy))),
            "{full:?}"
        );
        drop(receiver);
        let gone = first.await.unwrap();
        assert!(
            matches!(gone, Err(TokenError::NotSigned(IssuanceError::Stopped))),
            "{gone:?}"
        );
        let closed = queue.sign(key, unsigned()).await;
        assert!(
            matches!(closed, Err(TokenError::NotSigned(IssuanceError::Stopped))),
            "{closed:?}"
        );
    }

    #[tokio::test]
    async fn tokens_of_two_keys_that_wait_together_are_each_signed_by_their_own() {
        let (sender, receiver) = mpsc::channel(TOKENS_WAITING_MAX);
        let queue = Queue(sender);
        let keys = [key(), key()];
        let mut signed = Vec::new();
        for n in 0..150 {
            let (queue, key) = (queue.clone(), Arc::clone(&keys[n % 2]));
            signed.push(tokio::spawn(
                async move { queue.sign(key, unsigned()).await },
            ));
        }
        while queue.0.capacity() > TOKENS_WAITING_MAX - 150 {
            tokio::task::yield_now().await;
        }
        // One gives up, which costs the others nothing.
        signed.remove(77).abort();
        let thread = thread::spawn(move || sign_all(receiver));
        for (n, one) in signed.into_iter().enumerate() {
            let token = one.await.unwrap().unwrap().token;
            let key = &keys[(n + usize::from(n >= 77)) % 2];
            let (text, signature) = token.rsplit_once('.').unwrap();
            let signature = data_encoding::BASE64URL_NOPAD
                .decode(signature.as_bytes())
                .unwrap();
            let public = ring::signature::UnparsedPublicKey::new(
                &ring::signature::ECDSA_P256_SHA256_FIXED,
                key.public_key().point(),
            );
            public.verify(text.as_bytes(), &signature).unwrap();
        }
        drop(queue);
        thread.join().unwrap();
    }
}
