//! The course of a file: segments, scans, and the picture out of them.
//!
//! Sequential pictures with all components in one scan are put out while they are read. All others
//! keep their coefficients until the last scan is in.

use super::bits::BitReader;
use super::color::ColorSpace;
use super::error::{Fault, JpegError};
use super::frame::Frame;
use super::huffman::{HuffmanTable, TableClass};
use super::idct::Block;
use super::instructions::with_best_instructions;
use super::marker::{EOI, SOS, Tables, next_segment};
use super::output::{Output, Strip};
use super::scan::{Restarts, Scan, ran_out};
use super::sequential::decode_block;
use super::{Limits, Picture};

/// Bytes behind a lone scan that show that a missing end marker is no cut.
///
/// libjpeg reads eight bytes ahead of what it decodes and gives up where they are not there; a
/// picture that is followed by as many is complete for it, end marker or not.
const READ_AHEAD: usize = 8;

/// A file while it is read.
pub(super) struct Decoder<'a> {
    /// The whole file.
    pub(super) data: &'a [u8],
    /// What the caller allows.
    pub(super) limits: Limits,
    /// First byte not yet read.
    pub(super) position: usize,
    /// What segments have set so far.
    pub(super) tables: Tables,
    /// By component: the quantization table that stood when its first scan began.
    pub(super) quantization: [Option<Block>; 4],
    /// By component: true when a sequential scan brought it.
    pub(super) is_seen: [bool; 4],
}

/// The Huffman tables of a scan, by component of the scan.
pub(super) type ScanTables = Vec<(Option<Box<HuffmanTable>>, Option<Box<HuffmanTable>>)>;

impl<'a> Decoder<'a> {
    pub(super) fn new(data: &'a [u8], limits: Limits) -> Result<Self, JpegError> {
        // Three bytes, as Pillow wants them: start of image and the next marker.
        if !data.starts_with(&[0xFF, 0xD8, 0xFF]) {
            return Err(JpegError::NotJpeg);
        }
        Ok(Self {
            data,
            limits,
            position: 2,
            tables: Tables::default(),
            quantization: [None; 4],
            is_seen: [false; 4],
        })
    }

    /// Reads up to the first scan.
    pub(super) fn read_head(&mut self) -> Result<(Frame, Scan), JpegError> {
        let mut frame = None;
        loop {
            let segment = next_segment(self.data, self.position)?;
            self.position = segment.end;
            match (segment.code, &frame) {
                (0xC0..=0xC2, Some(_)) => return Err(Fault::SecondFrame.into()),
                (0xC0..=0xC2, None) => {
                    let parsed = Frame::parse(segment.body, segment.code == 0xC2)?;
                    self.limits.check(&parsed)?;
                    frame = Some(parsed);
                }
                (SOS, None) => return Err(Fault::ScanBeforeFrame.into()),
                (SOS, Some(known)) => {
                    let scan = Scan::parse(&segment, known)?;
                    return frame
                        .map(|frame| (frame, scan))
                        .ok_or(Fault::ScanBeforeFrame.into());
                }
                (EOI, _) => return Err(JpegError::Truncated),
                _ => self.tables.read(&segment)?,
            }
        }
    }

    /// Reads the whole file.
    pub(super) fn decode(mut self) -> Result<Picture, JpegError> {
        let (frame, scan) = self.read_head()?;
        let ids: Vec<u8> = frame
            .components
            .iter()
            .map(|component| component.id)
            .collect();
        let space = ColorSpace::guess(&ids, &self.tables);
        let rgb = if !frame.is_progressive && scan.components.len() == frame.components.len() {
            self.decode_lone_scan(&frame, &scan, space)?
        } else {
            self.decode_scans(&frame, scan, space)?
        };
        Ok(Picture {
            width: frame.width,
            height: frame.height,
            rgb,
        })
    }

    /// Reads on to the next scan, or to the end of the image.
    pub(super) fn next_scan(&mut self, frame: &Frame) -> Result<Option<Scan>, JpegError> {
        loop {
            let segment = next_segment(self.data, self.position)?;
            self.position = segment.end;
            match segment.code {
                0xC0..=0xC2 => return Err(Fault::SecondFrame.into()),
                SOS => return Ok(Some(Scan::parse(&segment, frame)?)),
                EOI => return Ok(None),
                _ => self.tables.read(&segment)?,
            }
        }
    }

    /// Keeps the quantization tables of components whose first scan this is (jdinput.c).
    pub(super) fn latch_quantization(&mut self, frame: &Frame, scan: &Scan) -> Result<(), Fault> {
        for part in &scan.components {
            let (Some(component), Some(latched)) = (
                frame.components.get(part.index),
                self.quantization.get_mut(part.index),
            ) else {
                return Err(Fault::ScanComponents);
            };
            if latched.is_none() {
                let table = self
                    .tables
                    .quantization
                    .get(usize::from(component.quantization));
                *latched = Some(
                    table
                        .copied()
                        .flatten()
                        .ok_or(Fault::QuantizationTableMissing)?,
                );
            }
        }
        Ok(())
    }

