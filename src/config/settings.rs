//! Every setting there is: key, default, values, what it is for.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// What it is when nobody says anything.
    pub default: &'static str,
    /// What values it takes.
    pub values: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

impl Setting {
    /// Whether its value is for nobody's eyes.
    pub fn is_secret(&self) -> bool {
        self.key == "auth.hs256_secret"
    }
}

/// Every setting there is.
pub const SETTINGS: [Setting; 68] = [
    setting(
        "server.listen",
        "127.0.0.1:8080",
        "address:port",
        "public listener; port 0 picks a free one",
    ),
    setting("server.admin", "127.0.0.1:9090", "address:port", "admin listener: health and metrics"),
    setting(
        "server.insecure",
        "false",
        "true, false",
        "allow an open broker on other than loopback addresses",
    ),
    setting(
        "server.tls_cert",
        "",
        "path",
        "certificates of the public listener in PEM, its own first; with it: TLS; SIGHUP reads it anew",
    ),
    setting("server.tls_key", "", "path", "the private key in PEM"),
    setting(
        "server.tls_terminated_by_proxy",
        "false",
        "true, false",
        "allow plain connections on other than loopback addresses: a proxy in front has the TLS",
    ),
    setting(
        "server.allow_origins",
        "",
        "origins, by comma",
        "browser origins that may connect besides our own",
    ),
    setting(
        "server.trusted_proxies",
        "",
        "addresses and networks, by comma",
        "proxies that are believed about where a request comes from",
    ),
    setting(
        "server.proxy_header",
        "x-forwarded-for",
        "x-forwarded-for, forwarded",
        "the header that they say it in; the other is not looked at",
    ),
    setting(
        "server.connections_max",
        "10000",
        "1 to 1000000",
        "connections at a time; more are answered 503",
    ),
    setting(
        "server.codings",
        "zstd,gzip,br",
        "names of zstd, gzip and br, by comma",
        "how HTTP answers and bodies may be compressed, the best liked first; empty: not at all",
    ),
    setting(
        "server.stop_timeout",
        "8s",
        "1s to 5m",
        "how long a stop may take before connections are cut",
    ),
    setting(
        "auth.hs256_secret",
        "",
        "text",
        "secret of HS256 tokens, of 32 bytes or more; without it and the keys below the broker runs open",
    ),
    setting("auth.hs256_secret_file", "", "path", "the same, read from a file"),
    setting(
        "auth.public_key_file",
        "",
        "path",
        "PEM file of public keys: of RS256 (RSA), ES256 (P-256) and EdDSA (Ed25519) tokens",
    ),
    setting(
        "auth.jwks_file",
        "",
        "path",
        "JSON Web Key Set of such keys; those that cannot be used are passed over with a warning, and one with a private or symmetric key is refused",
    ),
    setting(
        "auth.jwks_url",
        "",
        "https://HOST/PATH, or http:// on this machine",
        "the same from a server; redirects are not followed",
    ),
    setting(
        "auth.jwks_ca",
        "",
        "path",
        "PEM file of the certificates that server is trusted by; without it those that the system trusts",
    ),
    setting(
        "auth.jwks_refresh",
        "5m",
        "1s to 24h",
        "how often the key set is read again; a token with an unknown kid has it read at once, once a minute at most",
    ),
    setting("auth.issuer", "", "text", "the claim iss that tokens must have; empty: any"),
    setting(
        "auth.audiences",
        "",
        "names, by comma",
        "names of this broker, of which the claim aud must have one; empty: any",
    ),
    setting("auth.leeway", "30s", "0s to 60s", "how far the clock of who signs tokens may differ"),
    setting(
        "auth.anonymous.publish",
        "",
        "filters, by comma",
        "what somebody without a token may publish to",
    ),
    setting(
        "auth.anonymous.subscribe",
        "",
        "filters, by comma",
        "what somebody without a token may read",
    ),
    setting("log.dir", "data", "path", "the data directory"),
    setting("log.segment_bytes", "134217728", "65536 to 1073741824", "size of a segment file"),
    setting(
        "log.reserve_bytes",
        "67108864",
        "0 to 1073741824",
        "kept of a full disk for acks and the like",
    ),
    setting(
        "log.fill_segments",
        "false",
        "true, false",
        "write segments full of zeros before use: faster syncs, every byte written twice",
    ),
    setting(
        "log.tail_bytes",
        "25165824",
        "65536 to 17179869184",
        "newest events kept in memory; about, and up to twice that with readers in all encodings",
    ),
    setting(
        "log.queue_bytes",
        "67108864",
        "1048576 to 4294967295",
        "events waiting to be appended",
    ),
    setting("log.disk_reads", "4", "1 to 256", "reads at a time of what is not in the page cache"),
    setting(
        "retention.max_age",
        "",
        "empty, or 1s to 100y",
        "how long events are kept that no rule is for; empty: for ever",
    ),
    setting(
        "retention.max_bytes",
        "50%",
        "0 to 9007199254740991, or 1% to 100%",
        "how much of them is kept, in bytes or of the size of the log's disk; 0: all",
    ),
    setting(
        "retention.max_events",
        "0",
        "0 to 9007199254740991",
        "how many of them are kept; 0: all",
    ),
    setting(
        "retention.rules",
        "",
        "rules, by comma: FILTER max_age=7d max_bytes=N max_events=N compact",
        "how long events on certain topics are kept; 256 rules at most",
    ),
    setting(
        "retention.every",
        "10s",
        "100ms to 1h",
        "how long from one pass of retention to the next",
    ),
    setting(
        "retention.pass_bytes",
        "268435456",
        "65536 to 17179869184",
        "segments that one pass rewrites; one at least",
    ),
    setting(
        "limits.message_bytes_max",
        "1048576",
        "1024 to 67108864",
        "one message or request body",
    ),
    setting("limits.subscriptions_max", "1000", "1 to 100000", "subscriptions of one socket"),
    setting(
        "limits.subscriptions_bytes_max",
        "1073741824",
        "1048576 to 68719476736",
        "what all large subscriptions (over 4 KiB) keep in memory together, about; more are refused",
    ),
    setting("limits.durables_max", "100000", "1 to 10000000", "durable subscriptions"),
    setting(
        "limits.durables_per_subject",
        "100000",
        "1 to 10000000",
        "durable subscriptions that one subject has made",
    ),
    setting(
        "limits.ping_interval",
        "25s",
        "100ms to 10m",
        "how often sockets are pinged; silent for two: closed",
    ),
    setting(
        "limits.write_timeout",
        "60s",
        "1s to 1h",
        "how long a socket may take no byte of what waits for it",
    ),
    setting(
        "limits.connect_timeout",
        "10s",
        "100ms to 5m",
        "how long a socket may stay without connect",
    ),
    setting(
        "limits.header_timeout",
        "5s",
        "100ms to 5m",
        "how long the head of a request may take",
    ),
    setting(
        "limits.body_timeout",
        "30s",
        "100ms to 1h",
        "how long the body of a request, or a message of a socket that has begun, may take",
    ),
    setting(
        "limits.idle_timeout",
        "60s",
        "100ms to 1h",
        "how long a connection may stay open between two requests",
    ),
    setting(
        "limits.stream_max",
        "1h",
        "0s, or 100ms to 24h",
        "how long an SSE stream lasts at most before its reader comes again; at least half of it; 0s: any time",
    ),
    setting(
        "limits.long_polls_max",
        "5000",
        "1 to 1000000",
        "requests that may wait for an event at a time (`wait` of a read or a fetch); more are answered 429",
    ),
    setting(
        "limits.long_polls_per_subject",
        "0",
        "0 to 1000000",
        "those of one subject, or of one address without a token; 0: any number",
    ),
    setting(
        "limits.bodies_bytes_max",
        "268435456",
        "67108864 to 4294967295",
        "bodies of requests in memory at a time, in bytes; as much again for messages of sockets that have begun",
    ),
    setting(
        "limits.answers_bytes_max",
        "268435456",
        "1048576 to 4294967295",
        "large answers that their readers have not taken yet, in bytes; as much again for those of sockets, and for large batches of events",
    ),
    setting(
        "limits.send_buffer_bytes",
        "131072",
        "4096 to 16777216",
        "what the kernel may hold for a connection that does not read; it doubles that",
    ),
    setting(
        "limits.profile",
        "private",
        "private, public",
        "public: limits of every kind for a broker that strangers reach, where the settings below are not given",
    ),
    setting(
        "limits.connections_per_ip",
        "0",
        "0 to 1000000",
        "connections of one address at a time; 0: any number",
    ),
    setting(
        "limits.unauthenticated_max",
        "5000",
        "0 to 1000000",
        "connections on which nobody has been let in yet; 0: any number",
    ),
    setting(
        "limits.unauthenticated_per_ip",
        "0",
        "0 to 1000000",
        "those of one address; 0: any number",
    ),
    setting(
        "limits.per_ip",
        "connects=2000,failed_auth=20",
        "KIND=RATE or KIND=RATE/BURST, by comma",
        "how often a second, and how often at once, one address may do something",
    ),
    setting(
        "limits.per_subject",
        "",
        "KIND=RATE or KIND=RATE/BURST, by comma",
        "the same of one subject",
    ),
    setting(
        "limits.per_session",
        "subscribes=5000,controls=100/1000",
        "KIND=RATE or KIND=RATE/BURST, by comma",
        "the same of one session",
    ),
    setting(
        "limits.presence_grace",
        "10s",
        "100ms to 10m",
        "how long a member whose connection was lost stays listed",
    ),
    setting(
        "limits.presence_restart_grace",
        "30s",
        "100ms to 10m",
        "the same after a start, for the members from before",
    ),
    setting("limits.presence_topic_members_max", "500", "1 to 5000", "members of one topic"),
    setting("limits.presence_members_max", "10000", "1 to 100000", "members of all topics"),
    setting(
        "limits.scheduled",
        "100000",
        "1 to 1000000",
        "events that wait for their moment (`deliver_at`)",
    ),
    setting(
        "limits.state_slots",
        "2000000",
        "1000 to 4294967295",
        "topics and keys that all states (`last_per_key`) have together while they are gathered and sent",
    ),
    setting(
        "metrics.durables",
        "",
        "names, by comma; * at the end: all that begin so",
        "durables that have metrics of their own, the first 200 by name",
    ),
];

const fn setting(
    key: &'static str,
    default: &'static str,
    values: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { key, default, values, doc }
}
