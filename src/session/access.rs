//! Revocations and API keys, for the admin; tickets, for everybody who came with a token.

use std::sync::Arc;

use serde_json::Value;
use tidings_proto::{
    Code, Timestamp, WireError,
    control::{ApiKey, AuthChange},
};

use super::{Session, error::of_access, internal, millis};
use crate::{
    auth::{
        ANONYMOUS, JTI_BYTES_MAX, NewApiKey, SUBJECT_BYTES_MAX, TICKET_LIFE, grants_problem,
        is_name, is_subject,
    },
    clock,
};

/// A revocation is remembered for so long beyond the end that was given: clocks differ, and a token that is let in late
/// holds a little longer.
const AFTER_END_MS: u64 = 120_000;
/// The most bytes a name of an API key may have.
const NAME_BYTES_MAX: usize = 100;
/// The most bytes the grants of an API key may have.
const GRANTS_BYTES_MAX: usize = 8192;

/// What is to be revoked: a token by its `jti`, or what a subject was given before a moment.
#[derive(Clone, Debug, Default)]
pub struct RevocationWish {
    /// The id of a token.
    pub jti: Option<String>,
    /// A subject.
    pub subject: Option<String>,
    /// With a subject: what it was given before this; else: until now.
    pub before: Option<Timestamp>,
    /// When the last of these tokens ends by itself.
    pub until: Option<Timestamp>,
}

/// The API key that is to be made.
#[derive(Clone, Debug, Default)]
pub struct KeyWish {
    /// What it is for.
    pub name: String,
    /// Who comes with it; else the name.
    pub subject: Option<String>,
    /// What they may do.
    pub grants: Value,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

/// A ticket.
pub struct TicketGiven {
    /// It.
    pub ticket: zeroize::Zeroizing<String>,
    /// For how long it holds, in milliseconds.
    pub expires_in_ms: u64,
}

impl Session {
    /// Revokes. It is in force, and will be after a crash, when this comes back.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn revoke(&self, wish: RevocationWish) -> Result<AuthChange, WireError> {
        self.check_admin("revoking a token")?;
        let change = revocation(wish, clock::now())?;
        let revoked = self.broker().change_access(change).await;
        let change = revoked.map_err(|error| of_access(&error))?;
        tracing::info!(by = self.identity.subject, about = change.key(), "revoked");
        self.done_as_admin("access.revoked", "about", &change.key()).await;
        Ok(change)
    }

    /// Up to `limit` revocations, after the one with this key.
    ///
    /// # Errors
    /// `permission_denied` for others than the admin.
    pub fn revocations(&self, after: &str, limit: usize) -> Result<Vec<AuthChange>, WireError> {
        self.check_admin("what is revoked")?;
        Ok(self.broker().revocations(after, limit))
    }

    /// Makes an API key; gives it with its secret, which nobody can ask for again.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn make_key(&self, wish: KeyWish) -> Result<(ApiKey, NewApiKey), WireError> {
        self.check_admin("making an API key")?;
        let new = NewApiKey::make();
        let key = key_of(wish, &new, clock::now())?;
        let made = self.broker().change_access(AuthChange::KeyMade(Box::new(key))).await;
        match made.map_err(|error| of_access(&error))? {
            AuthChange::KeyMade(key) => {
                tracing::info!(by = self.identity.subject, id = key.id, "an API key was made");
                self.done_as_admin("key.made", "id", &key.id).await;
                Ok((*key, new))
            }
            _ => Err(internal("an API key became something else")),
        }
    }

    /// Up to `limit` API keys, after the one with this id.
    ///
    /// # Errors
    /// `permission_denied` for others than the admin.
    pub fn keys(&self, after: &str, limit: usize) -> Result<Vec<ApiKey>, WireError> {
        self.check_admin("a list of API keys")?;
        Ok(self.broker().api_keys(after, limit))
    }

    /// Revokes an API key.
    ///
    /// # Errors
    /// `not_found` where there is none of this id.
    pub async fn revoke_key(&self, id: &str) -> Result<(), WireError> {
        self.check_admin("revoking an API key")?;
        if self.broker().api_key(id).is_none() {
            let text = format!("id: there is no API key {}", super::shown(id));
            return Err(WireError::new(Code::NotFound, text));
        }
        let revoked = self.broker().change_access(AuthChange::KeyRevoked { id: id.to_owned() });
        revoked.await.map_err(|error| of_access(&error))?;
        tracing::info!(by = self.identity.subject, id, "an API key was revoked");
        self.done_as_admin("key.revoked", "id", id).await;
        Ok(())
    }

    /// A ticket with which a browser comes in as this session's subject.
    ///
    /// # Errors
    /// `permission_denied` for who came without a token: all of them are one subject, and need none.
    /// `rate_limited` when there are as many as there may be.
    pub fn ticket(&self) -> Result<TicketGiven, WireError> {
        self.check_standing()?;
        let stranger = self.house.authenticator.anonymous();
        if stranger.is_some_and(|stranger| Arc::ptr_eq(stranger, &self.identity)) {
            let text = "a ticket stands for a token, and you came without one: come so again";
            return Err(WireError::new(Code::PermissionDenied, text));
        }
        let life_ms = millis(TICKET_LIFE);
        let ticket = self.house.tickets.issue(self.identity.clone()).map_err(|error| {
            WireError::new(Code::RateLimited, error.to_string()).retry_after_ms(life_ms)
        })?;
        Ok(TicketGiven { ticket, expires_in_ms: life_ms })
    }
}

