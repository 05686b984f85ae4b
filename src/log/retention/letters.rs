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

impl Keeper {
    /// The letters in sealed segments about events of this topic up to an offset, of those that are still dead.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`]; what is damaged is passed over.
    pub fn letters_about(
        &self,
        topic: &Topic,
        upto: Cursor,
        needs: &dyn Needs,
    ) -> Result<Vec<DeadLetter>, StorageError> {
        let erased = Erased { topic, upto };
        let mut letters = Vec::new();
        for base in self.segments_with_letters()? {
            let visited = self.log.trimmer().visit(base, &mut |seen| {
                letters.extend(erased.letter(seen).filter(|letter| needs.is_dead(letter)));
                true
            });
            match visited {
                Err(error @ StorageError::Corrupt { .. }) => {
                    tracing::warn!(%error, "a damaged segment is not searched for letters");
                }
                visited => visited?,
            }
        }
        Ok(letters)
    }

    /// Takes all letters about events of this topic up to an offset out of the sealed segments.
    ///
    /// # Errors
    /// As with [`Keeper::erase`].
    pub fn erase_letters(&mut self, topic: &Topic, upto: Cursor) -> Result<Removed, StorageError> {
        self.check_stopped()?;
        let erased = Erased { topic, upto };
        let (mut removed, mut damage) = (Removed::default(), None);
        let now_ms = self.now_ms();
        for base in self.segments_with_letters()? {
            let done = self.log.trimmer().rewrite(base, now_ms, &mut |seen| {
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

    fn segments_with_letters(&self) -> Result<Vec<u64>, StorageError> {
        let trimmer = self.log.trimmer();
        let mut found = Vec::new();
        for sealed in trimmer.sealed() {
            if trimmer.topics(sealed.base)?.iter().any(|(name, _)| is_of_letters(name.as_str())) {
                found.push(sealed.base);
            }
        }
        Ok(found)
    }
}
