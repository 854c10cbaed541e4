//! Huffman tables: from the lengths in the file to tables that answer ten bits at once.
//!
//! An entry of the fast table holds, where code and value together fit in ten bits, the value
//! itself; most coefficients of a photograph cost one lookup that way. Longer codes are found by
//! comparing sixteen bits with the largest code of each length (T.81, F.2.2.3).

use super::bits::BitReader;
use super::error::Fault;

/// Bits that the fast table answers.
const FAST_BITS: u32 = 10;

/// Marks an entry that holds a decoded value beside its run.
pub(super) const HAS_VALUE: u32 = 1 << 5;

/// A table as it stands in the file.
#[derive(Clone)]
pub(super) struct TableSpec {
    /// Number of codes of each length; the first is of length 1.
    pub(super) counts: [u8; 16],
    /// Symbols in the order of their codes; unused ones are zero.
    pub(super) symbols: [u8; 256],
}

/// The purpose of a table: symbols of DC tables are bounded more tightly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TableClass {
    /// Differences between DC coefficients.
    Dc,
    /// AC coefficients.
    Ac,
    /// Refinement of those: symbols are wanted bare, without the value behind them.
    AcRefinement,
}

/// A table that decodes.
pub(super) struct HuffmanTable {
    /// By the next ten bits: bits to consume (0 to 4), [`HAS_VALUE`] (5), symbol or run (8 to 15),
    /// value (16 to 31). Zero for codes of more than ten bits.
    fast: [u32; 1 << FAST_BITS],
    /// By length: the first sixteen-bit number above all codes of that length and shorter ones.
    limits: [u32; 17],
    /// By length: what is added to a code to find its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl HuffmanTable {
    /// Builds the table.
    ///
    /// # Errors
    /// [`Fault::HuffmanTable`] when the lengths make no prefix code, a code is all ones, or a
    /// symbol is out of range; the same cases that libjpeg refuses (jdhuff.c).
    pub(super) fn new(spec: &TableSpec, class: TableClass) -> Result<Box<Self>, Fault> {
        let mut table = Box::new(Self {
            fast: [0; 1 << FAST_BITS],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: spec.symbols,
        });
        let mut code = 0_u32;
        let mut index = 0_usize;
        for length in 1..=16_u32 {
            let count = spec.counts.get(length as usize - 1).copied().unwrap_or(0);
            let first = code;
            for _ in 0..count {
                let symbol = *spec.symbols.get(index).ok_or(Fault::HuffmanTable)?;
                if class == TableClass::Dc && symbol > 15 {
                    return Err(Fault::HuffmanTable);
                }
                table.add_fast(code, length, symbol, class);
                code += 1;
                index += 1;
            }
            // Each code must leave the one of all ones free.
            if count > 0 && code >= 1 << length {
                return Err(Fault::HuffmanTable);
            }
            let slot = length as usize;
            table.offsets[slot] = index as i32 - i32::from(count) - first as i32;
            table.limits[slot] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// Enters a code under every ten bits that begin with it.
    fn add_fast(&mut self, code: u32, length: u32, symbol: u8, class: TableClass) {
        if length > FAST_BITS {
            return;
        }
        let free = FAST_BITS - length;
        let size = match class {
            TableClass::Dc => u32::from(symbol),
            TableClass::Ac | TableClass::AcRefinement => u32::from(symbol & 15),
        };
        let has_value = match class {
            TableClass::Dc => size <= free,
            TableClass::Ac => size > 0 && size <= free,
            TableClass::AcRefinement => false,
        };
        for rest in 0..1_u32 << free {
            let entry = if has_value {
                let raw = (rest >> (free - size)) as i32;
                let is_negative = size > 0 && raw >> (size - 1) == 0;
                let value = if is_negative {
                    raw + 1 - (1 << size)
                } else {
                    raw
                };
                // Symbols of DC tables are at most 15, so this is zero for them.
                let run = u32::from(symbol >> 4);
                (value as u32) << 16 | run << 8 | HAS_VALUE | (length + size)
            } else {
                u32::from(symbol) << 8 | length
            };
            let index = (code << free | rest) as usize;
            if let Some(place) = self.fast.get_mut(index) {
                *place = entry;
            }
        }
    }

    /// The entry for the next bits. The reader was refilled.
    #[inline(always)]
    pub(super) fn fast_entry(&self, reader: &BitReader<'_>) -> u32 {
        self.fast[reader.peek::<FAST_BITS>()]
    }

    /// Takes the symbol behind an entry without value.
    #[inline(always)]
    pub(super) fn symbol_of(&self, entry: u32, reader: &mut BitReader<'_>) -> Result<u8, Fault> {
        if entry != 0 {
            reader.consume(entry & 31);
            return Ok((entry >> 8) as u8);
        }
        let (symbol, length) = self
            .long_code(reader.peek::<16>() as u32)
            .ok_or(Fault::HuffmanCode)?;
        reader.consume(length);
        Ok(symbol)
    }

    /// The symbol at the head of sixteen bits, and the length of its code.
    #[inline(never)]
    fn long_code(&self, next: u32) -> Option<(u8, u32)> {
        for length in FAST_BITS + 1..=16 {
            let slot = length as usize;
            if next < self.limits[slot] {
                let index = (next >> (16 - length)) as i32 + self.offsets[slot];
                return Some((self.symbols[index as usize & 255], length));
            }
        }
        None
    }
}

/// The tables that T.81 gives in K.3, which Motion JPEG leaves out of its frames.
///
/// Slots 0 are for luminance, slots 1 for chrominance.
pub(super) fn standard_table(class: TableClass, slot: usize) -> Option<TableSpec> {
    let (counts, symbols): ([u8; 16], &[u8]) = match (class, slot) {
        (TableClass::Dc, 0) => (
            [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
            &DC_SYMBOLS,
        ),
        (TableClass::Dc, 1) => (
            [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
            &DC_SYMBOLS,
        ),
        (TableClass::Ac, 0) => (
            [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D],
            &AC_LUMINANCE_SYMBOLS,
        ),
        (TableClass::Ac, 1) => (
            [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
            &AC_CHROMINANCE_SYMBOLS,
        ),
        _ => return None,
    };
    let mut spec = TableSpec {
        counts,
        symbols: [0; 256],
    };
    for (to, from) in spec.symbols.iter_mut().zip(symbols) {
        *to = *from;
    }
    Some(spec)
}

/// Tables K.3 and K.4.
const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Table K.5.
const AC_LUMINANCE_SYMBOLS: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2A, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7,
    0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4, 0xC5,
    0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
    0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
    0xF9, 0xFA,
];

/// Table K.6.
const AC_CHROMINANCE_SYMBOLS: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0,
    0x15, 0x62, 0x72, 0xD1, 0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26,
    0x27, 0x28, 0x29, 0x2A, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5,
    0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
    0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
    0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
    0xF9, 0xFA,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(counts: &[u8], symbols: &[u8]) -> TableSpec {
        let mut spec = TableSpec {
            counts: [0; 16],
            symbols: [0; 256],
        };
        spec.counts[..counts.len()].copy_from_slice(counts);
        spec.symbols[..symbols.len()].copy_from_slice(symbols);
        spec
    }

    #[test]
    fn malformed_code_lengths_are_refused() {
        for counts in [&[2_u8][..], &[1, 2], &[0, 4], &[255, 255], &[0, 0, 9]] {
            let result = HuffmanTable::new(&spec(counts, &[0; 20]), TableClass::Ac);
            assert_eq!(result.err(), Some(Fault::HuffmanTable), "{counts:?}");
        }
        let too_large = spec(&[1], &[16]);
        assert!(HuffmanTable::new(&too_large, TableClass::Dc).is_err());
        assert!(HuffmanTable::new(&too_large, TableClass::Ac).is_ok());
    }

    #[test]
    fn standard_tables_decode_every_symbol_by_its_code() {
        for (class, slot) in [
            (TableClass::Dc, 0),
            (TableClass::Dc, 1),
            (TableClass::AcRefinement, 0),
            (TableClass::AcRefinement, 1),
        ] {
            let named = if class == TableClass::Dc {
                class
            } else {
                TableClass::Ac
            };
            let spec = standard_table(named, slot).unwrap();
            let table = HuffmanTable::new(&spec, class).unwrap();
            let (mut code, mut index) = (0_u32, 0);
            for length in 1..=16 {
                for _ in 0..spec.counts[length - 1] {
                    // The code, then ones.
                    let bits = (code << (32 - length)) | (u32::MAX >> length);
                    let mut data = Vec::new();
                    for byte in bits.to_be_bytes() {
                        data.push(byte);
                        if byte == 0xFF {
                            data.push(0);
                        }
                    }
                    let mut reader = BitReader::new(&data, 0);
                    reader.refill();
                    let entry = table.fast_entry(&reader);
                    let expected = spec.symbols[index];
                    if entry & HAS_VALUE != 0 {
                        assert_eq!(
                            i32::from(expected),
                            32 - ((entry >> 16) as i32 + 1).leading_zeros() as i32 - 1
                        );
                    } else {
                        assert_eq!(table.symbol_of(entry, &mut reader), Ok(expected));
                    }
                    code += 1;
                    index += 1;
                }
                code <<= 1;
            }
        }
    }
}
