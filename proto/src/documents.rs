//! What the doors take and give, as tools read it: kept by hand beside the vectors and the Protobuf schema.
//!
//! - Tests hold them to the table of calls, to the codes, to the vectors and to what the broker answers.

/// Every call of HTTP, in OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// Every message of the WebSocket, in AsyncAPI 3.0.
pub const ASYNCAPI: &str = include_str!("../asyncapi.json");