    pub(super) fn build_tables(
        &self,
        scan: &Scan,
        dc: Option<TableClass>,
        ac: Option<TableClass>,
    ) -> Result<ScanTables, Fault> {
        let build = |specs: &[Option<super::huffman::TableSpec>; 4],
                     slot: usize,
                     class: Option<TableClass>| {
            let Some(class) = class else { return Ok(None) };
            let spec = specs
                .get(slot)
                .and_then(Option::as_ref)
                .ok_or(Fault::HuffmanTableMissing)?;
            HuffmanTable::new(spec, class).map(Some)
        };
        let of = |part: &super::scan::ScanComponent| {
            Ok((
                build(&self.tables.dc, part.dc, dc)?,
                build(&self.tables.ac, part.ac, ac)?,
            ))
        };
        scan.components.iter().map(of).collect()
    }

    /// A sequential picture with all components in one scan.
    fn decode_lone_scan(
        &mut self,
        frame: &Frame,
        scan: &Scan,
        space: ColorSpace,
    ) -> Result<Vec<u8>, JpegError> {
        self.tables.add_standard_huffman_tables();
        self.latch_quantization(frame, scan)?;
        let tables = self.build_tables(scan, Some(TableClass::Dc), Some(TableClass::Ac))?;
        let mut output = Output::new(frame, space);
        let steps = self.mcu_steps(frame, scan, &tables, &output)?;
        let mut reader = BitReader::new(self.data, scan.data);
        let mut restarts = Restarts::new(self.tables.restart_interval);
        let mut predictions = [0; 4];
        for mcu_row in 0..frame.mcus_high {
            let mut row = McuRow {
                data: self.data,
                number: mcu_row,
                mcus: frame.mcus_wide as usize,
                steps: &steps,
                restarts: &mut restarts,
                predictions: &mut predictions,
                strips: &mut output.strips,
            };
            reader = with_best_instructions(
                #[inline(always)]
                || row.decode(reader),
            )?;
            output.finish_mcu_row(mcu_row);
        }
        self.finish_lone_scan(frame, reader)?;
        output.into_rgb()
    }

    /// What has to be done for each block of an MCU, in order.
    fn mcu_steps<'t>(
        &'t self,
        frame: &Frame,
        scan: &Scan,
        tables: &'t ScanTables,
        output: &Output,
    ) -> Result<Vec<Step<'t>>, Fault> {
        let mut steps = Vec::new();
        for (part, huffman) in scan.components.iter().zip(tables) {
            let (Some(component), Some(strip), Some(Some(quantization)), (Some(dc), Some(ac))) = (
                frame.components.get(part.index),
                output.strips.get(part.index),
                self.quantization.get(part.index),
                huffman,
            ) else {
                return Err(Fault::ScanComponents);
            };
            for row in 0..component.v as usize {
                for column in 0..component.h as usize {
                    steps.push(Step {
                        index: part.index,
                        huffman: (dc, ac),
                        quantization,
                        offset: row * strip.block_row() + column * 8,
                        advance: component.h as usize * 8,
                    });
                }
            }
        }
        Ok(steps)
    }

    /// Looks for the end of the image behind the only scan of a sequential picture.
    fn finish_lone_scan(&mut self, frame: &Frame, reader: BitReader<'_>) -> Result<(), JpegError> {
        self.position = reader.position();
        let left = self.data.len() - self.position.min(self.data.len()) + reader.unread_bytes();
        match self.next_scan(frame) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Fault::UnexpectedMarker(SOS).into()),
            Err(JpegError::Truncated) if left >= READ_AHEAD => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What has to be done for one block of an MCU.
struct Step<'t> {
    /// Index of the component in the frame.
    index: usize,
    huffman: (&'t HuffmanTable, &'t HuffmanTable),
    quantization: &'t Block,
    /// Place of the block in the first MCU of a row.
    offset: usize,
    /// Samples from one MCU to the next.
    advance: usize,
}

/// A row of MCUs of the lone scan of a sequential picture, and what changes along it.
struct McuRow<'t, 'd> {
    data: &'d [u8],
    number: u32,
    mcus: usize,
    steps: &'t [Step<'t>],
    restarts: &'t mut Restarts,
    /// By component: the DC coefficient of the block before.
    predictions: &'t mut [i32; 4],
    strips: &'t mut [Strip],
}

impl<'d> McuRow<'_, 'd> {
    /// Decodes the row and puts its samples; returns the reader behind it.
    #[inline(always)]
    fn decode(&mut self, mut reader: BitReader<'d>) -> Result<BitReader<'d>, JpegError> {
        for mcu in 0..self.mcus {
            if self.restarts.before_mcu(self.data, &mut reader)? {
                *self.predictions = [0; 4];
            }
            for step in self.steps {
                let mut block = [0; 64];
                let prediction = &mut self.predictions[step.index & 3];
                let extent = decode_block(&mut reader, step.huffman, prediction, &mut block)?;
                let strip = &mut self.strips[step.index];
                let offset = strip.mcu_offset(self.number) + step.offset + mcu * step.advance;
                strip.put(offset, &block, step.quantization, extent);
            }
            if reader.overran() {
                return Err(ran_out(reader));
            }
        }
        Ok(reader)
    }
}
