//! What a pair of proxies tells a collector of its requests. A program of its own: a collector is waited for by the second, and
//! spans come late in a process with the threads of hundreds of other pairs.
#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests write files and read clocks themselves"
)]

mod proxy {
    #[expect(dead_code, reason = "more of it is for the other program")]
    pub(crate) mod world;

    mod traces;
}
