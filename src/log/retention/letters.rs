//! Letters about the events of a topic that was erased: they have ids, and the reasons of nacks.

use tidings_proto::{
    Cursor, Topic,
    control::{DEAD_ROOT, DeadLetter},
};
use tidings_storage::{Fate, Seen};

use super::{Keeper, Needs, Removed};
use crate::log::{StorageError, codec};

/// What was erased: the events of a topic up to an offset.
struct Erased<'a> {
    topic: &'a Topic,
    upto: Cursor,
}

impl Erased<'_> {
    /// The letter, where it is about one of them.
    fn letter(&self, seen: &Seen<'_>) -> Option<DeadLetter> {
        if !is_of_letters(seen.topic) {
            return None;
        }
        let letter: DeadLetter = serde_json::from_slice(codec::data_of(seen.body)?).ok()?;
        let is_its = letter.topic.as_deref() == Some(self.topic.as_str());
        (is_its && letter.offset <= self.upto.get()).then_some(letter)
    }
}

fn is_of_letters(topic: &str) -> bool {
    topic.split('.').next() == Some(DEAD_ROOT)
}

/// Letters about what was erased, in sealed segments.
#[derive(Debug, Default)]
pub struct Letters {
    /// Those of events that are still dead.
    pub dead: Vec<DeadLetter>,
    /// The segments that have some, of the dead and of others.
    segments: Vec<u64>,
}

impl Keeper {
    /// The letters in sealed segments about events of this topic up to an offset.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`]; what is damaged is passed over.
    pub fn letters_about(
        &self,
        topic: &Topic,
        upto: Cursor,
        needs: &dyn Needs,
    ) -> Result<Letters, StorageError> {
        let erased = Erased { topic, upto };
        let mut letters = Letters::default();
        let trimmer = self.log.trimmer();
        for base in trimmer.sealed().into_iter().map(|sealed| sealed.base) {
            if !trimmer.topics(base)?.iter().any(|(name, _)| is_of_letters(name.as_str())) {
                continue;
            }
            let mut has_some = false;
            let visited = trimmer.visit(base, &mut |seen| {
                let letter = erased.letter(seen);
                has_some |= letter.is_some();
                letters.dead.extend(letter.filter(|letter| needs.is_dead(letter)));
                true
            });
            match visited {
                Err(error @ StorageError::Corrupt { .. }) => {
                    tracing::warn!(%error, "a damaged segment is not searched for letters to its end");
                }
                visited => visited?,
            }
            if has_some {
                letters.segments.push(base);
            }
        }
        Ok(letters)
    }

    /// Takes these letters out, about events of this topic up to an offset.
    ///
    /// # Errors
    /// As with [`Keeper::erase`].
    pub fn erase_letters(
        &mut self,
        letters: &Letters,
        topic: &Topic,
        upto: Cursor,
    ) -> Result<Removed, StorageError> {
        self.check_stopped()?;
        let erased = Erased { topic, upto };
        let (mut removed, mut damage) = (Removed::default(), None);
        let now_ms = self.now_ms();
        for base in &letters.segments {
            let done = self.log.trimmer().rewrite(*base, now_ms, &mut |seen| {
                // Who reads letters is told that some are gone, as of the events themselves.
                if erased.letter(seen).is_some() { Fate::Erase } else { Fate::Keep }
            });
            match done {
                Ok(done) => removed += done,
                Err(error @ StorageError::Corrupt { .. }) => {
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if removed.events > 0 {
            let sealed = Cursor::new(self.log.trimmer().sealed_end().saturating_sub(1));
            self.log.shared.tail.cut(sealed);
        }
        damage.map_or(Ok(removed), Err)
    }
}
