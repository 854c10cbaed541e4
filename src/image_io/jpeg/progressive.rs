//! Blocks of the progressive process (T.81, G.2), and which bits of them are known.
//!
//! A progressive file sends bands of coefficients, and of these first the high bits, then one bit
//! more with each refinement. The order is checked before each scan; what libjpeg merely warns of
//! (jdphuff.c) is an error here. The check also bounds the work: no bit is sent twice.

use super::bits::BitReader;
use super::error::Fault;
use super::frame::Frame;
use super::huffman::{HAS_VALUE, HuffmanTable};
use super::idct::{Block, ZIGZAG};
use super::scan::Scan;
use super::sequential::dc_difference;

/// Marks a coefficient of which nothing was sent.
const UNKNOWN: i8 = -1;

/// Coefficients by which libjpeg decides about smoothing (jdcoefct.c, SAVED_COEFS).
const SMOOTHED: std::ops::Range<usize> = 1..10;

/// By component and coefficient, in the order of the file: the lowest bit that is known.
pub(super) struct Progress {
    known: Vec<[i8; 64]>,
}

impl Progress {
    pub(super) fn new(frame: &Frame) -> Self {
        Self {
            known: vec![[UNKNOWN; 64]; frame.components.len()],
        }
    }

    /// Checks that a scan may follow those before it, and notes what it brings.
    ///
    /// # Errors
    /// [`Fault::Progression`].
    pub(super) fn begin(&mut self, scan: &Scan) -> Result<(), Fault> {
        let is_dc = scan.start == 0;
        let is_band = if is_dc {
            scan.end == 0
        } else {
            scan.start <= scan.end && scan.end < 64 && scan.components.len() == 1
        };
        let is_next_bit = scan.high == 0 || scan.high == scan.low + 1;
        if !is_band || !is_next_bit || scan.low > 13 {
            return Err(Fault::Progression);
        }
        for part in &scan.components {
            let known = self
                .known
                .get_mut(part.index)
                .ok_or(Fault::ScanComponents)?;
            if !is_dc && known[0] == UNKNOWN {
                return Err(Fault::Progression);
            }
            for bit in known.iter_mut().take(scan.end + 1).skip(scan.start) {
                let is_first = *bit == UNKNOWN && scan.high == 0;
                let is_refinement = scan.high > 0 && *bit == scan.high as i8;
                if !is_first && !is_refinement {
                    return Err(Fault::Progression);
                }
                *bit = scan.low as i8;
            }
        }
        Ok(())
    }

    /// Checks that the picture can be put out as it is.
    ///
    /// Where low coefficients are not known to their last bit, libjpeg smooths the picture by
    /// guesses at them; such files are refused, because they were cut.
    ///
    /// # Errors
    /// [`Fault::ComponentMissing`], [`Fault::UnfinishedProgression`].
    pub(super) fn finish(&self) -> Result<(), Fault> {
        if self.known.iter().any(|known| known[0] == UNKNOWN) {
            return Err(Fault::ComponentMissing);
        }
        let is_exact = |known: &[i8; 64]| known[SMOOTHED].iter().all(|bit| *bit == 0);
        if !self.known.iter().all(is_exact) {
            return Err(Fault::UnfinishedProgression);
        }
        Ok(())
    }
}

/// The first scan of a DC coefficient: all its bits from `low` on.
#[inline(always)]
pub(super) fn first_dc(
    reader: &mut BitReader<'_>,
    dc: &HuffmanTable,
    prediction: &mut i32,
    low: u8,
    block: &mut Block,
) -> Result<(), Fault> {
    *prediction = prediction.wrapping_add(dc_difference(reader, dc)?);
    block[0] = (*prediction << (low & 15)) as i16;
    Ok(())
}

/// A later scan of a DC coefficient: one bit of it.
#[inline(always)]
pub(super) fn refine_dc(reader: &mut BitReader<'_>, low: u8, block: &mut Block) {
    if reader.take_bit() {
        block[0] |= 1 << (low & 15);
    }
}

/// A band of coefficients in a scan.
#[derive(Clone, Copy)]
pub(super) struct Band {
    start: usize,
    end: usize,
    low: u32,
}

impl Band {
    /// The band of a scan that [`Progress::begin`] let pass.
    pub(super) fn of(scan: &Scan) -> Self {
        Self {
            start: scan.start.min(63),
            end: scan.end.min(63),
            low: u32::from(scan.low & 15),
        }
    }

    /// The first scan of a band in a block. `run` counts blocks still to pass over as empty.
    #[inline(always)]
    pub(super) fn first(
        self,
        reader: &mut BitReader<'_>,
        ac: &HuffmanTable,
        run: &mut u32,
        block: &mut Block,
    ) -> Result<(), Fault> {
        if *run > 0 {
            *run -= 1;
            return Ok(());
        }
        let mut next = self.start;
        while next <= self.end {
            reader.refill();
            let entry = ac.fast_entry(reader);
            let value = if entry & HAS_VALUE != 0 {
                reader.consume(entry & 31);
                next += (entry >> 8 & 15) as usize;
                i32::from((entry >> 16) as i16)
            } else {
                let symbol = ac.symbol_of(entry, reader)?;
                let (zeros, size) = (symbol >> 4, u32::from(symbol & 15));
                if size == 0 && zeros == 15 {
                    next += 16;
                    continue;
                }
                if size == 0 {
                    *run = empty_blocks(reader, zeros) - 1;
                    break;
                }
                next += usize::from(zeros);
                reader.take_signed(size)
            };
            block[usize::from(ZIGZAG[next & 127] & 63)] = (value << self.low) as i16;
            next += 1;
        }
        if next > self.end + 1 {
            return Err(Fault::BlockOverrun);
        }
        Ok(())
    }

