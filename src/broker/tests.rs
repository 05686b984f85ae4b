//! The proof of delivery: what the broker does is compared with what its words mean.
//!
//! - [`model`] says what they mean, over plain data;
//! - [`agreement`] does random things to both and compares;
//! - [`simulator`] lets many publishers and subscribers run over kills, and looks at what each has seen;
//! - [`first_state`] counts how often the state of a durable is gathered;
//! - [`lanes`] lets very much be acknowledged ahead;
//! - [`retention`] looks at what must stay when events are taken out;
//! - [`waking`] commits between a look and the wait that follows it;
//! - [`world`] is the real broker over the real log, on a simulated disk and a clock that a test moves.

/// Ends a judgement where something does not hold.
macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => { if !$holds { return Err(format!($($text)*)); } };
}

mod agreement;
mod first_state;
mod lanes;
mod model;
mod retention;
mod simulator;
mod waking;
mod world;
