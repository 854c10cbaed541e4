//! Segments of a JPEG file and what stands in them.
//!
//! Walks from marker to marker, skipping what lies between as libjpeg does (jdmarker.c), and reads
//! tables, the restart interval, and the two application segments that decide about color. Nothing
//! here allocates more than a table.

use super::error::{Fault, Feature, JpegError};
use super::huffman::{TableClass, TableSpec};
use super::idct::{Block, ZIGZAG};

/// End of image.
pub(super) const EOI: u8 = 0xD9;
/// Start of scan.
pub(super) const SOS: u8 = 0xDA;
/// First restart marker.
pub(super) const RST0: u8 = 0xD0;

/// A marker with the body of its segment; markers without segment have an empty one.
pub(super) struct Segment<'a> {
    /// Second byte of the marker.
    pub(super) code: u8,
    /// What stands behind the length.
    pub(super) body: &'a [u8],
    /// First byte of the file behind the segment.
    pub(super) end: usize,
}

/// Finds the next marker at or behind a position, and its segment.
///
/// # Errors
/// [`JpegError::Truncated`] when the file ends before.
pub(super) fn next_segment(data: &[u8], position: usize) -> Result<Segment<'_>, JpegError> {
    let mut at = position;
    let code = loop {
        let byte = *data.get(at).ok_or(JpegError::Truncated)?;
        let next = *data.get(at + 1).ok_or(JpegError::Truncated)?;
        if byte == 0xFF && next != 0xFF && next != 0 {
            break next;
        }
        at += 1;
    };
    let start = at + 2;
    if matches!(code, 0x01 | RST0..=EOI) {
        return Ok(Segment {
            code,
            body: &[],
            end: start,
        });
    }
    let rest = data.get(start..).unwrap_or_default();
    let (length, body) = rest.split_first_chunk::<2>().ok_or(JpegError::Truncated)?;
    let length = usize::from(u16::from_be_bytes(*length))
        .checked_sub(2)
        .ok_or(Fault::SegmentLength)?;
    let body = body.get(..length).ok_or(JpegError::Truncated)?;
    Ok(Segment {
        code,
        body,
        end: start + 2 + length,
    })
}

/// Everything that segments before a scan may set.
#[derive(Default)]
pub(super) struct Tables {
    /// Quantization tables, row by row.
    pub(super) quantization: [Option<Block>; 4],
    /// Huffman tables of DC coefficients.
    pub(super) dc: [Option<TableSpec>; 4],
    /// Huffman tables of AC coefficients.
    pub(super) ac: [Option<TableSpec>; 4],
    /// MCUs between restart markers; zero for none.
    pub(super) restart_interval: u32,
    /// True when a JFIF segment was seen.
    pub(super) is_jfif: bool,
    /// The color transform that an Adobe segment names.
    pub(super) adobe_transform: Option<u8>,
}

impl Tables {
    /// Takes what a segment sets. Frame and scan headers are the caller's.
    ///
    /// # Errors
    /// [`JpegError`] when the segment is malformed or of a process that is not decoded.
    pub(super) fn read(&mut self, segment: &Segment<'_>) -> Result<(), JpegError> {
        let body = segment.body;
        match segment.code {
            0xC4 => self.read_huffman(body)?,
            0xDB => self.read_quantization(body)?,
            0xDD => match body {
                [high, low] => self.restart_interval = u16::from_be_bytes([*high, *low]).into(),
                _ => return Err(Fault::SegmentLength.into()),
            },
            // Shorter segments of these names are not looked at, as in jdmarker.c.
            0xE0 if body.len() >= 14 && body.starts_with(b"JFIF\0") => self.is_jfif = true,
            0xEE if body.len() >= 12 && body.starts_with(b"Adobe") => {
                self.adobe_transform = body.get(11).copied();
            }
            // Other application segments, comments, a late height, and markers without meaning.
            0xE0..=0xEF | 0xFE | 0xDC | 0x01 | RST0..=0xD7 => {}
            0xC3 => return Err(Feature::Lossless.into()),
            0xC5..=0xC7 | 0xCD..=0xCF | 0xDE | 0xDF => return Err(Feature::Hierarchical.into()),
            0xC9..=0xCC => return Err(Feature::Arithmetic.into()),
            code => return Err(Fault::UnexpectedMarker(code).into()),
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut body: &[u8]) -> Result<(), Fault> {
        while let Some((name, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Fault::SegmentLength)?;
            let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
            if total > 256 {
                return Err(Fault::HuffmanTable);
            }
            let (listed, rest) = rest.split_at_checked(total).ok_or(Fault::HuffmanTable)?;
            let mut symbols = [0; 256];
            for (to, from) in symbols.iter_mut().zip(listed) {
                *to = *from;
            }
            let tables = match name >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(Fault::TableNumber),
            };
            let slot = tables
                .get_mut(usize::from(name & 15))
                .ok_or(Fault::TableNumber)?;
            *slot = Some(TableSpec {
                counts: *counts,
                symbols,
            });
            body = rest;
        }
        Ok(())
    }

