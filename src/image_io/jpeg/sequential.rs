//! Blocks of the baseline and the extended sequential process (T.81, F.2).
//!
//! One call decodes one block, whole. Damaged data is an error here even where libjpeg decodes on
//! without a word: a run of zeros past the end of a block is never the work of an encoder.

use super::bits::BitReader;
use super::error::Fault;
use super::huffman::{HAS_VALUE, HuffmanTable};
use super::idct::{Block, Extent, ZIGZAG};

/// Decodes a block into one that is all zeros; returns where its coefficients lie.
///
/// `prediction` is the DC coefficient of the block before, of the same component.
#[inline(always)]
pub(super) fn decode_block(
    reader: &mut BitReader<'_>,
    (dc, ac): (&HuffmanTable, &HuffmanTable),
    prediction: &mut i32,
    block: &mut Block,
) -> Result<Extent, Fault> {
    *prediction = prediction.wrapping_add(dc_difference(reader, dc)?);
    // Larger numbers than 16 bits come from damaged files alone; libjpeg keeps the low bits.
    block[0] = *prediction as i16;
    let mut next = 1_usize;
    while next < 64 {
        reader.refill();
        let entry = ac.fast_entry(reader);
        if entry & HAS_VALUE != 0 {
            reader.consume(entry & 31);
            next += (entry >> 8 & 15) as usize;
            block[usize::from(ZIGZAG[next & 127] & 63)] = (entry >> 16) as i16;
            next += 1;
            continue;
        }
        let symbol = ac.symbol_of(entry, reader)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size != 0 {
            next += run;
            block[usize::from(ZIGZAG[next & 127] & 63)] = reader.take_signed(size) as i16;
            next += 1;
        } else if run == 15 {
            next += 16;
        } else {
            break;
        }
    }
    if next > 64 {
        return Err(Fault::BlockOverrun);
    }
    Ok(Extent::of_first(next))
}

/// The difference of a DC coefficient to that of the block before.
#[inline(always)]
pub(super) fn dc_difference(reader: &mut BitReader<'_>, dc: &HuffmanTable) -> Result<i32, Fault> {
    reader.refill();
    let entry = dc.fast_entry(reader);
    if entry & HAS_VALUE != 0 {
        reader.consume(entry & 31);
        return Ok(i32::from((entry >> 16) as i16));
    }
    let size = u32::from(dc.symbol_of(entry, reader)?);
    if size == 0 {
        return Ok(0);
    }
    Ok(reader.take_signed(size))
}
