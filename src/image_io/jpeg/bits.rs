//! Bits of entropy-coded data, with stuffed bytes taken out.
//!
//! The reader never passes a marker. Behind the last data byte it hands out made-up zero bits and
//! counts them, so that the inner loops need no check at every bit: whoever has decoded a block
//! asks [`BitReader::overran`], and a block that took a made-up bit is an error.

/// Fewest bits that [`BitReader::refill`] leaves at hand: a code of 16 and 15 bits behind it.
const LEAST_BITS: u32 = 32;

/// A cursor over entropy-coded data.
///
/// It is copied into the loops that decode a block, so that its numbers stay in registers; the rare
/// paths take and return it whole for the same reason.
#[derive(Clone, Copy)]
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// First byte not yet taken; at a marker, its `FF`.
    position: usize,
    /// Bits at hand, the next one on top.
    bits: u64,
    /// Number of bits at hand, made-up ones included.
    count: u32,
    /// Made-up bits among them, or already handed out.
    made_up: u32,
}

impl<'a> BitReader<'a> {
    /// Starts at a byte of the file.
    pub(super) fn new(data: &'a [u8], position: usize) -> Self {
        Self {
            data,
            position,
            bits: 0,
            count: 0,
            made_up: 0,
        }
    }

    /// Drops everything at hand and goes on at another byte.
    pub(super) fn restart_at(&mut self, position: usize) {
        *self = Self::new(self.data, position);
    }

    /// Makes sure that 32 bits are at hand.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count >= LEAST_BITS {
            return;
        }
        if let Some(word) = self
            .data
            .get(self.position..)
            .and_then(<[u8]>::first_chunk::<8>)
        {
            let word = u64::from_be_bytes(*word);
            // A byte FF is a byte 00 of the complement; this finds a zero byte in a word.
            const ONES: u64 = 0x0101_0101_0101_0101;
            let has_ff = (!word).wrapping_sub(ONES) & word & (ONES << 7);
            if has_ff == 0 {
                // Bits below `count` that this sets are those of the byte at the new position, and
                // are set to the same values again next time.
                self.bits |= word >> self.count;
                let taken = (63 - self.count) >> 3;
                self.position += taken as usize;
                self.count += taken * 8;
                return;
            }
        }
        *self = self.refilled_bytewise();
    }

    #[cold]
    #[inline(never)]
    fn refilled_bytewise(mut self) -> Self {
        while self.count <= 56 {
            match self.next_byte() {
                Some(byte) => {
                    self.bits |= u64::from(byte) << (56 - self.count);
                    self.count += 8;
                }
                None => {
                    self.made_up = self.made_up.saturating_add(64 - self.count);
                    self.count = 64;
                }
            }
        }
        self
    }

    /// The next data byte, or nothing at a marker or at the end of the file.
    fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.data.get(self.position)?;
        if byte != 0xFF {
            self.position += 1;
            return Some(byte);
        }
        // Several FF before a zero count as one data byte, as libjpeg has it (jdhuff.c).
        let mut next = self.position + 1;
        while self.data.get(next) == Some(&0xFF) {
            next += 1;
        }
        match self.data.get(next) {
            Some(0) => {
                self.position = next + 1;
                Some(0xFF)
            }
            // A marker: stay at its last FF, so that fill bytes are not walked again.
            Some(_) => {
                self.position = next - 1;
                None
            }
            None => {
                self.position = next;
                None
            }
        }
    }

    /// The next `N` bits, left in place. [`Self::refill`] came before.
    #[inline(always)]
    pub(super) fn peek<const N: u32>(&self) -> usize {
        (self.bits >> (64 - N)) as usize
    }

    /// Drops bits that were looked at; at most 32.
    #[inline(always)]
    pub(super) fn consume(&mut self, count: u32) {
        self.bits <<= count & 63;
        self.count = self.count.wrapping_sub(count);
    }

    /// Takes 1 to 15 bits as an unsigned number. [`Self::refill`] came before.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> i32 {
        let value = (self.bits >> (64 - (count & 31))) as i32;
        self.consume(count);
        value
    }

    /// Takes 1 to 15 bits as a signed number: a leading zero bit means negative (T.81, F.2.2.1).
    #[inline(always)]
    pub(super) fn take_signed(&mut self, count: u32) -> i32 {
        let is_positive = (self.bits >> 63) as i32;
        let value = self.take(count);
        value + ((is_positive - 1) & (1 - (1 << count)))
    }

    /// Takes one bit, refilling where needed.
    #[inline(always)]
    pub(super) fn take_bit(&mut self) -> bool {
        if self.count == 0 {
            self.refill();
        }
        let bit = self.bits >> 63;
        self.consume(1);
        bit != 0
    }

    /// True when more bits were taken than the data has.
    #[inline(always)]
    pub(super) fn overran(&self) -> bool {
        self.count < self.made_up
    }

    /// True when the data ended by the end of the file, not by a marker.
    pub(super) fn at_end_of_file(&self) -> bool {
        self.position >= self.data.len()
    }

    /// First byte not taken; the next marker is there or behind.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Whole data bytes at hand that nobody took.
    pub(super) fn unread_bytes(&self) -> usize {
        (self.count.saturating_sub(self.made_up) / 8) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_are_removed_and_markers_stop_the_reader() {
        let data = [0x12, 0xFF, 0x00, 0xFF, 0xFF, 0x00, 0x34, 0xFF, 0xD9, 0x77];
        let mut reader = BitReader::new(&data, 0);
        let taken: Vec<i32> = (0..4)
            .map(|_| {
                reader.refill();
                reader.take(8)
            })
            .collect();
        assert_eq!(taken, [0x12, 0xFF, 0xFF, 0x34]);
        assert!(!reader.overran());
        assert_eq!(reader.position(), 7);
        assert!(!reader.at_end_of_file());
        reader.refill();
        assert_eq!(reader.take(1), 0);
        assert!(reader.overran());
    }

    #[test]
    fn every_bit_of_long_data_is_read_once() {
        let data: Vec<u8> = (0..200_u8).collect();
        let mut reader = BitReader::new(&data, 0);
        let mut bits = String::new();
        for step in 0..1600 / 5 {
            reader.refill();
            bits.push_str(&format!("{:05b}", reader.take(5)));
            assert!(!reader.overran(), "{step}");
        }
        let expected: String = data.iter().map(|byte| format!("{byte:08b}")).collect();
        assert_eq!(bits, expected);
        reader.refill();
        reader.consume(1);
        assert!(reader.overran() && reader.at_end_of_file());
    }

    #[test]
    fn signed_numbers_follow_table_f_1() {
        // 0 1 00 01 10 11 000 111
        let mut reader = BitReader::new(&[0b0100_0110, 0b1100_0111, 0, 0], 0);
        reader.refill();
        assert_eq!(reader.take_signed(1), -1);
        assert_eq!(reader.take_signed(1), 1);
        for expected in [-3, -2, 2, 3] {
            assert_eq!(reader.take_signed(2), expected);
        }
        assert_eq!(reader.take_signed(3), -7);
        assert_eq!(reader.take_signed(3), 7);
    }
}
