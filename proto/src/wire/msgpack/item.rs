//! MessagePack value by value, as its specification writes them; nothing is copied, nothing recurses.

/// A value, or the beginning of one that holds others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'a> {
    Nil,
    Bool,
    Integer,
    Float(f64),
    /// UTF-8, if its writer kept to the specification.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// So many values follow.
    List(usize),
    /// So many names and values follow.
    Map(usize),
}

/// Takes what `rest` begins with. Lists and maps have at most as many values as there are bytes left.
///
/// # Errors
/// What is wrong, as a text.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Result<Item<'a>, String> {
    let marker = take_number(rest, 1)?;
    Ok(match marker {
        0x00..=0x7f | 0xe0..=0xff => Item::Integer,
        0x80..=0x8f => Item::Map(held(rest, marker & 0x0f, 2)?),
        0x90..=0x9f => Item::List(held(rest, marker & 0x0f, 1)?),
        0xa0..=0xbf => Item::Text(take_bytes(rest, marker & 0x1f)?),
        0xc0 => Item::Nil,
        0xc2 | 0xc3 => Item::Bool,
        0xc4..=0xc6 => Item::Bytes(take_sized(rest, marker - 0xc4)?),
        0xca => {
            let [a, b, c, d] = take_array(rest)?;
            Item::Float(f32::from_be_bytes([a, b, c, d]).into())
        }
        0xcb => Item::Float(f64::from_be_bytes(take_array(rest)?)),
        0xcc..=0xcf => integer(rest, marker - 0xcc)?,
        0xd0..=0xd3 => integer(rest, marker - 0xd0)?,
        0xd9..=0xdb => Item::Text(take_sized(rest, marker - 0xd9)?),
        0xdc | 0xdd => {
            let len = take_number(rest, 2 << (marker - 0xdc))?;
            Item::List(held(rest, len, 1)?)
        }
        0xde | 0xdf => {
            let len = take_number(rest, 2 << (marker - 0xde))?;
            Item::Map(held(rest, len, 2)?)
        }
        0xc7..=0xc9 | 0xd4..=0xd8 => {
            return Err("is of an extension type: give a value of MessagePack's own".to_owned());
        }
        _ => return Err(format!("is not MessagePack: no value begins with {marker:#04x}")),
    })
}

/// Takes a whole value with all that it holds, and gives its bytes.
///
/// # Errors
/// As [`take`].
pub(super) fn take_value<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let whole = *rest;
    let mut left = 1_usize;
    while left > 0 {
        let held = match take(rest)? {
            Item::List(len) => len,
            Item::Map(len) => 2 * len,
            _ => 0,
        };
        left = (left - 1).saturating_add(held);
    }
    Ok(whole.get(..whole.len() - rest.len()).unwrap_or_default())
}

/// An integer of 1, 2, 4 or 8 bytes, which are 2 to the power of `size`.
fn integer<'a>(rest: &mut &'a [u8], size: u64) -> Result<Item<'a>, String> {
    take_bytes(rest, 1 << size).map(|_| Item::Integer)
}

/// Bytes behind their number, which has 1, 2 or 4 bytes, 2 to the power of `size`.
fn take_sized<'a>(rest: &mut &'a [u8], size: u64) -> Result<&'a [u8], String> {
    let len = take_number(rest, 1 << size)?;
    take_bytes(rest, len)
}

fn take_bytes<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], String> {
    let at = usize::try_from(len).unwrap_or(usize::MAX);
    let (taken, behind) = rest
        .split_at_checked(at)
        .ok_or_else(|| format!("says it has {len} bytes, but {} are left", rest.len()))?;
    *rest = behind;
    Ok(taken)
}

/// A number of so many bytes, eight at most, the highest first.
fn take_number(rest: &mut &[u8], bytes: u64) -> Result<u64, String> {
    let digits = take_bytes(rest, bytes).map_err(|_| "is not MessagePack: it ends too early")?;
    Ok(digits.iter().fold(0, |number, &digit| number << 8 | u64::from(digit)))
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, behind) =
        rest.split_first_chunk().ok_or("is not MessagePack: it ends too early")?;
    *rest = behind;
    Ok(*taken)
}

/// How many values a list or map has, each of `bytes_min` bytes at least.
fn held(rest: &[u8], len: u64, bytes_min: usize) -> Result<usize, String> {
    match usize::try_from(len) {
        Ok(n) if n <= rest.len() / bytes_min => Ok(n),
        _ => Err(format!("says it has {len} entries, but {} bytes are left", rest.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_is_what_the_specification_says() {
        let long = [&[0, 0, 0, 3][..], &[0; 40]].concat();
        for first in 0..=0xff_u8 {
            let bytes = [&[first][..], &long].concat();
            let mut rest = &bytes[..];
            let item = take(&mut rest);
            let taken = bytes.len() - rest.len();
            let want = match first {
                0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 | 0x80..=0x9f => 1,
                0xa0..=0xbf => 1 + usize::from(first & 0x1f),
                // A length of zero.
                0xc4 | 0xd9 => 2,
                0xc5 | 0xda | 0xdc | 0xde => 3,
                0xc6 | 0xdb => 5 + 3,
                0xdd | 0xdf | 0xca | 0xce | 0xd2 => 5,
                0xcb | 0xcf | 0xd3 => 9,
                0xcc | 0xd0 => 2,
                0xcd | 0xd1 => 3,
                0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => {
                    assert!(item.is_err(), "{first:#x}");
                    continue;
                }
            };
            assert!(item.is_ok(), "{first:#x}: {item:?}");
            assert_eq!(taken, want, "{first:#x}");
        }
    }

    #[test]
    fn a_value_is_taken_with_all_it_holds() {
        let bytes = [0x82, 0xa1, b'a', 0x92, 0x81, 0xa1, b'b', 0xc4, 1, 7, 0xc0, 0xa0, 0x90, 9];
        let mut rest = &bytes[..];
        assert_eq!(take_value(&mut rest).unwrap(), &bytes[..13]);
        assert_eq!(rest, [9]);
        let deep = [0x91].repeat(1 << 20);
        assert!(take_value(&mut &deep[..]).is_err());
    }
}
