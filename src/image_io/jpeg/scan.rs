//! Scan headers, and the order in which a scan visits blocks.
//!
//! A scan of several components goes by MCUs, a scan of one by the blocks that hold pixels (T.81,
//! A.2). Restart markers cut both into segments of a fixed number of MCUs; each segment must end
//! with the marker whose turn it is.

use super::bits::BitReader;
use super::error::{Fault, JpegError};
use super::frame::{Frame, MAX_BLOCKS_PER_MCU};
use super::marker::{RST0, Segment};

/// One component's part in a scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScanComponent {
    /// Index of the component in the frame.
    pub(super) index: usize,
    /// Number of its Huffman table for DC coefficients.
    pub(super) dc: usize,
    /// Number of its Huffman table for AC coefficients.
    pub(super) ac: usize,
}

/// A scan header, understood.
pub(super) struct Scan {
    /// One to four components.
    pub(super) components: Vec<ScanComponent>,
    /// First coefficient of the band.
    pub(super) start: usize,
    /// Last coefficient of the band.
    pub(super) end: usize,
    /// Lowest bit known before, or zero.
    pub(super) high: u8,
    /// Lowest bit that this scan brings.
    pub(super) low: u8,
    /// First byte of its compressed data.
    pub(super) data: usize,
}

impl Scan {
    /// Understands the body of a scan header (T.81, B.2.3).
    pub(super) fn parse(segment: &Segment<'_>, frame: &Frame) -> Result<Self, Fault> {
        let (count, rest) = segment.body.split_first().ok_or(Fault::SegmentLength)?;
        let count = usize::from(*count);
        if !(1..=4).contains(&count) || rest.len() != count * 2 + 3 {
            return Err(Fault::SegmentLength);
        }
        let (listed, band) = rest.split_at(count * 2);
        let [start, end, bits] = *band else {
            return Err(Fault::SegmentLength);
        };
        let mut components: Vec<ScanComponent> = Vec::with_capacity(count);
        for (place, named) in listed.chunks_exact(2).enumerate() {
            let [id, tables] = *named else {
                return Err(Fault::SegmentLength);
            };
            // Components come in the frame's order; of equal numbers the next one is meant.
            let index = (place..frame.components.len())
                .find(|index| {
                    frame
                        .components
                        .get(*index)
                        .is_some_and(|known| known.id == id)
                })
                .ok_or(Fault::ScanComponents)?;
            if components.iter().any(|earlier| earlier.index == index) {
                return Err(Fault::ScanComponents);
            }
            components.push(ScanComponent {
                index,
                dc: usize::from(tables >> 4),
                ac: usize::from(tables & 15),
            });
        }
        let scan = Self {
            components,
            start: start.into(),
            end: end.into(),
            high: bits >> 4,
            low: bits & 15,
            data: segment.end,
        };
        if scan.components.len() > 1 && scan.blocks_per_mcu(frame) > MAX_BLOCKS_PER_MCU {
            return Err(Fault::SamplingFactors);
        }
        Ok(scan)
    }

    fn blocks_per_mcu(&self, frame: &Frame) -> u32 {
        let of = |part: &ScanComponent| {
            frame
                .components
                .get(part.index)
                .map_or(0, |known| known.h * known.v)
        };
        self.components.iter().map(of).sum()
    }
}

/// Where the restart markers of a scan stand.
pub(super) struct Restarts {
    /// MCUs between markers; zero for none.
    interval: u32,
    /// MCUs left before the next marker.
    left: u32,
    /// Number of the next marker, 0 to 7.
    number: u8,
}

impl Restarts {
    pub(super) fn new(interval: u32) -> Self {
        Self {
            interval,
            left: interval,
            number: 0,
        }
    }

    /// Called before each MCU; true when a marker was passed and predictions start anew.
    ///
    /// # Errors
    /// [`Fault::RestartMarker`] when another marker stands there, or data is left over before it.
    #[inline(always)]
    pub(super) fn before_mcu(
        &mut self,
        data: &[u8],
        reader: &mut BitReader<'_>,
    ) -> Result<bool, JpegError> {
        if self.interval == 0 {
            return Ok(false);
        }
        if self.left > 0 {
            self.left -= 1;
            return Ok(false);
        }
        self.left = self.interval - 1;
        let next = self.pass_marker(data, *reader)?;
        reader.restart_at(next);
        Ok(true)
    }

