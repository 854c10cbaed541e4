//! Picture files of any format.
//!
//! Promised: no panic, and a picture that is taken keeps to the limits.

use florence2_server::config::DecodeSettings;
use florence2_server::image_io::decode::decode;

/// Small limits, so that a mutated header does not cost a second.
const LIMITS: DecodeSettings = DecodeSettings {
    max_pixels: 1 << 16,
    max_side: 1024,
    decode_slots: 1,
};

pub(super) fn run(data: &[u8]) {
    if let Ok(picture) = decode(data, &LIMITS) {
        let (width, height) = picture.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        assert!((1..=LIMITS.max_pixels).contains(&pixels));
        assert!(width.max(height) <= LIMITS.max_side);
    }
}
