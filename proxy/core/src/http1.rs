//! HTTP/1.1 as both sides of a proxy speak it, without IO.
//!
//! - [`reader`]: requests of clients out of bytes; start at [`reader::RequestReader`]
//! - [`answer`]: the head of an answer to a client; start at [`answer::put_head`]
//! - [`request`]: the head of a request to an application; start at [`request::put_head`]
//! - [`response`]: its response out of bytes; start at [`response::ResponseReader`]
//! - [`writer`]: bodies as they go out, either way
//!
//! What is sent has one form: names in lower case, one length. What is read is held to the letter of RFC 9112, because
//! whoever sends it may be careless or hostile: a message that two readers could take for two is refused, and nothing that
//! follows it on its connection is taken for anything (threats H1).

pub mod answer;
mod chunks;
mod fields;
pub mod reader;
pub mod request;
pub mod response;
pub mod writer;

#[cfg(test)]
mod tests;