    #[inline(never)]
    fn pass_marker(&mut self, data: &[u8], reader: BitReader<'_>) -> Result<usize, JpegError> {
        if reader.unread_bytes() > 0 {
            return Err(Fault::RestartMarker.into());
        }
        let mut at = reader.position();
        if data.get(at).is_some_and(|byte| *byte != 0xFF) {
            return Err(Fault::RestartMarker.into());
        }
        while data.get(at) == Some(&0xFF) {
            at += 1;
        }
        let code = *data.get(at).ok_or(JpegError::Truncated)?;
        if code != RST0 + self.number {
            return Err(Fault::RestartMarker.into());
        }
        self.number = (self.number + 1) & 7;
        Ok(at + 1)
    }
}

/// The error of a reader that ran out of bits.
#[cold]
pub(super) fn ran_out(reader: BitReader<'_>) -> JpegError {
    if reader.at_end_of_file() {
        JpegError::Truncated
    } else {
        Fault::SegmentEndsEarly.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(factors: &[u8]) -> Frame {
        let mut body = vec![8, 0, 8, 0, 8, factors.len() as u8];
        for (index, factor) in factors.iter().enumerate() {
            body.extend([index as u8 + 1, *factor, 0]);
        }
        Frame::parse(&body, false).unwrap()
    }

    fn parse(body: &[u8], factors: &[u8]) -> Result<Vec<usize>, Fault> {
        let segment = Segment {
            code: 0xDA,
            body,
            end: 0,
        };
        let scan = Scan::parse(&segment, &frame(factors))?;
        Ok(scan.components.iter().map(|part| part.index).collect())
    }

    #[test]
    fn scans_name_components_once_and_in_order() {
        let three = [0x11; 3];
        assert_eq!(parse(&[2, 1, 0, 3, 0, 0, 63, 0], &three), Ok(vec![0, 2]));
        assert_eq!(parse(&[1, 3, 0, 0, 63, 0], &three), Ok(vec![2]));
        for body in [
            &[2, 1, 0, 1, 0, 0, 63, 0][..],
            &[2, 3, 0, 1, 0, 0, 63, 0],
            &[1, 9, 0, 0, 63, 0],
        ] {
            assert_eq!(parse(body, &three), Err(Fault::ScanComponents), "{body:?}");
        }
        for body in [
            &[][..],
            &[0, 0, 63, 0],
            &[1, 1, 0, 0, 63],
            &[5, 1, 0, 0, 63, 0],
        ] {
            assert_eq!(parse(body, &three), Err(Fault::SegmentLength), "{body:?}");
        }
    }

    #[test]
    fn an_mcu_of_more_than_ten_blocks_is_refused() {
        let body = [3, 1, 0, 2, 0, 3, 0, 0, 63, 0];
        assert_eq!(parse(&body, &[0x22; 3]), Err(Fault::SamplingFactors));
        assert!(parse(&body, &[0x42, 0x11, 0x11]).is_ok());
    }

    #[test]
    fn restart_markers_must_follow_in_order_and_at_once() {
        let next = |data: &[u8]| {
            let mut restarts = Restarts::new(1);
            let mut reader = BitReader::new(data, 0);
            assert_eq!(restarts.before_mcu(data, &mut reader), Ok(false));
            reader.refill();
            reader.consume(3);
            restarts
                .before_mcu(data, &mut reader)
                .map(|_| reader.position())
        };
        assert_eq!(next(&[1, 0xFF, 0xD0, 5]), Ok(3));
        assert_eq!(next(&[1, 0xFF, 0xFF, 0xD0, 5]), Ok(4));
        let fault = Err(Fault::RestartMarker.into());
        assert_eq!(next(&[1, 0xFF, 0xD1, 5]), fault);
        assert_eq!(next(&[1, 2, 0xFF, 0xD0, 5]), fault);
        assert_eq!(next(&[1, 0xFF, 0xD9]), fault);
        assert_eq!(next(&[1]), Err(JpegError::Truncated));
    }
}
