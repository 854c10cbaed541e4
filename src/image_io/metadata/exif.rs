//! EXIF blocks, as far as the orientation goes: a TIFF header and its first directory.
//!
//! Read as Pillow reads them (TiffImagePlugin.py, ImageFileDirectory_v2): of several entries and of
//! several values the first counts, and an entry of a kind that holds no whole number is there
//! without saying anything. So is a block without a TIFF header: XMP is not asked beside it.

/// What precedes the block in an APP1 segment that holds one.
pub(super) const PREFIX: &[u8] = b"Exif\0\0";

const ORIENTATION: u32 = 0x0112;

const ENTRY_BYTES: usize = 12;

/// The orientation in a block; other numbers than 1 to 8 mean nothing.
pub(super) fn orientation(block: &[u8]) -> Option<u32> {
    let block = block.strip_prefix(PREFIX).unwrap_or(block);
    let block = block.strip_prefix(PREFIX).unwrap_or(block);
    if block.is_empty() {
        return None;
    }
    let Some(tiff) = Tiff::new(block) else {
        return Some(0);
    };
    let start = usize::try_from(tiff.number(4, 4)?).ok()?;
    let count = usize::try_from(tiff.number(start, 2)?).ok()?;
    let entries = (0..count).map(|index| start + 2 + index * ENTRY_BYTES);
    // Where the block ends early, the entries before the end count.
    let mut whole = entries.take_while(|at| tiff.bytes.len() >= at + ENTRY_BYTES);
    whole.find_map(|at| {
        let is_orientation = tiff.number(at, 2) == Some(ORIENTATION);
        is_orientation.then(|| tiff.value(at)).flatten()
    })
}

/// A TIFF file in memory.
struct Tiff<'a> {
    bytes: &'a [u8],
    is_little_endian: bool,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let (magic, _) = bytes.first_chunk::<8>()?.split_at(4);
        let is_little_endian = match magic {
            b"II*\0" | b"II\0*" => true,
            b"MM\0*" | b"MM*\0" => false,
            _ => return None,
        };
        Some(Self {
            bytes,
            is_little_endian,
        })
    }

    /// A number of one, two or four bytes.
    fn number(&self, at: usize, length: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let add = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        Some(if self.is_little_endian {
            bytes.iter().rev().fold(0, add)
        } else {
            bytes.iter().fold(0, add)
        })
    }

    /// The first value of the entry that begins here; nothing where there is none.
    fn value(&self, entry: usize) -> Option<u32> {
        let kind = self.number(entry + 2, 2)?;
        let size = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            _ => return None,
        };
        let total = usize::try_from(self.number(entry + 4, 4)?)
            .ok()?
            .checked_mul(size)?;
        let at = match total {
            0 => return None,
            1..=4 => entry + 8,
            _ => usize::try_from(self.number(entry + 8, 4)?).ok()?,
        };
        self.bytes.get(at..at.checked_add(total)?)?;
        match kind {
            3 | 4 | 6 | 8 | 9 | 13 => self.number(at, size),
            _ => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian block whose entries are of this tag, kind, count and value.
    fn block(entries: &[(u16, u16, u32, u32)]) -> Vec<u8> {
        let mut block = b"II*\0\x08\0\0\0".to_vec();
        block.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
        for (tag, kind, count, value) in entries {
            block.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            block.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
        }
        block.extend([0; 4]);
        block
    }

    #[test]
    fn orientations_are_read_as_pillow_13_reads_them() {
        // Expected values measured with Pillow 13.0.0; 0 stands for an entry without meaning.
        let long = |bytes: &[u8]| orientation(bytes);
        assert_eq!(long(&block(&[(0x0112, 3, 1, 6)])), Some(6));
        assert_eq!(long(&block(&[(0x0112, 4, 1, 8)])), Some(8));
        assert_eq!(long(&block(&[(0x0112, 3, 2, 0x0003_0006)])), Some(6));
        assert_eq!(long(&block(&[(0x0112, 1, 1, 6)])), Some(0));
        assert_eq!(long(&block(&[(0x0112, 3, 1, 9)])), Some(9));
        assert_eq!(long(&block(&[(0x0112, 3, 0, 6)])), None);
        assert_eq!(long(&block(&[(0x0112, 99, 1, 6)])), None);
        assert_eq!(long(&block(&[(0x0113, 3, 1, 6)])), None);
        let two = block(&[(0x0112, 3, 1, 6), (0x0112, 3, 1, 8)]);
        assert_eq!(long(&two), Some(6));
        assert_eq!(long(&two[..30]), Some(6), "cut in the second entry");
        let late = block(&[(0x0112, 3, 0, 6), (0x0112, 8, 1, 3)]);
        assert_eq!(long(&late), Some(3), "the first entry has no value");
        assert_eq!(long(&[PREFIX, PREFIX].concat()), None);
        assert_eq!(long(b"XX*\0\x08\0\0\0"), Some(0));
        assert_eq!(
            long(&[PREFIX, &block(&[(0x0112, 3, 1, 6)])].concat()),
            Some(6)
        );
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x07\0\0\0\0\0\0";
        assert_eq!(long(big), Some(7));
    }

    #[test]
    fn broken_blocks_say_nothing_and_never_panic() {
        let good = block(&[(0x0112, 3, 3, 26)]);
        for end in 0..good.len() {
            orientation(&good[..end]);
        }
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] = 0xff;
            orientation(&changed);
        }
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), None);
    }
}
