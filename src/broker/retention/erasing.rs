//! Erasure: every event of a topic up to a place, and what letters of the dead say of it.
//!
//! - First the events go, then the letters: from there on none is written that has anything of them.
//! - A durable forgets the dead first whose letters go, so that after a crash there is no count without letters.

use std::sync::Arc;

use tidings_proto::{
    Cursor, Filter, Topic,
    control::{DEAD_ROOT, DeadLetter, SCHEDULED_TOPIC},
};

use super::{
    super::{Broker, Durable, error::AppendError},
    OfLedger, RetentionError,
};
use crate::log::retention::Removed;

impl Broker {
    /// Carries an erasure out; the caller has its turn.
    pub(super) async fn erase_now(
        &self,
        topic: &Topic,
        upto: Cursor,
    ) -> Result<Removed, RetentionError> {
        // On a full disk this makes the room that sealing the rest needs.
        let mut removed = self.erase_sealed(topic, upto).await?;
        let is_left = || {
            let info = self.log.topic(topic.as_str());
            info.is_some_and(|info| upto.covers(info.first))
        };
        // Once also where the catalog has none: what was scheduled for it is not in there.
        let mut is_first = self.log.topic(SCHEDULED_TOPIC).is_some();
        while std::mem::take(&mut is_first) || is_left() {
            self.seal_upto(upto).await?;
            let done = self.erase_sealed(topic, upto).await?;
            removed += done;
            if done.events == 0 && is_left() {
                tracing::error!(%topic, "the catalog has events of a topic that no segment has");
                break;
            }
        }
        removed += self.erase_letters(topic, upto).await?;
        self.controls.forget_erased(topic, upto);
        Ok(removed)
    }

    /// The same in what is sealed already.
    async fn erase_sealed(&self, topic: &Topic, upto: Cursor) -> Result<Removed, RetentionError> {
        let of = topic.clone();
        let (controls, stop) = (self.controls.clone(), self.stop.clone());
        let erasing = self.with_keeper(move |keeper| {
            keeper.erase(&of, upto, &OfLedger { controls: &controls, stop: &stop })
        });
        erasing.await
    }

    /// Waits until everything up to there is in sealed segments that can be worked on.
    async fn seal_upto(&self, upto: Cursor) -> Result<(), RetentionError> {
        let mut kept = self.log.kept();
        loop {
            kept.borrow_and_update();
            let trimmer = self.log.trimmer();
            let is_active = trimmer.sealed_end() <= upto.get();
            let is_sealed = trimmer.sealed().len() + 1 >= self.log.segments();
            if !is_active && is_sealed {
                return Ok(());
            }
            if is_active {
                self.log.seal();
            }
            // Its index is written beside the commit path.
            if kept.changed().await.is_err() {
                return Err(RetentionError::Append(AppendError::Closed));
            }
        }
    }

    /// The same with the letters about its events, which are gone themselves.
    async fn erase_letters(&self, topic: &Topic, upto: Cursor) -> Result<Removed, RetentionError> {
        self.look_up_the_dying_again().await?;
        let letters = Filter::parse(&format!("{DEAD_ROOT}.>")).ok();
        let last = letters.map(|letters| self.log.topics(&letters, None, usize::MAX));
        let last = last.into_iter().flatten().map(|info| info.last).max();
        let Some(last) = last else { return Ok(Removed::default()) };
        self.seal_upto(last.cursor()).await?;
        let of = topic.clone();
        let (controls, stop) = (self.controls.clone(), self.stop.clone());
        let reading = self.with_keeper(move |keeper| {
            keeper.letters_about(&of, upto, &OfLedger { controls: &controls, stop: &stop })
        });
        let letters = reading.await?;
        self.forget_dead(&letters.dead).await?;
        let of = topic.clone();
        self.with_keeper(move |keeper| keeper.erase_letters(&letters, &of, upto)).await
    }

    /// What was looked up of those that are dying is of before the erasure. Comes back when no letter with it is on its way.
    async fn look_up_the_dying_again(&self) -> Result<(), RetentionError> {
        let in_use: Vec<Arc<Durable>> = self.durables.lock().values().cloned().collect();
        for durable in in_use {
            let has_dying = {
                let mut held = durable.lock();
                held.state.look_up_again();
                held.state.has_dying()
            };
            if has_dying {
                self.graves.tell(&durable.spec.name);
                // Where it was deleted meanwhile, it writes none.
                if let Ok(ticket) = self.submit(&durable) {
                    ticket.await?;
                }
            }
        }
        Ok(())
    }

    /// Durables forget these dead, for good when this comes back.
    async fn forget_dead(&self, letters: &[DeadLetter]) -> Result<(), RetentionError> {
        let mut tickets = Vec::new();
        for letters in letters.chunk_by(|one, next| one.durable == next.durable) {
            let Some(first) = letters.first() else { continue };
            let Ok(durable) = self.take_into_use(&first.durable) else { continue };
            {
                let mut held = durable.lock();
                for letter in letters.iter().filter(|it| it.life == durable.spec.number) {
                    held.state.forget_dead(letter.offset, letter.letter);
                }
            }
            tickets.extend(self.submit(&durable).ok());
        }
        for ticket in tickets {
            ticket.await?;
        }
        Ok(())
    }
}
