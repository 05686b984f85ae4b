//! What a socket has by number, in the order of the numbers. Mostly it has one: then it takes the memory of one.

/// Values by number.
#[derive(Debug)]
pub(super) struct Numbered<T>(Vec<(u32, T)>);

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered(Vec::new())
    }
}

impl<T> Numbered<T> {
    fn place(&self, number: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&number, |(number, _)| *number)
    }

    /// Puts a value in; the one that had the number goes.
    pub(super) fn insert(&mut self, number: u32, value: T) {
        if self.0.is_empty() {
            // Not more than there are: room for four is what a vector would begin with.
            self.0.reserve_exact(1);
        }
        match self.place(number) {
            Ok(at) => {
                if let Some(slot) = self.0.get_mut(at) {
                    slot.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (number, value)),
        }
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let at = self.place(number).ok()?;
        let (_, value) = self.0.remove(at);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(value)
    }

    /// The one with this number.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.place(number).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.place(number).ok().and_then(|at| self.0.get_mut(at)).map(|(_, value)| value)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.0.iter().map(|(number, value)| (*number, value))
    }

    /// All of them, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_numbers() {
        let mut numbered = Numbered::default();
        for (number, value) in [(2, 'b'), (1, 'x'), (3, 'c'), (1, 'a')] {
            numbered.insert(number, value);
        }
        assert_eq!(
            [1, 2, 3, 4].map(|number| numbered.get(number).copied()),
            [Some('a'), Some('b'), Some('c'), None]
        );
        assert_eq!((numbered.remove(2), numbered.remove(2)), (Some('b'), None));
        numbered.values_mut().for_each(|value| *value = value.to_ascii_uppercase());
        assert_eq!(numbered.get(1), Some(&'A'));
        assert_eq!(numbered.get_mut(3), Some(&mut 'C'));
    }

    #[test]
    fn one_takes_the_room_of_one_and_none_takes_none() {
        let mut numbered = Numbered::default();
        numbered.insert(7, 1_u64);
        assert_eq!(numbered.0.capacity(), 1);
        assert_eq!(numbered.remove(7), Some(1));
        assert_eq!(numbered.0.capacity(), 0);
    }
}
