//! Pictures that come in several scans: coefficients are kept until the last one is in.
//!
//! Progressive files, and sequential ones with a scan for each component or for some of them. The
//! blocks of a component lie in memory up to whole MCUs, so that scans of one component and of
//! several find them alike.

use super::bits::BitReader;
use super::color::ColorSpace;
use super::decoder::Decoder;
use super::error::{Fault, JpegError};
use super::frame::Frame;
use super::huffman::TableClass;
use super::idct::{Block, Extent};
use super::instructions::with_best_instructions;
use super::output::Output;
use super::progressive::{self, Band, Progress};
use super::scan::{Restarts, Scan, ran_out};
use super::sequential::decode_block;

impl Decoder<'_> {
    /// A progressive picture, or a sequential one in several scans.
    pub(super) fn decode_scans(
        &mut self,
        frame: &Frame,
        first: Scan,
        space: ColorSpace,
    ) -> Result<Vec<u8>, JpegError> {
        if !frame.is_progressive {
            self.tables.add_standard_huffman_tables();
        }
        let mut planes: Vec<Vec<Block>> = frame
            .components
            .iter()
            .map(|component| vec![[0; 64]; component.padded_blocks()])
            .collect();
        let mut progress = Progress::new(frame);
        let mut scans = 0;
        let mut next = Some(first);
        while let Some(scan) = next {
            scans += 1;
            if scans > self.limits.max_scans {
                return Err(JpegError::TooManyScans {
                    limit: self.limits.max_scans,
                });
            }
            self.latch_quantization(frame, &scan)?;
            if frame.is_progressive {
                progress.begin(&scan)?;
                self.position = self.read_progressive(frame, &scan, &mut planes)?;
            } else {
                self.note_sequential(&scan)?;
                self.position = self.read_sequential(frame, &scan, &mut planes)?;
            }
            next = self.next_scan(frame)?;
        }
        if frame.is_progressive {
            progress.finish()?;
        } else if self
            .is_seen
            .iter()
            .take(frame.components.len())
            .any(|is_seen| !is_seen)
        {
            return Err(Fault::ComponentMissing.into());
        }
        self.render(frame, &planes, space)
    }

    /// A component of a sequential picture comes in one scan alone.
    fn note_sequential(&mut self, scan: &Scan) -> Result<(), Fault> {
        for part in &scan.components {
            match self.is_seen.get_mut(part.index) {
                Some(is_seen @ false) => *is_seen = true,
                _ => return Err(Fault::Progression),
            }
        }
        Ok(())
    }

    fn read_sequential(
        &self,
        frame: &Frame,
        scan: &Scan,
        planes: &mut [Vec<Block>],
    ) -> Result<usize, JpegError> {
        let tables = self.build_tables(scan, Some(TableClass::Dc), Some(TableClass::Ac))?;
        let mut predictions = [0; 4];
        self.each_block(frame, scan, planes, |reader, part, is_restart, block| {
            if is_restart {
                predictions = [0; 4];
            }
            let Some((Some(dc), Some(ac))) = tables.get(part) else {
                return Err(Fault::HuffmanTableMissing);
            };
            decode_block(reader, (dc, ac), &mut predictions[part & 3], block).map(|_| ())
        })
    }

    fn read_progressive(
        &self,
        frame: &Frame,
        scan: &Scan,
        planes: &mut [Vec<Block>],
    ) -> Result<usize, JpegError> {
        let low = scan.low;
        match (scan.start == 0, scan.high == 0) {
            (true, true) => {
                let tables = self.build_tables(scan, Some(TableClass::Dc), None)?;
                let mut predictions = [0; 4];
                self.each_block(frame, scan, planes, |reader, part, is_restart, block| {
                    if is_restart {
                        predictions = [0; 4];
                    }
                    let Some((Some(dc), _)) = tables.get(part) else {
                        return Err(Fault::HuffmanTableMissing);
                    };
                    progressive::first_dc(reader, dc, &mut predictions[part & 3], low, block)
                })
            }
            (true, false) => self.each_block(frame, scan, planes, |reader, _, _, block| {
                progressive::refine_dc(reader, low, block);
                Ok(())
            }),
            (false, is_first) => {
                let class = if is_first {
                    TableClass::Ac
                } else {
                    TableClass::AcRefinement
                };
                let tables = self.build_tables(scan, None, Some(class))?;
                let Some((_, Some(ac))) = tables.first() else {
                    return Err(Fault::HuffmanTableMissing.into());
                };
                let band = Band::of(scan);
                let mut run = 0;
                self.each_block(frame, scan, planes, |reader, _, is_restart, block| {
                    if is_restart {
                        run = 0;
                    }
                    if is_first {
                        band.first(reader, ac, &mut run, block)
                    } else {
                        band.refine(reader, ac, &mut run, block)
                    }
                })
            }
        }
    }

    /// Calls `decode` for each block of a scan, in the order of the file, with the place of its
    /// component in the scan and whether a restart marker was passed. Returns where the data ended.
    #[inline(always)]
    fn each_block(
        &self,
        frame: &Frame,
        scan: &Scan,
        planes: &mut [Vec<Block>],
        mut decode: impl FnMut(&mut BitReader<'_>, usize, bool, &mut Block) -> Result<(), Fault>,
    ) -> Result<usize, JpegError> {
        let mut reader = BitReader::new(self.data, scan.data);
        let mut restarts = Restarts::new(self.tables.restart_interval);
        let parts: Vec<_> = scan
            .components
            .iter()
            .filter_map(|part| Some((part.index, frame.components.get(part.index)?)))
            .collect();
        if let [(index, component)] = parts[..] {
            let plane = planes.get_mut(index).ok_or(Fault::ScanComponents)?;
            let rows = plane.chunks_mut((component.padded_wide as usize).max(1));
            for row in rows.take(component.blocks_high as usize) {
                for block in row.iter_mut().take(component.blocks_wide as usize) {
                    let is_restart = restarts.before_mcu(self.data, &mut reader)?;
                    decode(&mut reader, 0, is_restart, block)?;
                    if reader.overran() {
                        return Err(ran_out(reader));
                    }
                }
            }
            return Ok(reader.position());
        }
        for (row, column) in (0..frame.mcus_high)
            .flat_map(|row| (0..frame.mcus_wide).map(move |column| (row, column)))
        {
            let mut is_restart = restarts.before_mcu(self.data, &mut reader)?;
            for (part, (index, component)) in parts.iter().enumerate() {
                let plane = planes.get_mut(*index).ok_or(Fault::ScanComponents)?;
                for y in row * component.v..(row + 1) * component.v {
                    let start = y as usize * component.padded_wide as usize
                        + (column * component.h) as usize;
                    for block in plane.iter_mut().skip(start).take(component.h as usize) {
                        decode(&mut reader, part, is_restart, block)?;
                        is_restart = false;
                    }
                }
            }
            if reader.overran() {
                return Err(ran_out(reader));
            }
        }
        Ok(reader.position())
    }

    /// Puts out a picture whose coefficients are all there.
    fn render(
        &self,
        frame: &Frame,
        planes: &[Vec<Block>],
        space: ColorSpace,
    ) -> Result<Vec<u8>, JpegError> {
        let mut output = Output::new(frame, space);
        for mcu_row in 0..frame.mcus_high {
            for (index, (component, plane)) in frame.components.iter().zip(planes).enumerate() {
                let (Some(strip), Some(Some(table))) =
                    (output.strips.get_mut(index), self.quantization.get(index))
                else {
                    return Err(Fault::QuantizationTableMissing.into());
                };
                let wide = component.padded_wide as usize;
                let rows = plane
                    .chunks_exact(wide)
                    .skip((mcu_row * component.v) as usize);
                for (row, blocks) in rows.take(component.v as usize).enumerate() {
                    let start = strip.mcu_offset(mcu_row) + row * strip.block_row();
                    with_best_instructions(
                        #[inline(always)]
                        || {
                            for (column, block) in blocks.iter().enumerate() {
                                strip.put(start + column * 8, block, table, Extent::of(block));
                            }
                        },
                    );
                }
            }
            output.finish_mcu_row(mcu_row);
        }
        output.into_rgb()
    }
}
