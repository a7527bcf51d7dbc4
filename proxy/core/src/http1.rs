//! HTTP/1.1 as a client speaks it, without IO: a request into bytes, a response out of them.
//!
//! - [`request`]: the head of a request, and its body as it goes out; start at [`request::put_head`]
//! - [`response`]: one response after the other's bytes; start at [`response::ResponseReader`]
//!
//! What is sent has one form: names in lower case, one length. What is read is held to the letter of RFC 9112, because
//! whoever answers may be careless or hostile: a response that two readers could take for two is refused, and nothing
//! that follows it on its connection is taken for anything (threats H1-12, H1-13).

pub mod request;
pub mod response;

#[cfg(test)]
mod tests;
