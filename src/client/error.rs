//! What goes wrong for a client, in a form that can be handed to everybody who waits.

use std::{io, sync::Arc};

use tidings_proto::WireError;

/// Why a call of the client failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be used.
    #[error("\"{url}\" is no address of a broker: {problem}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it and what to give instead.
        problem: &'static str,
    },
    /// The broker refused the request.
    #[error(transparent)]
    Refused(Box<WireError>),
    /// The broker refused the connection; connecting again would not help.
    #[error("the broker at {url} refused the connection with HTTP status {status}: {text}")]
    Handshake {
        /// The broker.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// The broker closed the connection for good.
    #[error("the broker closed the connection for good, code {code}: {reason}")]
    ClosedByBroker {
        /// The close code.
        code: u16,
        /// What it said.
        reason: String,
    },
    /// Nothing answers at the address.
    #[error("cannot reach the broker at {url} (is it running there?)")]
    Unreachable {
        /// The broker.
        url: String,
        /// What the network said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// What answers at the address cannot show that it is the broker.
    #[error(
        "what answers at {url} is not trusted ({problem}): is it the broker? Give the certificate to trust with --ca"
    )]
    Untrusted {
        /// The broker.
        url: String,
        /// What is wrong with its certificate.
        problem: String,
    },
    /// The certificates to trust cannot be used.
    #[error("the certificates to trust cannot be used ({problem}): give them in PEM, with --ca")]
    Certificates {
        /// What is wrong with them.
        problem: String,
    },
    /// The broker sent what this client cannot read.
    #[error("the broker's answer cannot be read ({0}): use a client of the broker's version")]
    Protocol(String),
    /// The call took longer than it may.
    #[error("the broker at {url} did not answer within {wait_ms} ms")]
    Timeout {
        /// The broker.
        url: String,
        /// How long was waited.
        wait_ms: u128,
    },
    /// Nobody answered a question in time.
    #[error("no answer came on {topic} within {wait_ms} ms: does anybody work on it?")]
    NoReply {
        /// Where the answer was to come.
        topic: String,
        /// How long was waited.
        wait_ms: u128,
    },
    /// Events on the topic of the answer are gone, perhaps the answer among them.
    #[error("events on {topic} are gone, perhaps the answer among them: ask again")]
    AnswersGone {
        /// Where the answer was to come.
        topic: String,
    },
    /// The client has been closed.
    #[error("the client is closed: connect again")]
    Closed,
    /// The subscription has ended: it was taken over, deleted or unsubscribed.
    #[error("the subscription has ended: subscribe again")]
    Ended,
}

impl Error {
    /// The broker's answer as an error.
    pub(super) fn refused(error: WireError) -> Error {
        Error::Refused(Box::new(error))
    }

    /// What the network said while talking to `url`.
    pub(super) fn unreachable(url: &str, cause: io::Error) -> Error {
        Error::Unreachable { url: url.to_owned(), cause: Arc::new(cause) }
    }
}
