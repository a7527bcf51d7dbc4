//! Claims about policy proved by a solver: over all requests there can be, not over classes of them.
//!
//! Cedar's symbolic compiler turns policies, an invariant and what is known of every request (`mesh_policy::cedar::model`)
//! into one formula: a request that is possible, allowed, and should not be. Where a solver finds that nothing satisfies
//! it, the invariant is proved, also where policies look at whatever they like and classes are only tried.
//!
//! A solver is a large program of others, so little is believed of what it says:
//!
//! - it must be cvc5, recent enough, and answer two questions whose answers are known (`solver`)
//! - before a proof counts, it must find a request that is possible at all: one that calls everything impossible proves
//!   nothing, and neither do facts that contradict each other
//! - a request that it finds is decided by the matcher and by Cedar before it is shown (`witness`)
//! - no answer in time, a crash, an error, too long an answer: unknown, and unknown is no success (`session`)
//! - and what classes say is held against it ([`agreement`])
//!
//! What is asked: whether an invariant holds ([`prove`]), whether a policy that people wrote in Cedar stays in its namespace
//! ([`confined`]), and whether what a policy is compiled to says the same as Cedar ([`verify`]).
//!
//! Start at [`prove::Prover`].

pub mod agreement;
pub mod confined;
mod formula;
mod limits;
pub mod prove;
mod session;
mod solver;
pub mod verify;
mod witness;

pub use agreement::{Outcome, outcome};
pub use confined::{Confinement, confined};
pub use limits::VERSION_MIN;
pub use prove::{Prover, Verdict};
pub use session::Session;
pub use solver::SolverFault;
pub use verify::{Equality, Verifier};
