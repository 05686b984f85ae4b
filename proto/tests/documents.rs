//! The OpenAPI and the AsyncAPI document against what the crate says: its codes, its vectors, each other.
//!
//! - A vector of a request, reply, push or event is valid by the schema of its message; one that is refused is not, but
//!   for what no schema can say ([`UNSAID`]).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of it is a test")]

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use serde_json::{Value, json};
use tidings_proto::{
    Code,
    documents::{ASYNCAPI, OPENAPI},
};

/// What is refused in a request although the schema takes it: names that come twice, depth, and what bytes in Base64
/// are.
const UNSAID: [&str; 8] = [
    "a request twice",
    "an id twice",
    "nested too deep",
    "data nested too deep",
    "publish: topic twice",
    "publish: base64 that is no json",
    "publish: base64 that is no text",
    "publish: a header twice",
];

fn openapi() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn asyncapi() -> Value {
    serde_json::from_str(ASYNCAPI).unwrap()
}

/// The cases of a file of vectors: their name and their JSON, where it is any.
#[expect(clippy::disallowed_methods, reason = "the vectors are files of this crate")]
fn cases(file: &str) -> Vec<(String, Value)> {
    let path = format!("{}/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<BTreeMap<String, Value>> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let read = |case: BTreeMap<String, Value>| -> Option<(String, Value)> {
        let json = serde_json::from_str(case["json"].as_str().unwrap()).ok()?;
        Some((case["name"].as_str().unwrap().to_owned(), json))
    };
    cases.into_iter().filter_map(read).collect()
}

/// A validator by a schema that refers to the components of a document.
fn validator(document: &Value, mut schema: Value) -> Validator {
    schema["components"] = document["components"].clone();
    jsonschema::validator_for(&schema).unwrap()
}

fn by_reference(document: &Value, path: &str) -> Validator {
    validator(document, json!({ "$ref": format!("#/components/{path}") }))
}

/// A validator of exactly one of these messages of the socket.
fn one_of(asyncapi: &Value, wanted: impl Fn(&str) -> bool) -> Validator {
    let names = asyncapi["components"]["messages"].as_object().unwrap().keys();
    let payload =
        |name: &String| json!({ "$ref": format!("#/components/messages/{name}/payload") });
    let payloads: Vec<Value> = names.filter(|name| wanted(name)).map(payload).collect();
    validator(asyncapi, json!({ "oneOf": payloads }))
}

fn assert_valid(validator: &Validator, file: &str) {
    for (name, json) in cases(file) {
        let errors: Vec<String> = validator.iter_errors(&json).map(|it| it.to_string()).collect();
        assert!(errors.is_empty(), "vectors/{file}.json: {name}: {errors:#?}");
    }
}

#[test]
fn the_documents_have_every_code_and_the_version() {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    for document in [openapi(), asyncapi()] {
        assert_eq!(document["components"]["schemas"]["Code"]["enum"], json!(codes));
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}

/// Every problem of HTTP is answered under the status of one of its codes, or of none.
#[test]
fn the_statuses_of_the_codes_are_documented() {
    let openapi = openapi();
    let calls = openapi["paths"].as_object().unwrap().values();
    let calls = calls.flat_map(|calls| calls.as_object().unwrap().values());
    let statuses: BTreeSet<&str> = calls
        .flat_map(|call| call["responses"].as_object().unwrap().keys())
        .map(String::as_str)
        .filter(|status| status.starts_with(['4', '5']))
        .collect();
    let codes = Code::ALL.iter().map(|code| code.http_status().to_string());
    // A body that is too slow, no handshake, and a head that is too large.
    let mut want: BTreeSet<String> = ["408", "426", "431"].map(str::to_owned).into();
    want.extend(codes);
    assert_eq!(statuses, want.iter().map(String::as_str).collect::<BTreeSet<_>>());
}

#[test]
fn what_both_documents_name_is_the_same_or_said_to_differ() {
    // With the number of the subscription over a socket, where HTTP has its name in the path.
    const DIFFER: [&str; 2] = ["Ack", "Nack"];
    let (openapi, asyncapi) = (openapi(), asyncapi());
    let (http, socket) = (&openapi["components"]["schemas"], &asyncapi["components"]["schemas"]);
    let mut both = 0;
    for (name, schema) in http.as_object().unwrap() {
        let Some(other) = socket.get(name) else { continue };
        assert_eq!(schema == other, !DIFFER.contains(&&**name), "{name}");
        both += 1;
    }
    assert!(both > 20, "{both}");
}

#[test]
fn references_lead_somewhere() {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| collect(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    for document in [openapi(), asyncapi()] {
        let mut found = BTreeSet::new();
        collect(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            let reference = format!("#/components/schemas/{name}");
            assert!(found.contains(&reference), "nothing refers to {reference}");
        }
    }
}

#[test]
fn every_message_of_the_vectors_is_valid_by_its_schema() {
    let asyncapi = asyncapi();
    for name in asyncapi["components"]["messages"].as_object().unwrap().keys() {
        let payload = by_reference(&asyncapi, &format!("messages/{name}/payload"));
        assert_valid(&payload, if name == "push_events" { "events" } else { name.as_str() });
    }
    for (name, file) in [("Event", "event"), ("Publish", "publish")] {
        assert_valid(&by_reference(&asyncapi, &format!("schemas/{name}")), file);
    }
    let openapi = openapi();
    for (name, file) in
        [("CloudEvent", "cloudevent_written"), ("CloudEventIn", "cloudevent_structured")]
    {
        assert_valid(&by_reference(&openapi, &format!("schemas/{name}")), file);
    }
}

#[test]
fn what_the_vectors_refuse_is_not_valid() {
    let asyncapi = asyncapi();
    let is_request = |name: &str| name.starts_with("request_");
    let requests = one_of(&asyncapi, is_request);
    let taken = cases("bad_request").into_iter().filter(|(_, json)| requests.is_valid(json));
    assert_eq!(taken.map(|(name, _)| name).collect::<Vec<_>>(), UNSAID);
    let publish = by_reference(&asyncapi, "schemas/Publish");
    for (name, json) in cases("bad_publish") {
        assert!(!publish.is_valid(&json), "{name}");
    }
    let answers = one_of(&asyncapi, |name| !is_request(name));
    for (name, json) in cases("bad_server_message") {
        assert!(!answers.is_valid(&json), "{name}");
    }
}
