//! The proof of delivery: what the broker does is compared with what its words mean.
//!
//! - [`model`] says what they mean, over plain data;
//! - [`agreement`] does random things to both and compares;
//! - [`simulator`] lets many publishers and subscribers run over kills, and looks at what each has seen;
//! - [`world`] is the real broker over the real log, on a simulated disk and a clock that a test moves.

/// Ends a judgement where something does not hold.
macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => { if !$holds { return Err(format!($($text)*)); } };
}

mod agreement;
mod model;
mod simulator;
mod world;
