//! Bytes on the wire and in the log: one module an encoding.
