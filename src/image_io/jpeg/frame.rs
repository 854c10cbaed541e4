//! The geometry of a picture: its components, their sampling and their blocks.
//!
//! An MCU (minimum coded unit, T.81) is the smallest rectangle of pixels that covers whole blocks
//! of every component. Blocks are counted twice: those that hold pixels, and those up to whole MCUs.

use super::error::{Fault, Feature, JpegError};

/// Most blocks that an interleaved MCU may hold (T.81, B.2.3).
pub(super) const MAX_BLOCKS_PER_MCU: u32 = 10;

/// One component of a picture.
#[derive(Clone, Debug)]
pub(super) struct Component {
    /// Number by which scans name it.
    pub(super) id: u8,
    /// Blocks an MCU, across.
    pub(super) h: u32,
    /// Blocks an MCU, down.
    pub(super) v: u32,
    /// Number of its quantization table.
    pub(super) quantization: u8,
    /// Samples that belong to the picture, across.
    pub(super) width: u32,
    /// Samples that belong to the picture, down.
    pub(super) height: u32,
    /// Blocks that hold samples of the picture, across.
    pub(super) blocks_wide: u32,
    /// Blocks that hold samples of the picture, down.
    pub(super) blocks_high: u32,
    /// Blocks up to whole MCUs, across.
    pub(super) padded_wide: u32,
    /// Blocks up to whole MCUs, down.
    pub(super) padded_high: u32,
}

impl Component {
    /// Blocks up to whole MCUs.
    pub(super) fn padded_blocks(&self) -> usize {
        self.padded_wide as usize * self.padded_high as usize
    }
}

/// A frame header, understood.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// True for the progressive process.
    pub(super) is_progressive: bool,
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    /// One, three or four components.
    pub(super) components: Vec<Component>,
    /// Largest sampling factor across.
    pub(super) max_h: u32,
    /// Largest sampling factor down.
    pub(super) max_v: u32,
    /// MCUs across.
    pub(super) mcus_wide: u32,
    /// MCUs down.
    pub(super) mcus_high: u32,
}

impl Frame {
    /// Understands the body of a frame header (T.81, B.2.2). Allocates nothing of the picture's
    /// size.
    pub(super) fn parse(body: &[u8], is_progressive: bool) -> Result<Self, JpegError> {
        let [precision, h0, h1, w0, w1, count, listed @ ..] = body else {
            return Err(Fault::SegmentLength.into());
        };
        let height = u32::from(u16::from_be_bytes([*h0, *h1]));
        let width = u32::from(u16::from_be_bytes([*w0, *w1]));
        if *precision != 8 {
            return Err(Feature::Precision(*precision).into());
        }
        if height == 0 && width != 0 && *count != 0 {
            return Err(Feature::DelayedHeight.into());
        }
        if width == 0 || height == 0 || *count == 0 {
            return Err(Fault::EmptyFrame.into());
        }
        if listed.len() != usize::from(*count) * 3 {
            return Err(Fault::SegmentLength.into());
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Feature::Components(*count).into());
        }
        let mut components: Vec<Component> = listed.chunks_exact(3).filter_map(component).collect();
        // The factors of a lone component say nothing: its blocks follow in rows (T.81, A.2.2).
        let is_lone = components.len() == 1;
        let in_range = |factor: u32| (1..=4).contains(&factor);
        for component in &mut components {
            if !in_range(component.h) || !in_range(component.v) {
                return Err(Fault::SamplingFactors.into());
            }
            if is_lone {
                (component.h, component.v) = (1, 1);
            }
        }
        Self::measure(is_progressive, width, height, components)
    }

    fn measure(
        is_progressive: bool,
        width: u32,
        height: u32,
        mut components: Vec<Component>,
    ) -> Result<Self, JpegError> {
        let max_h = components
            .iter()
            .map(|component| component.h)
            .max()
            .unwrap_or(1);
        let max_v = components
            .iter()
            .map(|component| component.v)
            .max()
            .unwrap_or(1);
        let mcus_wide = width.div_ceil(max_h * 8);
        let mcus_high = height.div_ceil(max_v * 8);
        for component in &mut components {
            if max_h % component.h != 0 || max_v % component.v != 0 {
                return Err(Feature::FractionalSampling.into());
            }
            // All below 65,536 · 4 + 32: no overflow.
            component.width = (width * component.h).div_ceil(max_h);
            component.height = (height * component.v).div_ceil(max_v);
            component.blocks_wide = component.width.div_ceil(8);
            component.blocks_high = component.height.div_ceil(8);
            component.padded_wide = mcus_wide * component.h;
            component.padded_high = mcus_high * component.v;
        }
        Ok(Self {
            is_progressive,
            width,
            height,
            components,
            max_h,
            max_v,
            mcus_wide,
            mcus_high,
        })
    }

    /// Pixels of the picture.
    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

