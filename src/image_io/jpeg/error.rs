//! Everything that can be wrong with a JPEG file, each with a sentence.
//!
//! Two kinds matter to a reader of these errors: a file that is damaged ([`JpegError::Truncated`],
//! [`JpegError::Corrupt`]) and a file that is sound but of a process that is not decoded here
//! ([`JpegError::Unsupported`]). Sizes beyond the limits are told apart from both.

/// The reason why a JPEG file was not decoded. The texts speak of the file alone, so that callers
/// may read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JpegError {
    /// The first bytes are not those of a JPEG file.
    #[error("it is no JPEG file")]
    NotJpeg,
    /// The data ends before the picture is complete.
    #[error("the JPEG file ends before the picture is complete")]
    Truncated,
    /// The data contradicts itself or the standard.
    #[error("the JPEG data is damaged: {0}")]
    Corrupt(#[from] Fault),
    /// A coding process or layout that is not decoded.
    #[error("{0}")]
    Unsupported(#[from] Feature),
    /// The picture is larger than the settings allow.
    #[error("the JPEG picture of {width} x {height} pixels is too large")]
    TooLarge {
        /// Width that the header tells, in pixels.
        width: u32,
        /// Height that the header tells, in pixels.
        height: u32,
    },
    /// A file has more scans than are allowed.
    #[error("the JPEG file has more than {limit} scans")]
    TooManyScans {
        /// The limit that was passed.
        limit: u32,
    },
}

impl JpegError {
    /// True for a file that may be sound, but is of a process that is not decoded here.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported(_))
    }
}

/// A coding process or layout that is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Feature {
    /// Arithmetic entropy coding.
    #[error("JPEG files with arithmetic coding are not supported")]
    Arithmetic,
    /// Lossless processes.
    #[error("lossless JPEG files are not supported")]
    Lossless,
    /// Hierarchical (differential) processes.
    #[error("hierarchical JPEG files are not supported")]
    Hierarchical,
    /// Samples of other than 8 bits; the number of bits.
    #[error("JPEG files with {0} bits a sample are not supported, only 8 bits")]
    Precision(u8),
    /// Other than 1, 3 or 4 components; the number of components.
    #[error("JPEG files with {0} components are not supported, only 1, 3 and 4")]
    Components(u8),
    /// Sampling factors that do not divide the largest ones.
    #[error("JPEG files with fractional sampling ratios are not supported")]
    FractionalSampling,
    /// A height that is told only behind the first scan.
    #[error("JPEG files that tell their height behind the picture are not supported")]
    DelayedHeight,
}

/// A contradiction in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A segment whose length does not fit its contents.
    #[error("the length of a segment does not fit its contents")]
    SegmentLength,
    /// A marker that has no place where it stands.
    #[error("unexpected marker FF {0:02X}")]
    UnexpectedMarker(u8),
    /// A width or height of zero, or no components.
    #[error("the picture has no pixels")]
    EmptyFrame,
    /// A second frame header.
    #[error("a second frame header")]
    SecondFrame,
    /// A scan before any frame header.
    #[error("a scan stands before the frame header")]
    ScanBeforeFrame,
    /// Sampling factors outside 1 to 4, or more than ten blocks to an MCU.
    #[error("the sampling factors are out of range")]
    SamplingFactors,
    /// A scan that names a component the frame has not, or one twice.
    #[error("a scan names its components wrongly")]
    ScanComponents,
    /// A scan whose band of coefficients or bits is not allowed where it stands.
    #[error("the scans do not follow from one another")]
    Progression,
    /// The number of a quantization or Huffman table is above 3.
    #[error("the number of a table is out of range")]
    TableNumber,
    /// A quantization table that was never defined.
    #[error("a quantization table is missing")]
    QuantizationTableMissing,
    /// A Huffman table that was never defined.
    #[error("a Huffman table is missing")]
    HuffmanTableMissing,
    /// A Huffman table whose lengths make no code.
    #[error("a Huffman table is malformed")]
    HuffmanTable,
    /// Bits that are no Huffman code.
    #[error("the compressed data holds an invalid code")]
    HuffmanCode,
    /// More coefficients than a block has.
    #[error("the compressed data overruns a block")]
    BlockOverrun,
    /// Compressed data that ends before the blocks of its segment do.
    #[error("the compressed data ends early")]
    SegmentEndsEarly,
    /// A restart marker that is missing or out of order.
    #[error("a restart marker is missing or out of order")]
    RestartMarker,
    /// A component without any scan.
    #[error("a color component is missing")]
    ComponentMissing,
    /// A progressive picture without its last refinements: decoders guess at what is missing.
    #[error("scans that complete the picture are missing")]
    UnfinishedProgression,
}