    /// A later scan of a band in a block: one bit more of its coefficients (T.81, G.1.2.3).
    #[inline(always)]
    pub(super) fn refine(
        self,
        reader: &mut BitReader<'_>,
        ac: &HuffmanTable,
        run: &mut u32,
        block: &mut Block,
    ) -> Result<(), Fault> {
        let mut next = self.start;
        while *run == 0 && next <= self.end {
            reader.refill();
            let entry = ac.fast_entry(reader);
            let symbol = ac.symbol_of(entry, reader)?;
            let zeros = symbol >> 4;
            let value = match symbol & 15 {
                0 if zeros < 15 => {
                    *run = empty_blocks(reader, zeros);
                    break;
                }
                0 => 0,
                1 if reader.take_bit() => 1 << self.low,
                1 => -1 << self.low,
                _ => return Err(Fault::HuffmanCode),
            };
            let place = self.correct(reader, block, next, u32::from(zeros));
            if place > self.end {
                // A new coefficient that finds no place, or zeros that are not there.
                return Err(Fault::BlockOverrun);
            }
            if value != 0 {
                block[usize::from(ZIGZAG[place & 127] & 63)] = value;
            }
            next = place + 1;
        }
        if *run > 0 {
            self.correct(reader, block, next, u32::MAX);
            *run -= 1;
        }
        Ok(())
    }

    /// Passes over `zeros` zero coefficients and stops at the one behind them, giving each nonzero
    /// one on the way its next bit; returns the place, past the end where the band ends before.
    #[inline(always)]
    fn correct(
        self,
        reader: &mut BitReader<'_>,
        block: &mut Block,
        start: usize,
        mut zeros: u32,
    ) -> usize {
        let bit = 1_i16 << self.low;
        for (next, position) in ZIGZAG.iter().enumerate().take(self.end + 1).skip(start) {
            let value = &mut block[usize::from(*position & 63)];
            if *value == 0 {
                if zeros == 0 {
                    return next;
                }
                zeros -= 1;
            } else if reader.take_bit() && *value & bit == 0 {
                *value = value.wrapping_add(if *value > 0 { bit } else { -bit });
            }
        }
        self.end + 1
    }
}

/// The number of blocks without further coefficients, this one included.
#[inline(always)]
fn empty_blocks(reader: &mut BitReader<'_>, size: u8) -> u32 {
    if size == 0 {
        return 1;
    }
    (1 << size) + reader.take(u32::from(size)) as u32
}

#[cfg(test)]
mod tests {
    use super::super::scan::ScanComponent;
    use super::*;

    fn scan(index: usize, band: (usize, usize), high: u8, low: u8) -> Scan {
        let part = ScanComponent {
            index,
            dc: 0,
            ac: 0,
        };
        Scan {
            components: vec![part],
            start: band.0,
            end: band.1,
            high,
            low,
            data: 0,
        }
    }

    fn gray() -> Progress {
        let frame = Frame::parse(&[8, 0, 8, 0, 8, 1, 1, 0x11, 0], true).unwrap();
        Progress::new(&frame)
    }

    #[test]
    fn scans_that_do_not_follow_are_refused() {
        let cases: [&[Scan]; 9] = [
            &[scan(0, (1, 5), 0, 0)],
            &[scan(0, (0, 5), 0, 0)],
            &[scan(0, (0, 0), 1, 0)],
            &[scan(0, (0, 0), 0, 0), scan(0, (0, 0), 0, 0)],
            &[scan(0, (0, 0), 0, 2), scan(0, (0, 0), 2, 0)],
            &[scan(0, (0, 0), 0, 14)],
            &[scan(0, (0, 0), 0, 0), scan(0, (5, 4), 0, 0)],
            &[scan(0, (0, 0), 0, 0), scan(0, (1, 64), 0, 0)],
            &[
                scan(0, (0, 0), 0, 0),
                scan(0, (1, 5), 0, 1),
                scan(0, (1, 6), 1, 0),
            ],
        ];
        for (index, scans) in cases.into_iter().enumerate() {
            let mut progress = gray();
            let results: Vec<_> = scans.iter().map(|scan| progress.begin(scan)).collect();
            let (last, before) = results.split_last().unwrap();
            assert_eq!(*last, Err(Fault::Progression), "{index}");
            assert!(before.iter().all(Result::is_ok), "{index}");
        }
    }

    #[test]
    fn unfinished_pictures_are_told_from_missing_components() {
        let mut progress = gray();
        assert_eq!(progress.finish(), Err(Fault::ComponentMissing));
        progress.begin(&scan(0, (0, 0), 0, 1)).unwrap();
        progress.begin(&scan(0, (1, 9), 0, 1)).unwrap();
        assert_eq!(progress.finish(), Err(Fault::UnfinishedProgression));
        // Nothing is guessed at above the ninth coefficient, nor at the DC coefficient.
        progress.begin(&scan(0, (1, 9), 1, 0)).unwrap();
        assert_eq!(progress.finish(), Ok(()));
    }
}
