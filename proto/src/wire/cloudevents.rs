//! Events as CloudEvents 1.0 over HTTP: binary, structured and batched mode in, structured mode
//! out.
//!
//! - `partitionkey` (the CloudEvents partitioning extension) is the event's key, `subject` its
//!   topic where nothing else names one.
//! - What the broker sets itself or does not know (`time`, `subject`, `dataschema`, extensions) is
//!   kept under `headers` by its CloudEvents name, and written out again under it.
//! - `priority`, `expires` and `correlation` are attributes of their own in structured mode, in and out.
//! - The broker's own options are the HTTP headers `Tidings-…`, in binary mode only.
//! - A name is never lost silently: unknown `Tidings-…` headers, names that no extension may have
//!   and attributes given twice are refused.

mod binary;
mod structured;

pub use {
    binary::{binary_attributes, idempotency_key},
    structured::{decode_batch, decode_structured, write_cloudevent},
};

/// The version of CloudEvents that is spoken.
const SPECVERSION: &str = "1.0";

/// Whether an extension may be called so (CloudEvents 1.0, "Naming Conventions").
fn is_extension_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