fn revocation(wish: RevocationWish, now: Timestamp) -> Result<AuthChange, WireError> {
    let RevocationWish { jti, subject, before, until } = wish;
    if until.is_some_and(|until| until <= now) {
        return Err(WireError::invalid("until: it has passed: what ends then holds no more"));
    }
    let until = until.map(|until| until.plus_millis(AFTER_END_MS));
    match (jti, subject) {
        (Some(_), None) if before.is_some() => {
            Err(WireError::invalid("before: it belongs to a subject, not to a jti"))
        }
        (Some(jti), None) if is_name(&jti, JTI_BYTES_MAX) => {
            Ok(AuthChange::TokenRevoked { jti, until })
        }
        (Some(_), None) => Err(WireError::invalid(format!(
            "jti: it must have 1 to {JTI_BYTES_MAX} bytes and no control characters"
        ))),
        (None, Some(_)) if before.is_some_and(|before| before > now) => {
            Err(WireError::invalid("before: it lies ahead: revoke what was issued until now"))
        }
        (None, Some(subject)) => {
            check_subject(&subject)?;
            Ok(AuthChange::SubjectRevoked { subject, before: before.unwrap_or(now), until })
        }
        _ => Err(WireError::invalid("jti: give jti (one token) or subject (all of somebody's)")),
    }
}

fn check_subject(subject: &str) -> Result<(), WireError> {
    if is_subject(subject) {
        return Ok(());
    }
    Err(WireError::invalid(format!(
        "subject: it must have 1 to {SUBJECT_BYTES_MAX} bytes, no control characters, and not be \"{ANONYMOUS}\""
    )))
}

fn key_of(wish: KeyWish, new: &NewApiKey, now: Timestamp) -> Result<ApiKey, WireError> {
    let KeyWish { name, subject, grants, expires } = wish;
    if !is_name(&name, NAME_BYTES_MAX) {
        return Err(WireError::invalid(format!(
            "name: it must have 1 to {NAME_BYTES_MAX} bytes and no control characters"
        )));
    }
    let subject = subject.unwrap_or_else(|| name.clone());
    check_subject(&subject)?;
    if grants.to_string().len() > GRANTS_BYTES_MAX {
        let text = format!("grants: at most {GRANTS_BYTES_MAX} bytes are allowed");
        return Err(WireError::new(Code::TooLarge, text));
    }
    if let Some(problem) = grants_problem(&grants, &subject) {
        return Err(WireError::invalid(format!("grants: {problem}")));
    }
    if expires.is_some_and(|expires| expires <= now) {
        return Err(WireError::invalid(
            "expires: it has passed: leave it out, or give a later one",
        ));
    }
    let (id, hash) = (new.id.clone(), new.hash.clone());
    Ok(ApiKey { id, name, subject, hash, grants, made: now, expires })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    #[test]
    fn a_revocation_is_of_a_token_or_of_a_subject() {
        let (jti, subject) = (Some("t".to_owned()), Some("alice".to_owned()));
        let wish = |jti: &Option<String>, subject: &Option<String>, before, until| {
            let (before, until) = (before, until);
            let (jti, subject) = (jti.clone(), subject.clone());
            revocation(RevocationWish { jti, subject, before, until }, at(100))
        };
        let token = wish(&jti, &None, None, Some(at(200))).unwrap();
        let until = Some(at(200).plus_millis(AFTER_END_MS));
        assert_eq!(token, AuthChange::TokenRevoked { jti: "t".to_owned(), until });
        let all = wish(&None, &subject, None, None).unwrap();
        let of = |before| AuthChange::SubjectRevoked {
            subject: "alice".to_owned(),
            before,
            until: None,
        };
        assert_eq!(all, of(at(100)));
        assert_eq!(wish(&None, &subject, Some(at(50)), None).unwrap(), of(at(50)));
        let long = Some("x".repeat(201));
        for (wished, name) in [
            (wish(&None, &None, None, None), "jti: "),
            (wish(&jti, &subject, None, None), "jti: "),
            (wish(&jti, &None, Some(at(1)), None), "before: "),
            (wish(&None, &subject, Some(at(101)), None), "before: "),
            (wish(&jti, &None, None, Some(at(100))), "until: "),
            (wish(&long, &None, None, None), "jti: "),
            (wish(&Some(String::new()), &None, None, None), "jti: "),
            (wish(&None, &long, None, None), "subject: "),
        ] {
            let error = wished.unwrap_err();
            assert!(error.message.starts_with(name), "{name} {}", error.message);
        }
    }

    #[test]
    fn a_key_is_made_of_what_holds() {
        let new = NewApiKey::make();
        let good = KeyWish {
            name: "ci".to_owned(),
            grants: json!({"publish": ["builds.{sub}.>"]}),
            ..KeyWish::default()
        };
        let key = key_of(good.clone(), &new, at(100)).unwrap();
        assert_eq!((key.subject.as_str(), &key.id, key.made), ("ci", &new.id, at(100)));
        assert!(!serde_json::to_string(&key).unwrap().contains(&**new.text));
        let many = vec!["x"; 5000];
        for (wish, name) in [
            (KeyWish { name: String::new(), ..good.clone() }, "name: "),
            (KeyWish { subject: Some("a\nb".to_owned()), ..good.clone() }, "subject: "),
            (KeyWish { grants: json!([]), ..good.clone() }, "grants: "),
            (KeyWish { grants: json!({"publish": ["a..b"]}), ..good.clone() }, "grants: "),
            (KeyWish { grants: json!({ "publish": many }), ..good.clone() }, "grants: "),
            (KeyWish { expires: Some(at(100)), ..good }, "expires: "),
        ] {
            let error = key_of(wish, &new, at(100)).unwrap_err();
            assert!(error.message.starts_with(name), "{name} {}", error.message);
        }
    }
}