    fn read_quantization(&mut self, mut body: &[u8]) -> Result<(), Fault> {
        while let Some((name, rest)) = body.split_first() {
            let bytes = if name >> 4 == 0 { 1 } else { 2 };
            let slot = self
                .quantization
                .get_mut(usize::from(name & 15))
                .ok_or(Fault::TableNumber)?;
            let (listed, rest) = rest
                .split_at_checked(64 * bytes)
                .ok_or(Fault::SegmentLength)?;
            let mut table = [0; 64];
            for (factor, position) in listed.chunks_exact(bytes).zip(ZIGZAG) {
                let value = factor
                    .iter()
                    .fold(0, |value, byte| value << 8 | i32::from(*byte));
                // Factors above 32,767 wrap, as in the 16-bit lanes of libjpeg-turbo.
                table[usize::from(position & 63)] = value as i16;
            }
            *slot = Some(table);
            body = rest;
        }
        Ok(())
    }

    /// Puts the tables of T.81, K.3, where a Motion JPEG frame has none (jdhuff.c).
    pub(super) fn add_standard_huffman_tables(&mut self) {
        for slot in 0..2 {
            for (tables, class) in [
                (&mut self.dc, TableClass::Dc),
                (&mut self.ac, TableClass::Ac),
            ] {
                if let Some(table @ None) = tables.get_mut(slot) {
                    *table = super::huffman::standard_table(class, slot);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_bytes_and_junk_before_a_marker_are_skipped() {
        let data = [0, 7, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xDD, 0, 4, 1, 2, 9];
        let segment = next_segment(&data, 0).unwrap();
        assert_eq!(
            (segment.code, segment.body, segment.end),
            (0xDD, &[1, 2][..], 12)
        );
        assert_eq!(next_segment(&data, 12).err(), Some(JpegError::Truncated));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let short = [0xFF, 0xE0, 0, 1, 0, 0];
        assert_eq!(
            next_segment(&short, 0).err(),
            Some(Fault::SegmentLength.into())
        );
        let long = [0xFF, 0xE0, 0, 9, 0, 0];
        assert_eq!(next_segment(&long, 0).err(), Some(JpegError::Truncated));
        assert_eq!(
            next_segment(&long[..3], 0).err(),
            Some(JpegError::Truncated)
        );
    }

    #[test]
    fn tables_of_impossible_shape_are_refused() {
        let cases: [(u8, Vec<u8>, Fault); 6] = [
            (0xDB, vec![0; 64], Fault::SegmentLength),
            (0xDB, vec![4; 65], Fault::TableNumber),
            (0xC4, vec![0; 16], Fault::SegmentLength),
            (0xC4, [vec![0x24], vec![0; 16]].concat(), Fault::TableNumber),
            (
                0xC4,
                [vec![0, 200], vec![0; 15], vec![0; 40]].concat(),
                Fault::HuffmanTable,
            ),
            (0xDD, vec![1], Fault::SegmentLength),
        ];
        for (code, body, expected) in cases {
            let segment = Segment {
                code,
                body: &body,
                end: 0,
            };
            assert_eq!(
                Tables::default().read(&segment).err(),
                Some(expected.into()),
                "{code:x}"
            );
        }
    }

    #[test]
    fn unsupported_processes_have_names() {
        let cases: [(u8, JpegError); 8] = [
            (0xC3, Feature::Lossless.into()),
            (0xC5, Feature::Hierarchical.into()),
            (0xC9, Feature::Arithmetic.into()),
            (0xCA, Feature::Arithmetic.into()),
            (0xCF, Feature::Hierarchical.into()),
            (0xDE, Feature::Hierarchical.into()),
            (0xC8, Fault::UnexpectedMarker(0xC8).into()),
            (0xF0, Fault::UnexpectedMarker(0xF0).into()),
        ];
        for (code, expected) in cases {
            let segment = Segment {
                code,
                body: &[],
                end: 0,
            };
            assert_eq!(Tables::default().read(&segment).err(), Some(expected));
        }
    }
}