fn component(listed: &[u8]) -> Option<Component> {
    let [id, factors, quantization] = *listed else {
        return None;
    };
    Some(Component {
        id,
        h: u32::from(factors >> 4),
        v: u32::from(factors & 15),
        quantization,
        width: 0,
        height: 0,
        blocks_wide: 0,
        blocks_high: 0,
        padded_wide: 0,
        padded_high: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(width: u16, height: u16, factors: &[u8]) -> Result<Frame, JpegError> {
        let [h0, h1] = height.to_be_bytes();
        let [w0, w1] = width.to_be_bytes();
        let mut body = vec![8, h0, h1, w0, w1, factors.len() as u8];
        for (id, factor) in factors.iter().enumerate() {
            body.extend([id as u8, *factor, 0]);
        }
        Frame::parse(&body, false)
    }

    #[test]
    fn odd_sizes_round_up_to_blocks_and_mcus() {
        let frame = parse(17, 33, &[0x22, 0x11, 0x11]).unwrap();
        assert_eq!((frame.mcus_wide, frame.mcus_high), (2, 3));
        let [luma, chroma, _] = &frame.components[..] else {
            panic!()
        };
        assert_eq!((luma.width, luma.blocks_wide, luma.padded_wide), (17, 3, 4));
        assert_eq!(
            (luma.height, luma.blocks_high, luma.padded_high),
            (33, 5, 6)
        );
        assert_eq!((chroma.width, chroma.height), (9, 17));
        assert_eq!((chroma.blocks_high, chroma.padded_high), (3, 3));
    }

    #[test]
    fn a_lone_component_has_no_factors() {
        let frame = parse(9, 9, &[0x42]).unwrap();
        assert_eq!((frame.max_h, frame.max_v, frame.mcus_wide), (1, 1, 2));
    }

    #[test]
    fn impossible_frames_are_refused_by_kind() {
        use {Fault::*, Feature::*};
        let cases: [(Result<Frame, JpegError>, JpegError); 6] = [
            (parse(0, 5, &[0x11]), EmptyFrame.into()),
            (parse(5, 0, &[0x11]), DelayedHeight.into()),
            (parse(5, 5, &[0x11, 0x11]), Components(2).into()),
            (parse(5, 5, &[0x51, 0x11, 0x11]), SamplingFactors.into()),
            (parse(5, 5, &[0x01, 0x11, 0x11]), SamplingFactors.into()),
            (parse(5, 5, &[0x31, 0x21, 0x11]), FractionalSampling.into()),
        ];
        for (result, expected) in cases {
            assert_eq!(result.err(), Some(expected));
        }
        assert_eq!(
            Frame::parse(&[12, 0, 1, 0, 1, 1, 1, 0x11, 0], false).err(),
            Some(Precision(12).into())
        );
        assert_eq!(
            Frame::parse(&[8, 0, 1], false).err(),
            Some(SegmentLength.into())
        );
    }
}
