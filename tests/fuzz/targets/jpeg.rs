//! JPEG files, and their beginnings.
//!
//! Promised: no panic, no picture beyond the limits, and a part of a file is refused or gives the same
//! picture as the whole. The first two bytes say where the file is cut, the others are the file.

use florence2_server::config::DecodeSettings;
use florence2_server::image_io::decode::decode;

/// Small limits, so that a mutated header does not cost a second.
const LIMITS: DecodeSettings = DecodeSettings {
    max_pixels: 1 << 16,
    max_side: 1024,
    decode_slots: 1,
};

pub(super) fn run(data: &[u8]) {
    // The rest begins as the front door demands of a JPEG.
    let Some((cut, file)) = data.split_first_chunk::<2>() else {
        return;
    };
    let file = [&[0xff, 0xd8, 0xff], file].concat();
    let whole = decode(&file, &LIMITS).ok();
    if let Some(picture) = &whole {
        let (width, height) = picture.dimensions();
        assert!(u64::from(width) * u64::from(height) <= LIMITS.max_pixels);
        assert!(width.max(height) <= LIMITS.max_side);
    }
    let end = file.len() - usize::from(u16::from_le_bytes(*cut)) % file.len();
    if let (Some(whole), Ok(part)) = (whole, decode(&file[..end], &LIMITS)) {
        assert_eq!(part, whole, "cut at {end} of {}", file.len());
    }
}
